//! The status, put together from what the core knows and what the processes count.

use std::collections::BTreeMap;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::fd;
use shiftwork_sys::slab::Row;

use crate::control::latency::Latency;
use crate::control::status::{ListenerStatus, ProcessStatus, ReleaseStatus, Role, Status, Totals};
use crate::control::{History, Response};
use crate::core::child::{Child, State};
use crate::core::event::{Generation, Millis, Ticket};
use crate::core::generation::{GenerationState, Template};
use crate::protocol::master::FromManager;
use crate::protocol::template::Kind;

use super::{Manager, WORKER_TICKETS};

/// Memory is measured by walking page tables: not more often than this.
const MEMORY_AGE: Millis = 1_000;

/// The last measurement of each process.
#[derive(Debug, Default)]
pub struct MemoryCache {
    taken: Millis,
    bytes: BTreeMap<i32, u64>,
}

impl MemoryCache {
    fn of(&mut self, pid: i32, now: Millis) -> u64 {
        if now.saturating_sub(self.taken) > MEMORY_AGE {
            self.bytes.clear();
            self.taken = now;
        }
        *self
            .bytes
            .entry(pid)
            .or_insert_with(|| shiftwork_sys::process::memory_bytes(pid).unwrap_or(0))
    }
}

impl Manager {
    /// Sends the status to whoever asks.
    pub(super) fn send_status(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let status = self.status();
        if ticket >= WORKER_TICKETS {
            self.answer(ticket, serde_json::to_string(&status).unwrap_or_default());
            return;
        }
        self.send_long(ticket, &Response::Status(Box::new(status)));
    }

    /// Sends what was asked for before.
    pub(super) fn send_history(&mut self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let entries = self.core.history().cloned().collect();
        self.send_long(ticket, &Response::History(History { entries }));
    }

    /// Sends an answer that may not fit into a packet.
    pub(super) fn send_long(&mut self, ticket: Ticket, response: &Response) {
        let file = serde_json::to_vec(response)
            .map_err(std::io::Error::other)
            .and_then(|json| fd::memfd("shiftwork-status", &json));
        match file {
            Ok(file) => self.tell_master(&FromManager::Status { ticket }, vec![file]),
            Err(error) => tracing::error!("cannot answer: {error}"),
        }
    }

    pub(super) fn status(&mut self) -> Status {
        let now = monotonic_ms();
        let generation = self.core.generation();
        let hello = self
            .core
            .generations()
            .find(|(number, _)| *number == generation)
            .and_then(|(_, state)| state.hello.as_ref());
        let release = hello.map(|it| it.release.clone()).unwrap_or_default();
        let listeners = self.listener_status(hello.map_or(&[][..], |it| &it.listeners));
        let processes = self.process_status(now);
        let sums = self.sums();
        let mut totals = Totals {
            requests: sums.requests(),
            tasks: sums.tasks,
            latency: Latency::of(&sums.latency),
            task_latency: Latency::of(&sums.task_latency),
            restarts: self.rows.all_restarts(),
            ..Totals::default()
        };
        for process in &processes {
            totals.in_flight += process.in_flight;
            totals.connections += process.connections;
            totals.memory_bytes += process.memory_bytes;
        }
        Status {
            name: self.name.clone(),
            pid: self.pids.master,
            state: self.core.state().to_owned(),
            progress: self.core.progress().cloned(),
            generation,
            release,
            uptime_ms: now.saturating_sub(self.started_ms),
            listeners,
            releases: self.release_status(),
            processes,
            totals,
        }
    }

    /// Every generation that there is still.
    fn release_status(&self) -> Vec<ReleaseStatus> {
        let held = |(generation, state): (Generation, &GenerationState)| {
            let release = self.releases.get(&generation)?;
            Some(ReleaseStatus {
                generation,
                release: state.hello.as_ref().map(|it| it.release.clone()).unwrap_or_default(),
                state: self.core.standing(generation).to_owned(),
                executable: release.path.display().to_string(),
                digest: release.digest.known().map(str::to_owned),
                started_ms: release.opened_ms,
            })
        };
        self.core.generations().filter_map(held).collect()
    }

    fn listener_status(
        &self,
        specs: &[crate::protocol::template::ListenerSpec],
    ) -> Vec<ListenerStatus> {
        let bound = self.listeners.get(&self.core.generation());
        specs
            .iter()
            .map(|spec| {
                let real = bound
                    .and_then(|listeners| listeners.iter().find(|it| it.name == spec.name))
                    .map_or(&spec.address, |it| &it.address);
                ListenerStatus {
                    name: spec.name.clone(),
                    address: real.clone(),
                    protocol: spec.protocol.clone(),
                }
            })
            .collect()
    }

    fn process_status(&mut self, now: Millis) -> Vec<ProcessStatus> {
        let own = |role, pid, state: &str| ProcessStatus {
            role,
            worker_id: None,
            pid: Some(pid),
            generation: None,
            state: state.to_owned(),
            uptime_ms: now.saturating_sub(self.started_ms),
            ..empty()
        };
        let mut all = vec![
            own(Role::Master, self.pids.master, "running"),
            ProcessStatus {
                uptime_ms: now.saturating_sub(self.born_ms),
                restarts: self.deaths,
                ..own(Role::Manager, self.pids.manager, "running")
            },
        ];
        for (number, state) in self.core.generations() {
            let Some(process) = self.processes.templates.get(&number) else { continue };
            all.push(ProcessStatus {
                role: Role::Template,
                pid: Some(process.pid),
                generation: Some(number),
                state: match state.template {
                    Template::Loaded if self.core.is_parked(number) => "parked".to_owned(),
                    other => template_state(other).to_owned(),
                },
                uptime_ms: age(self.slab.row(process.row), now),
                ..empty()
            });
        }
        // One that is still being forked is no process yet.
        let mut children: Vec<&Child> =
            self.core.children().filter(|it| it.pid.is_some()).collect();
        children.sort_by_key(|it| (it.kind, it.worker_id, it.generation, it.id));
        for child in children {
            let row = self.processes.children.get(&child.id).and_then(|it| it.row);
            let mut status = match row {
                Some(row) => counted(child.kind, self.slab.row(row), now),
                None => empty(),
            };
            status.role = match child.kind {
                Kind::Worker => Role::Worker,
                Kind::TaskWorker => Role::TaskWorker,
            };
            status.worker_id = Some(child.worker_id);
            status.pid = child.pid;
            status.generation = Some(child.generation);
            status.state = child_state(child.state).to_owned();
            status.restarts = self.rows.restarts(child.kind, child.worker_id);
            all.push(status);
        }
        for process in &mut all {
            process.memory_bytes = process.pid.map_or(0, |pid| self.memory.of(pid, now));
        }
        all
    }
}

fn empty() -> ProcessStatus {
    ProcessStatus {
        role: Role::Master,
        worker_id: None,
        pid: None,
        generation: None,
        state: String::new(),
        uptime_ms: 0,
        requests: 0,
        in_flight: 0,
        connections: 0,
        tasks: 0,
        memory_bytes: 0,
        restarts: 0,
        latency: None,
    }
}

fn counted(kind: Kind, row: &Row, now: Millis) -> ProcessStatus {
    let timed = match kind {
        Kind::Worker => &row.counts.latency,
        Kind::TaskWorker => &row.counts.task_latency,
    };
    ProcessStatus {
        uptime_ms: age(row, now),
        requests: row.counts.requests(),
        in_flight: row.in_flight(),
        connections: row.connections(),
        tasks: row.counts.tasks(),
        latency: Latency::of(&timed.read()),
        ..empty()
    }
}

fn age(row: &Row, now: Millis) -> u64 {
    now.saturating_sub(row.started_ms())
}

fn template_state(template: Template) -> &'static str {
    match template {
        Template::Starting | Template::Binding => "starting",
        Template::Loading => "loading",
        Template::Loaded => "ready",
        Template::Leaving { .. } => "leaving",
        Template::Gone { .. } => "gone",
    }
}

fn child_state(state: State) -> &'static str {
    match state {
        State::Forking | State::Starting => "starting",
        State::Ready | State::Opening => "ready",
        State::Serving => "serving",
        State::Draining { .. } => "draining",
        State::Killed => "killed",
    }
}
