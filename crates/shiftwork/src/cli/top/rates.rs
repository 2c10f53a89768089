//! What happens in a second, from two looks.

use std::collections::BTreeMap;
use std::time::Instant;

use shiftwork_supervisor::control::latency::Latency;
use shiftwork_supervisor::control::status::{ProcessStatus, Status};

/// A look at the server.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) status: Status,
}

/// Of one process, or of all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    /// Requests answered, per second.
    pub(super) requests: f64,
    /// Tasks done, per second.
    pub(super) tasks: f64,
    /// How long these took: requests, or tasks of a task worker.
    pub(super) latency: Option<Latency>,
}

/// By pid; processes that were not there before have none.
pub(super) fn of_processes(before: &Look, now: &Look) -> BTreeMap<i32, Rates> {
    let earlier: BTreeMap<i32, &ProcessStatus> =
        before.status.processes.iter().filter_map(|it| Some((it.pid?, it))).collect();
    let rates = |it: &ProcessStatus| {
        let earlier = earlier.get(&it.pid?)?;
        let requests = per_second(before, now, earlier.requests, it.requests);
        let tasks = per_second(before, now, earlier.tasks, it.tasks);
        let latency = timed(earlier.latency.as_ref(), it.latency.as_ref());
        Some((it.pid?, Rates { requests, tasks, latency }))
    };
    now.status.processes.iter().filter_map(rates).collect()
}

/// Of the whole server, those included whose processes are gone.
pub(super) fn of_all(before: &Look, now: &Look) -> Rates {
    let (earlier, later) = (&before.status.totals, &now.status.totals);
    Rates {
        requests: per_second(before, now, earlier.requests, later.requests),
        tasks: per_second(before, now, earlier.tasks, later.tasks),
        latency: timed(earlier.latency.as_ref(), later.latency.as_ref()),
    }
}

fn timed(earlier: Option<&Latency>, later: Option<&Latency>) -> Option<Latency> {
    later?.since(earlier)
}

fn per_second(before: &Look, now: &Look, earlier: u64, later: u64) -> f64 {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    if seconds > 0.0 { later.saturating_sub(earlier) as f64 / seconds } else { 0.0 }
}
