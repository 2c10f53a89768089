//! Processes: forks, executions, ends, titles.

mod execute;
mod fork;
mod orphan;
mod reap;
mod replace;
mod title;

pub use execute::{Launch, execute};
pub use fork::{Forked, fork, remove_variable, require_one_thread, set_variable, thread_names};
pub use orphan::fork_orphan;
pub use reap::{Exit, has_children, kill_children, reap, wait_for};
pub use replace::{Replacement, replace};
pub use title::{prepare_title, set_title};

use std::io;

/// Ends this process without running destructors or exit handlers: for forked children, whose
/// copies of the parent's values must not be dropped twice.
pub fn exit_now(code: i32) -> ! {
    use std::io::Write;
    let _ = io::stdout().flush();
    fork::exit(code)
}

/// Makes orphaned descendants this process's children; see prctl(2).
///
/// # Errors
/// Never on the kernels that Shiftwork supports.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// Puts this process into a process group of its own.
///
/// # Errors
/// If it leads a session.
pub fn new_process_group() -> io::Result<()> {
    rustix::process::setpgid(None, None).map_err(Into::into)
}

/// The parent's pid.
#[must_use]
pub fn parent() -> i32 {
    std::os::unix::process::parent_id().cast_signed()
}

/// A descriptor that becomes readable when the process ends; see pidfd_open(2).
///
/// # Errors
/// If there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<std::os::fd::OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no pid"))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// The memory of a process in bytes: its proportional share (PSS) where the kernel tells it, else
/// what is resident. None: the process is gone.
#[must_use]
pub fn memory_bytes(pid: i32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let pss = rollup.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    if let Some(kib) = pss {
        return Some(kib * 1024);
    }
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
