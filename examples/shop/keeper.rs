//! Who minds an order: a process, told from any later one that gets the same pid.

use std::fs;
use std::path::Path;

/// This process, as it is written beside an order: its pid, and when it started. Empty in a jail
/// without /proc, where nobody can tell.
pub(crate) fn own() -> String {
    written(Path::new("/proc"))
}

/// Whether a keeper lives. What no shop has written, or cannot be told, is left alone, as if it did.
pub(crate) fn lives(keeper: &str) -> bool {
    is_in(Path::new("/proc"), keeper)
}

fn written(proc: &Path) -> String {
    let pid = std::process::id();
    started(proc, pid).map_or_else(String::new, |start| format!("{pid}-{start}"))
}

fn is_in(proc: &Path, keeper: &str) -> bool {
    let Some((pid, start)) = keeper.split_once('-') else { return true };
    let found = pid.parse().ok().and_then(|pid| started(proc, pid));
    found.map_or_else(|| written(proc).is_empty(), |it| it == start)
}

/// When a process started, in ticks since the machine did; None: it is gone, or about to be reaped.
/// See proc(5), /proc/PID/stat: field 22; the name before it stands in parentheses.
fn started(proc: &Path, pid: u32) -> Option<String> {
    let stat = fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_another_of_its_pid_does_not() {
        assert!(lives(&own()));
        assert!(!lives(&format!("{}-1", std::process::id())));
        assert!(!lives("4000000000-1"));
        assert!(lives(""));
    }

    #[test]
    fn where_nobody_can_tell_nobody_is_dead() {
        let jail = Path::new("/nowhere");
        assert_eq!(written(jail), "");
        assert!(is_in(jail, &own()) && is_in(jail, "4000000000-1"));
    }
}
