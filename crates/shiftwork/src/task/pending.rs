//! What a worker has sent and not yet heard of: a table without sockets, clocks or threads.

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::wire::Status;

/// Bits of a task id that are its place in the table; so many tasks can be in hand at once.
const PLACE_BITS: u32 = 20;

/// How often a task is run in all if its task workers die and it may be repeated.
const MAX_RUNS: u8 = 3;

/// A buffer that grew beyond this is given back instead of being kept for the next task.
const KEEP_CAPACITY: usize = 4096;

/// How a task ended, as the future that awaits it learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An answer came; its payload is in the buffer that was passed.
    Replied(Status),
    /// None came in time.
    TimedOut,
    /// The manager says that its task worker died.
    WorkerDied,
    /// The drain's deadline has passed.
    Cut,
    /// Nobody is left who could answer.
    NoTaskWorkers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// In this process, for want of room in the queue.
    Waiting,
    /// In the queue, or in a task worker.
    Sent,
    /// Until its future looks.
    Ended(Verdict),
}

#[derive(Debug)]
struct Slot {
    id: u64,
    state: State,
    name: &'static str,
    started_ms: u64,
    deadline_ms: u64,
    /// The future was dropped, or there never was one.
    detached: bool,
    idempotent: bool,
    runs: u8,
    waker: Option<Waker>,
    /// The packet, while it waits for room or may have to be sent again.
    packet: Vec<u8>,
    answer: Vec<u8>,
}

/// A task that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unanswered {
    pub(crate) name: &'static str,
    pub(crate) started_ms: u64,
}

/// What becomes of a task whose task worker died.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It was answered before, or never was ours.
    NotOurs,
    /// It waits for being sent again: flush.
    Again(&'static str),
    /// It ended.
    Died(Ended),
}

/// Tell whoever waits, outside of the lock.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    /// None: nobody waits, so a failure has to be logged.
    pub(crate) waker: Option<Waker>,
    pub(crate) detached: bool,
    /// How long it was to be waited for.
    pub(crate) timeout: Duration,
    /// Nothing is unanswered any more.
    pub(crate) last: bool,
}

/// The table. Ids carry their place in it, so nothing is searched or hashed.
#[derive(Debug)]
pub(crate) struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    waiting: VecDeque<u64>,
    unanswered: usize,
    sequence: u64,
    /// When [`Pending::expire`] is due; `u64::MAX`: not before something is inserted.
    next_sweep_ms: u64,
    /// Set when the drain's deadline has passed, or nobody is left to answer.
    closed: Option<Verdict>,
}

impl Pending {
    /// `sequence` should be a number that no predecessor on the same reply socket has reached:
    /// microseconds since boot, for nobody sends a task in less than one.
    pub(crate) fn new(sequence: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            unanswered: 0,
            sequence,
            next_sweep_ms: u64::MAX,
            closed: None,
        }
    }

    /// Tasks without an answer, those that wait for room in the queue included.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    pub(crate) fn list(&self) -> Vec<Unanswered> {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.state, State::Waiting | State::Sent))
            .map(|slot| Unanswered { name: slot.name, started_ms: slot.started_ms })
            .collect()
    }

    pub(crate) fn closed(&self) -> Option<Verdict> {
        self.closed
    }

    pub(crate) fn next_sweep_ms(&self) -> u64 {
        self.next_sweep_ms
    }

    /// Whether earlier tasks still wait for room: then later ones have to queue behind them.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A new task, taken for sent. None if the table is full.
    pub(crate) fn insert(&mut self, new: New<'_>) -> Option<Inserted> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.slots.len() < 1 << PLACE_BITS => {
                let place = self.slots.len() as u32;
                self.slots.push(Slot {
                    id: 0,
                    state: State::Free,
                    name: "",
                    started_ms: 0,
                    deadline_ms: 0,
                    detached: false,
                    idempotent: false,
                    runs: 0,
                    waker: None,
                    packet: Vec::new(),
                    answer: Vec::new(),
                });
                place
            }
            None => return None,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let id = (self.sequence << PLACE_BITS) | u64::from(place);
        let slot = &mut self.slots[place as usize];
        slot.id = id;
        slot.state = State::Sent;
        slot.name = new.name;
        slot.started_ms = new.now_ms;
        slot.deadline_ms = new.deadline_ms;
        slot.detached = new.waker.is_none();
        slot.idempotent = new.idempotent;
        slot.runs = 1;
        slot.waker = new.waker.cloned();
        self.unanswered += 1;
        let sooner = new.deadline_ms < self.next_sweep_ms;
        if sooner {
            self.next_sweep_ms = new.deadline_ms;
        }
        Some(Inserted { id, sooner })
    }

    /// Keeps a copy of the packet, to be sent again if its task worker dies.
    pub(crate) fn keep(&mut self, id: u64, packet: &[u8]) {
        if let Some(slot) = self.slot(id) {
            slot.packet.clear();
            slot.packet.extend_from_slice(packet);
        }
    }

    /// The queue had no room: `packet` waits here. Call flush when there is.
    pub(crate) fn wait(&mut self, id: u64, packet: &[u8]) {
        let Some(slot) = self.slot(id) else { return };
        if slot.state != State::Sent {
            return; // ended meanwhile, in another thread
        }
        slot.state = State::Waiting;
        slot.packet.clear();
        slot.packet.extend_from_slice(packet);
        self.waiting.push_back(id);
    }

    /// Forgets a task that could not be sent.
    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(slot) = self.slot(id) {
            if !matches!(slot.state, State::Ended(_)) {
                self.unanswered -= 1;
            }
            self.release(id);
        }
    }

    /// Sends what waits, in order, until `send` says false (no room).
    /// True if nothing waits any more.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(&[u8]) -> bool) -> bool {
        while let Some(&id) = self.waiting.front() {
            if let Some(slot) = self.slot(id)
                && slot.state == State::Waiting
            {
                if !send(&slot.packet) {
                    return false;
                }
                slot.state = State::Sent;
                if !slot.idempotent {
                    clear(&mut slot.packet);
                }
            }
            self.waiting.pop_front();
        }
        true
    }

    /// An answer came. None: to no question of ours, or to one that has ended.
    pub(crate) fn reply(&mut self, id: u64, status: Status, payload: &[u8]) -> Option<Ended> {
        let slot = self.slot(id)?;
        // Waiting too: it was sent again, and the first run's answer came after all.
        if !matches!(slot.state, State::Sent | State::Waiting) {
            return None;
        }
        slot.answer.clear();
        slot.answer.extend_from_slice(payload);
        self.end(id, Verdict::Replied(status))
    }

    /// The manager says that the task was in a task worker that died.
    pub(crate) fn lost(&mut self, id: u64) -> Lost {
        let Some(slot) = self.slot(id) else { return Lost::NotOurs };
        match slot.state {
            State::Sent if slot.idempotent && slot.runs < MAX_RUNS && !slot.packet.is_empty() => {
                slot.runs += 1;
                slot.state = State::Waiting;
                let name = slot.name;
                self.waiting.push_back(id);
                Lost::Again(name)
            }
            State::Sent => match self.end(id, Verdict::WorkerDied) {
                Some(ended) => Lost::Died(ended),
                None => Lost::NotOurs,
            },
            State::Free | State::Waiting | State::Ended(_) => Lost::NotOurs,
        }
    }

    /// Ends what is past its deadline, and notes when to look again.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<Ended> {
        let mut next = u64::MAX;
        let mut late = Vec::new();
        for slot in &self.slots {
            if matches!(slot.state, State::Waiting | State::Sent) {
                if slot.deadline_ms <= now_ms {
                    late.push(slot.id);
                } else {
                    next = next.min(slot.deadline_ms);
                }
            }
        }
        self.next_sweep_ms = next;
        late.into_iter().filter_map(|id| self.end(id, Verdict::TimedOut)).collect()
    }

    /// Ends everything, now and from now on.
    pub(crate) fn close(&mut self, verdict: Verdict) -> Vec<Ended> {
        self.closed = Some(verdict);
        self.waiting.clear();
        let open: Vec<u64> = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.state, State::Waiting | State::Sent))
            .map(|slot| slot.id)
            .collect();
        open.into_iter().filter_map(|id| self.end(id, verdict)).collect()
    }

    /// What the task's future sees. Ready frees the place, and `buffer` then holds the payload.
    pub(crate) fn poll(&mut self, id: u64, waker: &Waker, buffer: &mut Vec<u8>) -> Poll<Verdict> {
        // A future asks for its own task only, until it is Ready: its place cannot be another's.
        let Some(slot) = self.slot(id) else { return Poll::Ready(Verdict::Cut) };
        let State::Ended(verdict) = slot.state else {
            match &mut slot.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return Poll::Pending;
        };
        // Swapped, not copied: the place gets a buffer back for the next answer.
        std::mem::swap(&mut slot.answer, buffer);
        self.release(id);
        Poll::Ready(verdict)
    }

    /// The task's future was dropped: an unsent task is forgotten, a sent one stays in hand.
    pub(crate) fn abandon(&mut self, id: u64) {
        let Some(slot) = self.slot(id) else { return };
        match slot.state {
            State::Sent => {
                slot.detached = true;
                slot.waker = None;
            }
            // Sent before, and waiting to be sent again: its first run counts.
            State::Waiting if slot.runs > 1 => {
                slot.detached = true;
                slot.waker = None;
            }
            State::Free | State::Waiting | State::Ended(_) => self.remove(id),
        }
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let place = (id & ((1 << PLACE_BITS) - 1)) as usize;
        self.slots.get_mut(place).filter(|slot| slot.id == id && slot.state != State::Free)
    }

    fn end(&mut self, id: u64, verdict: Verdict) -> Option<Ended> {
        let slot = self.slot(id)?;
        slot.state = State::Ended(verdict);
        let mut ended = Ended {
            name: slot.name,
            waker: slot.waker.take(),
            detached: slot.detached,
            timeout: Duration::from_millis(slot.deadline_ms.saturating_sub(slot.started_ms)),
            last: false,
        };
        self.unanswered -= 1;
        ended.last = self.unanswered == 0;
        if ended.detached {
            self.release(id);
        }
        Some(ended)
    }

    fn release(&mut self, id: u64) {
        if let Some(slot) = self.slot(id) {
            slot.state = State::Free;
            slot.waker = None;
            clear(&mut slot.packet);
            clear(&mut slot.answer);
            self.free.push((id & ((1 << PLACE_BITS) - 1)) as u32);
        }
    }
}

/// What [`Pending::insert`] is told.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) name: &'static str,
    pub(crate) now_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) idempotent: bool,
    /// None: nobody awaits it.
    pub(crate) waker: Option<&'a Waker>,
}

/// What [`Pending::insert`] tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inserted {
    pub(crate) id: u64,
    /// Its deadline comes before the next sweep was due: wake the sweeper.
    pub(crate) sooner: bool,
}

fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEEP_CAPACITY {
        *buffer = Vec::new();
    }
}
