//! What tells a process that it has lived long enough.

use std::time::Duration;

use shiftwork_supervisor::protocol::worker::RetireCause;
use shiftwork_supervisor::settings::ServerSettings;
use shiftwork_sys::memory;
use tokio::time::Instant;

use super::drain::limit;

/// How often age and memory are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// `max_memory` and `max_lifetime`, with this process's share of chance.
pub(super) struct Wear {
    memory: Option<u64>,
    end: Option<Instant>,
    next: Instant,
}

impl Wear {
    pub(super) fn of(settings: &ServerSettings) -> Self {
        let now = Instant::now();
        let lifetime = u64::try_from(settings.max_lifetime.as_millis()).unwrap_or(u64::MAX);
        Self {
            memory: limit(settings.max_memory.as_u64(), None),
            end: limit(lifetime, None).map(|it| now + Duration::from_millis(it)),
            next: now + LOOK,
        }
    }

    /// Why this process is to be replaced, said once. Looks once a second, however often it is
    /// asked.
    pub(super) fn is_out(&mut self) -> Option<(RetireCause, String)> {
        let now = Instant::now();
        if now < self.next || (self.memory.is_none() && self.end.is_none()) {
            return None;
        }
        self.next = now + LOOK;
        let reason = if self.end.is_some_and(|end| end <= now) {
            Some((RetireCause::MaxLifetime, "max_lifetime is reached".to_owned()))
        } else {
            self.memory.and_then(memory::own_beyond).map(|bytes| {
                let reason = format!("max_memory is reached: {} KiB are its own", bytes / 1024);
                (RetireCause::MaxMemory, reason)
            })
        };
        if reason.is_some() {
            (self.memory, self.end) = (None, None);
        }
        reason
    }
}
