//! Forks: new children, and the ones that are due because others died.

use crate::protocol::template::Kind;
use serde::{Deserialize, Serialize};

use super::Core;
use super::action::{Action, Source};
use super::child::{Child, Purpose, State};
use super::event::{ChildId, Generation, Millis};
use super::generation::{GenerationState, Template};

/// A child that is to be forked in the place of one that died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Respawn {
    pub(super) due: Millis,
    pub(super) generation: Generation,
    pub(super) queue: Generation,
    pub(super) kind: Kind,
    pub(super) worker_id: u32,
    pub(super) purpose: Purpose,
}

impl Core {
    /// Has a child forked, as soon as there is a template for it.
    pub(super) fn fork(
        &mut self,
        generation: Generation,
        queue: Generation,
        kind: Kind,
        worker_id: u32,
        purpose: Purpose,
    ) {
        let template = self.generations.get(&generation).map(|it| it.template);
        if template != Some(Template::Loaded) {
            let due = self.now;
            self.respawns.push(Respawn { due, generation, queue, kind, worker_id, purpose });
            return;
        }
        let id = self.next_child;
        self.next_child += 1;
        let ready_by = (purpose != Purpose::Reload).then(|| self.now + self.patience(generation));
        self.children.insert(
            id,
            Child {
                id,
                generation,
                queue,
                kind,
                worker_id,
                purpose,
                state: State::Forking,
                pid: None,
                serving_since: None,
                failure: None,
                order: None,
                ready_by,
                stuck: None,
            },
        );
        self.out.push(Action::Fork { child: id, generation, kind, worker_id, queue });
    }

    /// Has a place taken again at once, as soon as there is a template for it.
    pub(super) fn respawn_now(
        &mut self,
        generation: Generation,
        queue: Generation,
        kind: Kind,
        worker_id: u32,
    ) {
        let (due, purpose) = (self.now, Purpose::Respawn);
        self.respawns.push(Respawn { due, generation, queue, kind, worker_id, purpose });
    }

    /// When a respawn can go ahead; None while it has to wait for its template.
    pub(super) fn respawn_due(&self, respawn: &Respawn) -> Option<Millis> {
        match self.generations.get(&respawn.generation).map(|it| it.template) {
            Some(Template::Loaded) => Some(respawn.due),
            Some(Template::Gone { retry_at }) => Some(retry_at.max(respawn.due)),
            _ => None,
        }
    }

    /// Forks what is due, and executes a template again where one is missing for that.
    pub(super) fn fork_what_is_due(&mut self) {
        let respawns = std::mem::take(&mut self.respawns);
        for respawn in respawns {
            let due = self.respawn_due(&respawn).is_some_and(|due| due <= self.now);
            let template = self.generations.get(&respawn.generation).map(|it| it.template);
            match template {
                None | Some(Template::Leaving { .. }) => {}
                Some(Template::Loaded) if due => self.fork(
                    respawn.generation,
                    respawn.queue,
                    respawn.kind,
                    respawn.worker_id,
                    respawn.purpose,
                ),
                Some(Template::Gone { .. }) if due => {
                    self.execute_again(respawn.generation);
                    self.respawns.push(respawn);
                }
                Some(_) => self.respawns.push(respawn),
            }
        }
    }

    /// Executes the template of a living generation once more, from what the generation holds.
    pub(super) fn execute_again(&mut self, generation: Generation) {
        let loaded_by = self.now + self.patience(generation);
        if let Some(state) = self.generations.get_mut(&generation) {
            state.template = Template::Starting;
            state.failure = None;
            state.loaded_by = Some(loaded_by);
            self.out.push(Action::SpawnTemplate { generation, source: Source::Held });
        }
    }

    /// A template has forked a child, or a hook.
    pub(super) fn forked(&mut self, child: ChildId, pid: i32) {
        if let Some(child) = self.children.get_mut(&child) {
            child.forked(pid);
        }
    }

    /// A child, or a hook, could not be forked: as if it had died.
    pub(super) fn not_forked(&mut self, id: ChildId, reason: String) {
        let child = self.children.get(&id).filter(|it| it.is_staying()).cloned();
        if let Some(child) = child {
            self.count_crash(&child, &format!("could not be forked: {reason}"));
        }
        self.unborn(id, reason);
    }

    /// The same, for a reason that is not the release's.
    pub(super) fn unborn(&mut self, id: ChildId, reason: String) {
        if self.hooks.contains_key(&id) {
            self.hook_gone(id, Some(format!("could not run: {reason}")));
        } else if let Some(child) = self.children.remove(&id)
            && child.is_staying()
        {
            self.died(child, &format!("could not be forked: {reason}"), false);
        }
    }

    /// A child has become ready.
    pub(super) fn ready(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.ready() && child.purpose != Purpose::Reload {
            child.open();
            self.out.push(Action::Serve { child: id });
        }
    }

    /// A child accepts.
    pub(super) fn serving(&mut self, id: ChildId) {
        let now = self.now;
        let Some(child) = self.children.get_mut(&id) else { return };
        if !child.serving(now) {
            return;
        }
        if let Purpose::Successor { of } = child.purpose {
            child.purpose = Purpose::Respawn;
            self.drain_replaced(of);
        }
    }

    /// Numbers a new generation and has its release executed.
    pub(super) fn new_generation(&mut self, overrides: Vec<String>) -> Generation {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.generations.insert(generation, GenerationState::starting());
        self.out.push(Action::SpawnTemplate { generation, source: Source::Disk { overrides } });
        generation
    }
}
