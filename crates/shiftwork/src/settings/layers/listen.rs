//! Listeners: the addresses that they need, and who of them answers for a worker's health.

use std::collections::BTreeMap;

use shiftwork_supervisor::settings::ServerSettings;
use toml::Value;

use super::super::address;
use super::{Layers, get, insert};

impl Layers<'_> {
    /// The address of each listener of the program; reports those that have none, or a wrong one.
    pub(super) fn listen(&mut self) -> BTreeMap<String, String> {
        let mut listen: BTreeMap<String, String> = BTreeMap::new();
        for name in self.inputs.listeners {
            let key = format!("listen.{name}.address");
            let path = ["listen", name, "address"].map(str::to_owned);
            let source = self.sources.get(&key).cloned();
            let resolved = match get(&self.values, &path) {
                None => Err(format!(
                    "the listener has no address; write [listen.{name}] address = \"…\" \
                     in the settings file, or --set {key}=…"
                )),
                Some(Value::String(text)) => address::resolve(text, &self.base_of(&key)),
                Some(_) => Err("must be a string, as \"127.0.0.1:9501\"".into()),
            };
            match resolved {
                Ok(address) => {
                    let taken = listen.iter().find(|(_, it)| **it == address);
                    if let Some((other, _)) = taken
                        && !address.ends_with(":0")
                    {
                        let reason = format!("{address} is the address of listen.{other} already");
                        self.error(&key, source, reason);
                        continue;
                    }
                    if let Some(Value::Table(table)) = self.values.get_mut("listen") {
                        let value = Value::String(address.clone());
                        let _ = insert(table, &path[1..], value, "listen", &mut self.sources);
                        if let Some(source) = source {
                            self.sources.insert(key, source);
                        }
                    }
                    listen.insert((*name).to_owned(), address);
                }
                Err(reason) => self.error(&key, source, reason),
            }
        }
        listen
    }

    /// Reports a `server.health` that nobody could answer.
    pub(super) fn require_health_listener(&mut self, server: &ServerSettings) {
        if let Some((name, _)) = server.health_target()
            && !self.inputs.http_listeners.iter().any(|it| name.is_none_or(|name| name == *it))
        {
            let source = self.sources.get("server.health").cloned();
            let listener = name.map_or_else(|| "listener".to_owned(), |it| format!("{it:?}"));
            self.error("server.health", source, format!("there is no {listener} that speaks HTTP"));
        }
    }
}
