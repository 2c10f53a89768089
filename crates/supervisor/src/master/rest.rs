//! A pause after somebody could not be let in: there were no descriptors. Whoever waits at the door is
//! still there, so that asking again at once would be a loop that never waits.

use std::io;

use shiftwork_sys::clock::monotonic_ms;

use crate::core::event::Millis;

const PAUSE: Millis = 100;

/// When a door is looked at again.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Option<Millis>,
}

impl Rest {
    /// Letting somebody in has failed.
    pub(super) fn after(&mut self, error: &io::Error) {
        let nobody = [
            io::ErrorKind::WouldBlock,
            io::ErrorKind::Interrupted,
            io::ErrorKind::ConnectionAborted,
        ];
        if !nobody.contains(&error.kind()) {
            self.until = Some(monotonic_ms() + PAUSE);
        }
    }

    /// Until when nobody looks at the door; None: it is looked at.
    pub(super) fn until(&self) -> Option<Millis> {
        self.until.filter(|until| *until > monotonic_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_is_a_reason() {
        let mut rest = Rest::default();
        rest.after(&io::ErrorKind::WouldBlock.into());
        assert_eq!(rest.until(), None);
        rest.after(&io::Error::from_raw_os_error(24));
        assert!(rest.until().is_some_and(|until| until <= monotonic_ms() + PAUSE));
    }
}
