//! The settings of a release, from a snapshot: the same in every role.

use shiftwork_supervisor::protocol::template::Snapshot;

use crate::settings::{Inputs, Settings, SettingsErrors, load as load_settings};

use super::Server;

impl<P, S> Server<P, S> {
    /// The effective settings.
    pub(crate) fn load(&self, snapshot: &Snapshot) -> Result<Settings, SettingsErrors> {
        let environment = environment();
        let listeners: Vec<&str> = self.listeners.iter().map(|(name, _)| name.as_str()).collect();
        load_settings(&Inputs {
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
