//! What the core has decided so far, in numbers: for the metrics. Part of its state, so that no total
//! goes back when a manager dies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shiftwork_sys::slab::{BOUNDS_US, BUCKETS};

use super::event::Millis;
use super::outcome::Verdict;
use crate::protocol::template::Kind;
use crate::protocol::worker::RetireCause;

/// Why a process was replaced while its generation went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It died, or could not start.
    Crash,
    /// It has served `max_request` requests, or run `task_max_request` tasks.
    MaxRequest,
    /// More than `max_memory` was its own.
    MaxMemory,
    /// It was older than `max_lifetime`.
    MaxLifetime,
    /// It was told to with TERM.
    Signal,
    /// Its loop did not turn, and it was killed.
    Stuck,
    /// It had asked for it, and why is known to another version.
    #[serde(other)]
    Retired,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Crash,
        Self::MaxRequest,
        Self::MaxMemory,
        Self::MaxLifetime,
        Self::Signal,
        Self::Stuck,
        Self::Retired,
    ];
}

impl From<RetireCause> for Cause {
    fn from(cause: RetireCause) -> Self {
        match cause {
            RetireCause::MaxRequest => Self::MaxRequest,
            RetireCause::MaxMemory => Self::MaxMemory,
            RetireCause::MaxLifetime => Self::MaxLifetime,
            RetireCause::Signal => Self::Signal,
            RetireCause::Unknown => Self::Retired,
        }
    }
}

/// Reloads by outcome, and replacements by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    #[serde(default, with = "crate::pairs")]
    reloads: BTreeMap<Verdict, Durations>,
    #[serde(default, with = "crate::pairs")]
    respawns: BTreeMap<(Kind, Cause), u64>,
}

/// How long something took, time and again; the bounds are [`BOUNDS_US`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// How many fell into each bucket.
    pub buckets: Vec<u64>,
    /// All together, in milliseconds.
    pub sum_ms: u64,
}

impl Durations {
    fn record(&mut self, duration: Millis) {
        let bucket = BOUNDS_US.partition_point(|it| *it < duration.saturating_mul(1000));
        self.buckets.resize(BUCKETS, 0);
        self.buckets[bucket] += 1;
        self.sum_ms = self.sum_ms.saturating_add(duration);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Tally {
    /// A reload has ended.
    pub(super) fn reloaded(&mut self, verdict: Verdict, took: Millis) {
        self.reloads.entry(verdict).or_default().record(took);
    }

    /// A process is replaced.
    pub(super) fn respawned(&mut self, kind: Kind, cause: Cause) {
        *self.respawns.entry((kind, cause)).or_default() += 1;
    }

    /// Reloads that ended so, with what they took. The start is none.
    pub fn reloads(&self, verdict: Verdict) -> Durations {
        self.reloads.get(&verdict).cloned().unwrap_or_default()
    }

    /// Replacements of this kind of process for this cause.
    pub fn respawns(&self, kind: Kind, cause: Cause) -> u64 {
        self.respawns.get(&(kind, cause)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_counted_and_survives() {
        let mut tally = Tally::default();
        tally.reloaded(Verdict::Committed, 12);
        tally.reloaded(Verdict::Committed, 40_000);
        tally.reloaded(Verdict::Aborted, 0);
        tally.respawned(Kind::Worker, Cause::Stuck);
        let written = serde_json::to_string(&tally).unwrap();
        let read: Tally = serde_json::from_str(&written).unwrap();
        assert_eq!(read, tally);
        let committed = read.reloads(Verdict::Committed);
        assert_eq!((committed.count(), committed.sum_ms), (2, 40_012));
        assert_eq!(committed.buckets[BUCKETS - 1], 1);
        assert_eq!(read.reloads(Verdict::Aborted).count(), 1);
        assert_eq!(read.reloads(Verdict::RolledBack).count(), 0);
        assert_eq!(read.respawns(Kind::Worker, Cause::Stuck), 1);
        assert_eq!(read.respawns(Kind::TaskWorker, Cause::Stuck), 0);
    }

    #[test]
    fn what_earlier_versions_counted_counts_on() {
        let text = r#"{"respawns":[[["worker","retired"],7],[["worker","crash"],2]]}"#;
        let read: Tally = serde_json::from_str(text).unwrap();
        assert_eq!(read.respawns(Kind::Worker, RetireCause::Unknown.into()), 7);
        assert_eq!(Cause::ALL.map(|it| read.respawns(Kind::Worker, it)).iter().sum::<u64>(), 9);
    }
}
