//! Earlier releases whose templates stay, idle: what there is to go back to.

use serde::{Deserialize, Serialize};

use super::Core;
use super::event::Generation;

/// The generations that workers and task workers are forked from; after USR2 they are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) workers: Generation,
    pub(super) tasks: Generation,
}

impl Pair {
    pub(super) fn has(self, generation: Generation) -> bool {
        self.workers == generation || self.tasks == generation
    }
}

impl Core {
    /// What is in force.
    pub(super) fn pair(&self) -> Option<Pair> {
        let (workers, tasks) = self.in_force()?;
        Some(Pair { workers, tasks })
    }

    /// Whether this generation's template stays although nothing is forked from it.
    pub fn is_parked(&self, generation: Generation) -> bool {
        self.parked.iter().any(|it| it.has(generation))
    }

    /// What a rollback would go back to.
    pub(super) fn newest_parked(&self) -> Option<Pair> {
        self.parked.last().copied()
    }

    /// As many stay as the settings say; the one that an observed generation can be taken back to in
    /// any case.
    pub(super) fn trim_parked(&mut self) {
        let set = self.settings().map_or(0, |it| it.keep_releases as usize);
        let most = set.max(usize::from(self.observation.is_some()));
        let surplus = self.parked.len().saturating_sub(most);
        self.parked.drain(..surplus);
    }
}
