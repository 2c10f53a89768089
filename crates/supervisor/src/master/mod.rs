//! The master: the process that the user knows by its pid. It holds what must outlive everything
//! else, hears signals and commands, and runs no application code.

mod activation;
mod admin;
mod asked;
mod control;
#[cfg(test)]
mod documented;
mod door;
mod hearing;
mod kept;
mod launch;
mod launcher;
mod moves;
mod notify;
mod pulse;
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
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::wait::{Interest, Poller};
use shiftwork_sys::{fd, slab::Slab};

use crate::core::event::{Ended, Millis, Ticket};
use crate::places::Places;
use crate::protocol::master::{Seed, ToManager};

use admin::Admin;
use control::Control;
use kept::Kept;
use launcher::Launcher;
use moves::Moves;
use notify::Notify;
use pulse::Pulse;
use signals::Ears;
use succession::Succession;
use vault::Vault;

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
    /// Whether the manager turns.
    pulse: Pulse,
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
            self.pass_pulse();
            self.pass_abandoned_deadline();
            self.notify.pass();
        }
    }

    fn wait(&mut self) -> io::Result<Vec<Source>> {
        let due = self.control.next_deadline().into_iter();
        let due = due.chain(self.admin.next_deadline());
        let due = due.chain(self.abandoned).chain(self.succession.due());
        let due = due.chain(self.pulse.due());
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
        for (ticket, client, interest) in self.control.clients() {
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
