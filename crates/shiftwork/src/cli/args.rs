//! What a command line means.

mod typed;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use shiftwork_supervisor::core::event::{Scope, Until};
use shiftwork_supervisor::core::scale::Wish;

use super::{Rollback, Scale};
use typed::{Common, Typed, Verb};

/// A command line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cli {
    /// What to do.
    pub command: Command,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Every `--set`, as typed.
    pub set: Vec<String>,
    /// `--control`.
    pub control: Option<PathBuf>,
    /// `--json`.
    pub json: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start the server.
    Start {
        /// In the background, whatever the settings say.
        daemonize: bool,
    },
    /// Replace code and settings.
    Reload(Reload),
    /// Go back to the release before.
    Rollback(Rollback),
    /// Have more or fewer workers and task workers.
    Scale(Scale),
    /// Stop the server.
    Stop(Stop),
    /// Tell how it is.
    Status,
    /// Watch it.
    #[cfg(feature = "top")]
    Top(super::Top),
    /// Tell what was asked of it, and what came of that.
    History,
    /// Tell it in numbers.
    Metrics,
    /// Say what the settings are and what is wrong with them.
    Check,
}

/// How to reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// Which processes.
    pub scope: Scope,
    /// Whether manager and master become the new program first.
    pub upgrade: bool,
    /// When to return.
    pub until: Until,
    /// The longest wait. The reload itself goes on afterwards.
    pub timeout: Option<Duration>,
}

/// How to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// At once: work in hand is cut.
    pub now: bool,
    /// The longest wait. The stop itself goes on afterwards.
    pub timeout: Option<Duration>,
}

/// All that can be typed, for whoever wants to compare.
#[cfg(test)]
pub(super) fn definition() -> clap::Command {
    Typed::command()
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// What clap has to say: a mistake, or the text of `--help` and `--version`.
    pub fn parse(
        name: &str,
        version: &str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        // Clap wants names for as long as the program runs, and this is done once in a process.
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let version: &'static str = Box::leak(version.to_owned().into_boxed_str());
        let mut command = Typed::command().name(name).bin_name(name).version(version);
        let matches = command.try_get_matches_from_mut(arguments)?;
        let typed = Typed::from_arg_matches(&matches).map_err(|it| it.format(&mut command))?;
        let (verb, after) = understand(typed.verb, typed.daemonize).ok_or_else(|| {
            command.error(ErrorKind::ArgumentConflict, "-d goes with start, not with this command")
        })?;
        let before = typed.common;
        let mut set = before.set;
        set.extend(after.set);
        Ok(Self {
            command: verb,
            config: after.config.or(before.config),
            set,
            control: after.control.or(before.control),
            json: after.json || before.json,
        })
    }
}

/// None: `-d` stands before a command that does not start anything.
fn understand(verb: Option<Verb>, daemonize: bool) -> Option<(Command, Common)> {
    Some(match verb {
        None => (Command::Start { daemonize }, Common::default()),
        Some(Verb::Start { daemonize: too, common }) => {
            (Command::Start { daemonize: daemonize || too }, common)
        }
        Some(_) if daemonize => return None,
        Some(Verb::Reload { until, wait, tasks, timeout, common }) => {
            let (until, scope) = (until.or(wait), if tasks { Scope::Tasks } else { Scope::All });
            (Command::Reload(Reload { scope, upgrade: false, until, timeout }), common)
        }
        Some(Verb::Upgrade { until, wait, timeout, common }) => {
            let (until, scope) = (until.or(wait), Scope::All);
            (Command::Reload(Reload { scope, upgrade: true, until, timeout }), common)
        }
        Some(Verb::Rollback { wait, timeout, common }) => {
            (Command::Rollback(Rollback { wait, timeout }), common)
        }
        Some(Verb::Scale { workers, task_workers, timeout, common }) => {
            let wish = Wish { workers, task_workers };
            (Command::Scale(Scale { wish, timeout }), common)
        }
        Some(Verb::Stop { now, timeout, common }) => (Command::Stop(Stop { now, timeout }), common),
        Some(Verb::Status { common }) => (Command::Status, common),
        #[cfg(feature = "top")]
        Some(Verb::Top { interval, common }) => (Command::Top(super::Top { interval }), common),
        Some(Verb::History { common }) => (Command::History, common),
        Some(Verb::Metrics { common }) => (Command::Metrics, common),
        Some(Verb::Check { common }) => (Command::Check, common),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::strategy::Strategy;
    use shiftwork_supervisor::core::scale::Count;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::parse("shop", "1.2.3", line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        Typed::command().debug_assert();
    }

    #[test]
    fn starts() {
        for (line, expected) in [
            ("shop", false),
            ("shop start", false),
            ("shop -d", true),
            ("shop start -d", true),
            ("shop --daemonize start", true),
            ("shop start --daemonize --json", true),
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.command, Command::Start { daemonize: expected }, "{line}");
        }
    }

    #[test]
    fn what_is_common_stands_on_both_sides() {
        let cli = parse("shop --set a=1 --json --config x reload --set b=2 --config y").unwrap();
        assert_eq!(cli.set, ["a=1", "b=2"]);
        assert_eq!(cli.config.unwrap(), PathBuf::from("y"));
        assert!(cli.json);
        assert_eq!(parse("shop --control c stop").unwrap().control.unwrap(), PathBuf::from("c"));
    }

    #[test]
    fn reloads_and_stops() {
        let reload = |line| match parse(line).unwrap().command {
            Command::Reload(reload) => (reload.scope, reload.until, reload.timeout),
            other => panic!("{other:?}"),
        };
        assert_eq!(reload("shop reload"), (Scope::All, Until::Committed, None));
        assert_eq!(reload("shop reload --until replaced").1, Until::Replaced);
        assert_eq!(reload("shop reload --wait --tasks").1, Until::Drained);
        assert_eq!(reload("shop reload --tasks").0, Scope::Tasks);
        assert_eq!(reload("shop reload --timeout 1500ms").2, Some(Duration::from_millis(1500)));
        match parse("shop upgrade --wait").unwrap().command {
            Command::Reload(it) => assert!(it.upgrade && it.until == Until::Drained),
            other => panic!("{other:?}"),
        }
        let stop = Stop { now: true, timeout: Some(Duration::from_secs(60)) };
        assert_eq!(parse("shop stop --now --timeout 1m").unwrap().command, Command::Stop(stop));
        assert_eq!(parse("shop status").unwrap().command, Command::Status);
        #[cfg(feature = "top")]
        match parse("shop top --interval 250ms").unwrap().command {
            Command::Top(top) => assert_eq!(top.interval, Duration::from_millis(250)),
            other => panic!("{other:?}"),
        }
        assert_eq!(parse("shop history").unwrap().command, Command::History);
        assert_eq!(parse("shop metrics").unwrap().command, Command::Metrics);
        assert_eq!(parse("shop check").unwrap().command, Command::Check);
    }

    #[test]
    fn scales() {
        let wish = |line| match parse(line).unwrap().command {
            Command::Scale(scale) => (scale.wish.workers, scale.wish.task_workers),
            other => panic!("{other:?}"),
        };
        assert_eq!(wish("shop scale 4"), (Some(Count::To(4)), None));
        assert_eq!(wish("shop scale +1 --json"), (Some(Count::By(1)), None));
        assert_eq!(wish("shop scale -2"), (Some(Count::By(-2)), None));
        assert_eq!(wish("shop scale --task-workers 3"), (None, Some(Count::To(3))));
        assert_eq!(
            wish("shop scale 2 --task-workers -1"),
            (Some(Count::To(2)), Some(Count::By(-1)))
        );
        for wrong in ["shop scale", "shop scale 0", "shop scale four", "shop scale 2 3"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn mistakes_and_help() {
        for wrong in [
            "shop fly",
            "shop -d reload",
            "shop reload -d",
            "shop reload --until never",
            "shop reload --wait --until replaced",
            "shop stop --timeout 5",
            "shop --set",
            "shop --set server.worker_num 2",
            "shop reload --set =2",
            "shop --set=-d",
            "shop status extra",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        let help = parse("shop --help").unwrap_err();
        assert_eq!(help.exit_code(), 0);
        let text = help.to_string();
        assert!(text.starts_with("Starts the server"), "{text}");
        assert!(text.contains("Exit status") && text.contains("USR2") && text.contains("reload"));
        let version = parse("/usr/bin/other --version").unwrap_err();
        assert_eq!((version.exit_code(), &*version.to_string()), (0, "shop 1.2.3\n"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_typed_panics(words in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(vec![
                    "start", "reload", "scale", "-1", "stop", "status", "check", "-d", "--set", "--set=a=1", "--json",
                    "--until", "--wait", "--timeout", "1s", "--config", "--", "-", "=", "--control=",
                ]).prop_map(|it: &str| OsString::from(it)),
                proptest::collection::vec(proptest::num::u8::ANY, 0..6)
                    .prop_map(<OsString as std::os::unix::ffi::OsStringExt>::from_vec),
            ],
            0..6,
        )) {
            let line = std::iter::once(OsString::from("shop")).chain(words);
            match Cli::parse("shop", "1", line) {
                Ok(cli) => proptest::prop_assert!(cli.set.iter().all(|it| it.contains('='))),
                Err(error) => proptest::prop_assert!([0, 2].contains(&error.exit_code())),
            }
        }
    }
}
