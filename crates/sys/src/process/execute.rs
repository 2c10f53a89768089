//! fork and exec of an executable that is held open.

#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::{env, ptr};

use super::fork::{Forked, exit, fork};
use crate::{fd, signal};

/// What is executed, and what it gets.
pub struct Launch<'a> {
    /// The executable, open for reading.
    pub executable: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub arguments: &'a [OsString],
    /// The one descriptor, besides the standard three, that is open in it.
    pub channel: BorrowedFd<'a>,
    /// A further variable of its environment, given the number of that descriptor.
    pub role: &'a dyn Fn(i32) -> (&'static str, String),
    /// Its stdout and stderr; stdin stays this process's.
    pub output: BorrowedFd<'a>,
    /// Whether it is killed when this process, which has one thread, dies or ends.
    pub mortal: bool,
}

/// Executes it as a child of this process, with default signals, and gives its pid.
///
/// # Errors
/// If it cannot be forked, or executed: the kernel's own reason, from the child.
pub fn execute(launch: &Launch<'_>) -> io::Result<i32> {
    let (name, value) = (launch.role)(launch.channel.as_raw_fd());
    let arguments = c_strings(launch.arguments.iter().cloned())?;
    let environment = with_variable(name, &value)?;
    let (failed, failure) = io::pipe()?;
    let parent = std::process::id();
    match fork()? {
        Forked::Child => {
            drop(failed);
            if launch.mortal && !die_with(parent) {
                exit(127);
            }
            let error = become_it(launch, &arguments, &environment);
            let number = error.raw_os_error().unwrap_or(libc::EINVAL);
            let _ = (&failure).write_all(&number.to_ne_bytes());
            exit(127)
        }
        Forked::Parent(pid) => {
            drop(failure);
            let mut number = [0; 4];
            match File::from(OwnedFd::from(failed)).read_exact(&mut number) {
                // The pipe closes at the exec.
                Err(_) => Ok(pid),
                Ok(()) => {
                    super::wait_for(pid);
                    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
                }
            }
        }
    }
}

/// This process's environment and one variable more, as `NAME=VALUE`s.
pub(super) fn with_variable(name: &str, value: &str) -> io::Result<Vec<CString>> {
    c_strings(
        env::vars_os()
            .filter(|(it, _)| it != name)
            .chain([(OsString::from(name), OsString::from(value))])
            .map(|(name, value)| {
                let mut pair = name.into_vec();
                pair.push(b'=');
                pair.extend_from_slice(value.as_bytes());
                OsString::from_vec(pair)
            }),
    )
}

/// Arrays as execve(2) wants them: pointers, and null at the end.
pub(super) fn arrays(
    arguments: &[CString],
    environment: &[CString],
) -> (Vec<*const libc::c_char>, Vec<*const libc::c_char>) {
    let pointers =
        |strings: &[CString]| strings.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect();
    (pointers(arguments), pointers(environment))
}

pub(super) fn c_strings(strings: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    strings.map(|it| CString::new(it.into_vec()).map_err(io::Error::other)).collect()
}

/// Has the kernel kill this process when its parent dies; false: that is dead already.
fn die_with(parent: u32) -> bool {
    // SAFETY: prctl and getppid take numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        u32::try_from(libc::getppid()) == Ok(parent)
    }
}

/// Comes back only with the reason why it could not.
fn become_it(launch: &Launch<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let prepared = fd::redirect_output(launch.output)
        .and_then(|()| fd::set_cloexec(launch.channel.as_fd(), false));
    if let Err(error) = prepared {
        return error;
    }
    signal::reset_for_child();
    let (argv, envp) = arrays(arguments, environment);
    // SAFETY: both arrays end with null and their strings live until the exec; the empty path
    // with AT_EMPTY_PATH means the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            launch.executable.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOENT) {
        return error;
    }
    // A script: its interpreter has to be able to open it, so the descriptor stays open for it.
    if let Err(error) = fd::set_cloexec(launch.executable, false) {
        return error;
    }
    // SAFETY: as above.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            launch.executable.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}
