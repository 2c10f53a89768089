//! Going on where a manager that died has stopped: its journal, what the master kept, and what lives.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::signal;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, Poller};

use crate::core::Pids;
use crate::core::event::{ChildId, Ended, Event, Generation};
use crate::journal::Journal;
use crate::line::{Heard, Line, hear};
use crate::protocol::master::{FromManager, Keepsake, Seed, ToManager};
use crate::protocol::worker::ToWorker;

use super::effects::Binding;
use super::output::OutputPipe;
use super::process::{Process, TemplateProcess};
use super::release::Release;
use super::resources::{Queue, pair};
use super::saved::{Saved, SavedProcess, SavedTemplate};
use super::{Manager, Setup};

/// What the master had kept for whoever comes.
type Keepsakes = BTreeMap<Keepsake, Vec<OwnedFd>>;

/// All that a manager goes on from.
struct Left {
    kept: Keepsakes,
    deaths: u64,
    planned: bool,
    unheard: Unheard,
}

/// What the master has said so far, and is not yet taken in.
type Unheard = Vec<(ToManager, Vec<OwnedFd>)>;

impl Manager {
    /// A manager in the place of one that died.
    ///
    /// # Errors
    /// If what was left is not whole.
    pub(super) fn take_up(setup: Setup) -> io::Result<Self> {
        let Left { mut kept, deaths, planned, mut unheard } = receive(&setup.master)?;
        let journal = kept.remove(&Keepsake::Journal).and_then(|mut it| it.pop());
        let journal = journal.ok_or_else(|| io::Error::other("no journal was kept"))?;
        let (journal, text) = Journal::open(journal)?;
        let saved = Saved::read(&text).map_err(|reason| {
            io::Error::other(format!("what the last manager wrote is of no use: {reason}"))
        })?;
        let hand_over = pair(kept.remove(&Keepsake::HandOver).unwrap_or_default())?;
        let mut manager = Self::new(setup, journal, hand_over)?;
        manager.restore(saved, kept);
        manager.deaths = deaths;
        manager.fetch_listeners(&mut unheard)?;
        manager.reconcile(planned);
        manager.read_ahead(&mut unheard)?;
        for (message, fds) in unheard {
            manager.master_said(message, fds);
        }
        manager.read_signals();
        manager.count_missing();
        manager.greet();
        Ok(manager)
    }

    /// Puts together what was written and what was kept. A process whose socket was not kept is
    /// not known any more: end of file tells it so.
    fn restore(&mut self, saved: Saved, mut kept: Keepsakes) {
        self.core = saved.core;
        self.rows = saved.rows;
        self.snapshot = saved.snapshot;
        self.latest = saved.latest;
        self.askers = saved.askers;
        self.next_ticket = saved.next_ticket;
        self.started_ms = saved.started_ms;
        self.answers = saved.answers;
        self.listeners = saved.listening.into_iter().map(|it| (it, Vec::new())).collect();
        for (generation, path) in saved.releases {
            let fds = kept.remove(&Keepsake::Release(generation)).unwrap_or_default();
            let opened_ms = saved.opened.get(&generation).copied().unwrap_or(0);
            match Release::kept(path, opened_ms, fds) {
                Ok(release) => drop(self.releases.insert(generation, release)),
                Err(error) => tracing::error!("the release of generation {generation}: {error}"),
            }
        }
        self.restore_queues(&saved.processes, &mut kept);
        for (generation, it) in saved.templates {
            self.restore_template(generation, it, &mut kept);
        }
        for (child, it) in saved.processes {
            self.restore_process(child, it, &mut kept);
        }
        // A probe that nobody listens to any more may hang for ever.
        if let Some(pid) = saved.probe.filter(|pid| is_ours(*pid, self.pids)) {
            let _ = signal::kill(pid, signal::KILL);
        }
        // The program is the master's to become; the end of the upgrade lets it go.
        for what in kept.into_keys().filter(|it| *it != Keepsake::Program) {
            self.let_go(what);
        }
    }

    fn restore_queues(
        &mut self,
        processes: &BTreeMap<ChildId, SavedProcess>,
        kept: &mut Keepsakes,
    ) {
        let mut replies: BTreeMap<Generation, Vec<(u32, Vec<OwnedFd>)>> = BTreeMap::new();
        let mut queues = BTreeMap::new();
        let all: Vec<Keepsake> = kept.keys().copied().collect();
        for what in all {
            match what {
                Keepsake::Queue(generation) => {
                    queues.insert(generation, kept.remove(&what).unwrap_or_default());
                }
                Keepsake::Reply(generation, index) => {
                    let ends = kept.remove(&what).unwrap_or_default();
                    replies.entry(generation).or_default().push((index, ends));
                }
                _ => {}
            }
        }
        for (generation, ends) in queues {
            let taken: BTreeSet<u32> = processes
                .values()
                .filter(|it| it.queue == Some(generation))
                .filter_map(|it| it.reply)
                .collect();
            let replies = replies.remove(&generation).unwrap_or_default();
            match Queue::kept(ends, replies, &taken) {
                Ok(queue) => drop(self.queues.insert(generation, queue)),
                Err(error) => tracing::error!("the queue of generation {generation}: {error}"),
            }
        }
    }

    fn restore_template(
        &mut self,
        generation: Generation,
        it: SavedTemplate,
        kept: &mut Keepsakes,
    ) {
        let line = kept.remove(&Keepsake::Template(generation)).and_then(line);
        let output = kept.remove(&Keepsake::TemplateOutput(generation)).and_then(output);
        let template = TemplateProcess { pid: it.pid, line, output, row: it.row };
        self.processes.templates.insert(generation, template);
    }

    fn restore_process(&mut self, child: ChildId, it: SavedProcess, kept: &mut Keepsakes) {
        let line = kept.remove(&Keepsake::Child(child)).and_then(line);
        let output = kept.remove(&Keepsake::ChildOutput(child)).and_then(output);
        let process = Process {
            generation: it.generation,
            queue: it.queue,
            pid: it.pid,
            line,
            output,
            row: it.row,
            reply: it.reply,
            doomed: it.doomed,
        };
        self.processes.children.insert(child, process);
    }

    /// The sockets are the master's: it is asked for them as for a new generation.
    fn fetch_listeners(&mut self, unheard: &mut Unheard) -> io::Result<()> {
        let generations: Vec<Generation> = self.listeners.keys().copied().collect();
        for generation in generations {
            self.bind(generation, Binding::Known);
            let answered = |unheard: &Unheard| {
                unheard.iter().any(|(message, _)| {
                    matches!(message,
                        ToManager::Bound { generation: of } | ToManager::NotBound { generation: of, .. }
                        if *of == generation)
                })
            };
            while !answered(unheard) {
                wait_for(self.master.channel())?;
                self.read_ahead(unheard)?;
            }
            let mut rest = Unheard::new();
            for (message, fds) in std::mem::take(unheard) {
                match message {
                    ToManager::Listener { generation: of, .. } if of == generation => {
                        self.master_said(message, fds);
                    }
                    ToManager::Bound { generation: of } if of == generation => {}
                    ToManager::NotBound { generation: of, ref reason } if of == generation => {
                        tracing::error!("listeners of generation {generation}: {reason}");
                    }
                    other => rest.push((other, fds)),
                }
            }
            *unheard = rest;
        }
        Ok(())
    }

    /// Tells the core that it has been taken up, and what was never born.
    fn reconcile(&mut self, planned: bool) {
        let born = |id: &ChildId| {
            self.processes.children.get(id).is_some_and(|process| process.pid.is_some())
        };
        let nameless: Vec<ChildId> = self.core.numbers().filter(|id| !born(id)).collect();
        for child in &nameless {
            self.drop_child(*child);
        }
        // Processes that the core has forgotten: their end is of no interest to anybody.
        let known: BTreeSet<ChildId> = self.core.numbers().collect();
        let unknown: Vec<ChildId> =
            self.processes.children.keys().copied().filter(|id| !known.contains(id)).collect();
        for child in unknown {
            self.drop_child(child);
        }
        for answer in std::mem::take(&mut self.answers) {
            for ticket in answer.tickets {
                let outcome = answer.outcome.clone();
                self.tell_master(&FromManager::Finish { ticket, outcome }, Vec::new());
            }
        }
        let manager = self.pids.manager;
        self.take(Event::TakenUp { manager, planned, nameless });
        self.work();
    }

    /// Processes whose end nobody will tell: the dead manager has reaped them.
    fn count_missing(&mut self) {
        let pids = self.pids;
        let lives = |pid: i32| is_ours(pid, pids);
        let templates: Vec<Generation> = self
            .core
            .generations()
            .filter(|(_, state)| state.has_template())
            .map(|(number, _)| number)
            .filter(|it| !self.processes.templates.get(it).is_some_and(|it| lives(it.pid)))
            .collect();
        for generation in templates {
            self.template_ended(generation, Ended::Unseen);
        }
        let children: Vec<ChildId> = self
            .processes
            .children
            .iter()
            .filter(|(_, it)| it.pid.is_some_and(|pid| !lives(pid)))
            .map(|(child, _)| *child)
            .collect();
        for child in children {
            self.child_ended(child, Ended::Unseen);
        }
        self.work();
    }

    /// Workers say again where they stand; the master asks again what was not written down.
    fn greet(&mut self) {
        let children: Vec<ChildId> = self.processes.children.keys().copied().collect();
        let manager_pid = self.pids.manager;
        for child in children {
            self.tell_child(child, &ToWorker::TakenUp { manager_pid }, Vec::new());
        }
        let waiting = self.core.tickets();
        self.tell_master(&FromManager::TakenUp { waiting }, Vec::new());
        tracing::info!("taken up: generation {} serves on", self.core.generation());
    }

    /// Reads what the master has said, without acting upon it.
    fn read_ahead(&self, unheard: &mut Unheard) -> io::Result<()> {
        loop {
            match hear(self.master.channel()) {
                Heard::Message(message, fds) => unheard.push((message, fds)),
                Heard::Nothing => return Ok(()),
                Heard::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// All that was kept, up to `TakeUp`.
fn receive(master: &Channel) -> io::Result<Left> {
    let (mut kept, mut unheard) = (Keepsakes::new(), Unheard::new());
    loop {
        match hear(master) {
            Heard::Message(ToManager::Kept { what }, fds) => drop(kept.insert(what, fds)),
            Heard::Message(ToManager::TakeUp { deaths, planned }, _) => {
                return Ok(Left { kept, deaths, planned, unheard });
            }
            Heard::Message(message, fds) => unheard.push((message, fds)),
            Heard::Nothing => wait_for(master)?,
            Heard::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Says to the master that another program is here, and gets what that has to know: with the slab
/// and the log.
pub fn ask_for_seed(master: Channel) -> io::Result<(Seed, OwnedFd, OwnedFd, Channel)> {
    let mut line = Line::new(master);
    line.send(&FromManager::Resume, Vec::new());
    let mut early = Unheard::new();
    loop {
        match hear(line.channel()) {
            Heard::Message(ToManager::Seed(seed), mut fds) => {
                let missing = || io::Error::other("the master has not sent slab and log");
                let log = fds.pop().ok_or_else(missing)?;
                let slab = fds.pop().ok_or_else(missing)?;
                // What was asked of the program before is asked again by the master.
                drop(early);
                return Ok((*seed, slab, log, line.into_channel()));
            }
            Heard::Message(message, fds) => early.push((message, fds)),
            Heard::Nothing => wait_for(line.channel())?,
            Heard::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn wait_for(channel: &Channel) -> io::Result<()> {
    let mut poller = Poller::new();
    poller.add((), channel.as_fd(), Interest::READ);
    poller.wait(None).map(drop)
}

fn line(mut fds: Vec<OwnedFd>) -> Option<Line> {
    fds.pop().map(|fd| Line::new(Channel::from_fd(fd)))
}

fn output(mut fds: Vec<OwnedFd>) -> Option<OutputPipe> {
    fds.pop().map(OutputPipe::new)
}

/// Whether a process lives, or waits to be reaped, below master or manager.
fn is_ours(pid: i32, above: Pids) -> bool {
    parent_of(pid).is_some_and(|parent| parent == above.master || parent == above.manager)
}

/// Whose child a process is; a zombie has a parent still.
pub(super) fn parent_of(pid: i32) -> Option<i32> {
    procfs::process::Process::new(pid).and_then(|process| process.stat()).map(|stat| stat.ppid).ok()
}
