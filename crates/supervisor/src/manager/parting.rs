//! The listeners after the master's death: the port is to be free at once, also if a worker that holds
//! one does not turn and cannot close it.
//!
//! Workers empty the queues of theirs and close them. Here nothing new is let in, and each listener is
//! shut as soon as nothing waits in its queue, or when it is time: then nobody is coming for what waits.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::listen;

use crate::core::event::{Generation, Millis};

use super::resources::BoundListener;

/// How long workers have for what waits.
const PATIENCE: Millis = 300;
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(5);

/// Listeners on their way out.
#[derive(Debug, Default)]
pub struct Parting {
    left: Vec<BoundListener>,
    until: Millis,
}

impl Parting {
    /// Begins with all that there are.
    pub fn begin(&mut self, listeners: BTreeMap<Generation, Vec<BoundListener>>) {
        self.until = monotonic_ms() + PATIENCE;
        self.left = listeners.into_values().flatten().collect();
        for listener in &self.left {
            listen::refuse_new(listener.socket.as_fd());
        }
        self.pass();
    }

    /// When it has to be looked again.
    pub fn due(&self) -> Option<Duration> {
        (!self.left.is_empty()).then_some(LOOK)
    }

    /// Shuts those that nobody waits at, and all when it is time.
    pub fn pass(&mut self) {
        let late = monotonic_ms() >= self.until;
        self.left.retain(|listener| {
            let goes = late || is_empty(listener);
            if goes {
                listen::shut(listener.socket.as_fd());
            }
            !goes
        });
    }
}

/// Whether nobody waits there, nor is about to. The queue of a Unix socket is only known by accepting.
fn is_empty(listener: &BoundListener) -> bool {
    let socket = listener.socket.as_fd();
    !listener.address.starts_with("unix:")
        && listen::waiting(socket).is_ok_and(|waiting| waiting == 0)
        && listen::half_open(socket).is_ok_and(|open| open == 0)
}
