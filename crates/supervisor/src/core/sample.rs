//! What workers have counted, and how much of it falls into a period.

use std::collections::BTreeMap;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

use super::event::ChildId;

/// The counters of a process, or the sum of some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Requests answered.
    pub requests: u64,
    /// How many of them with a 5xx, and handlers that have failed in another way.
    pub failures: u64,
    /// Requests whose time to the answer was taken.
    pub timed: u64,
    /// The sum of those times, in microseconds.
    pub spent_us: u64,
}

impl Sample {
    /// Everything that came to an end, well or not: failed handlers of WebSockets and raw TCP are no
    /// requests.
    pub fn served(&self) -> u64 {
        self.requests.max(self.failures)
    }

    /// Failures of everything served, 0 to 1.
    pub fn error_share(&self) -> f64 {
        match self.served() {
            0 => 0.0,
            served => self.failures as f64 / served as f64,
        }
    }

    /// Mean time to the answer in milliseconds, if any was taken.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.timed > 0).then(|| self.spent_us as f64 / self.timed as f64 / 1_000.0)
    }
}

impl Add for Sample {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failures: self.failures.saturating_add(other.failures),
            timed: self.timed.saturating_add(other.timed),
            spent_us: self.spent_us.saturating_add(other.spent_us),
        }
    }
}

impl Sub for Sample {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            failures: self.failures.saturating_sub(other.failures),
            timed: self.timed.saturating_sub(other.timed),
            spent_us: self.spent_us.saturating_sub(other.spent_us),
        }
    }
}

impl std::iter::Sum for Sample {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What some processes count from a moment on. Of one that dies, what was seen last stays in the sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Whether the moment has come: what is counted first is what was there before.
    begun: bool,
    before: BTreeMap<ChildId, Sample>,
    last: BTreeMap<ChildId, Sample>,
}

impl Meter {
    /// Takes in what processes show. Those that were not there at the first time have begun since.
    pub fn take(&mut self, samples: impl IntoIterator<Item = (ChildId, Sample)>) {
        for (child, sample) in samples {
            if !self.begun {
                self.before.insert(child, sample);
            }
            self.last.insert(child, sample);
        }
        self.begun = true;
    }

    /// Whether anything was taken in.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// What was counted so far.
    pub fn sum(&self) -> Sample {
        let before = |child: &ChildId| self.before.get(child).copied().unwrap_or_default();
        self.last.iter().map(|(child, last)| *last - before(child)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(requests: u64) -> Sample {
        Sample { requests, failures: 1, timed: requests, spent_us: 500 * requests }
    }

    #[test]
    fn what_was_before_does_not_count_and_the_dead_do() {
        let mut meter = Meter::default();
        assert!(!meter.has_begun());
        meter.take([(1, requests(100)), (2, requests(50))]);
        assert_eq!(meter.sum(), Sample::default());
        meter.take([(1, requests(110)), (2, requests(55))]);
        // The second one has died, and a third one has taken its place.
        meter.take([(1, requests(120)), (3, requests(7))]);
        let sum = Sample { requests: 32, failures: 1, timed: 32, spent_us: 16_000 };
        assert_eq!(meter.sum(), sum);
    }

    #[test]
    fn shares_and_means() {
        let none = Sample::default();
        assert_eq!((none.error_share(), none.mean_ms()), (0.0, None));
        let some = Sample { requests: 40, failures: 10, timed: 4, spent_us: 8_000 };
        assert_eq!((some.error_share(), some.mean_ms()), (0.25, Some(2.0)));
        let no_requests = Sample { failures: 3, ..none };
        assert!((no_requests.error_share() - 1.0).abs() < f64::EPSILON);
    }
}
