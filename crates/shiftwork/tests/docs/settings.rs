//! `docs/settings.md` has every setting, each with the default that it has, and none that is not.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shiftwork::settings::Limits;
use shiftwork_supervisor::settings::{ServerSettings, needs_restart};

use crate::tables::{code, read, rows};

/// A row of the page: the setting's default and how it is changed.
struct Documented {
    default: String,
    changed_by: String,
}

fn documented() -> BTreeMap<String, Documented> {
    let mut found = BTreeMap::new();
    for row in rows(&read("docs/settings.md")) {
        let Some(key) = code(&row[0]).filter(|it| !it.starts_with("listen.")) else { continue };
        assert!(row.len() == 6, "{key} has {} cells, not 6", row.len());
        let it = Documented { default: row[2].clone(), changed_by: row[4].clone() };
        assert!(found.insert(key.to_owned(), it).is_none(), "{key} is documented twice");
    }
    found
}

fn object<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        other => panic!("settings are no table: {other:?}"),
    }
}

/// Every setting there is, with its default.
fn known() -> BTreeMap<String, Value> {
    let tables =
        [("server", object(&ServerSettings::default())), ("limits", object(&Limits::default()))];
    let keys = tables.into_iter().flat_map(|(table, values)| {
        values.into_iter().map(move |(key, value)| (format!("{table}.{key}"), value))
    });
    keys.collect()
}

#[test]
fn every_setting_is_documented_and_no_other() {
    let (known, documented) = (known(), documented());
    let missing: Vec<_> = known.keys().filter(|it| !documented.contains_key(*it)).collect();
    assert!(missing.is_empty(), "docs/settings.md has no row for {missing:?}");
    let invented: Vec<_> = documented.keys().filter(|it| !known.contains_key(*it)).collect();
    assert!(invented.is_empty(), "docs/settings.md has rows for what does not exist: {invented:?}");
}

#[test]
fn the_defaults_are_those_of_the_code() {
    // Depends on the machine; the page says on what.
    let computed = ["server.worker_num"];
    let documented = documented();
    for (key, value) in known() {
        let Some(row) = documented.get(&key) else { continue };
        let typed = code(&row.default);
        if value.is_null() || computed.contains(&key.as_str()) {
            assert!(typed.is_none() && !row.default.is_empty(), "{key} has no fixed default");
            continue;
        }
        let Some(typed) = typed else { panic!("{key}: {} is not in code", row.default) };
        let typed = typed.trim_matches('"');
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert!(is_same(&text, typed), "{key} is {text} by default, not {typed}");
    }
}

/// `1m` is `60s`, and `16.0 KiB` is `16KiB`.
fn is_same(one: &str, other: &str) -> bool {
    let duration = |text: &str| humantime::parse_duration(text).ok();
    let size = |text: &str| text.parse::<ByteSize>().ok();
    one == other
        || (duration(one).is_some() && duration(one) == duration(other))
        || (size(one).is_some() && size(one) == size(other))
}

#[test]
fn what_a_reload_does_not_reach_is_marked() {
    let (default, documented) = (ServerSettings::default(), documented());
    for (key, value) in object(&default) {
        let Some(row) = documented.get(&format!("server.{key}")) else { continue };
        let stays = needs_restart(&default, &changed(&default, &key, &value)) == [key.as_str()];
        let marked = !row.changed_by.starts_with("reload");
        assert_eq!(marked, stays, "server.{key} is changed by {:?}", row.changed_by);
    }
}

/// The settings with another value for one of them, whatever its type.
fn changed<T: Serialize + DeserializeOwned + PartialEq>(from: &T, key: &str, value: &Value) -> T {
    let candidates = [
        value.as_u64().map(|number| Value::from(number + 1)),
        value.as_bool().map(|it| Value::from(!it)),
        Some(Value::from(7)),
        Some(Value::from("7s")),
        Some(Value::from("shared")),
        Some(Value::from("trace")),
        Some(Value::from("commit")),
        Some(Value::from("/elsewhere")),
        Some(Value::from(vec![7])),
    ];
    for candidate in candidates.into_iter().flatten() {
        let mut table = object(from);
        table.insert(key.to_owned(), candidate);
        if let Ok(changed) = serde_json::from_value::<T>(Value::Object(table))
            && changed != *from
        {
            return changed;
        }
    }
    panic!("no other value is known for {key}")
}

#[test]
fn the_comparison_can_fail() {
    assert!(is_same("1m", "60s") && is_same("16.0 KiB", "16KiB") && is_same("info", "info"));
    assert!(!is_same("1m", "61s") && !is_same("16.0 KiB", "16KB") && !is_same("info", "warn"));
    assert_eq!(humantime::parse_duration("60s").ok(), Some(Duration::from_secs(60)));
}
