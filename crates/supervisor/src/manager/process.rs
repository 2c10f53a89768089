//! The manager's side of each process: descriptors, pid and row. No decisions.

use std::collections::BTreeMap;

use crate::core::event::{ChildId, Ended, Generation};
use crate::line::Line;

use super::output::OutputPipe;

/// A template's process.
#[derive(Debug)]
pub struct TemplateProcess {
    /// Its pid.
    pub pid: i32,
    /// Its control socket; None once it has closed.
    pub line: Option<Line>,
    /// What it writes until it is loaded.
    pub output: Option<OutputPipe>,
    /// Its row in the slab.
    pub row: u32,
}

/// The process of a worker, a task worker or a hook.
#[derive(Debug)]
pub struct Process {
    /// Its generation.
    pub generation: Generation,
    /// The generation whose queue it uses; None for hooks.
    pub queue: Option<Generation>,
    /// Its pid, once the template has said it.
    pub pid: Option<i32>,
    /// Its control socket; hooks have none.
    pub line: Option<Line>,
    /// What it writes until it is ready.
    pub output: Option<OutputPipe>,
    /// Its row in the slab; hooks have none.
    pub row: Option<u32>,
    /// Its reply socket.
    pub reply: Option<u32>,
    /// To be killed as soon as its pid is known.
    pub doomed: bool,
}

/// All processes below the manager.
#[derive(Debug, Default)]
pub struct Processes {
    /// By generation.
    pub templates: BTreeMap<Generation, TemplateProcess>,
    /// By the core's number.
    pub children: BTreeMap<ChildId, Process>,
    /// Ends of processes whose pid nobody has named yet.
    unclaimed: BTreeMap<i32, Ended>,
}

/// Whose end was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A template's.
    Template(Generation),
    /// A child's or a hook's.
    Child(ChildId),
    /// Nobody's, so far.
    Unknown,
}

impl Processes {
    /// The sockets of all that have one.
    pub fn lines(&self) -> Vec<&Line> {
        let templates = self.templates.values().filter_map(|it| it.line.as_ref());
        templates.chain(self.children.values().filter_map(|it| it.line.as_ref())).collect()
    }

    /// Whose pid this is. An unknown one is remembered while forks are under way: the death of a
    /// child can be learned before its birth.
    pub fn reaped(&mut self, pid: i32, ended: Ended) -> Whose {
        let template = self.templates.iter().find(|(_, it)| it.pid == pid);
        if let Some((generation, _)) = template {
            return Whose::Template(*generation);
        }
        if let Some((child, _)) = self.children.iter().find(|(_, it)| it.pid == Some(pid)) {
            return Whose::Child(*child);
        }
        if self.children.values().any(|it| it.pid.is_none()) {
            self.unclaimed.insert(pid, ended);
        }
        Whose::Unknown
    }

    /// Notes a pid, and tells how the process ended if it has already.
    pub fn named(&mut self, child: ChildId, pid: i32) -> Option<Ended> {
        let process = self.children.get_mut(&child)?;
        process.pid = Some(pid);
        let ended = self.unclaimed.remove(&pid);
        if self.children.values().all(|it| it.pid.is_some()) {
            self.unclaimed.clear();
        }
        ended
    }
}
