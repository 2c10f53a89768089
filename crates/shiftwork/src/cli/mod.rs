//! The command line that every server has: `NAME [start] | reload | scale | stop | status | metrics | check`.
//!
//! [`run`] is what `Server::run` does in a process that a user has started; [`play`] is the same
//! without the start itself, for which it says what there is to know as [`Prepared`].

mod args;
mod check;
mod commands;
#[cfg(test)]
mod documented;
mod history;
mod locate;
mod machine;
mod metrics;
mod origin;
mod output;
mod progress;
mod rollback;
mod scale;
mod speak;
mod status;
#[cfg(feature = "top")]
mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use shiftwork_supervisor::log_level;
use shiftwork_supervisor::manager::release::Origin;
use shiftwork_supervisor::master::{self, Start};
use shiftwork_supervisor::places::Places;
use shiftwork_supervisor::protocol::template::Snapshot;
use toml::Table;

use crate::server::{Server, environment};
use crate::settings::{Inputs, Problem, Settings, SettingsErrors, load, place_problem, places};

pub use args::{Cli, Command, Reload, Stop};
pub use locate::{locate, read_snapshot};
pub use rollback::Rollback;
pub use scale::Scale;
#[cfg(feature = "top")]
pub use top::Top;

/// Exit statuses, the same for every command.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed, or rolled back.
    pub const FAILED: u8 = 1;
    /// A mistake in the command or in the settings.
    pub const USAGE: u8 = 2;
    /// No server runs.
    pub const NOT_RUNNING: u8 = 3;
    /// The server is somebody else's.
    pub const NOT_PERMITTED: u8 = 4;
    /// The time given was over.
    pub const DEADLINE: u8 = 5;
}

/// What the commands must know of the program.
#[derive(Clone, Copy)]
pub struct Application<'a> {
    /// The server's name.
    pub name: &'a str,
    /// What `--version` prints after it.
    pub version: &'a str,
    /// The environment.
    pub environment: &'a [(String, String)],
    /// The builder's own defaults, laid out as the settings file is.
    pub builder: &'a Table,
    /// Names of the listeners that have handlers.
    pub listeners: &'a [&'a str],
    /// Those of them that speak HTTP.
    pub http_listeners: &'a [&'a str],
    /// The default of the application's own settings.
    pub app_default: &'a Table,
    /// Finds what is wrong with an `[app]` table.
    pub app_check: &'a dyn Fn(&Table) -> Vec<Problem>,
}

impl std::fmt::Debug for Application<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Application<'a> {
    /// What settings of this program are made from, with this snapshot.
    #[must_use]
    pub fn inputs<'b>(&'b self, snapshot: &'b Snapshot) -> Inputs<'b> {
        Inputs {
            snapshot,
            environment: self.environment,
            builder: self.builder,
            listeners: self.listeners,
            http_listeners: self.http_listeners,
            app_default: self.app_default,
            app_check: self.app_check,
        }
    }
}

/// What a start needs to know.
#[derive(Debug)]
pub struct Prepared {
    /// The effective settings.
    pub settings: Settings,
    /// Where the server's files are.
    pub places: Places,
    /// What the settings were made from.
    pub snapshot: Snapshot,
    /// Whether to answer in JSON.
    pub json: bool,
}

/// What is to be done after the command line was read.
#[derive(Debug)]
pub enum Next {
    /// Start the server.
    Start(Box<Prepared>),
    /// Leave with this status: everything is done and said.
    Exit(u8),
}

/// Does what the command line says: starts the server, or speaks to the one that runs.
pub(crate) fn run<P, S>(server: &Server<P, S>) -> ExitCode {
    let environment = environment();
    let (listeners, http_listeners) = (server.listener_names(), server.http_listener_names());
    let application = Application {
        name: &server.name,
        version: concat!("(Shiftwork ", env!("CARGO_PKG_VERSION"), ")"),
        environment: &environment,
        builder: &server.defaults,
        listeners: &listeners,
        http_listeners: &http_listeners,
        app_default: &server.app.default,
        app_check: &server.app.check,
    };
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match play(&application, arguments.iter().cloned()) {
        Next::Exit(status) => ExitCode::from(status),
        Next::Start(prepared) => {
            let Prepared { settings, places, snapshot, json } = *prepared;
            log_level::set(settings.server.log_level);
            let executable = origin::executable(&settings, &snapshot, &arguments);
            master::run(Start {
                name: server.name.clone(),
                settings: settings.server,
                places,
                snapshot,
                origin: Origin { executable, arguments },
                json,
            })
        }
    }
}

/// Reads the command line (the program's name first) and does what it says, but for the start.
#[must_use]
pub fn play(application: &Application<'_>, arguments: impl IntoIterator<Item = OsString>) -> Next {
    let cli = match Cli::parse(application.name, application.version, arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return Next::Exit(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    Next::Exit(match &cli.command {
        Command::Start { .. } => match prepare(application, &cli) {
            Ok(prepared) => return Next::Start(Box::new(prepared)),
            Err(errors) => output::settings_errors(application.name, &errors.0, cli.json),
        },
        Command::Check => check::check(application, &cli),
        Command::Reload(reload) => commands::reload(application, &cli, reload),
        Command::Rollback(rollback) => rollback::rollback(application, &cli, rollback),
        Command::Scale(scale) => scale::scale(application, &cli, scale),
        Command::Stop(stop) => commands::stop(application, &cli, stop),
        Command::Status => status::status(application, &cli),
        #[cfg(feature = "top")]
        Command::Top(top) => top::top(application, &cli, top),
        Command::History => history::history(application, &cli),
        Command::Metrics => metrics::metrics(application, &cli),
    })
}

/// The settings of the start, all of them right.
///
/// # Errors
/// Everything that is wrong with them, or with the settings file.
pub fn prepare(application: &Application<'_>, cli: &Cli) -> Result<Prepared, SettingsErrors> {
    let snapshot = read_snapshot(application.name, cli)?;
    let settings = load(&application.inputs(&snapshot))?;
    let places = places(application.name, &settings.server, application.environment);
    if let Some(problem) = place_problem(&places, &settings.sources) {
        return Err(SettingsErrors(vec![problem]));
    }
    Ok(Prepared { settings, places, snapshot, json: cli.json })
}
