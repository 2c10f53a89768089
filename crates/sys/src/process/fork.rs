//! fork(2), from processes with one thread only.

#![allow(unsafe_code)]

use std::io::{self, Write};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that called, with the child's pid.
    Parent(i32),
    /// The new one.
    Child,
}

/// How long a thread that was joined may linger in /proc.
const LINGER: Duration = Duration::from_secs(1);

/// Makes a copy of this process.
///
/// # Errors
/// If this process has a second thread: locks that it holds would stay locked in the child for
/// ever. A thread that has just been joined is waited for, for up to a second.
pub fn fork() -> io::Result<Forked> {
    require_one_thread()?;
    flush();
    // SAFETY: there is one thread, so the child has all that the parent had, in a sound state.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Waits until there is one thread only.
///
/// # Errors
/// If there are more for longer than a second: it names them.
pub fn require_one_thread() -> io::Result<()> {
    let began = Instant::now();
    loop {
        let count = count_threads()?;
        if count <= 1 {
            return Ok(());
        }
        if began.elapsed() > LINGER {
            let names = thread_names().join(", ");
            return Err(io::Error::other(format!(
                "this process has {count} threads ({names}); it must have one when it forks"
            )));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// 2 stands for any number of them where there is no /proc, as in a jail.
fn count_threads() -> io::Result<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(if is_alone()? { 1 } else { 2 })
        }
        Err(error) => Err(error),
    }
}

/// Whether this is the only thread of its process, asked of the kernel: it refuses to part one from
/// its siblings, and has nothing to do where there are none.
fn is_alone() -> io::Result<bool> {
    match unshare(CloneFlags::CLONE_THREAD) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes out what waits in the buffers of stdout, Rust's and C's: the child would write it again.
pub(super) fn flush() {
    let _ = io::stdout().flush();
    // SAFETY: null stands for all streams, and there is one thread.
    unsafe {
        libc::fflush(std::ptr::null_mut());
    }
}

/// The names of this process's threads.
#[must_use]
pub fn thread_names() -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let mut names: Vec<String> = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

/// Removes a variable from this process's environment. For processes with one thread.
pub fn remove_variable(name: &str) {
    // SAFETY: the callers' processes have one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) }
}

/// Sets a variable of this process's environment, for its children. For processes with one thread.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: as above.
    unsafe { std::env::set_var(name, value) }
}

/// _exit(2).
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: _exit runs no code of this process any more.
    unsafe { libc::_exit(code) }
}
