//! Whose process is whose: every test runs its own hard link of the shop, so that a process is
//! recognised by its executable, whatever it calls itself and whoever its parent is by now.

use std::fs;
use std::path::Path;

use shiftwork_sys::signal;

use super::wait::until;

/// Pids of all living processes that execute something below `folder`.
pub(crate) fn below(folder: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(folder))
        })
        .collect()
}

/// Is the process there, and not merely waiting to be reaped?
pub(crate) fn alive(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// The title, as `ps` would show it.
pub(crate) fn title(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}

/// Parent of a process.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may itself contain some.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal; a process that has just gone is no error.
pub(crate) fn send(pid: i32, signo: i32) {
    if let Err(error) = signal::kill(pid, signo) {
        assert!(!alive(pid), "signal {signo} to {pid}: {error}");
    }
}

/// Waits for a process to go.
#[track_caller]
pub(crate) fn wait_gone(pid: i32) {
    until(&format!("process {pid} ({}) goes", title(pid)), || !alive(pid));
}

/// Kills whatever is left below `folder`, until nothing is.
pub(crate) fn kill_all(folder: &Path) {
    for _ in 0..1000 {
        let left = below(folder);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = signal::kill(pid, signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
