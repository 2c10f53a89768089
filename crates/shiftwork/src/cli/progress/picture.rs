//! What progress looks like.

use std::collections::BTreeMap;
use std::fmt;

use shiftwork_supervisor::control::status::{ProcessStatus, Status};
use shiftwork_supervisor::core::outcome::Progress;
use shiftwork_supervisor::core::slots::{Slot, SlotState};
use shiftwork_supervisor::protocol::template::Kind;

use super::super::output::paint;

/// More slots are only counted.
const MOST_LINES: usize = 16;
/// More slots in a row of which all is the same are not named one by one.
const MOST_NAMED: usize = 4;
/// Of the bar, in characters.
const WIDTH: usize = 24;

/// All that is known, for a terminal.
#[derive(Debug, Default)]
pub(in crate::cli) struct Picture {
    words: String,
    done: u32,
    total: u32,
    /// By kind and worker id: the new process, and the one that it replaces.
    slots: BTreeMap<(Kind, u32), Pair>,
    pub(super) remains: Option<Remains>,
}

#[derive(Debug, Default)]
struct Pair {
    new: Option<SlotState>,
    old: Option<SlotState>,
}

impl Picture {
    pub(in crate::cli) fn update(&mut self, progress: &Progress) {
        self.words = words(progress);
        (self.done, self.total) = (progress.done, progress.total);
        for slot in &progress.slots {
            let pair = self.slots.entry((slot.role, slot.worker_id)).or_default();
            let side =
                if slot.generation == progress.generation { &mut pair.new } else { &mut pair.old };
            *side = Some(slot.state);
        }
    }

    /// The first line, and one a slot.
    pub(in crate::cli) fn draw(&self, colour: bool) -> String {
        let mut lines = vec![self.head(colour)];
        lines.extend(self.remains.map(|it| format!("  {it}")));
        for ((kind, worker_id), pair) in self.slots.iter().take(MOST_LINES) {
            let name = name(*kind, *worker_id);
            let new = pair.new.map_or("-", word);
            let painted = paint(new, code(pair.new), colour);
            let fill = " ".repeat(8_usize.saturating_sub(new.len()));
            let old = pair
                .old
                .map(|it| format!("  the old one: {}", paint(word(it), code(pair.old), colour)));
            let line = format!("  {name:15} {painted}{fill}{}", old.unwrap_or_default());
            lines.push(line.trim_end().to_owned());
        }
        if let Some(more) = self.slots.len().checked_sub(MOST_LINES).filter(|it| *it > 0) {
            lines.push(format!("  and {more} more"));
        }
        lines.join("\n")
    }

    fn head(&self, colour: bool) -> String {
        if self.total == 0 {
            return self.words.clone();
        }
        let filled = WIDTH * self.done.min(self.total) as usize / self.total as usize;
        let bar = format!("{}{}", "━".repeat(filled), " ".repeat(WIDTH - filled));
        format!("{} {} {}/{}", self.words, paint(&bar, "32", colour), self.done, self.total)
    }
}

/// What draining processes still have in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remains {
    pub(super) processes: usize,
    pub(super) in_flight: u64,
    pub(super) connections: u64,
}

impl Remains {
    pub(super) fn of(status: &Status) -> Self {
        let drains = |it: &&ProcessStatus| it.state == "draining";
        let draining: Vec<_> = status.processes.iter().filter(drains).collect();
        Self {
            processes: draining.len(),
            in_flight: draining.iter().map(|it| it.in_flight).sum(),
            connections: draining.iter().map(|it| it.connections).sum(),
        }
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |number: u64, one: &str, more: &str| match number {
            1 => format!("1 {one}"),
            number => format!("{number} {more}"),
        };
        write!(
            f,
            "waiting for {} with {} in hand on {}",
            many(self.processes as u64, "old process", "old processes"),
            many(self.in_flight, "request", "requests"),
            many(self.connections, "connection", "connections")
        )
    }
}

/// A line of its own: what has changed.
pub(in crate::cli) fn line(progress: &Progress) -> String {
    let words = words(progress);
    let count = match progress.total {
        0 => String::new(),
        total => format!(", {}/{total}", progress.done),
    };
    if progress.slots.is_empty() {
        return format!("{words}{count}");
    }
    let alike = |one: &Slot, two: &Slot| {
        (one.generation, one.role, one.state) == (two.generation, two.role, two.state)
            && one.worker_id + 1 == two.worker_id
    };
    let slots: Vec<String> = progress
        .slots
        .chunk_by(alike)
        .flat_map(|run| match run {
            [first, .., last] if run.len() > MOST_NAMED => vec![range(progress, first, last)],
            few => few.iter().map(|it| single(progress, it)).collect(),
        })
        .collect();
    format!("{words}{count}: {}", slots.join(", "))
}

fn single(progress: &Progress, slot: &Slot) -> String {
    format!("{}{} {}", old(progress, slot), name(slot.role, slot.worker_id), word(slot.state))
}

/// Slots of which all is the same.
fn range(progress: &Progress, first: &Slot, last: &Slot) -> String {
    let kind = match first.role {
        Kind::Worker => "workers",
        Kind::TaskWorker => "task workers",
    };
    let (old, state) = (old(progress, first), word(first.state));
    format!("{old}{kind} {} to {} {state}", first.worker_id, last.worker_id)
}

fn old(progress: &Progress, slot: &Slot) -> &'static str {
    if slot.generation == progress.generation { "" } else { "old " }
}

fn name(kind: Kind, worker_id: u32) -> String {
    match kind {
        Kind::Worker => format!("worker {worker_id}"),
        Kind::TaskWorker => format!("task worker {worker_id}"),
    }
}

fn word(state: SlotState) -> &'static str {
    match state {
        SlotState::Starting => "starting",
        SlotState::Ready => "ready",
        SlotState::Serving => "serving",
        SlotState::Draining => "draining",
        SlotState::Gone => "gone",
        SlotState::Unknown => "-",
    }
}

fn code(state: Option<SlotState>) -> &'static str {
    match state {
        Some(SlotState::Serving) => "32",
        Some(SlotState::Ready) => "36",
        Some(SlotState::Starting | SlotState::Draining) => "33",
        _ => "2",
    }
}

fn words(progress: &Progress) -> String {
    let generation = progress.generation;
    match progress.phase.as_str() {
        "waiting" => "waiting for what goes on already".into(),
        "starting" => format!("starting generation {generation}"),
        "proving" => format!("generation {generation} proves itself"),
        "canary" => format!("the canary of generation {generation} serves"),
        "replacing" => format!("replacing with generation {generation}"),
        "observing" => format!("observing generation {generation}"),
        "rolling_back" => format!("rolling generation {generation} back"),
        "upgrading_probing" => "asking the new program".into(),
        "upgrading_manager" => "replacing the manager".into(),
        "upgrading_master" => "replacing the master".into(),
        "draining" => format!("generation {generation} is committed; the old one drains"),
        "scaling" => "scaling".into(),
        other => format!("{other}, generation {generation}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(phase: &str, done: u32, total: u32, slots: Vec<Slot>) -> Progress {
        Progress { phase: phase.into(), generation: 2, done, total, slots }
    }

    fn slot(generation: u64, worker_id: u32, state: SlotState) -> Slot {
        let role = if worker_id > 1 { Kind::TaskWorker } else { Kind::Worker };
        Slot { generation, role, worker_id, state }
    }

    #[test]
    fn lines() {
        let at = |phase: &str, done, total| line(&progress(phase, done, total, Vec::new()));
        assert_eq!(at("starting", 1, 4), "starting generation 2, 1/4");
        assert_eq!(at("waiting", 0, 0), "waiting for what goes on already");
        assert_eq!(at("dancing", 0, 1), "dancing, generation 2, 0/1");
        let slots = vec![slot(1, 0, SlotState::Draining), slot(2, 2, SlotState::Ready)];
        assert_eq!(
            line(&progress("replacing", 1, 3, slots)),
            "replacing with generation 2, 1/3: old worker 0 draining, task worker 2 ready"
        );
    }

    #[test]
    fn many_slots_are_one_word() {
        let mut slots: Vec<Slot> = (10..510).map(|id| slot(2, id, SlotState::Starting)).collect();
        slots.extend((510..513).map(|id| slot(1, id, SlotState::Gone)));
        assert_eq!(
            line(&progress("replacing", 1, 503, slots)),
            "replacing with generation 2, 1/503: task workers 10 to 509 starting, \
             old task worker 510 gone, old task worker 511 gone, old task worker 512 gone"
        );
    }

    #[test]
    fn a_picture_remembers() {
        let mut picture = Picture::default();
        let first = vec![slot(2, 0, SlotState::Starting), slot(2, 2, SlotState::Ready)];
        picture.update(&progress("replacing", 1, 3, first));
        let then = vec![slot(1, 0, SlotState::Draining), slot(2, 0, SlotState::Serving)];
        picture.update(&progress("replacing", 3, 3, then));
        let bar = "━".repeat(WIDTH);
        assert_eq!(
            picture.draw(false),
            format!(
                "replacing with generation 2 {bar} 3/3\n  worker 0        serving   the old one: \
                 draining\n  task worker 2   ready"
            )
        );
        assert!(picture.draw(true).contains("\x1b[32mserving\x1b[0m"));
        let many = (3..40).map(|id| slot(2, id, SlotState::Ready)).collect();
        picture.update(&progress("replacing", 3, 40, many));
        assert!(picture.draw(false).ends_with("\n  and 23 more"), "{}", picture.draw(false));
    }

    #[test]
    fn remains() {
        let remains = |processes, in_flight, connections| {
            Remains { processes, in_flight, connections }.to_string()
        };
        assert_eq!(
            remains(1, 1, 2),
            "waiting for 1 old process with 1 request in hand on 2 connections"
        );
        assert_eq!(
            remains(2, 0, 1),
            "waiting for 2 old processes with 0 requests in hand on 1 connection"
        );
    }
}
