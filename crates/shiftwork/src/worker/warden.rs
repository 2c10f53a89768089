//! The end of a worker that has lost master and manager and whose loop does not turn: nobody else is left
//! to end it, and it holds listeners and connections.
//!
//! A thread that sleeps until then, since the loop is what may be blocked.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use shiftwork_sys::signal;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, Poller};

/// What an orderly end has beyond its own deadlines.
const GRACE: Duration = Duration::from_secs(1);

/// Ends this process when `deadline` has passed since the other side of `control` was closed, which both
/// manager and master hold open. For once the process has its user and its cpus.
///
/// # Errors
/// If no thread can be had.
pub(super) fn watch(control: Arc<Channel>, deadline: Duration) -> io::Result<()> {
    let stand_by = move || {
        loop {
            let mut poller = Poller::new();
            poller.add((), control.as_fd(), Interest::End);
            match poller.wait(None) {
                Ok(ready) if ready.iter().any(|it| it.hung_up) => break,
                Ok(_) => {}
                Err(error) => return tracing::warn!("nobody watches over this process: {error}"),
            }
        }
        thread::sleep(deadline + GRACE);
        tracing::error!(
            "master and manager are gone, and this process has not ended: it is killed"
        );
        let _ = signal::kill(std::process::id().cast_signed(), signal::KILL);
    };
    thread::Builder::new().name("warden".into()).stack_size(64 * 1024).spawn(stand_by).map(drop)
}
