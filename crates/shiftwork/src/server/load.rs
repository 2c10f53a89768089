//! The settings of a release, from a snapshot: the same in every role.

use shiftwork_supervisor::protocol::template::Snapshot;

use crate::settings::SettingsError;
use crate::settings::{Inputs, Settings, SettingsErrors, load as load_settings, load_lenient};

use super::Server;

impl<P, S> Server<P, S> {
    /// The effective settings.
    pub(crate) fn load(&self, snapshot: &Snapshot) -> Result<Settings, SettingsErrors> {
        self.with_inputs(snapshot, load_settings)
    }

    /// The settings as far as they are right, and what is wrong.
    pub(crate) fn load_lenient(&self, snapshot: &Snapshot) -> (Settings, Vec<SettingsError>) {
        self.with_inputs(snapshot, load_lenient)
    }

    fn with_inputs<T>(&self, snapshot: &Snapshot, load: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let environment = environment();
        let listeners: Vec<&str> = self.listeners.iter().map(|(name, _)| name.as_str()).collect();
        load(&Inputs {
            snapshot,
            environment: &environment,
            builder: &self.defaults,
            listeners: &listeners,
            app_default: &self.app.default,
            app_check: &self.app.check,
        })
    }
}

/// The environment, as far as it is text.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
