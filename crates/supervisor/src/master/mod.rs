//! The master: the process that the user knows by its pid. It holds what must outlive everything
//! else, hears signals and commands, and runs no application code.

mod activation;
mod admin;
mod asked;
mod control;
#[cfg(test)]
mod documented;
mod door;
mod kept;
mod launch;
mod launcher;
mod moves;
mod notify;
mod rest;
mod signals;
pub mod state;
mod succession;
mod upgrade;
mod vault;

pub use launch::{Start, run};
pub use upgrade::{decline, resume};

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::lock::PidFile;
use shiftwork_sys::process::{self, Exit};
use shiftwork_sys::signal::{self, Received, SignalFd};
use shiftwork_sys::wait::{Interest, Poller};
use shiftwork_sys::{fd, slab::Slab, umask};

use crate::control::Response;
use crate::core::event::{Ended, Generation, Millis, Ticket};
use crate::core::outcome::{Outcome, Verdict};
use crate::log_level;
use crate::places::Places;
use crate::protocol::master::{FromManager, START, Seed, ToManager};
use crate::protocol::template::ListenerSpec;
use crate::protocol::wire;

use admin::Admin;
use control::Control;
use kept::Kept;
use launcher::Launcher;
use moves::Moves;
use notify::Notify;
use signals::Ears;
use succession::Succession;
use vault::Vault;

use crate::line::{Heard, hear};

/// How the master leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leave {
    code: u8,
}

/// The master's own.
#[derive(Debug)]
struct Master {
    places: Places,
    /// Where releases want them.
    moves: Moves,
    pid_file: PidFile,
    control: Control,
    admin: Admin,
    vault: Vault,
    /// The service manager.
    notify: Notify,
    ears: Ears,
    signals: SignalFd,
    succession: Succession,
    /// What the manager keeps here for its successor.
    kept: Kept,
    seed: Seed,
    /// The program that this is: the way back from one that cannot go on.
    executable: OwnedFd,
    /// Whether to become the program that was kept.
    replacing: bool,
    launcher: Launcher,
    /// Whether a stop that is asked for does not begin at once.
    delays_stop: bool,
    daemon: bool,
    slab: Slab,
    log: OwnedFd,
    /// Set when the manager has gone without having been told to.
    abandoned: Option<Millis>,
    leave: Option<Leave>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Manager,
    Control,
    Client(Ticket),
    Admin,
    Scraper(Ticket),
}

impl Master {
    /// Hears and answers until everything is gone. Gives the exit status.
    fn serve(&mut self) -> io::Result<u8> {
        loop {
            if let Some(leave) = self.leave {
                return Ok(leave.code);
            }
            self.replace_if_due();
            for source in self.wait()? {
                match source {
                    Source::Signals => self.read_signals(),
                    Source::Manager => self.read_manager(),
                    Source::Control => self.control.accept(),
                    Source::Client(ticket) => {
                        if let Some(request) = self.control.turn(ticket) {
                            self.requested(ticket, request);
                        }
                    }
                    Source::Admin => self.admin.accept(|| self.control.ticket()),
                    Source::Scraper(ticket) => {
                        if let Some(document) = self.admin.turn(ticket) {
                            self.wanted(ticket, document);
                        }
                    }
                }
            }
            self.control.pass_deadlines();
            self.admin.pass_deadlines();
            self.pass_succession();
            self.pass_abandoned_deadline();
            self.notify.pass();
        }
    }

    fn wait(&mut self) -> io::Result<Vec<Source>> {
        let due = self.control.next_deadline().into_iter();
        let due = due.chain(self.admin.next_deadline());
        let due = due.chain(self.abandoned).chain(self.succession.due());
        let due = due.chain(self.notify.due()).min();
        let timeout = due.map(|due| Duration::from_millis(due.saturating_sub(monotonic_ms())));
        let mut poller = Poller::new();
        poller.add(Source::Signals, self.signals.as_fd(), Interest::READ);
        if self.succession.pid.is_some() {
            let line = &self.succession.line;
            let interest = if line.is_waiting() { Interest::READ_WRITE } else { Interest::READ };
            poller.add(Source::Manager, line.channel().as_fd(), interest);
        }
        if let Some(listener) = self.control.listener() {
            poller.add(Source::Control, listener, Interest::READ);
        }
        for (ticket, client, writes) in self.control.clients() {
            let interest = if writes { Interest::READ_WRITE } else { Interest::READ };
            poller.add(Source::Client(ticket), client, interest);
        }
        if let Some(door) = self.admin.open_door() {
            poller.add(Source::Admin, door.as_fd(), Interest::READ);
        }
        for (ticket, client, writes) in self.admin.clients() {
            let interest = if writes { Interest::READ_WRITE } else { Interest::READ };
            poller.add(Source::Scraper(ticket), client, interest);
        }
        Ok(poller.wait(timeout)?.into_iter().map(|ready| ready.token).collect())
    }

    fn read_signals(&mut self) {
        while let Ok(Some(received)) = self.signals.read() {
            if received.signo == signal::CHLD {
                self.reap();
                continue;
            }
            self.signalled(received);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = process::reap() {
            if self.succession.pid == Some(pid) {
                self.read_manager();
                if self.leave.is_none() {
                    self.lost_manager(exit);
                }
            } else if self.abandoned.is_none() {
                // A child of a manager that is gone: the one there is knows it.
                let ended = ended(exit);
                self.succession.line.send(&ToManager::Reaped { pid, ended }, Vec::new());
            }
        }
        self.leave_when_alone();
    }

    fn read_manager(&mut self) {
        self.succession.line.flush();
        let mut buffer = vec![0; wire::MAX_PACKET];
        loop {
            match hear(self.succession.line.channel(), &mut buffer) {
                Heard::Message(message, fds) => self.manager_said(message, fds),
                // Its end is learned when it is reaped.
                Heard::Nothing | Heard::End => return,
            }
        }
    }

    fn manager_said(&mut self, message: FromManager, mut fds: Vec<OwnedFd>) {
        match message {
            FromManager::Bind { generation, listeners, slots, places, again, umask } => {
                let _umask = umask.as_deref().and_then(umask::parse).map(umask::Changed::to);
                let handed = if again {
                    self.vault.bind_again(generation, &listeners, slots)
                } else {
                    self.bind(generation, &listeners, slots, places)
                };
                match handed {
                    Ok(handed) => self.hand(generation, handed),
                    Err(reason) => {
                        let message = ToManager::NotBound { generation, reason };
                        self.succession.line.send(&message, Vec::new());
                    }
                }
            }
            FromManager::Commit { generation, scope, delays_stop, log_level } => {
                self.delays_stop = delays_stop;
                if let Some(level) = log_level {
                    self.seed.log_level = level;
                    log_level::set(level);
                }
                let listeners = scope == crate::core::event::Scope::All;
                self.vault.commit(generation, listeners);
                self.move_files(generation);
                if listeners {
                    self.have_listeners_kept();
                }
            }
            FromManager::Forget { generation } => {
                self.vault.forget(generation);
                self.moves.forget(generation);
                self.kept.forget(generation);
                self.have_listeners_kept();
            }
            FromManager::Keep { what } => self.kept.keep(what, fds),
            FromManager::LetGo { what } => self.kept.let_go(what),
            FromManager::Describe => self.show_state(),
            FromManager::Resume => self.resumed(),
            FromManager::ReplaceMaster => self.replacing = true,
            FromManager::TakenUp { waiting } => self.succession.settle(&waiting),
            FromManager::Progress { ticket, progress } => {
                self.control.answer(ticket, &Response::Progress(progress));
            }
            FromManager::Finish { ticket: START, outcome } => self.started(&outcome),
            FromManager::Finish { ticket, outcome } => {
                self.succession.answered(ticket);
                self.reloaded(&outcome);
                self.control.answer(ticket, &Response::Outcome(outcome));
            }
            FromManager::Status { ticket } => {
                self.succession.answered(ticket);
                if let Some(json) = fds.pop().and_then(|it| fd::read_memfd(it.as_fd()).ok()) {
                    if self.admin.has(ticket) {
                        self.admin.answer(ticket, &json);
                    } else {
                        self.control.answer_json(ticket, &json, true);
                    }
                }
            }
            FromManager::Signal { signo, pid, uid } => {
                self.signalled(Received { signo, pid, uid });
            }
            FromManager::Stopping => {
                self.notify.stopping();
                self.vault.hide_unix_files();
            }
            FromManager::Stopped { code } => {
                self.leave = Some(Leave::with(code));
            }
        }
    }

    fn bind(
        &mut self,
        generation: Generation,
        listeners: &[ListenerSpec],
        slots: u32,
        places: Option<Places>,
    ) -> Result<Vec<vault::Handed>, String> {
        if let Some(then) = places {
            self.moves.prepare(generation, &self.places, then, self.daemon)?;
        }
        self.vault.bind(generation, listeners, slots)
    }

    /// The server's own files are where the committed release wants them.
    fn move_files(&mut self, generation: Generation) {
        match self.moves.commit(generation, &self.places, self.daemon) {
            Ok(None) => {}
            Ok(Some((places, made))) => {
                self.places = places;
                if let Some(file) = made.pid_file {
                    self.pid_file = file;
                }
                if let Some(door) = made.door {
                    self.control.listen_at(door);
                }
                if let Some(admin) = made.admin {
                    self.admin.listen_at(admin);
                }
                if let Some(log) = made.log {
                    tracing::info!("the log goes on in {}", self.places.log_file.display());
                    self.use_log(log);
                }
            }
            Err(reason) => tracing::error!("the server's files stay where they are: {reason}"),
        }
    }

    fn hand(&mut self, generation: Generation, handed: Vec<vault::Handed>) {
        for it in handed {
            let message = ToManager::Listener {
                generation,
                name: it.name,
                address: it.address,
                slot: it.slot,
            };
            self.succession.line.send(&message, vec![it.socket]);
        }
        self.succession.line.send(&ToManager::Bound { generation }, Vec::new());
    }

    /// The first generation serves, or has failed: whoever typed the command is told.
    fn started(&mut self, outcome: &Outcome) {
        if outcome.outcome == Verdict::Committed {
            // In the background this is not the process that was started.
            let pid = self.daemon.then(|| std::process::id().cast_signed());
            self.notify.ready(&format!("generation {} serves", outcome.generation), pid);
            self.launcher.ready(&self.vault.addresses());
        } else {
            self.notify.status(&format!("it has not started: {}", outcome.reason));
            self.launcher.failed(&outcome.reason, &outcome.output, 1);
        }
    }

    /// A reload is over; the service manager is told when none is under way any more.
    fn reloaded(&mut self, outcome: &Outcome) {
        if !self.notify.is_reloading() || self.succession.is_reloading() {
            return;
        }
        let generation = outcome.generation;
        let status = match outcome.outcome {
            Verdict::Committed | Verdict::Replaced => format!("generation {generation} serves"),
            _ => format!("generation {generation} serves on: {}", outcome.reason),
        };
        self.notify.ready(&status, None);
    }

    /// The service manager keeps all listeners there are, and no others.
    fn have_listeners_kept(&mut self) {
        let mut names = std::collections::BTreeSet::new();
        for (name, sockets) in self.vault.keepable() {
            names.insert(name.to_owned());
            if let Err(error) = self.notify.store(name, sockets.iter()) {
                tracing::error!("listeners cannot be given to be kept: {error}");
            }
        }
        self.notify.keep_stored(&names);
        for name in self.vault.let_unwanted_go().difference(&names) {
            self.notify.forget_stored(name);
        }
    }

    fn reopen_log(&mut self) {
        if !self.daemon {
            tracing::info!("the log is the terminal: nothing to reopen");
            return;
        }
        match launch::open_log(&self.places.log_file) {
            Ok(log) => self.use_log(log),
            Err(error) => tracing::error!(
                "cannot reopen the log {}: {error}; the old one goes on",
                self.places.log_file.display()
            ),
        }
    }

    /// Writes there from now on, as every process below does.
    fn use_log(&mut self, log: OwnedFd) {
        if let Err(error) = fd::redirect_output(log.as_fd()) {
            tracing::error!("cannot change the log: {error}; the old one goes on");
            return;
        }
        if let Ok(own) = log.try_clone() {
            self.log = own;
        }
        self.succession.line.send(&ToManager::Log, vec![log]);
    }
}

fn ended(exit: Exit) -> Ended {
    match exit {
        Exit::Code(code) => Ended::Code(code),
        Exit::Signal { signo, .. } => Ended::Signal(signo),
    }
}
