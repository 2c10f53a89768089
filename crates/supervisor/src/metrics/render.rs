//! From numbers to text: which metric has which name, labels and meaning.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use serde::Serialize;
use shiftwork_sys::slab::Sums;

use super::families::{Family, Labels, Timed};
use super::{Metrics, WorkerMetrics};
use crate::control::status::Role;
use crate::core::outcome::Verdict;
use crate::core::tally::Cause;
use crate::protocol::template::Kind;

/// Durations are shown for each worker only up to so many of them: a series for each bucket.
const MOST_DETAILED: usize = 128;

/// Writes metrics in the OpenMetrics text format.
#[must_use]
pub fn render(metrics: Metrics) -> String {
    let mut registry = Registry::with_prefix("shiftwork");
    registry.register_collector(Box::new(metrics));
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        self.server(to)?;
        self.totals(to)?;
        self.decisions(to)?;
        self.processes(to)?;
        self.workers(to)
    }
}

impl Metrics {
    fn server(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.status;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mut info = Family::gauge(
            to,
            "build_info",
            "The server: its name, the release that serves, and Shiftwork's version.",
        )?;
        info.set(
            &labels([
                ("name", status.name.clone()),
                ("release", status.release.clone()),
                ("version", version),
            ]),
            1,
        )?;
        let none = Labels::default();
        Family::gauge(to, "generation", "The generation that serves; 0: none yet.")?
            .set(&none, status.generation)?;
        Family::gauge(to, "uptime_seconds", "Since the start of the server.")?
            .set_seconds(&none, status.uptime_ms)?;
        let mut queue = Family::gauge(
            to,
            "accept_queue_connections",
            "Connections of a TCP listener that wait to be accepted, by the slot whose socket it is.",
        )?;
        for it in &self.queues {
            let labels = labels([("listener", it.listener.clone()), ("slot", it.slot.to_string())]);
            queue.set(&labels, it.waiting.into())?;
        }
        Ok(())
    }

    fn totals(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (sums, none) = (&self.sums, Labels::default());
        let mut requests = Family::counter(to, "requests", REQUESTS)?;
        for (class, count) in classes(sums) {
            requests.count(&labels([("class", class.to_owned())]), count)?;
        }
        Family::histogram(to, "request_duration_seconds", DURATION)?
            .observe(&none, &Timed::from(&sums.latency))?;
        Family::counter(to, "handler_errors", ERRORS)?.count(&none, sums.handler_errors)?;
        let flight = self.of(Role::Worker).map(|it| it.in_flight).sum();
        Family::gauge(to, "requests_in_flight", "Requests in hand.")?.set(&none, flight)?;
        let open = self.of(Role::Worker).map(|it| it.connections).sum();
        Family::gauge(to, "connections", "Connections open.")?.set(&none, open)?;
        Family::counter(
            to,
            "connections_handed_over",
            "Connections that another worker has taken from one that left.",
        )?
        .count(&none, sums.handed_over)?;
        Family::counter(to, "connections_adopted", "Connections taken from another worker.")?
            .count(&none, sums.adopted)?;
        Family::counter(
            to,
            "hand_over_failures",
            "Connections closed because they could not be handed over or adopted.",
        )?
        .count(&none, sums.hand_over_failures)?;
        let mut tasks = Family::counter(to, "tasks", TASKS)?;
        for (result, count) in results(sums) {
            tasks.count(&labels([("result", result.to_owned())]), count)?;
        }
        Family::histogram(to, "task_duration_seconds", TASK_DURATION)?
            .observe(&none, &Timed::from(&sums.task_latency))?;
        let unanswered: u64 = self.workers.iter().map(|it| it.tasks_unanswered).sum();
        let running: u64 = self.of(Role::TaskWorker).map(|it| it.in_flight).sum();
        Family::gauge(to, "tasks_running", "Tasks that task workers run.")?.set(&none, running)?;
        Family::gauge(
            to,
            "tasks_waiting",
            "Tasks that were sent and that no task worker has taken; up to 0.1 s old.",
        )?
        .set(&none, unanswered.saturating_sub(running))
    }

    fn decisions(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let verdicts = [Verdict::Committed, Verdict::RolledBack, Verdict::Aborted];
        let outcome = |verdict: Verdict| labels([("outcome", word(&verdict))]);
        let mut reloads = Family::counter(to, "reloads", "Reloads by outcome.")?;
        for verdict in verdicts {
            reloads.count(&outcome(verdict), self.tally.reloads(verdict).count())?;
        }
        let mut durations = Family::histogram(
            to,
            "reload_duration_seconds",
            "From a reload's turn to its outcome.",
        )?;
        for verdict in verdicts {
            durations.observe(&outcome(verdict), &Timed::from(&self.tally.reloads(verdict)))?;
        }
        let mut respawns = Family::counter(
            to,
            "respawns",
            "Processes replaced while their generation went on: crash, max_request (of task workers: \
             task_max_request), max_memory, max_lifetime, signal (TERM), stuck; retired: for what \
             only a release of another version knows.",
        )?;
        for kind in [Kind::Worker, Kind::TaskWorker] {
            for cause in Cause::ALL {
                let labels = labels([("role", word(&kind)), ("cause", word(&cause))]);
                respawns.count(&labels, self.tally.respawns(kind, cause))?;
            }
        }
        Family::counter(to, "manager_restarts", "Managers that have died and were replaced.")?
            .count(&Labels::default(), self.manager_deaths)
    }

    fn processes(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut memory = Family::gauge(
            to,
            "process_memory_bytes",
            "Proportional share of memory (PSS) where the kernel tells it, else resident.",
        )?;
        // A process and its successor in the same place are one series.
        let mut places: BTreeMap<_, u64> = BTreeMap::new();
        for process in &self.status.processes {
            let place = (word(&process.role), process.worker_id, process.generation);
            *places.entry(place).or_default() += process.memory_bytes;
        }
        for ((role, worker_id, generation), bytes) in places {
            let worker_id = worker_id.map(|it| it.to_string()).unwrap_or_default();
            let generation = generation.map(|it| it.to_string()).unwrap_or_default();
            let labels =
                labels([("role", role), ("worker_id", worker_id), ("generation", generation)]);
            memory.set(&labels, bytes)?;
        }
        Family::gauge(to, "memory_bytes", "The same of all processes together.")?
            .set(&Labels::default(), self.status.totals.memory_bytes)
    }

    fn workers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut requests = Family::counter(to, "worker_requests", REQUESTS)?;
        for it in self.of(Role::Worker) {
            for (class, count) in classes(&it.sums) {
                requests.count(&it.labels_with("class", class), count)?;
            }
        }
        let mut tasks = Family::counter(to, "worker_tasks", TASKS)?;
        for it in self.of(Role::TaskWorker) {
            for (result, count) in results(&it.sums) {
                tasks.count(&it.labels_with("result", result), count)?;
            }
        }
        let mut errors = Family::counter(to, "worker_handler_errors", ERRORS)?;
        for it in self.of(Role::Worker) {
            errors.count(&it.labels(), it.sums.handler_errors)?;
        }
        let mut flight =
            Family::gauge(to, "worker_in_flight", "Requests of a worker, or tasks, in hand.")?;
        for it in &self.workers {
            flight.set(&it.labels(), it.in_flight)?;
        }
        let mut open = Family::gauge(to, "worker_connections", "Connections of a worker.")?;
        for it in self.of(Role::Worker) {
            open.set(&it.labels(), it.connections)?;
        }
        if self.workers.len() > MOST_DETAILED {
            return Ok(());
        }
        let mut duration = Family::histogram(to, "worker_request_duration_seconds", DURATION)?;
        for it in self.of(Role::Worker) {
            duration.observe(&it.labels(), &Timed::from(&it.sums.latency))?;
        }
        let mut duration = Family::histogram(to, "worker_task_duration_seconds", TASK_DURATION)?;
        for it in self.of(Role::TaskWorker) {
            duration.observe(&it.labels(), &Timed::from(&it.sums.task_latency))?;
        }
        Ok(())
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &WorkerMetrics> {
        self.workers.iter().filter(move |it| it.role == role)
    }
}

const REQUESTS: &str = "Requests by the first digit of their answer's status; none: ended without \
                        an answer; call: a handler of WebSocket or raw TCP.";
const DURATION: &str = "From the end of a request's head until its answer is handed to the \
                        connection, and calls of other handlers.";
const ERRORS: &str = "Handlers that panicked or returned an error.";
const TASKS: &str = "Tasks by result.";
const TASK_DURATION: &str = "From taking a task to answering it.";

impl WorkerMetrics {
    fn labels(&self) -> Labels {
        labels([
            ("role", word(&self.role)),
            ("worker_id", self.worker_id.to_string()),
            ("generation", self.generation.to_string()),
        ])
    }

    fn labels_with(&self, name: &'static str, value: &str) -> Labels {
        self.labels().with(name, value)
    }
}

fn labels<const N: usize>(pairs: [(&'static str, String); N]) -> Labels {
    pairs.into_iter().fold(Labels::default(), |labels, (name, value)| labels.with(name, &value))
}

/// Requests in classes that add up to all of them.
fn classes(sums: &Sums) -> [(&'static str, u64); 7] {
    let answered = [
        ("1xx", sums.informational),
        ("2xx", sums.successes),
        ("3xx", sums.redirects),
        ("4xx", sums.client_errors),
        ("5xx", sums.failures),
        ("call", sums.calls),
    ];
    let known: u64 = answered.iter().map(|(_, count)| count).sum();
    let [a, b, c, d, e, f] = answered;
    [a, b, c, d, e, f, ("none", sums.requests().saturating_sub(known))]
}

fn results(sums: &Sums) -> [(&'static str, u64); 2] {
    [("done", sums.tasks.saturating_sub(sums.tasks_failed)), ("failed", sums.tasks_failed)]
}

/// The word that a value is known by in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
