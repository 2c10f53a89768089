//! What the manager says, and what becomes of it.

use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::signal::Received;
use shiftwork_sys::{fd, umask};

use crate::control::Response;
use crate::core::event::Generation;
use crate::core::outcome::{Outcome, Verdict};
use crate::line::{Heard, hear};
use crate::log_level;
use crate::places::Places;
use crate::protocol::master::{FromManager, START, ToManager};
use crate::protocol::template::ListenerSpec;

use super::vault::Handed;
use super::{Leave, Master};

impl Master {
    pub(super) fn read_manager(&mut self) {
        self.succession.line.flush();
        loop {
            match hear(self.succession.line.channel()) {
                Heard::Message(message, fds) => self.manager_said(message, fds),
                // Its end is learned when it is reaped.
                Heard::Nothing | Heard::End => return,
            }
        }
    }

    fn manager_said(&mut self, message: FromManager, mut fds: Vec<OwnedFd>) {
        self.pulse.heard(monotonic_ms());
        match message {
            FromManager::Bind { generation, listeners, slots, places, again, umask } => {
                let _umask = umask.as_deref().and_then(umask::parse).map(umask::Changed::to);
                let handed = if again {
                    self.vault.bind_again(generation, &listeners, slots)
                } else {
                    self.bind(generation, &listeners, slots, places)
                };
                match handed {
                    Ok(handed) => {
                        self.hand(generation, handed);
                        // Somebody may wait at slots that have joined before anything is committed.
                        if self.vault.has_committed() {
                            self.have_listeners_kept();
                        }
                    }
                    Err(reason) => {
                        let message = ToManager::NotBound { generation, reason };
                        self.succession.line.send(&message, Vec::new());
                    }
                }
            }
            FromManager::Commit { generation, scope, delays_stop, log_level, heartbeat } => {
                self.delays_stop = delays_stop;
                self.pulse.set_limit(heartbeat, monotonic_ms());
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
            FromManager::Pong => {}
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
    ) -> Result<Vec<Handed>, String> {
        if let Some(then) = places {
            self.moves.prepare(generation, &self.places, then, self.daemon)?;
        }
        self.vault.bind(generation, listeners, slots)
    }

    fn hand(&mut self, generation: Generation, handed: Vec<Handed>) {
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
            if let Err(error) = self.notify.store(name, sockets) {
                tracing::error!("listeners cannot be given to be kept: {error}");
            }
        }
        self.notify.keep_stored(&names);
        for name in self.vault.let_unwanted_go().difference(&names) {
            self.notify.forget_stored(name);
        }
    }
}
