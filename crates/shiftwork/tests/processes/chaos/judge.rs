//! What the clients saw, and whether that is allowed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Something that a client was not to see.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) at: Instant,
    pub(super) client: &'static str,
    pub(super) what: String,
    /// Who answered last on this connection.
    pub(super) pid: Option<i32>,
}

/// A worker that was killed, and what it had in hand.
#[derive(Debug, Clone)]
pub(super) struct Death {
    pub(super) at: Instant,
    pub(super) pid: i32,
    pub(super) connections: u64,
}

/// So long after a death its clients learn of it.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Connections that may come to a worker between the look at it and its death.
const ARRIVALS: u64 = 16;

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Witness {
    over: AtomicBool,
    answered: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<Failure>>,
    deaths: Mutex<Vec<Death>>,
}

impl Witness {
    /// Clients go home after their round.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self, client: &'static str) {
        *self.answered.lock().unwrap().entry(client).or_default() += 1;
    }

    pub(super) fn answers(&self) -> BTreeMap<&'static str, u64> {
        self.answered.lock().unwrap().clone()
    }

    pub(super) fn failed(&self, client: &'static str, what: String, pid: Option<i32>) {
        // A server that answers nobody would fill the memory.
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 10_000 {
            failures.push(Failure { at: Instant::now(), client, what, pid });
        }
    }

    pub(super) fn died(&self, death: Death) {
        self.deaths.lock().unwrap().push(death);
    }

    pub(super) fn failures(&self) -> usize {
        self.failures.lock().unwrap().len()
    }

    pub(super) fn deaths(&self) -> usize {
        self.deaths.lock().unwrap().len()
    }

    /// What no death of a worker explains: a failure belongs to the latest death before it, must
    /// not come long after, and there are no more than the worker had connections.
    pub(super) fn unexplained(&self) -> Vec<String> {
        let failures = self.failures.lock().unwrap();
        let deaths = self.deaths.lock().unwrap();
        let mut spent: BTreeMap<usize, u64> = BTreeMap::new();
        let mut wrong = Vec::new();
        for failure in failures.iter() {
            let near = |death: &Death| {
                failure.at >= death.at && failure.at.duration_since(death.at) < AFTERMATH
            };
            // The victim's own clients know its pid; others were on their way to it.
            let own = deaths.iter().rposition(|it| near(it) && failure.pid == Some(it.pid));
            let cause = own.or_else(|| deaths.iter().rposition(near));
            let Some(cause) = cause else {
                wrong.push(format!("{}: {}", failure.client, failure.what));
                continue;
            };
            let count = spent.entry(cause).or_default();
            *count += 1;
            if *count > deaths[cause].connections + ARRIVALS {
                wrong.push(format!(
                    "{}: {} (the worker that died, {}, had {} connections)",
                    failure.client, failure.what, deaths[cause].pid, deaths[cause].connections
                ));
            }
        }
        wrong
    }
}

#[test]
fn a_failure_needs_a_death_and_a_death_explains_only_so_many() {
    let witness = Witness::default();
    witness.failed("client", "before".into(), None);
    assert_eq!(witness.unexplained().len(), 1);
    witness.died(Death { at: Instant::now(), pid: 7, connections: 1 });
    for _ in 0..=ARRIVALS {
        witness.failed("client", "after".into(), Some(7));
    }
    assert_eq!(witness.unexplained().len(), 1);
    witness.failed("client", "one too many".into(), Some(7));
    assert_eq!(witness.unexplained().len(), 2);
}
