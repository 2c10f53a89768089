//! The clock that deadlines are measured by, and the one on the wall.

use std::time::Instant;

/// Milliseconds of `CLOCK_MONOTONIC`, the same in all processes of a machine.
#[must_use]
pub fn monotonic_ms() -> u64 {
    monotonic_us() / 1000
}

/// Microseconds of the same clock.
#[must_use]
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1000
}

/// Tells what [`monotonic_us`] was at an [`Instant`] that the caller has anyway: it reads no clock.
#[derive(Debug, Clone, Copy)]
pub struct Anchor {
    at: Instant,
    us: u64,
}

impl Anchor {
    /// Reads both clocks, which are one and the same.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), us: monotonic_us() }
    }

    /// Microseconds of the monotonic clock at `instant`; right to a few of them. Those before the
    /// anchor are taken for the anchor's own.
    #[inline]
    #[must_use]
    pub fn us_at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.at);
        // In words of 64 bits, unlike `as_micros`: a request asks for it.
        self.us + since.as_secs() * 1_000_000 + u64::from(since.subsec_micros())
    }
}

/// Milliseconds since 1970, as the machine's clock has it: for people, and for nothing that is
/// measured. 0 before that.
#[must_use]
pub fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_anchor_tells_the_clock_that_others_read() {
        let before = monotonic_us();
        let anchor = Anchor::now();
        let told = anchor.us_at(Instant::now());
        assert!((before..=monotonic_us()).contains(&told), "{told}");
        assert_eq!(anchor.us_at(anchor.at + Duration::from_millis(1500)), anchor.us + 1_500_000);
        assert_eq!(anchor.us_at(anchor.at - Duration::from_millis(1)), anchor.us);
    }
}
