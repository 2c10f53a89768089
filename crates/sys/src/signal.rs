//! Signals: blocked and read through a descriptor, and reset in children.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Terminate.
pub const TERM: i32 = libc::SIGTERM;
/// Interrupt.
pub const INT: i32 = libc::SIGINT;
/// Quit.
pub const QUIT: i32 = libc::SIGQUIT;
/// Hang up.
pub const HUP: i32 = libc::SIGHUP;
/// First for users.
pub const USR1: i32 = libc::SIGUSR1;
/// Second for users.
pub const USR2: i32 = libc::SIGUSR2;
/// A child has changed.
pub const CHLD: i32 = libc::SIGCHLD;
/// Background read.
pub const TTIN: i32 = libc::SIGTTIN;
/// Background write.
pub const TTOU: i32 = libc::SIGTTOU;
/// Cannot be refused.
pub const KILL: i32 = libc::SIGKILL;
/// Stands still until it is told to go on.
pub const STOP: i32 = libc::SIGSTOP;
/// Goes on.
pub const CONT: i32 = libc::SIGCONT;
/// Write beyond the longest file that is allowed (`RLIMIT_FSIZE`).
pub const XFSZ: i32 = libc::SIGXFSZ;
/// Write without a reader.
pub const PIPE: i32 = libc::SIGPIPE;

/// The first real-time signal that the C library leaves to programs.
#[must_use]
pub fn rtmin() -> i32 {
    libc::SIGRTMIN()
}

/// A signal's name without SIG, as `USR1`; the bare number of one that has none.
#[must_use]
pub fn name(signo: i32) -> String {
    let known = nix::sys::signal::Signal::try_from(signo);
    known.map_or_else(|_| signo.to_string(), |it| it.as_str().trim_start_matches("SIG").to_owned())
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set; sigaddset takes an initialised one.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

fn change_mask(how: i32, set: &libc::sigset_t) {
    // SAFETY: the set is initialised, and the old mask is not asked for.
    unsafe {
        libc::pthread_sigmask(how, set, std::ptr::null_mut());
    }
}

/// What was blocked in this thread at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// Blocks what was blocked then, and nothing else.
    pub(crate) fn restore(&self) {
        change_mask(libc::SIG_SETMASK, &self.0);
    }
}

/// Blocks all that can be blocked in this thread, and gives what was blocked before.
pub(crate) fn block_all() -> Mask {
    let mut all = set_of(&[]);
    let mut before = all;
    // SAFETY: both sets are initialised.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    Mask(before)
}

/// A signal that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signo: i32,
    /// Who sent it, if a process did.
    pub pid: i32,
    /// That process's user.
    pub uid: u32,
}

/// Signals that are read like data; see signalfd(2).
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks these signals, adds none to what is blocked otherwise, and makes them readable.
    ///
    /// # Errors
    /// If no descriptor is to be had.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals);
        change_mask(libc::SIG_BLOCK, &set);
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor, and nobody else has it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Reads the next signal; None: there is none.
    ///
    /// # Errors
    /// If the descriptor cannot be read.
    pub fn read(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is as long as is said.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        if n.cast_unsigned() != size {
            return Ok(None);
        }
        // SAFETY: the kernel has filled the whole structure.
        let info = unsafe { info.assume_init() };
        Ok(Some(Received {
            signo: info.ssi_signo.cast_signed(),
            pid: info.ssi_pid.cast_signed(),
            uid: info.ssi_uid,
        }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All dispositions as after an exec from a quiet parent: default, but SIGPIPE ignored as Rust
/// has it, and SIGXFSZ, so that a log that may not grow is an error of that write and not the end
/// of the process; and nothing blocked. For children, before they run anything else.
pub fn reset_for_child() {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL and SIG_IGN run no code. Numbers that the C library keeps for itself
        // are refused, which changes nothing.
        unsafe {
            libc::signal(
                signal,
                if matches!(signal, PIPE | XFSZ) { libc::SIG_IGN } else { libc::SIG_DFL },
            );
        }
    }
    change_mask(libc::SIG_SETMASK, &set_of(&[]));
}

/// Ignores signals; children inherit that, also over an exec.
pub fn ignore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_IGN runs no code.
        unsafe {
            libc::signal(*signal, libc::SIG_IGN);
        }
    }
}

/// Sends a signal to one process.
///
/// # Errors
/// If there is no such process, or it is not this user's.
pub fn kill(pid: i32, signo: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a single process"));
    }
    // SAFETY: kill(2) touches no memory of this process.
    if unsafe { libc::kill(pid, signo) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
