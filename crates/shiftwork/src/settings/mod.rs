//! The settings: where they come from, which wins, and what is wrong with them.
//!
//! defaults < the builder's < the settings file < the environment < `--set`. [`load`] is pure: it
//! is given everything it reads, so that a release can be configured from a snapshot of the past
//! exactly as it was then.

mod address;
mod app;
mod coerce;
mod error;
mod file;
mod layers;
mod limits;
mod names;
mod paths;
mod strict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use shiftwork_supervisor::protocol::template::Snapshot;
use shiftwork_supervisor::settings::ServerSettings;
use toml::Table;

pub(crate) use app::source_of;
pub use app::{NoApp, app_default, app_problems};
pub use error::{SettingsError, SettingsErrors, Source};
pub use limits::Limits;
pub use paths::places;
pub(crate) use paths::{absolute, place_problem, rooted};
pub use strict::Problem;

/// The override that the flag `-d` stands for, in [`Snapshot::overrides`].
pub const DAEMONIZE: &str = "-d";

/// Everything that settings are made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The settings file, the `--set`s, and where the command was typed.
    pub snapshot: &'a Snapshot,
    /// The environment. Variables that begin with `SHIFTWORK__` count.
    pub environment: &'a [(String, String)],
    /// The builder's own defaults, laid out as the file is.
    pub builder: &'a Table,
    /// Names of the listeners that have handlers.
    pub listeners: &'a [&'a str],
    /// Those of them that speak HTTP: they can be asked for a worker's health.
    pub http_listeners: &'a [&'a str],
    /// The default of the application's own settings; see [`app_default`].
    pub app_default: &'a Table,
    /// Finds what is wrong with an `[app]` table; see [`app_problems`].
    pub app_check: &'a dyn Fn(&Table) -> Vec<Problem>,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("snapshot", self.snapshot).finish_non_exhaustive()
    }
}

/// The effective settings. Every path is absolute, every value within its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[server]`.
    pub server: ServerSettings,
    /// `[limits]`.
    pub limits: Limits,
    /// The address of each listener, by its name.
    pub listen: BTreeMap<String, String>,
    /// `[app]`, over the application's defaults.
    pub app: Table,
    /// Where relative paths of the application's own settings start: the settings file's folder,
    /// else where the command was typed.
    pub base: PathBuf,
    /// Where each value comes from, by its dotted key. Settings that have no value are missing.
    pub sources: BTreeMap<String, Source>,
    /// All of them as they were written, laid out as the file is.
    pub(crate) values: Table,
}

impl Settings {
    /// The application's own settings, typed.
    ///
    /// # Errors
    /// If `T` is not the type that [`Inputs::app_check`] has checked them against.
    pub fn app<T: serde::de::DeserializeOwned>(&self) -> Result<T, SettingsErrors> {
        strict::read(&self.app).0.map_err(|problem| {
            let key = app::dotted(&problem.key);
            let source = app::source_of(&self.sources, &key);
            let Problem { reason, nearest, .. } = problem;
            SettingsErrors(vec![SettingsError { key, source, reason, nearest }])
        })
    }
}

/// Names of the settings in `[server]`, in the order of their documentation.
pub(crate) fn server_fields() -> &'static [&'static str] {
    strict::fields::<ServerSettings>()
}

/// Puts the settings together.
///
/// # Errors
/// Everything that is wrong with them, at once.
pub fn load(inputs: &Inputs<'_>) -> Result<Settings, SettingsErrors> {
    let (settings, errors) = load_lenient(inputs);
    if errors.is_empty() { Ok(settings) } else { Err(SettingsErrors(errors)) }
}

/// Puts the settings together as far as they are right: for commands that only want to find a
/// server that runs. What is wrong falls back to its default and is reported.
#[must_use]
pub fn load_lenient(inputs: &Inputs<'_>) -> (Settings, Vec<SettingsError>) {
    layers::Layers::new(inputs).finish()
}
