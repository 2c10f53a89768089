//! What a manager writes down before it acts, so that another one can go on when it dies.
//!
//! JSON with defaults: a manager of the next version reads what this one wrote, and this one what the
//! next wrote, as far as both know it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::core::action::Action;
use crate::core::event::{ChildId, Generation, Millis, Ticket};
use crate::core::outcome::Outcome;
use crate::protocol::template::Snapshot;
use crate::versions;

use super::process::Process;
use super::rows::Rows;
use super::{Asker, Manager, WORKER_TICKETS, upgrade};

/// A template's process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SavedTemplate {
    pub(super) pid: i32,
    pub(super) row: u32,
}

/// A child's or a hook's process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SavedProcess {
    pub(super) generation: Generation,
    pub(super) queue: Option<Generation>,
    pub(super) pid: Option<i32>,
    pub(super) row: Option<u32>,
    pub(super) reply: Option<u32>,
    pub(super) doomed: bool,
}

impl From<&Process> for SavedProcess {
    fn from(it: &Process) -> Self {
        Self {
            generation: it.generation,
            queue: it.queue,
            pid: it.pid,
            row: it.row,
            reply: it.reply,
            doomed: it.doomed,
        }
    }
}

/// An answer that may not have been sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedAnswer {
    pub(super) tickets: Vec<Ticket>,
    pub(super) outcome: Outcome,
}

/// Everything but the descriptors, as it is read.
#[derive(Debug, Deserialize)]
pub struct Saved {
    pub(super) version: u32,
    pub(super) core: Core,
    pub(super) templates: BTreeMap<Generation, SavedTemplate>,
    pub(super) processes: BTreeMap<ChildId, SavedProcess>,
    pub(super) rows: Rows,
    pub(super) releases: BTreeMap<Generation, PathBuf>,
    /// When each was opened, by the wall clock.
    #[serde(default)]
    pub(super) opened: BTreeMap<Generation, u64>,
    pub(super) snapshot: Snapshot,
    pub(super) listening: Vec<Generation>,
    pub(super) latest: Generation,
    pub(super) askers: BTreeMap<Ticket, Asker>,
    pub(super) next_ticket: Ticket,
    pub(super) started_ms: Millis,
    #[serde(default)]
    pub(super) answers: Vec<SavedAnswer>,
    #[serde(default)]
    pub(super) probe: Option<i32>,
}

/// The same, as it is written.
#[derive(Serialize)]
struct Writing<'a> {
    version: u32,
    core: &'a Core,
    templates: BTreeMap<Generation, SavedTemplate>,
    processes: BTreeMap<ChildId, SavedProcess>,
    rows: &'a Rows,
    releases: BTreeMap<Generation, &'a Path>,
    opened: BTreeMap<Generation, u64>,
    snapshot: &'a Snapshot,
    listening: Vec<Generation>,
    latest: Generation,
    askers: &'a BTreeMap<Ticket, Asker>,
    next_ticket: Ticket,
    started_ms: Millis,
    answers: Vec<SavedAnswer>,
    probe: Option<i32>,
}

impl Saved {
    /// Reads what another manager wrote.
    ///
    /// # Errors
    /// If it is of a version that this one would misunderstand.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let saved: Self =
            serde_json::from_slice(text).map_err(|error| format!("it cannot be read: {error}"))?;
        versions::check(saved.version)?;
        Ok(saved)
    }
}

impl Manager {
    /// Writes down where everything stands, and the answers among what is about to be done.
    pub(super) fn save(&mut self, actions: &[Action]) {
        if let Err(error) = self.try_save(actions) {
            tracing::error!("cannot write down where things stand: {error}");
        }
    }

    /// The same, for whoever cannot go on without.
    pub(super) fn try_save(&mut self, actions: &[Action]) -> std::io::Result<()> {
        let written = serde_json::to_vec(&Writing {
            version: versions::NEWEST,
            core: &self.core,
            templates: (self.processes.templates.iter())
                .map(|(number, it)| (*number, SavedTemplate { pid: it.pid, row: it.row }))
                .collect(),
            processes: (self.processes.children.iter())
                .map(|(number, it)| (*number, SavedProcess::from(it)))
                .collect(),
            rows: &self.rows,
            releases: (self.releases.iter())
                .map(|(number, it)| (*number, it.path.as_path()))
                .collect(),
            opened: self.releases.iter().map(|(number, it)| (*number, it.opened_ms)).collect(),
            snapshot: &self.snapshot,
            listening: self.listeners.keys().copied().collect(),
            latest: self.latest,
            askers: &self.askers,
            next_ticket: self.next_ticket,
            started_ms: self.started_ms,
            answers: answers(actions),
            probe: self.upgrade.as_ref().and_then(upgrade::NewProgram::probe),
        });
        self.journal.write(written?)
    }
}

/// Those to the master; workers ask again.
fn answers(actions: &[Action]) -> Vec<SavedAnswer> {
    let answer = |action: &Action| match action {
        Action::Finish { tickets, outcome } | Action::Answer { tickets, outcome } => {
            let tickets: Vec<_> =
                tickets.iter().copied().filter(|it| *it < WORKER_TICKETS).collect();
            (!tickets.is_empty()).then(|| SavedAnswer { tickets, outcome: outcome.clone() })
        }
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::core::event::{Event, Scope, Until};
    use serde_json::{Value, json};

    const FIRST: &[u8] = include_bytes!("../../fixtures/state-1/manager.json");

    /// Written by a manager with a draining generation 1, a serving generation 3, and a probe.
    #[test]
    fn what_the_first_version_wrote_can_be_gone_on_from() {
        let mut saved = Saved::read(FIRST).unwrap();
        assert_eq!(saved.processes.len(), saved.core.numbers().count());
        assert_eq!(saved.releases.keys().copied().collect::<Vec<_>>(), [1, 3]);
        let (now, ticket) = (27_700_100, Some(77));
        let taken_up = Event::TakenUp { manager: 4991, planned: false, nameless: Vec::new() };
        let actions = saved.core.on(taken_up, now);
        let failed = |it: &Action| matches!(it, Action::Finish { .. });
        assert!(actions.iter().any(failed), "{actions:?}");
        let actions = saved.core.on(
            Event::Reload {
                ticket,
                scope: Scope::All,
                overrides: Vec::new(),
                until: Until::default(),
            },
            now,
        );
        let executed = |it: &Action| matches!(it, Action::SpawnTemplate { generation: 4, .. });
        assert!(actions.iter().any(executed), "{actions:?}");
    }

    /// What is missing or another in `read` of what was `written`. A field that may be absent does not
    /// fail the reading under a new name: it is lost in silence.
    fn lost(written: &Value, read: &Value, at: &str, all: &mut Vec<String>) {
        match written {
            Value::Object(fields) => fields.iter().for_each(|(name, it)| {
                lost(it, &read[name.as_str()], &format!("{at}.{name}"), all)
            }),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(index, it)| lost(it, &read[index], &format!("{at}.{index}"), all)),
            Value::Null => {}
            written if written == read => {}
            written => all.push(format!("{at}: {written} is {read}")),
        }
    }

    #[test]
    fn nothing_of_what_the_first_version_wrote_is_lost() {
        let written: Value = serde_json::from_slice(FIRST).unwrap();
        let saved = Saved::read(FIRST).unwrap();
        let read = json!({
            "version": saved.version,
            "core": saved.core,
            "templates": saved.templates,
            "processes": saved.processes,
            "rows": saved.rows,
            "releases": saved.releases,
            "snapshot": saved.snapshot,
            "listening": saved.listening,
            "latest": saved.latest,
            "askers": saved.askers,
            "next_ticket": saved.next_ticket,
            "started_ms": saved.started_ms,
            "answers": saved.answers,
            "probe": saved.probe,
        });
        let mut all = Vec::new();
        lost(&written, &read, "saved", &mut all);
        assert_eq!(all, [""; 0]);
    }

    #[test]
    fn unknown_fields_are_left_out_and_unknown_versions_refused() {
        let mut value: serde_json::Value = serde_json::from_slice(FIRST).unwrap();
        value["later"] = 1.into();
        value["core"]["later"] = serde_json::json!({ "a": [1] });
        Saved::read(&serde_json::to_vec(&value).unwrap()).unwrap();
        value["version"] = 99.into();
        let refused = Saved::read(&serde_json::to_vec(&value).unwrap()).unwrap_err();
        assert!(refused.contains("99"), "{refused}");
    }
}
