//! The layers, laid over each other key by key.

mod known;
mod listen;

use std::collections::BTreeMap;
use std::path::Path;

use shiftwork_supervisor::settings::ServerSettings;
use toml::{Table, Value};

use super::{
    DAEMONIZE, Inputs, Limits, Settings, SettingsError, Source, app, coerce, file, paths, strict,
};

/// Environment variables that begin so are settings.
const PREFIX: &str = "SHIFTWORK__";
/// A key has not more parts than this; TOML's own reader has a bound of this kind too.
const DEEPEST: usize = 32;

/// The settings on the way.
pub(super) struct Layers<'a> {
    inputs: &'a Inputs<'a>,
    values: Table,
    sources: BTreeMap<String, Source>,
    errors: Vec<SettingsError>,
    defaults: Table,
}

impl<'a> Layers<'a> {
    /// All layers, lowest first.
    pub(super) fn new(inputs: &'a Inputs<'a>) -> Self {
        let mut defaults = Table::new();
        // These serialise: a test holds them to it.
        let server = Table::try_from(ServerSettings::default()).unwrap_or_default();
        let limits = Table::try_from(Limits::default()).unwrap_or_default();
        defaults.insert("server".into(), server.into());
        defaults.insert("limits".into(), limits.into());
        defaults.insert("listen".into(), Table::new().into());
        defaults.insert("app".into(), inputs.app_default.clone().into());
        let mut layers = Self {
            inputs,
            values: defaults.clone(),
            sources: BTreeMap::new(),
            errors: Vec::new(),
            defaults: defaults.clone(),
        };
        layers.note(&defaults, &mut Vec::new());
        layers.table(inputs.builder, &|_| Source::Builder);
        layers.file();
        for (name, value) in inputs.environment {
            layers.variable(name, value);
        }
        for text in &inputs.snapshot.overrides {
            layers.set(text);
        }
        layers
    }

    /// Takes down that these values are defaults.
    fn note(&mut self, table: &Table, path: &mut Vec<String>) {
        for (key, value) in table {
            path.push(key.clone());
            match value {
                Value::Table(inner) => self.note(inner, path),
                _ => {
                    self.sources.insert(path.join("."), Source::Default);
                }
            }
            path.pop();
        }
    }

    fn error(&mut self, key: &str, source: Option<Source>, reason: impl Into<String>) {
        self.unknown(key, source, reason, None);
    }

    fn unknown(
        &mut self,
        key: &str,
        source: Option<Source>,
        reason: impl Into<String>,
        nearest: Option<String>,
    ) {
        self.errors.push(SettingsError { key: key.into(), source, reason: reason.into(), nearest });
    }

    fn file(&mut self) {
        let Some((path, text)) = &self.inputs.snapshot.file else { return };
        let file = file::parse(text);
        let at = |line| Source::File { path: path.clone(), line };
        for (line, reason) in &file.errors {
            self.error("", Some(at(*line)), format!("this is not TOML: {reason}"));
        }
        let source = |key: &str| at(file.lines.get(key).copied().unwrap_or(1));
        self.table(&file.table, &source);
    }

    /// Lays a table over what is there, to the depth at which its settings are.
    fn table(&mut self, table: &Table, source: &dyn Fn(&str) -> Source) {
        for (name, value) in table {
            self.entry(&mut vec![name.clone()], value, source);
        }
    }

    fn entry(&mut self, path: &mut Vec<String>, value: &Value, source: &dyn Fn(&str) -> Source) {
        let inside = match path[0].as_str() {
            "server" | "limits" => path.len() < 2,
            "listen" => path.len() < 3,
            "app" => path.len() < 2 || value.is_table(),
            _ => false,
        };
        let Value::Table(inner) = value else { return self.put(path, value, source) };
        // An empty table of the application's is a value too.
        if !inside || (path.len() > 1 && inner.is_empty()) {
            return self.put(path, value, source);
        }
        for (key, value) in inner {
            path.push(key.clone());
            self.entry(path, value, source);
            path.pop();
        }
    }

    fn put(&mut self, path: &[String], value: &Value, source: &dyn Fn(&str) -> Source) {
        let key = path.join(".");
        let source = source(&key);
        if self.is_known(path, &source) {
            self.insert(path, value.clone(), source);
        }
    }

    fn variable(&mut self, name: &str, text: &str) {
        let Some(rest) = name.strip_prefix(PREFIX) else { return };
        let source = Source::Environment(name.to_owned());
        let typed: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        if typed.iter().any(String::is_empty) {
            let reason = "it names no setting; write SHIFTWORK__TABLE__KEY";
            return self.error("", Some(source), reason);
        }
        let path = self.as_spelt(typed);
        self.text(&path, text, source);
    }

    /// The path with the capitals and hyphens of the names it means, which a variable cannot have.
    fn as_spelt(&self, typed: Vec<String>) -> Vec<String> {
        let same = |a: &str, b: &str| a.to_lowercase().replace('-', "_") == b.replace('-', "_");
        let mut path: Vec<String> = Vec::new();
        let mut here = Some(&self.values);
        for segment in typed {
            let listener = path.len() == 1 && path[0] == "listen";
            let spelt = if listener {
                self.inputs.listeners.iter().find(|it| same(it, &segment)).map(|it| (*it).into())
            } else {
                here.and_then(|it| it.keys().find(|it| same(it, &segment)).cloned())
            };
            let segment = spelt.unwrap_or(segment);
            here = here.and_then(|it| it.get(&segment)).and_then(Value::as_table);
            path.push(segment);
        }
        path
    }

    fn set(&mut self, text: &str) {
        if text == DAEMONIZE {
            let path = ["server".to_owned(), "daemonize".to_owned()];
            return self.insert(&path, Value::Boolean(true), Source::Daemonize);
        }
        let source = Source::Set(text.to_owned());
        let Some((key, value)) = text.split_once('=') else {
            return self.error("", Some(source), "write KEY=VALUE, as in server.worker_num=2");
        };
        let path: Vec<String> = key.trim().split('.').map(|it| it.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            let reason = format!("{key:?} names no setting; write KEY=VALUE");
            return self.error("", Some(source), reason);
        }
        self.text(&path, value.trim(), source);
    }

    /// A value that was typed as text.
    fn text(&mut self, path: &[String], text: &str, source: Source) {
        if path.len() > DEEPEST {
            let reason = format!("it is more than {DEEPEST} tables deep");
            return self.error("", Some(source), reason);
        }
        if !self.is_known(path, &source) {
            return;
        }
        let string = Value::String(String::new());
        let default = match path[0].as_str() {
            "listen" => Some(&string),
            _ => get(&self.defaults, path),
        };
        let value = coerce::coerce(text, default, |it| self.accepts(path, it));
        self.insert(path, value, source);
    }

    fn accepts(&self, path: &[String], value: &Value) -> bool {
        let mut table = Table::new();
        match path[0].as_str() {
            "server" => {
                table.insert(path[1].clone(), value.clone());
                strict::read::<ServerSettings>(&table).0.is_ok()
            }
            "limits" => {
                table.insert(path[1].clone(), value.clone());
                strict::read::<Limits>(&table).0.is_ok()
            }
            "app" => {
                table = self.inputs.app_default.clone();
                let mut sources = BTreeMap::new();
                let put = insert(&mut table, &path[1..], value.clone(), "", &mut sources);
                let key = path[1..].join(".");
                put.is_ok()
                    && !(self.inputs.app_check)(&table).iter().any(|it| it.key.starts_with(&key))
            }
            _ => value.is_str(),
        }
    }

    fn insert(&mut self, path: &[String], value: Value, source: Source) {
        let key = path.join(".");
        let parent = path.first().map_or("", String::as_str).to_owned();
        let Some(Value::Table(table)) = self.values.get_mut(&parent) else { return };
        match insert(table, &path[1..], value, &parent, &mut self.sources) {
            Ok(()) => {
                self.sources.insert(key, source);
            }
            Err(at) => {
                let reason = format!("{at} is a value and has no parts");
                self.error(&key, Some(source), reason);
            }
        }
    }

    /// Types, ranges and paths; then the settings, with defaults where something was wrong.
    pub(super) fn finish(mut self) -> (Settings, Vec<SettingsError>) {
        let base = match &self.inputs.snapshot.file {
            Some((path, _)) => path.parent().unwrap_or(Path::new("/")).to_owned(),
            None => self.inputs.snapshot.directory.clone(),
        };
        self.drop_wrong::<ServerSettings>("server");
        self.drop_wrong::<Limits>("limits");
        self.make_absolute();
        let server: ServerSettings = self.typed("server");
        let limits: Limits = self.typed("limits");
        for invalid in server.validate() {
            let key = format!("server.{}", invalid.key);
            let source = self.sources.get(&key).cloned();
            self.error(&key, source, invalid.reason);
        }
        for (key, reason) in limits.validate() {
            let key = format!("limits.{key}");
            let source = self.sources.get(&key).cloned();
            self.error(&key, source, reason);
        }
        self.require_health_listener(&server);
        let listen = self.listen();
        let app = self.values.get("app").and_then(Value::as_table).cloned().unwrap_or_default();
        for problem in (self.inputs.app_check)(&app) {
            let key = app::dotted(&problem.key);
            let source = app::source_of(&self.sources, &key);
            let near = problem.nearest.as_deref().map(app::dotted);
            self.unknown(&key, source, problem.reason, near);
        }
        let Self { values, sources, errors, .. } = self;
        (Settings { server, limits, listen, app, base, sources, values }, errors)
    }

    /// Reports values of a wrong type and puts the default back.
    fn drop_wrong<T: serde::de::DeserializeOwned>(&mut self, table: &str) {
        let Some(Value::Table(values)) = self.values.get(table).cloned() else { return };
        for (name, value) in values {
            let single = Table::from_iter([(name.clone(), value)]);
            let Err(problem) = strict::read::<T>(&single).0 else { continue };
            let key = format!("{table}.{name}");
            let source = self.sources.remove(&key);
            self.error(&key, source, problem.reason);
            let default = get(&self.defaults, &[table.to_owned(), name.clone()]).cloned();
            if default.is_some() {
                self.sources.insert(key, Source::Default);
            }
            if let Some(Value::Table(values)) = self.values.get_mut(table) {
                match default {
                    Some(default) => values.insert(name, default),
                    None => values.remove(&name),
                };
            }
        }
    }

    fn typed<T: serde::de::DeserializeOwned + Default>(&self, table: &str) -> T {
        let values = self.values.get(table).and_then(Value::as_table);
        values.and_then(|it| strict::read(it).0.ok()).unwrap_or_default()
    }

    fn make_absolute(&mut self) {
        for name in paths::PATHS {
            let base = self.base_of(&format!("server.{name}"));
            let Some(Value::Table(server)) = self.values.get_mut("server") else { return };
            if let Some(Value::String(path)) = server.get_mut(name)
                && !path.is_empty()
            {
                *path = paths::absolute(Path::new(path), &base).to_string_lossy().into_owned();
            }
        }
        let base = self.base_of("server.admin_address");
        if let Some(Value::Table(server)) = self.values.get_mut("server")
            && let Some(Value::String(address)) = server.get_mut("admin_address")
            && let Some(path) = address.strip_prefix("unix:").filter(|it| !it.is_empty())
        {
            *address = format!("unix:{}", paths::absolute(Path::new(path), &base).display());
        }
    }

    /// Where a relative path in this setting starts.
    fn base_of(&self, key: &str) -> std::path::PathBuf {
        match self.sources.get(key) {
            Some(Source::File { path, .. }) => path.parent().unwrap_or(Path::new("/")).to_owned(),
            _ => self.inputs.snapshot.directory.clone(),
        }
    }
}

fn get<'t>(table: &'t Table, path: &[String]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { get(value.as_table()?, rest) }
}

/// Puts a value where it belongs, with the tables above it; what it replaces loses its sources.
/// The error is the dotted key of a value that stands where a table should.
fn insert(
    table: &mut Table,
    path: &[String],
    value: Value,
    above: &str,
    sources: &mut BTreeMap<String, Source>,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    let here = format!("{above}.{first}");
    if rest.is_empty() {
        // An empty table says nothing about what lower layers have in it.
        let kept = value.as_table().is_some_and(Table::is_empty)
            && table.get(first).is_some_and(Value::is_table);
        if !kept {
            let parts = format!("{here}.");
            sources.retain(|key, _| *key != here && !key.starts_with(&parts));
            table.insert(first.clone(), value);
        }
        return Ok(());
    }
    let next = table.entry(first.clone()).or_insert_with(|| Table::new().into());
    match next {
        Value::Table(next) => insert(next, rest, value, &here, sources),
        _ => Err(here),
    }
}
