//! What is spoken on a connection, and what it is doing.

use std::fmt;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.0 and 1.1.
    Http1 = 0,
    /// WebSocket.
    WebSocket = 1,
    /// Raw TCP, in lines or bytes.
    Tcp = 2,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http1 => "HTTP",
            Protocol::WebSocket => "WebSocket",
            Protocol::Tcp => "raw TCP",
        })
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between two requests, nothing of the next one read.
    Idle = 0,
    /// The first bytes of a request have come.
    Head = 1,
    /// A request is being worked on or answered.
    InHand = 2,
}

const PHASE_BITS: u64 = 2;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;

/// The phase in the word in which a connection shows it: its two lowest bits.
#[inline]
pub(super) fn phase_of(raw: u64) -> Phase {
    match raw & PHASE_MASK {
        0 => Phase::Idle,
        1 => Phase::Head,
        _ => Phase::InHand,
    }
}

/// That word after a sign of progress: above the phase a number has grown.
#[inline]
pub(super) fn progressed(raw: u64, phase: Phase) -> u64 {
    ((raw >> PHASE_BITS).wrapping_add(1) << PHASE_BITS) | phase as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_of_progress_changes_the_word_and_none_the_phase() {
        let mut raw = Phase::Idle as u64;
        for phase in [Phase::Idle, Phase::Head, Phase::Head, Phase::InHand, Phase::Idle] {
            let next = progressed(raw, phase);
            assert!(next != raw && phase_of(next) == phase);
            raw = next;
        }
        assert_eq!(phase_of(progressed(u64::MAX, Phase::Head)), Phase::Head);
    }
}
