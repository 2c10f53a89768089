//! The table against a model, under any order of events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};

use proptest::prelude::*;

use crate::task::pending::{Ended, Lost, New, Pending, Verdict};
use crate::task::wire::Status;

#[derive(Debug, Clone)]
enum Event {
    Insert { deadline_ms: u64, idempotent: bool, awaited: bool, full: bool },
    Flush { room: usize },
    Reply(usize),
    Lost(usize),
    Abandon(usize),
    Poll(usize),
    Expire { now_ms: u64 },
    Close,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..100_u64, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(deadline_ms, idempotent, awaited, full)| Event::Insert {
                deadline_ms, idempotent, awaited, full
            }
        ),
        2 => (0..4_usize).prop_map(|room| Event::Flush { room }),
        4 => any::<usize>().prop_map(Event::Reply),
        2 => any::<usize>().prop_map(Event::Lost),
        2 => any::<usize>().prop_map(Event::Abandon),
        4 => any::<usize>().prop_map(Event::Poll),
        1 => (0..100_u64).prop_map(|now_ms| Event::Expire { now_ms }),
        1 => Just(Event::Close),
    ]
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What the model knows of a task whose future has not seen its end.
struct Known {
    bell: Arc<Bell>,
    awaited: bool,
    idempotent: bool,
    runs: u8,
    waiting: bool,
    ended: Option<Verdict>,
    deadline_ms: u64,
}

#[derive(Default)]
struct Model {
    known: HashMap<u64, Known>,
    order: Vec<u64>,
}

impl Model {
    fn unanswered(&self) -> usize {
        self.known.values().filter(|it| it.ended.is_none()).count()
    }

    fn end(&mut self, id: u64, verdict: Verdict, ended: Ended) {
        let last = self.unanswered() == 1;
        let known = self.known.get_mut(&id).unwrap();
        assert_eq!(known.ended.replace(verdict), None, "ended twice");
        assert_eq!(ended.detached, !known.awaited);
        assert_eq!(ended.waker.is_some(), known.awaited);
        if let Some(waker) = ended.waker {
            waker.wake();
            assert_eq!(known.bell.0.load(Ordering::SeqCst), 1);
        }
        assert_eq!(ended.last, last);
        if !self.known[&id].awaited {
            self.known.remove(&id);
        }
    }

    fn open(&self, id: u64) -> bool {
        self.known.get(&id).is_some_and(|it| it.ended.is_none())
    }
}

proptest! {
    #[test]
    fn every_task_ends_once_and_is_told_once(events in prop::collection::vec(event(), 1..120)) {
        let mut pending = Pending::new(77);
        let mut model = Model::default();
        let mut closed = false;
        for event in events {
            let pick = |n: usize| model.order.get(n % model.order.len().max(1)).copied();
            match event {
                Event::Insert { deadline_ms, idempotent, awaited, full } if !closed => {
                    let bell = Arc::new(Bell::default());
                    let waker = Waker::from(Arc::clone(&bell));
                    let id = pending
                        .insert(New {
                            name: "t",
                            now_ms: 0,
                            deadline_ms,
                            idempotent,
                            waker: awaited.then_some(&waker),
                        })
                        .unwrap()
                        .id;
                    prop_assert!(!model.order.contains(&id), "an id came twice");
                    let packet = id.to_le_bytes();
                    if idempotent {
                        pending.keep(id, &packet);
                    }
                    let waiting = full || pending.is_backed_up();
                    if waiting {
                        pending.wait(id, &packet);
                    }
                    model.order.push(id);
                    model.known.insert(id, Known {
                        bell, awaited, idempotent, runs: 1, waiting, ended: None, deadline_ms,
                    });
                }
                Event::Insert { .. } => {}
                Event::Flush { mut room } => {
                    let mut sent = Vec::new();
                    let done = pending.flush(|packet| {
                        if room == 0 {
                            return false;
                        }
                        room -= 1;
                        sent.push(u64::from_le_bytes(packet.try_into().unwrap()));
                        true
                    });
                    for id in sent {
                        let known = model.known.get_mut(&id).unwrap();
                        prop_assert!(known.waiting && known.ended.is_none());
                        known.waiting = false;
                    }
                    prop_assert_eq!(done, !pending.is_backed_up());
                    let left = model.known.values().any(|it| it.waiting && it.ended.is_none());
                    prop_assert!(!(done && left), "one that waits was forgotten");
                }
                Event::Reply(n) => {
                    let Some(id) = pick(n) else { continue };
                    let ended = pending.reply(id, Status::Done, b"42");
                    prop_assert_eq!(ended.is_some(), model.open(id));
                    if let Some(ended) = ended {
                        model.end(id, Verdict::Replied(Status::Done), ended);
                    }
                }
                Event::Lost(n) => {
                    let Some(id) = pick(n) else { continue };
                    let sent = model.open(id) && !model.known[&id].waiting;
                    match pending.lost(id) {
                        Lost::NotOurs => prop_assert!(!sent),
                        Lost::Again(_) => {
                            let known = model.known.get_mut(&id).unwrap();
                            prop_assert!(sent && known.idempotent && known.runs < 3);
                            known.runs += 1;
                            known.waiting = true;
                        }
                        Lost::Died(ended) => {
                            let known = &model.known[&id];
                            prop_assert!(sent && !(known.idempotent && known.runs < 3));
                            model.end(id, Verdict::WorkerDied, ended);
                        }
                    }
                }
                Event::Abandon(n) => {
                    let Some(id) = pick(n) else { continue };
                    // Only a future that has not seen its end can be dropped.
                    let Some(known) = model.known.get_mut(&id).filter(|it| it.awaited) else {
                        continue;
                    };
                    pending.abandon(id);
                    if known.ended.is_some() || (known.waiting && known.runs == 1) {
                        model.known.remove(&id);
                    } else {
                        known.awaited = false;
                    }
                }
                Event::Poll(n) => {
                    let Some(id) = pick(n) else { continue };
                    let Some(known) = model.known.get(&id).filter(|it| it.awaited) else {
                        continue;
                    };
                    let waker = Waker::from(Arc::clone(&known.bell));
                    let mut buffer = b"of another".to_vec();
                    match (pending.poll(id, &waker, &mut buffer), known.ended) {
                        (Poll::Pending, None) => {}
                        (Poll::Ready(verdict), Some(expected)) => {
                            prop_assert_eq!(verdict, expected);
                            if let Verdict::Replied(_) = verdict {
                                prop_assert_eq!(buffer, b"42");
                            }
                            model.known.remove(&id);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Event::Expire { now_ms } => {
                    let due = model.known.values();
                    let due = due.filter(|it| it.ended.is_none() && it.deadline_ms <= now_ms);
                    let due = due.count();
                    let before = pending.unanswered();
                    let ended = pending.expire(now_ms);
                    prop_assert_eq!(ended.len(), due);
                    prop_assert_eq!(pending.unanswered(), before - due);
                    for known in model.known.values_mut() {
                        if known.ended.is_none() && known.deadline_ms <= now_ms {
                            known.ended = Some(Verdict::TimedOut);
                        }
                    }
                    ended.into_iter().filter_map(|it| it.waker).for_each(Waker::wake);
                    model.known.retain(|_, it| it.ended.is_none() || it.awaited);
                    let next = model.known.values().filter(|it| it.ended.is_none());
                    let next = next.map(|it| it.deadline_ms).min().unwrap_or(u64::MAX);
                    prop_assert_eq!(pending.next_sweep_ms(), next);
                }
                Event::Close => {
                    closed = true;
                    let open = model.unanswered();
                    let ended = pending.close(Verdict::Cut);
                    prop_assert_eq!(ended.len(), open);
                    for known in model.known.values_mut() {
                        known.ended.get_or_insert(Verdict::Cut);
                    }
                    ended.into_iter().filter_map(|it| it.waker).for_each(Waker::wake);
                    model.known.retain(|_, it| it.awaited);
                }
            }
            prop_assert_eq!(pending.unanswered(), model.unanswered());
            prop_assert_eq!(pending.list().len(), model.unanswered());
            for known in model.known.values().filter(|it| it.awaited) {
                let told = known.bell.0.load(Ordering::SeqCst);
                prop_assert_eq!(told, usize::from(known.ended.is_some()));
            }
        }
    }
}
