//! The settings of a release, from a snapshot: the same in every role.

use shiftwork_supervisor::protocol::template::Snapshot;

use crate::settings::{Inputs, Settings, SettingsErrors, load as load_settings};

use super::Server;
use super::listen::{Listener, Protocol};

impl<P, S> Server<P, S> {
    /// Names of the listeners that have handlers.
    pub(crate) fn listener_names(&self) -> Vec<&str> {
        self.listeners.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Names of the listeners that speak HTTP.
    pub(crate) fn http_listener_names(&self) -> Vec<&str> {
        let speaks_http = |it: &&(String, Listener<S>)| it.1.protocol() == Protocol::Http;
        self.listeners.iter().filter(speaks_http).map(|(name, _)| name.as_str()).collect()
    }

    /// The effective settings.
    pub(crate) fn load(&self, snapshot: &Snapshot) -> Result<Settings, SettingsErrors> {
        let environment = environment();
        load_settings(&Inputs {
            snapshot,
            environment: &environment,
            builder: &self.defaults,
            listeners: &self.listener_names(),
            http_listeners: &self.http_listener_names(),
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
