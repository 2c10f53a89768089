//! The manager as a process: forked, lost, and followed by another one that goes on from the vault.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::fd;
use shiftwork_sys::process::{self, Exit, Forked};
use shiftwork_sys::signal;
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;

use crate::core::event::{Millis, Ticket};
use crate::core::history::Asked;
use crate::core::respawn::Backoff;
use crate::identity;
use crate::line::Line;
use crate::manager;
use crate::passing::Passing;
use crate::protocol::master::{ToManager, Verb};

use super::pulse::Step;
use super::state::SuccessionState;
use super::{Leave, Master, ended};

/// Kernel memory for what master and manager say to each other.
const QUEUE: usize = 4 * 1024 * 1024;

/// What a lost manager's processes get for their drain if nobody can take up, in milliseconds.
const ABANDONED: Millis = 40_000;

/// The manager, seen from above.
#[derive(Debug)]
pub(super) struct Succession {
    /// To the manager there is, or to the next one.
    pub(super) line: Line,
    /// Its pid; None while there is none.
    pub(super) pid: Option<i32>,
    /// The other end of the line, until there is somebody to hold it.
    end: Option<Channel>,
    /// When it was forked.
    born: Millis,
    backoff: Backoff,
    deaths: u64,
    /// When the next one is forked.
    due: Option<Millis>,
    /// Whether the manager there is has told how far it knows what was asked.
    settled: bool,
    /// What was asked and is not answered.
    open: BTreeMap<Ticket, Verb>,
    /// What the history is to know of it.
    asked: BTreeMap<Ticket, Asked>,
}

impl Succession {
    pub(super) fn new() -> io::Result<Self> {
        let (ours, theirs) = Channel::pair_sized(QUEUE)?;
        Ok(Self {
            line: Line::new(ours),
            pid: None,
            end: Some(theirs),
            born: 0,
            backoff: Backoff::default(),
            deaths: 0,
            due: None,
            settled: true,
            open: BTreeMap::new(),
            asked: BTreeMap::new(),
        })
    }

    /// All of it, for the program that comes. There is a manager: it has asked for that.
    pub(super) fn describe<'a>(&'a self, passing: &mut Passing<'a>) -> io::Result<SuccessionState> {
        Ok(SuccessionState {
            line: passing.add(self.line.channel())?,
            pid: self.pid,
            born: self.born,
            backoff: self.backoff,
            deaths: self.deaths,
            settled: self.settled,
            open: self.open.clone(),
            asked: self.asked.clone(),
        })
    }

    /// Goes on from there.
    pub(super) fn restore(state: SuccessionState) -> io::Result<Self> {
        Ok(Self {
            line: Line::new(Channel::from_fd(state.line.take()?)),
            pid: state.pid,
            end: None,
            born: state.born,
            backoff: state.backoff,
            deaths: state.deaths,
            due: None,
            settled: state.settled,
            open: state.open,
            asked: state.asked,
        })
    }

    /// When the next manager is forked.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }

    /// Passes on what somebody asks; while there is no manager that could take it, it waits.
    pub(super) fn ask(&mut self, ticket: Ticket, verb: Verb, asked: Option<Asked>) {
        self.open.insert(ticket, verb.clone());
        self.asked.extend(asked.clone().map(|it| (ticket, it)));
        if self.settled {
            let message = ToManager::Verb { ticket: Some(ticket), verb, asked };
            self.line.send(&message, Vec::new());
        }
    }

    /// Whether a reload was asked for and is not over.
    pub(super) fn is_reloading(&self) -> bool {
        let reload = |it: &Verb| {
            matches!(it, Verb::Reload { .. } | Verb::Upgrade { .. } | Verb::Rollback { .. })
        };
        self.open.values().any(reload)
    }

    /// It is answered.
    pub(super) fn answered(&mut self, ticket: Ticket) {
        self.open.remove(&ticket);
        self.asked.remove(&ticket);
    }

    /// The new manager knows of those who wait in `waiting`: the others ask again.
    pub(super) fn settle(&mut self, waiting: &[Ticket]) {
        self.settled = true;
        for (ticket, verb) in &self.open {
            if !waiting.contains(ticket) {
                let (ticket, verb, asked) =
                    (Some(*ticket), verb.clone(), self.asked.get(ticket).cloned());
                self.line.send(&ToManager::Verb { ticket, verb, asked }, Vec::new());
            }
        }
    }
}

impl Master {
    /// Forks the manager. In the child this does not return.
    pub(super) fn fork_manager(&mut self) -> io::Result<()> {
        let channel = self
            .succession
            .end
            .take()
            .ok_or_else(|| io::Error::other("the manager's socket is gone"))?;
        match process::fork() {
            Ok(Forked::Parent(pid)) => {
                self.succession.pid = Some(pid);
                self.succession.born = monotonic_ms();
                self.succession.due = None;
                self.pulse.heard(monotonic_ms());
                Ok(())
            }
            Ok(Forked::Child) => process::exit_now(self.become_manager(channel)),
            Err(error) => {
                self.succession.end = Some(channel);
                Err(error)
            }
        }
    }

    /// In the new process: what is the master's alone is closed, so that an end of file means what it
    /// says, and the manager runs. Gives its exit status.
    fn become_manager(&self, master: Channel) -> i32 {
        identity::become_role(&self.seed.name, "manager", None, None);
        process::set_title(&format!("{}: manager", self.seed.name));
        let begun = self.slab.fd().try_clone_to_owned().and_then(|slab| {
            let log = self.log.try_clone()?;
            fd::close_foreign(&[master.as_fd().as_raw_fd(), slab.as_raw_fd(), log.as_raw_fd()]);
            process::new_process_group()?;
            // A background process group that reads the terminal would be stopped.
            if !self.daemon {
                fd::stdin_from_null()?;
            }
            manager::run(manager::Setup {
                name: self.seed.name.clone(),
                master_pid: process::parent(),
                origin: self.seed.origin.clone(),
                snapshot: self.seed.snapshot.clone(),
                start_timeout: self.seed.start_timeout,
                master,
                slab: Slab::open(slab)?,
                log,
                successor: self.succession.deaths > 0,
            })
        });
        begun.unwrap_or_else(|error| {
            tracing::error!("the manager cannot go on: {error}");
            1
        })
    }

    /// The manager is gone without having been told to: another one takes up what lives, or, if
    /// there is nothing to take up, everything drains and the server ends.
    pub(super) fn lost_manager(&mut self, exit: Exit) {
        let succession = &mut self.succession;
        let lived = succession.pid.take().map(|_| monotonic_ms().saturating_sub(succession.born));
        succession.deaths += 1;
        if !self.kept.has_journal() {
            tracing::error!("the manager {}: draining, then leaving", ended(exit));
            self.abandon();
            return;
        }
        let wait = succession.backoff.died(lived);
        tracing::error!("the manager {}; another one takes up in {wait} ms", ended(exit));
        if let Err(error) = self.prepare_successor() {
            tracing::error!("no manager can take up: {error}");
            self.abandon();
            return;
        }
        self.succession.due = Some(monotonic_ms() + wait);
        self.pass_succession();
    }

    /// A manager that hangs would hold up everything that is asked, and replace nobody who dies.
    pub(super) fn pass_pulse(&mut self) {
        let Some(pid) = self.succession.pid else { return };
        match self.pulse.pass(monotonic_ms()) {
            Step::Wait => {}
            Step::Ask => self.succession.line.send(&ToManager::Ping, Vec::new()),
            Step::Replace => {
                tracing::error!(
                    "the manager, pid {pid}, is stuck: it has not answered for too long; killing it"
                );
                if let Err(error) = signal::kill(pid, signal::KILL) {
                    tracing::error!("cannot kill the manager, pid {pid}: {error}");
                }
            }
        }
    }

    /// Everything that the next manager has to know waits for it in its socket.
    fn prepare_successor(&mut self) -> io::Result<()> {
        let (ours, theirs) = Channel::pair_sized(QUEUE)?;
        let succession = &mut self.succession;
        succession.line = Line::new(ours);
        succession.end = Some(theirs);
        self.give_keepsakes(false)
    }

    fn give_keepsakes(&mut self, planned: bool) -> io::Result<()> {
        let succession = &mut self.succession;
        succession.settled = false;
        for (what, fds) in self.kept.duplicates()? {
            succession.line.send(&ToManager::Kept { what }, fds);
        }
        let deaths = succession.deaths;
        succession.line.send(&ToManager::TakeUp { deaths, planned }, Vec::new());
        Ok(())
    }

    /// The manager's process is another program now, and asks what there is to know.
    pub(super) fn resumed(&mut self) {
        let given = self.slab.fd().try_clone_to_owned().and_then(|slab| {
            let log = self.log.try_clone()?;
            let seed = Box::new(self.seed.clone());
            self.succession.line.send(&ToManager::Seed(seed), vec![slab, log]);
            self.give_keepsakes(true)
        });
        if let Err(error) = given {
            tracing::error!("the new manager cannot be told what there is to know: {error}");
        }
    }

    /// Forks the next manager when its time has come.
    pub(super) fn pass_succession(&mut self) {
        if self.succession.due.is_none_or(|due| due > monotonic_ms()) {
            return;
        }
        if let Err(error) = self.fork_manager() {
            tracing::error!("cannot fork a manager: {error}; trying again");
            let wait = self.succession.backoff.died(None).max(100);
            self.succession.due = Some(monotonic_ms() + wait);
        }
    }

    /// Without a manager nothing can be replaced: what lives drains, then the server ends.
    fn abandon(&mut self) {
        self.notify.stopping();
        self.vault = super::Vault::default();
        self.kept = super::Kept::default();
        self.succession.due = None;
        self.abandoned = Some(monotonic_ms() + ABANDONED);
        self.launcher.failed("the manager process ended unexpectedly", "", 1);
    }

    pub(super) fn pass_abandoned_deadline(&mut self) {
        if self.abandoned.is_some_and(|due| due <= monotonic_ms()) {
            let _ = process::kill_children();
            self.abandoned = Some(monotonic_ms() + 1_000);
        }
    }

    /// Orphans of a lost manager become this process's children; the last one ends the wait.
    pub(super) fn leave_when_alone(&mut self) {
        if self.abandoned.is_some() && !process::has_children() {
            self.leave = Some(Leave { code: 1 });
        }
    }
}
