//! The settings file: what can be read of it, with the line of every key.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// A settings file.
#[derive(Debug, Default)]
pub(super) struct File {
    /// What it says, as far as it can be read.
    pub table: Table,
    /// Line of each dotted key, counted from 1.
    pub lines: BTreeMap<String, usize>,
    /// Lines that are no TOML, and why.
    pub errors: Vec<(usize, String)>,
}

/// Reads a file to its end, mistakes or not.
pub(super) fn parse(text: &str) -> File {
    let mut file = File::default();
    let starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
    let line = |offset: usize| starts.partition_point(|start| *start <= offset);
    let (found, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |it| it.start);
        // One mistake often causes another on its line; the first one tells.
        if file.errors.last().is_none_or(|(last, _)| *last != line(offset)) {
            file.errors.push((line(offset), error.message().trim_end().to_owned()));
        }
    }
    file.errors.sort_by_key(|(line, _)| *line);
    file.table = table(found.get_ref(), "", &line, &mut file.lines);
    file
}

fn table(
    found: &DeTable<'_>,
    path: &str,
    line: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) -> Table {
    let mut table = Table::new();
    for (key, item) in found {
        let name = key.get_ref().to_string();
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        lines.insert(path.clone(), line(key.span().start));
        if let Some(value) = value(item, &path, line, lines) {
            table.insert(name, value);
        }
    }
    table
}

fn value(
    item: &Spanned<DeValue<'_>>,
    path: &str,
    line: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) -> Option<Value> {
    Some(match item.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().ok()?),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(*value),
        DeValue::Array(items) => {
            let items = items.iter().enumerate();
            items
                .map(|(i, item)| value(item, &format!("{path}[{i}]"), line, lines))
                .collect::<Option<Vec<_>>>()
                .map(Value::Array)?
        }
        DeValue::Table(inner) => Value::Table(table(inner, path, line, lines)),
    })
}
