//! Stacks of a process that does not answer any more, written by itself because another one asks.
//!
//! The asker sends a signal to each thread. What the handler does first is allowed in a signal
//! handler: it writes bare addresses. Then it tries to write them with names, for which it takes
//! memory and locks; that may hang if the thread was interrupted while it held them. So the handler
//! never returns: when all threads have written, the process ends itself, and whoever asks ends it if
//! that takes too long.

#![allow(unsafe_code)]

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The signal: the second real-time signal that the C library leaves to programs.
#[must_use]
pub fn signal() -> i32 {
    libc::SIGRTMIN() + 1
}

/// Has this process answer [`ask`], on stderr, from here on. For processes with one thread.
pub fn answer() {
    addresses::prepare();
    // SAFETY: sigaction is plain data for which zeroes are a value: no flags, an empty mask. The
    // handler has the form that a handler without SA_SIGINFO has.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = show as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
    }
}

/// Asks every thread of a process for its stack, and tells how many were asked. The process ends
/// itself when it has answered, by SIGKILL; one that does not get so far must be ended. One that
/// cannot answer is ended by this.
///
/// # Errors
/// If there is no such process.
pub fn ask(pid: i32) -> io::Result<usize> {
    let mut asked = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(thread) = entry?.file_name().to_str().and_then(|it| it.parse::<i32>().ok()) else {
            continue;
        };
        // SAFETY: tgkill takes numbers only.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, signal()) };
        if sent == 0 {
            asked += 1;
        }
    }
    Ok(asked)
}

/// Threads that have been reached and have not written yet.
static REACHED: AtomicUsize = AtomicUsize::new(0);
/// One thread writes at a time.
static WRITING: AtomicBool = AtomicBool::new(false);

extern "C" fn show(_: libc::c_int) {
    REACHED.fetch_add(1, Ordering::AcqRel);
    while WRITING.swap(true, Ordering::Acquire) {
        nap();
    }
    // SAFETY: gettid takes nothing and fails never.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    let mut line = [0; 64];
    let mut left: &mut [u8] = &mut line;
    let _ = writeln!(left, "stack of thread {thread}:");
    let length = 64 - left.len();
    // SAFETY: the buffer is alive and at least that long.
    unsafe {
        libc::write(2, line.as_ptr().cast(), length);
    }
    addresses::write();
    // What is allowed in a handler is done. With names, if that goes well:
    let names = std::backtrace::Backtrace::force_capture();
    let _ = writeln!(io::stderr(), "the same with names, thread {thread}:\n{names}");
    WRITING.store(false, Ordering::Release);
    if REACHED.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: getpid and kill take numbers only.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
    loop {
        nap();
    }
}

fn nap() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    // SAFETY: the time is alive, and what is left of it is not asked for.
    unsafe {
        libc::nanosleep(&raw const time, std::ptr::null_mut());
    }
}

#[cfg(target_env = "gnu")]
mod addresses {
    const MOST: usize = 64;

    /// The first call loads what later ones use.
    pub(super) fn prepare() {
        let mut frames = [std::ptr::null_mut(); 1];
        // SAFETY: the array has room for one.
        unsafe {
            libc::backtrace(frames.as_mut_ptr(), 1);
        }
    }

    /// As `FILE(+OFFSET)[ADDRESS]`, which addr2line understands.
    pub(super) fn write() {
        let mut frames = [std::ptr::null_mut(); MOST];
        // SAFETY: the array has room for so many; only those that were filled are written.
        unsafe {
            let count = libc::backtrace(frames.as_mut_ptr(), MOST as libc::c_int);
            libc::backtrace_symbols_fd(frames.as_ptr(), count, 2);
        }
    }
}

#[cfg(not(target_env = "gnu"))]
mod addresses {
    pub(super) fn prepare() {}
    pub(super) fn write() {}
}
