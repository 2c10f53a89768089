//! What shows from outside that a process does not only live, but turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, thread};

use tokio::runtime::Handle;

use super::process::Running;
use super::row::OwnRow;

/// How often a process with several threads shows that one of them is free.
const BEAT: Duration = Duration::from_millis(100);

impl<P, S> Running<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// With several threads it is those which run handlers that have to turn, and not the one that
    /// hears the manager. Call it within the runtime.
    pub(super) fn show_that_threads_turn(&self) -> io::Result<()> {
        if self.settings.server.worker_threads > 1 {
            ask_again_and_again(Handle::current(), self.row.clone())?;
        }
        Ok(())
    }

    /// With one thread this one is it.
    pub(super) fn beat_alone(&self) {
        if self.settings.server.worker_threads <= 1 {
            self.row.beat();
        }
    }
}

/// A thread outside of the runtime has it run something small, which any free thread does.
///
/// A timer in the runtime would not do: a thread of tokio's that waits for timers and sockets and
/// gets one thing to run keeps both while it runs that. If this blocks, the others sleep on, and
/// nobody waits for timers or sockets any more. What comes from outside wakes one of the others,
/// which then waits for them: so whoever is connected to this process is served on, too.
fn ask_again_and_again(runtime: Handle, row: OwnRow) -> io::Result<()> {
    let answered = Arc::new(AtomicBool::new(true));
    let ask = move || {
        loop {
            // Nobody is asked twice at a time: what nobody runs would pile up.
            if answered.swap(false, Ordering::Relaxed) {
                let (row, answered) = (row.clone(), Arc::clone(&answered));
                runtime.spawn(async move {
                    row.beat();
                    answered.store(true, Ordering::Relaxed);
                });
            }
            thread::sleep(BEAT);
        }
    };
    // It ends with the process.
    thread::Builder::new().name("pulse".into()).spawn(ask).map(drop)
}
