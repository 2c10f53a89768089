//! The application's own settings, `[app]`: typed by it, checked for it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{Problem, Source, strict};

/// The `[app]` table of an application that has none: every key in it is a mistake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoApp {}

/// The defaults of an application's own settings, as a table.
///
/// # Errors
/// If `T` does not serialise to a table, which is the program's mistake: a sentence about it.
pub fn app_default<T: Serialize + Default>() -> Result<Table, String> {
    Table::try_from(T::default())
        .map_err(|error| format!("the default of [app] is no TOML table: {error}"))
}

/// Everything that is wrong with an `[app]` table that is to be read as a `T`: unknown keys, also
/// where `T` itself would ignore them, and values that `T` refuses. Empty: it can be read.
#[must_use]
pub fn app_problems<T: Serialize + DeserializeOwned + Default>(table: &Table) -> Vec<Problem> {
    match app_default::<T>() {
        Ok(default) => strict::problems::<T>(table, &default),
        Err(reason) => vec![Problem { key: String::new(), reason, nearest: None }],
    }
}

/// The key of the whole settings for a key of the `[app]` table.
pub(super) fn dotted(key: &str) -> String {
    if key.is_empty() { "app".into() } else { format!("app.{key}") }
}

/// Where a value comes from: by its own key, or that of what it is part of, or of a part of it.
pub(crate) fn source_of(sources: &BTreeMap<String, Source>, key: &str) -> Option<Source> {
    let mut prefix = key;
    loop {
        if let Some(source) = sources.get(prefix) {
            return Some(source.clone());
        }
        match prefix.rfind(['.', '[']) {
            Some(end) => prefix = &prefix[..end],
            None => break,
        }
    }
    let part = |it: &&String| it.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    sources.keys().find(part).and_then(|it| sources.get(it)).cloned()
}
