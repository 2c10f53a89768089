//! Looking at processes from outside: whether they turn, and where one stands that does not.

use std::fs;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::slab::{Row, Slab};
use shiftwork_sys::stack;

use crate::core::event::{ChildId, Event};
use crate::core::sample::Sample;

use super::Manager;

/// A process with more threads has only so many of them shown.
const MOST_THREADS: usize = 64;

impl Manager {
    /// Reads the pulses from the slab.
    pub(super) fn look(&mut self, children: Vec<ChildId>) {
        let beats = children
            .into_iter()
            .filter_map(|child| {
                let row = self.processes.children.get(&child)?.row?;
                Some((child, self.slab.row(row).heartbeat_ms()))
            })
            .collect();
        self.events.push_back(Event::Looked { beats });
    }

    /// Reads the counters from the slab.
    pub(super) fn measure(&mut self, children: Vec<ChildId>) {
        let samples = children
            .into_iter()
            .filter_map(|child| {
                let row = self.processes.children.get(&child)?.row?;
                Some((child, counted(self.slab.row(row))))
            })
            .collect();
        self.events.push_back(Event::Measured { samples });
    }

    /// Writes down what a stuck process has in hand and what the kernel tells of it, and has the
    /// process itself write its stacks, in names, to the log; then it ends itself.
    pub(super) fn inspect(&mut self, child: ChildId) {
        let Some(process) = self.processes.children.get(&child) else { return };
        let Some(pid) = process.pid else { return };
        tracing::warn!("pid {pid} has {}", in_hand(&self.slab, process.row));
        for thread in threads(pid) {
            tracing::warn!("{}", describe(pid, thread));
        }
        match stack::ask(pid) {
            Ok(0) => tracing::warn!("pid {pid} cannot show its stacks"),
            Ok(_) => {}
            Err(error) => tracing::warn!("pid {pid} cannot be asked for its stacks: {error}"),
        }
    }
}

fn counted(row: &Row) -> Sample {
    let sums = row.counts.read();
    Sample {
        requests: sums.requests(),
        // A handler that fails in a request is in both.
        failures: sums.failures.max(sums.handler_errors),
        timed: sums.latency.count(),
        spent_us: sums.latency.sum_us,
    }
}

/// What would be lost with a process.
pub(super) fn in_hand(slab: &Slab, row: Option<u32>) -> String {
    let row = row.map(|row| slab.row(row));
    let (requests, oldest) = row.map_or((0, 0), |row| (row.in_flight(), row.oldest_ms()));
    let age = if oldest == 0 { 0 } else { monotonic_ms().saturating_sub(oldest) };
    format!("{requests} requests in hand, the oldest {age} ms old")
}

fn threads(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    ids.take(MOST_THREADS).collect()
}

/// Where a thread stands, as far as the kernel tells this user.
fn describe(pid: i32, thread: i32) -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/{name}"));
        text.ok().map(|it| it.trim().to_owned()).filter(|it| !it.is_empty() && it != "0")
    };
    let state =
        read("stat").and_then(|it| Some(it.rsplit_once(") ")?.1.chars().next()?.to_string()));
    let mut line = format!("pid {pid}, thread {thread}");
    let mut add = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            line.push_str(&format!(", {what} {value}"));
        }
    };
    add("called", read("comm"));
    add("in state", state);
    add("waits in", read("wchan"));
    add("system call", read("syscall"));
    let kernel = read("stack").map(|it| it.lines().map(str::trim).collect::<Vec<_>>().join(" < "));
    add("kernel stack", kernel);
    line
}
