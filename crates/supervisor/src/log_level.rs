//! How much this process writes to the log.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::Level;

use crate::settings::LogLevel;

/// As a number, so that it can be changed at any time: 1 error … 5 trace.
static MOST: AtomicU8 = AtomicU8::new(number(LogLevel::Info));

/// From now on this level and everything more severe is written.
pub fn set(level: LogLevel) {
    MOST.store(number(level), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// Whether events of this level are written.
pub fn writes(level: Level) -> bool {
    let level = match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    };
    number(level) <= MOST.load(Ordering::Relaxed)
}

const fn number(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    }
}
