//! A reload or a change of number, slot by slot: what has become of each process since those who wait
//! were told last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::template::Kind;

use super::action::Action;
use super::child::{Child, State};
use super::event::{ChildId, Generation, Ticket};
use super::outcome::Progress;
use super::upgrade::UPGRADING;
use super::{Core, Phase};

/// Where a process is in its life, as far as whoever watches is interested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// It is being forked, or in `on_worker_start`.
    Starting,
    /// `on_worker_start` has returned.
    Ready,
    /// It accepts.
    Serving,
    /// It finishes what it has in hand.
    Draining,
    /// It has ended, or is about to.
    Gone,
    /// Something that only another version knows.
    #[serde(other)]
    Unknown,
}

impl From<State> for SlotState {
    fn from(state: State) -> Self {
        match state {
            State::Forking | State::Starting => Self::Starting,
            State::Ready | State::Opening => Self::Ready,
            State::Serving => Self::Serving,
            State::Draining { .. } => Self::Draining,
            State::Killed => Self::Gone,
        }
    }
}

/// A process that has changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its generation.
    pub generation: Generation,
    /// What it is.
    pub role: Kind,
    /// Its worker id.
    pub worker_id: u32,
    /// Where it is now.
    pub state: SlotState,
}

/// What has been told, or would have been if anybody waited.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    slots: BTreeMap<ChildId, Slot>,
    /// The last report, without its slots.
    last: Option<Progress>,
}

impl Core {
    /// Something begins: the slots are told from where they are now.
    pub(super) fn begin_telling(&mut self) {
        self.told = Told::default();
        self.changed_slots();
    }

    /// Tells those who wait how far it is.
    pub(super) fn tell_progress(&mut self, progress: Progress) {
        let tickets = self.running_tickets();
        self.told.last = Some(progress.clone());
        if !tickets.is_empty() {
            let slots = self.changed_slots();
            self.out.push(Action::Progress { tickets, progress: Progress { slots, ..progress } });
        }
    }

    /// Tells those who wait which slots have changed since.
    pub(super) fn tell_slots(&mut self) {
        let tickets = self.running_tickets();
        if tickets.is_empty() {
            return;
        }
        let Some(last) = self.told.last.clone() else { return };
        let slots = self.changed_slots();
        if !slots.is_empty() {
            self.out.push(Action::Progress { tickets, progress: Progress { slots, ..last } });
        }
    }

    /// How far it is with what goes on, whoever has asked for it, without the slots. None: nothing does,
    /// or nothing is known yet.
    pub fn progress(&self) -> Option<&Progress> {
        let last = self.told.last.as_ref()?;
        let fits = match &self.phase {
            Phase::Idle => self.observation.is_some() && last.phase == "observing",
            Phase::Scaling(_) => last.phase == "scaling",
            Phase::Upgrading(_) => last.phase.starts_with(UPGRADING),
            other => other.run()?.generation == last.generation,
        };
        fits.then_some(last)
    }

    /// Those who wait for what goes on.
    fn running_tickets(&self) -> Vec<Ticket> {
        let waiters = match &self.phase {
            Phase::Scaling(scaling) => &scaling.waiters,
            Phase::Upgrading(upgrade) => &upgrade.request.waiters,
            Phase::Idle => match &self.observation {
                Some(observation) => &observation.run.waiters,
                None => return Vec::new(),
            },
            other => match other.run() {
                Some(run) => &run.waiters,
                None => return Vec::new(),
            },
        };
        waiters.iter().map(|waiter| waiter.ticket).collect()
    }

    /// Notes where all processes are, and gives those that have been elsewhere.
    fn changed_slots(&mut self) -> Vec<Slot> {
        let slot = |it: &Child| Slot {
            generation: it.generation,
            role: it.kind,
            worker_id: it.worker_id,
            state: it.state.into(),
        };
        let now: BTreeMap<ChildId, Slot> =
            self.children.values().map(|it| (it.id, slot(it))).collect();
        let before = std::mem::take(&mut self.told.slots);
        let gone = |slot: &Slot| Slot { state: SlotState::Gone, ..*slot };
        let mut changed: Vec<Slot> = before
            .iter()
            .filter(|(id, slot)| !now.contains_key(id) && slot.state != SlotState::Gone)
            .map(|(_, slot)| gone(slot))
            .collect();
        changed
            .extend(now.iter().filter(|(id, slot)| before.get(id) != Some(slot)).map(|it| *it.1));
        changed.sort_by_key(|it| (it.generation, it.role, it.worker_id));
        self.told.slots = now;
        changed
    }
}
