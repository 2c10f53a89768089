//! Single processes that are to be replaced while nothing else changes: one worker and one task worker
//! at a time, so that it is never felt.

use serde::{Deserialize, Serialize};

use crate::protocol::template::Kind;
use crate::protocol::worker::RetireCause;

use super::child::{Child, Purpose};
use super::event::ChildId;
use super::forks::Respawn;
use super::{Core, Phase};

/// A child that is to be replaced when it is its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retirement {
    child: ChildId,
    #[serde(default)]
    cause: RetireCause,
    reason: String,
}

impl Core {
    /// A child asks to be replaced: it waits for its turn.
    pub(super) fn retire_asked(&mut self, id: ChildId, cause: RetireCause, reason: String) {
        let serves = self.children.get(&id).is_some_and(Child::is_serving);
        let waits = self.retirements.iter().any(|it| it.child == id);
        if serves && !waits && !self.has_successor(id) && !self.is_stopping() {
            self.retirements.push(Retirement { child: id, cause, reason });
        }
    }

    /// Forks a successor for whoever is next; drained is a child when its successor serves.
    pub(super) fn advance_retirements(&mut self) {
        if self.retirements.is_empty() {
            return;
        }
        if self.is_stopping() {
            self.retirements.clear();
            return;
        }
        for retirement in std::mem::take(&mut self.retirements) {
            let Some(child) = self.children.get(&retirement.child) else { continue };
            if !child.is_serving() || self.has_successor(child.id) {
                continue;
            }
            // Whoever has to prove something does it first.
            let runs = self.phase.run().is_some_and(|run| run.generation == child.generation);
            if runs || self.is_replacing(child.kind) {
                self.retirements.push(retirement);
                continue;
            }
            let line = format!("{} retires: {}", child.name(), retirement.reason);
            let respawn = Respawn {
                due: self.now,
                generation: child.generation,
                queue: child.queue,
                kind: child.kind,
                worker_id: child.worker_id,
                purpose: Purpose::Successor { of: child.id },
            };
            self.tally.respawned(respawn.kind, retirement.cause.into());
            self.log(line);
            self.respawns.push(respawn);
        }
    }

    fn has_successor(&self, id: ChildId) -> bool {
        let purpose = Purpose::Successor { of: id };
        self.children.values().any(|it| it.purpose == purpose && it.is_staying())
            || self.respawns.iter().any(|it| it.purpose == purpose)
    }

    /// Whether a child of this kind is being replaced by a successor.
    fn is_replacing(&self, kind: Kind) -> bool {
        let successor = |purpose: Purpose| matches!(purpose, Purpose::Successor { .. });
        self.children.values().any(|it| it.kind == kind && successor(it.purpose) && it.is_staying())
            || self.respawns.iter().any(|it| it.kind == kind && successor(it.purpose))
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_))
    }
}
