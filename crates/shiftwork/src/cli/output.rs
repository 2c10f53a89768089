//! To stdout and stderr, also when nobody reads any more.

use std::io::{IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};

use crate::settings::SettingsError;

use super::exit;

/// A line on stdout. That nobody reads it (a closed pipe) changes nothing about what was done.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line on stderr.
pub(super) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says what has failed; gives the exit status.
#[cfg(feature = "top")]
pub(super) fn failure(name: &str, what: &str) -> u8 {
    warn(&format!("{name}: {what}"));
    exit::FAILED
}

/// Says what is wrong with the settings; gives the exit status.
pub(super) fn settings_errors(name: &str, errors: &[SettingsError], json: bool) -> u8 {
    if json {
        say(&serde_json::json!({ "errors": errors }).to_string());
        return exit::USAGE;
    }
    for error in errors {
        warn(&format!("{name}: {error}"));
    }
    exit::USAGE
}

/// Whether stdout may be coloured.
pub(super) fn colour() -> bool {
    std::io::stdout().is_terminal() && may_colour()
}

/// Whether a terminal may be coloured.
pub(super) fn may_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    !refused && !is_dumb()
}

/// Whether the terminal cannot go back to what it has written.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|it| it.is_empty() || it == "dumb")
}

/// Whether stderr is a terminal on which a picture can change.
pub(super) fn draws() -> bool {
    std::io::stderr().is_terminal() && !is_dumb()
}

/// The text with this SGR code, as `1` for bold, where colour is wanted.
pub(super) fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A moment of the wall clock, in UTC; `-` for one that nobody knows.
pub(super) fn moment(wall_ms: u64) -> String {
    if wall_ms == 0 {
        return "-".into();
    }
    let text = UNIX_EPOCH
        .checked_add(Duration::from_millis(wall_ms))
        .map(|it| humantime::format_rfc3339_seconds(it).to_string());
    text.map_or_else(|| "-".into(), |it| it.replace('T', " ").replace('Z', ""))
}

/// Rows with their columns aligned; those of `right` to the right. The last one is not filled.
pub(super) fn align(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let width = |column: usize| {
        rows.iter().filter_map(|it| it.get(column)).map(|it| it.chars().count()).max().unwrap_or(0)
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let fill = " ".repeat(widths[column] - cell.chars().count());
            if right.contains(&column) {
                line.push_str(&fill);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&fill);
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "1", "é"]), row(["bbb", "100", ""])];
        assert_eq!(align(&rows, &[1]), ["a      1  é", "bbb  100"]);
    }
}
