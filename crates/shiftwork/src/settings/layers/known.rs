//! Which settings there are, and which was probably meant.

use shiftwork_supervisor::settings::ServerSettings;

use super::super::names::nearest;
use super::super::{Limits, Source, strict};
use super::Layers;

/// The tables of a settings file.
const TABLES: [&str; 4] = ["server", "limits", "listen", "app"];

impl Layers<'_> {
    /// Whether there is such a setting; reports it if not.
    pub(super) fn is_known(&mut self, path: &[String], source: &Source) -> bool {
        let key = path.join(".");
        let source = Some(source.clone());
        let none = "there is no such setting";
        match (path[0].as_str(), path.len()) {
            (table @ ("server" | "limits" | "listen" | "app"), 1) => {
                let reason = format!("this is a table: write [{table}] and its settings below");
                self.error(&key, source, reason);
            }
            (table @ ("server" | "limits"), length) => {
                let fields = fields(table);
                if fields.contains(&path[1].as_str()) {
                    if length == 2 {
                        return true;
                    }
                    self.error(&key, source, format!("{table}.{} has no parts", path[1]));
                } else {
                    let near = nearest(&path[1], fields.iter().copied());
                    let near = near.map(|it| format!("{table}.{it}"));
                    self.unknown(&key, source, none, near);
                }
            }
            ("listen", length) => return self.is_listener(path, length, source),
            ("app", _) => return true,
            (other, _) => {
                let near = match nearest(other, TABLES) {
                    Some(table) => {
                        let rest = path[1..].iter().map(|it| format!(".{it}"));
                        Some(format!("{table}{}", rest.collect::<String>()))
                    }
                    // The table's name was left out.
                    None => ["server", "limits"].iter().find_map(|table| {
                        let name = nearest(other, fields(table).iter().copied())?;
                        Some(format!("{table}.{name}"))
                    }),
                };
                let reason = if path.len() == 1 {
                    "there is no such table or setting; tables are server, limits, listen and app"
                } else {
                    none
                };
                self.unknown(&key, source, reason, near);
            }
        }
        false
    }

    fn is_listener(&mut self, path: &[String], length: usize, source: Option<Source>) -> bool {
        let key = path.join(".");
        let name = &path[1];
        let names = self.inputs.listeners;
        if !names.contains(&name.as_str()) {
            let known = if names.is_empty() { "none".into() } else { names.join(", ") };
            let reason = format!("there is no listener {name:?}; this program has: {known}");
            let near = nearest(name, names.iter().copied()).map(|it| {
                let rest = path[2..].iter().map(|it| format!(".{it}"));
                format!("listen.{it}{}", rest.collect::<String>())
            });
            self.unknown(&key, source, reason, near);
        } else if length == 2 {
            let reason = format!("this is a table: write [listen.{name}] address = \"…\"");
            self.error(&key, source, reason);
        } else if path[2] == "address" && length == 3 {
            return true;
        } else {
            let near = format!("listen.{name}.address");
            self.unknown(&key, source, "there is no such setting", Some(near));
        }
        false
    }
}

fn fields(table: &str) -> &'static [&'static str] {
    if table == "server" { strict::fields::<ServerSettings>() } else { strict::fields::<Limits>() }
}
