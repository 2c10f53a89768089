//! Who minds an order: a process, told from any later one that gets the same pid.

use std::fs;

/// This process, as it is written beside an order: its pid, and when it started.
pub(crate) fn own() -> String {
    let pid = std::process::id();
    format!("{pid}-{}", started(pid).unwrap_or_default())
}

/// Whether a keeper lives. What no shop has written is left alone, as if it did.
pub(crate) fn lives(keeper: &str) -> bool {
    let Some((pid, start)) = keeper.split_once('-') else { return true };
    pid.parse().is_ok_and(|pid: u32| started(pid).is_some_and(|it| it == start))
}

/// When a process started, in ticks since the machine did; None: it is gone, or about to be reaped.
/// See proc(5), /proc/PID/stat: field 22; the name before it stands in parentheses.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
}
