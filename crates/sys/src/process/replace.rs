//! exec without a fork: another program in this process, with its pid, its children and some of its
//! descriptors.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::execute::{arrays, c_strings, with_variable};
use crate::fd;

/// What this process becomes.
#[derive(Debug)]
pub struct Replacement<'a> {
    /// The executable, open for reading.
    pub executable: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub arguments: &'a [OsString],
    /// Descriptors that stay open, under their numbers, beside the standard three.
    pub keep: &'a [BorrowedFd<'a>],
    /// A further variable of its environment.
    pub variable: (&'a str, String),
}

/// Becomes another program. Children, pid, blocked and pending signals stay. Comes back only if
/// that fails, with everything as it was.
///
/// A file that is no program at all is an error here; one that is damaged ends this process, so it
/// has to be tried in a child first.
#[must_use]
pub fn replace(with: &Replacement<'_>) -> io::Error {
    let prepared = with_variable(with.variable.0, &with.variable.1).and_then(|environment| {
        let arguments = c_strings(with.arguments.iter().cloned())?;
        super::fork::flush();
        set_cloexec(with.keep, false)?;
        Ok((arguments, environment))
    });
    let error = match prepared {
        Ok((arguments, environment)) => {
            let (argv, envp) = arrays(&arguments, &environment);
            // SAFETY: both arrays end with null and their strings live until the exec; the empty
            // path with AT_EMPTY_PATH means the descriptor itself.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    with.executable.as_raw_fd(),
                    c"".as_ptr(),
                    argv.as_ptr(),
                    envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
            }
            io::Error::last_os_error()
        }
        Err(error) => error,
    };
    // One that was not open before is of no account now.
    let _ = set_cloexec(with.keep, true);
    error
}

fn set_cloexec(fds: &[BorrowedFd<'_>], cloexec: bool) -> io::Result<()> {
    fds.iter().try_for_each(|it| fd::set_cloexec(*it, cloexec))
}
