//! What can be typed: the grammar, with the words of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shiftwork_supervisor::core::event::Until;
use shiftwork_supervisor::core::scale::Count;

use crate::cli::scale::{count, task_count};

const HELP: &str = "\
Exit status:
  0  done
  1  failed, or rolled back
  2  a mistake in the command or in the settings
  3  no server runs
  4  not permitted
  5  the time given with --timeout is over

Signals to the master:
  TERM, INT  stop gracefully; the second one, a second later, at once
  QUIT       stop at once: work in hand is cut
  USR1, HUP  reload code and settings
  USR2       reload the task workers alone
  TTIN       one worker more
  TTOU       one worker fewer
  RTMIN      open the log file anew

Settings: the program's defaults < settings file < SHIFTWORK__TABLE__KEY < --set TABLE.KEY=VALUE";

#[derive(Debug, Parser)]
#[command(
    about = "Starts the server, or speaks to the one that runs: to reload its code, for example",
    after_help = HELP,
    disable_help_subcommand = true
)]
pub(super) struct Typed {
    #[command(flatten)]
    pub(super) common: Common,
    /// Put the server in the background
    #[arg(short = 'd', long)]
    pub(super) daemonize: bool,
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
}

// Taken before and after the verb. Not clap's own global arguments: of values on both sides it
// would keep one side's only. (No docstring: clap would print it as the program's description.)
#[derive(Debug, Default, Args)]
pub(super) struct Common {
    /// The settings file [default: NAME.toml in this folder, if there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Set one setting, as server.worker_num=2; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<String>,
    /// The server's control socket [default: NAME.sock in server.run_dir]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The form alone, so that a slip is a mistake in the command, and not in a server's reload.
fn key_value(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write KEY=VALUE, as in server.worker_num=2"),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Start the server (so does no command at all)
    Start {
        /// Put the server in the background
        #[arg(short = 'd', long)]
        daemonize: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Replace code and settings; nothing that is in hand is lost
    Reload {
        /// When to return
        #[arg(long, value_enum, default_value = "committed", conflicts_with = "wait")]
        until: When,
        /// Return when the old generation is gone, too
        #[arg(long)]
        wait: bool,
        /// Only the task workers
        #[arg(long)]
        tasks: bool,
        /// Wait no longer than this, as 90s; the reload goes on
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Replace everything, manager and master too, under the same pid; then reload
    Upgrade {
        /// When to return
        #[arg(long, value_enum, default_value = "committed", conflicts_with = "wait")]
        until: When,
        /// Return when the old generation is gone, too
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, as 90s; the upgrade goes on
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Go back to the release before, whose template is kept (server.keep_releases), and wait until it
    /// serves; nothing that is in hand is lost
    Rollback {
        /// Return when the generation that is left is gone, too
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, as 90s; the rollback goes on
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Have more or fewer workers, as scale 4, scale +1 or scale --task-workers 2, and wait until
    /// they serve; nothing that is in hand is lost. It holds over reloads and upgrades until the
    /// settings name another number than they do now
    Scale {
        /// How many workers: 4, or +1 or -1 for one more or fewer
        #[arg(value_name = "N", value_parser = count, allow_negative_numbers = true)]
        #[arg(required_unless_present = "task_workers")]
        workers: Option<Count>,
        /// How many task workers, in the same way; to do without, set server.task_worker_num to 0
        /// and reload
        #[arg(long, value_name = "N", value_parser = task_count, allow_negative_numbers = true)]
        task_workers: Option<Count>,
        /// Wait no longer than this, as 90s; the change goes on
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Stop the server and wait until it is gone
    Stop {
        /// At once: work in hand is cut
        #[arg(long)]
        now: bool,
        /// Wait no longer than this, as 90s; the stop goes on
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Show the server and its processes
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Watch the server and its processes, live on this terminal
    #[cfg(feature = "top")]
    Top {
        /// Look so often, as 500ms
        #[arg(long, value_name = "DURATION", default_value = "1s")]
        #[arg(value_parser = humantime::parse_duration)]
        interval: Duration,
        #[command(flatten)]
        common: Common,
    },
    /// Show the last reloads, upgrades and changes of number: when, who asked, what came of it
    History {
        #[command(flatten)]
        common: Common,
    },
    /// Print what the server counts, for Prometheus
    Metrics {
        #[command(flatten)]
        common: Common,
    },
    /// Check the settings and show where each comes from
    Check {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum When {
    /// Every new worker accepts
    Replaced,
    /// The new generation is the one to go on with
    Committed,
}

impl When {
    /// As it is asked for.
    pub(super) fn or(self, wait: bool) -> Until {
        match self {
            _ if wait => Until::Drained,
            Self::Replaced => Until::Replaced,
            Self::Committed => Until::Committed,
        }
    }
}
