//! The `[limits]` table: what one client may take.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The `[limits]` table. All limits are on by default, and hold for each connection of a worker;
/// how many connections a worker takes is `server.max_connection`.
///
/// Durations are written as `"30s"`, sizes as `"1MiB"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A request's first line and headers together, 8 KiB to 64 KiB. Default 16 KiB. A larger head
    /// is answered with 431 and the connection closed.
    pub header_size: ByteSize,
    /// From a head's first byte to its last. Default 10 s. A slower one is answered with 408.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// A request's body, at most 1 TiB; 0: no limit. Default 10 MiB. A larger one is answered
    /// with 413 if its length is announced, else reading it fails.
    pub body_size: ByteSize,
    /// From the end of a request's head to the beginning of its answer. Default 60 s; `"0s"`: no
    /// limit. A slower one is answered with 503, and its handler is dropped at its next await.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a connection may be silent between two requests or messages, and how long a client
    /// may refuse to take what is sent to it. Default 75 s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A WebSocket or raw TCP message, 1 B to 1 GiB. Default 1 MiB. A longer one ends its
    /// connection (WebSocket: with 1009).
    pub message_size: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_size: ByteSize::kib(16),
            header_timeout: Duration::from_secs(10),
            body_size: ByteSize::mib(10),
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            message_size: ByteSize::mib(1),
        }
    }
}

impl Limits {
    /// What is wrong with the values: keys of this table, and why.
    #[must_use]
    pub fn validate(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let sizes = [
            ("header_size", self.header_size, ByteSize::kib(8), ByteSize::kib(64), "8KiB to 64KiB"),
            ("body_size", self.body_size, ByteSize::b(0), ByteSize::tib(1), "0B to 1TiB"),
            ("message_size", self.message_size, ByteSize::b(1), ByteSize::gib(1), "1B to 1GiB"),
        ];
        for (key, value, least, most, range) in sizes {
            if value < least || value > most {
                found.push((key, format!("must be from {range}, not {}B", value.0)));
            }
        }
        let waits = [
            ("header_timeout", self.header_timeout, false),
            ("request_timeout", self.request_timeout, true),
            ("idle_timeout", self.idle_timeout, false),
        ];
        for (key, value, zero) in waits {
            if value.is_zero() && !zero {
                found.push((key, "must be longer than 0s".into()));
            } else if value > Duration::from_secs(365 * 24 * 3600) {
                found.push((key, "must be at most 365days".into()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let keys = |change: fn(&mut Limits)| -> Vec<&'static str> {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.validate().into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(|_| {}), [""; 0]);
        assert_eq!(keys(|it| it.header_size = ByteSize::kib(7)), ["header_size"]);
        assert_eq!(keys(|it| it.header_size = ByteSize::kib(8)), [""; 0]);
        assert_eq!(keys(|it| it.header_size = ByteSize::kib(64)), [""; 0]);
        assert_eq!(keys(|it| it.header_size = ByteSize::kib(65)), ["header_size"]);
        assert_eq!(keys(|it| it.body_size = ByteSize::b(0)), [""; 0]);
        assert_eq!(keys(|it| it.message_size = ByteSize::b(0)), ["message_size"]);
        assert_eq!(keys(|it| it.request_timeout = Duration::ZERO), [""; 0]);
        assert_eq!(keys(|it| it.header_timeout = Duration::ZERO), ["header_timeout"]);
        assert_eq!(keys(|it| it.idle_timeout = Duration::MAX), ["idle_timeout"]);
    }
}
