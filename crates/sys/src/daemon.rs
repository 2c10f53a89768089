//! Into the background.

use std::io;

use crate::process::{Forked, exit_now, fork};
use crate::socket::Channel;

/// Who this process is after [`detach`].
#[derive(Debug)]
pub enum Detached {
    /// The one that the user's shell waits for.
    Launcher {
        /// From the daemon.
        channel: Channel,
    },
    /// The one that stays.
    Daemon {
        /// To the launcher.
        channel: Channel,
    },
}

/// Forks a process into a session of its own, without a controlling terminal and without the
/// power to get one; see setsid(2). The working directory stays.
///
/// # Errors
/// If there is no room for another process, or this process has a second thread.
pub fn detach() -> io::Result<Detached> {
    let (ours, theirs) = Channel::pair()?;
    match fork()? {
        Forked::Parent(middle) => {
            drop(theirs);
            crate::process::wait_for(middle);
            Ok(Detached::Launcher { channel: ours })
        }
        Forked::Child => {
            drop(ours);
            let _ = rustix::process::setsid();
            // A session leader that opens a terminal gets it for its own; its child does not.
            match fork() {
                Ok(Forked::Child) => Ok(Detached::Daemon { channel: theirs }),
                Ok(Forked::Parent(_)) => exit_now(0),
                Err(_) => exit_now(1),
            }
        }
    }
}

/// Whether this process has a controlling terminal that is still there.
#[must_use]
pub fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok_and(|tty| rustix::termios::isatty(&tty))
}
