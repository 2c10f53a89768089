//! `check`: what the settings are, and where each comes from.

use serde_json::{Map, json};
use shiftwork_supervisor::places::Places;
use toml::Value;

use crate::settings::{Settings, Source, server_fields, source_of};

use super::{Application, Cli, Prepared, exit, machine, output, prepare};

/// Checks the settings as a start would, and that what they name is on this machine, and prints
/// them. Gives the exit status.
pub(super) fn check(application: &Application<'_>, cli: &Cli) -> u8 {
    let Prepared { settings, places, .. } = match prepare(application, cli) {
        Ok(prepared) => prepared,
        Err(errors) => return output::settings_errors(application.name, &errors.0, cli.json),
    };
    let missing = machine::missing(&settings, &places);
    if !missing.is_empty() {
        return output::settings_errors(application.name, &missing, cli.json);
    }
    let rows = effective(&settings, &places);
    if cli.json {
        output::say(&as_json(&rows).to_string());
    } else {
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(path, value, source)| {
                let value = value.map_or_else(|| "-".to_owned(), |it| it.to_string());
                vec![path.join("."), value, source.to_string()]
            })
            .collect();
        output::say(&output::align(&rows, &[]).join("\n"));
    }
    exit::OK
}

type Row = (Vec<String>, Option<Value>, Source);

/// Every setting with its value (None: it has none) and its source, in the order of the file.
fn effective(settings: &Settings, places: &Places) -> Vec<Row> {
    let mut rows = Vec::new();
    let source =
        |path: &[String]| source_of(&settings.sources, &path.join(".")).unwrap_or(Source::Default);
    for field in server_fields() {
        let path = vec!["server".to_owned(), (*field).to_owned()];
        // What these default to depends on the user and the machine: shown as it came out.
        let place = match *field {
            "run_dir" => Some(&places.run_dir),
            "log_file" => Some(&places.log_file),
            "pid_file" => Some(&places.pid_file),
            "control_socket" => Some(&places.control_socket),
            _ => None,
        };
        let set = settings.values.get("server").and_then(|it| it.get(field)).cloned();
        let value = place.map(|it| Value::String(it.display().to_string())).or(set);
        let source = source(&path);
        let value = value.map(|it| as_typed(&it, &source));
        rows.push((path, value, source));
    }
    for table in ["limits", "listen", "app"] {
        if let Some(value) = settings.values.get(table) {
            leaves(&mut vec![table.to_owned()], value, &mut |path, value| {
                let source = source(path);
                let value = if table == "app" { value.clone() } else { as_typed(value, &source) };
                rows.push((path.to_vec(), Some(value), source));
            });
        }
    }
    rows
}

/// Shiftwork's own default of a size the way it is typed: `16KiB`, where it serialises as `16.0 KiB`.
fn as_typed(value: &Value, source: &Source) -> Value {
    let is_size =
        |text: &str| text.starts_with(|it: char| it.is_ascii_digit()) && text.ends_with('B');
    match value {
        Value::String(text) if *source == Source::Default && is_size(text) => {
            Value::String(text.replace(".0 ", "").replace(' ', ""))
        }
        other => other.clone(),
    }
}

fn leaves(path: &mut Vec<String>, value: &Value, row: &mut dyn FnMut(&[String], &Value)) {
    match value {
        Value::Table(inner) if path.len() < 2 || !inner.is_empty() => {
            for (key, value) in inner {
                path.push(key.clone());
                leaves(path, value, row);
                path.pop();
            }
        }
        _ => row(path, value),
    }
}

fn as_json(rows: &[Row]) -> serde_json::Value {
    let mut settings = Map::new();
    let mut sources = Map::new();
    for (path, value, source) in rows {
        let value = value.as_ref().map_or(serde_json::Value::Null, plain);
        put(&mut settings, path, value);
        sources.insert(path.join("."), json!(source));
    }
    json!({ "settings": settings, "sources": sources })
}

fn put(table: &mut Map<String, serde_json::Value>, path: &[String], value: serde_json::Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(first.clone(), value);
    } else if let Some(inner) =
        table.entry(first.clone()).or_insert_with(|| json!({})).as_object_mut()
    {
        put(inner, rest, value);
    }
}

/// TOML's values as JSON's; a date is its text.
fn plain(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Boolean(value) => json!(value),
        Value::Datetime(date) => json!(date.to_string()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Table(table) => table.iter().map(|(key, it)| (key.clone(), plain(it))).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::{Problem, load, places};
    use shiftwork_supervisor::protocol::template::Snapshot;
    use toml::Table;

    #[test]
    fn every_setting_with_its_source() {
        let snapshot = Snapshot {
            directory: "/d".into(),
            file: Some(("/d/shop.toml".into(), "[app]\na = { b = 1979-05-27 }".into())),
            overrides: vec!["server.run_dir=r".into(), "listen.web.address=unix:w".into()],
        };
        let application = Application {
            name: "shop",
            version: "1",
            environment: &[],
            builder: &Table::new(),
            listeners: &["web"],
            http_listeners: &["web"],
            app_default: &Table::new(),
            app_check: &|_| -> Vec<Problem> { Vec::new() },
        };
        let settings = load(&application.inputs(&snapshot)).unwrap();
        let places = places("shop", &settings.server, &[]);
        let json = as_json(&effective(&settings, &places));
        let (settings, sources) = (&json["settings"], &json["sources"]);
        assert_eq!(settings["server"]["pid_file"], "/d/r/shop.pid");
        assert_eq!(settings["server"]["user"], serde_json::Value::Null);
        assert_eq!(settings["server"]["max_wait_time"], "30s");
        assert_eq!(settings["limits"]["idle_timeout"], "1m 15s");
        assert_eq!(settings["limits"]["header_size"], "16KiB");
        assert_eq!(settings["server"]["task_max_size"], "64KiB");
        assert_eq!(settings["server"]["max_memory"], "0B");
        assert_eq!(settings["listen"]["web"]["address"], "unix:/d/w");
        assert_eq!(settings["app"]["a"]["b"], "1979-05-27");
        assert_eq!(sources["server.run_dir"], "--set server.run_dir=r");
        assert_eq!(sources["server.pid_file"], "default");
        assert_eq!(sources["app.a.b"], "/d/shop.toml:2");
        assert_eq!(sources["listen.web.address"], "--set listen.web.address=unix:w");
    }
}
