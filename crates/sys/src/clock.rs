//! The clock that deadlines are measured by, and the one on the wall.

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

/// Milliseconds since 1970, as the machine's clock has it: for people, and for nothing that is
/// measured. 0 before that.
#[must_use]
pub fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}
