//! Whose turn it is to take connections out of the hand-over queue.
//!
//! Whoever has more connections than another one lets that one go first, so that all end up with
//! about as many: within two packets of each other. Nobody decides for anybody: each worker looks at
//! the others' counts in the slab, and waits for a moment at most, since one of them may be stuck. A
//! canary that is being judged lets all others go first.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::hand_over::BATCH;

use super::row::OwnRow;

/// How many more connections than another worker one may have and still take some.
const AHEAD: u64 = BATCH as u64;
/// How often to look whether the others have caught up.
const LOOK: Duration = Duration::from_micros(500);
/// How long to wait for one that takes none.
const PATIENCE: Duration = Duration::from_millis(100);

/// A worker's view of its share.
#[derive(Debug)]
pub(super) struct Share {
    row: OwnRow,
    /// Those that took none when they had the chance, and how many connections they had then. Not
    /// waited for again before that number changes.
    passed: HashMap<u32, u64>,
}

impl Share {
    /// Says to the others that this one takes up connections.
    pub(super) fn of(row: &OwnRow) -> Self {
        row.adopts();
        Self { row: row.clone(), passed: HashMap::new() }
    }

    /// Resolves when this worker may take connections; never, once it is marked as draining, before it
    /// has heard of that: it would only give them away again.
    pub(super) async fn turn(&mut self) {
        let began = Instant::now();
        loop {
            if self.row.is_marked() {
                return std::future::pending().await;
            }
            let own = if self.row.is_on_trial() { u64::MAX } else { self.row.connections() };
            let behind = behind(own, self.row.other_adopters(), &self.passed);
            if behind.is_empty() {
                return;
            }
            if began.elapsed() >= PATIENCE {
                self.passed.extend(behind);
                return;
            }
            sleep(LOOK).await;
        }
    }
}

/// The others that should go first.
fn behind(
    own: u64,
    others: impl Iterator<Item = (u32, u64)>,
    passed: &HashMap<u32, u64>,
) -> Vec<(u32, u64)> {
    others
        .filter(|(_, has)| own > has.saturating_add(AHEAD))
        .filter(|(number, has)| passed.get(number) != Some(has))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use shiftwork_sys::slab::Slab;

    use super::*;

    #[test]
    fn whoever_is_far_ahead_lets_others_go_first() {
        let nobody = HashMap::new();
        let ahead = |own, others: &[(u32, u64)]| behind(own, others.iter().copied(), &nobody);
        assert_eq!(ahead(1000, &[]), []);
        assert_eq!(ahead(16, &[(1, 0), (2, 500)]), []);
        assert_eq!(ahead(17, &[(1, 0), (2, 500)]), [(1, 0)]);
        assert_eq!(ahead(u64::MAX, &[(1, u64::MAX)]), []);
    }

    #[test]
    fn one_that_takes_none_is_not_waited_for_twice() {
        let passed = HashMap::from([(1, 5)]);
        assert_eq!(behind(100, [(1, 5), (2, 90)].into_iter(), &passed), []);
        assert_eq!(behind(100, [(1, 6)].into_iter(), &passed), [(1, 6)], "it has moved");
    }

    #[tokio::test]
    async fn a_canary_lets_the_others_go_first_and_they_do_not_wait_for_it() {
        let slab = Arc::new(Slab::create(4).unwrap());
        slab.set_used(2);
        let (canary, old) = (OwnRow::new(Arc::clone(&slab), 0), OwnRow::new(Arc::clone(&slab), 1));
        let mut shares = [Share::of(&canary), Share::of(&old)];
        slab.row(0).set_on_trial(1);
        slab.row(1).set_connections(1000);
        let turn = tokio::time::timeout(PATIENCE / 2, shares[0].turn());
        assert!(turn.await.is_err(), "the old one has not gone first");
        let began = Instant::now();
        shares[1].turn().await;
        assert!(began.elapsed() < PATIENCE / 2);
        // It is good: now it is the one that is behind.
        slab.row(0).set_on_trial(0);
        shares[0].turn().await;
        let turn = tokio::time::timeout(PATIENCE / 2, shares[1].turn());
        assert!(turn.await.is_err(), "the new one has fewer");
    }

    #[tokio::test]
    async fn a_stuck_worker_holds_nobody_up() {
        let slab = Arc::new(Slab::create(4).unwrap());
        slab.set_used(3);
        let own = OwnRow::new(Arc::clone(&slab), 0);
        let mut share = Share::of(&own);
        slab.row(0).set_connections(100);
        slab.row(2).set_adopts(1);
        let began = Instant::now();
        share.turn().await;
        assert!(began.elapsed() >= PATIENCE);
        let began = Instant::now();
        for _ in 0..1000 {
            share.turn().await;
        }
        assert!(began.elapsed() < PATIENCE * 1000 / 2, "{:?}", began.elapsed());
        // One that drains is not waited for at all, and this one tells the others.
        slab.row(2).set_connections(1);
        slab.row(2).set_draining(1);
        assert_eq!(own.other_adopters().count(), 0);
        assert_eq!(slab.row(0).adopts(), 1);
        own.drains();
        assert_eq!(slab.row(0).adopts(), 0);
        let turn = tokio::time::timeout(LOOK * 10, share.turn());
        assert!(turn.await.is_err(), "it is marked");
    }
}
