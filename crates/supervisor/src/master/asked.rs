//! What is asked of the master, by signal, by command or at the admin address: all of it is for the
//! manager, which is told who has asked.

use shiftwork_sys::clock::{monotonic_ms, wall_ms};
use shiftwork_sys::process;
use shiftwork_sys::signal::{self, Received};

use crate::control::{Request, Response};
use crate::core::event::Ticket;
use crate::core::history::Requester;
use crate::core::scale::Wish;
use crate::protocol::master::Verb;

use super::Master;
use super::admin::Document;
use super::signals::Asked;

impl Master {
    /// A signal has come, to the master or by way of the manager.
    pub(super) fn signalled(&mut self, received: Received) {
        match self.ears.hear(received.signo, monotonic_ms()) {
            Some(Asked::Verb(verb)) => {
                let by = self.sender(received);
                self.ask_manager(None, verb, by);
            }
            Some(Asked::ReopenLog) => self.reopen_log(),
            None => {}
        }
    }

    /// Who has sent a signal. A service manager that is spoken to is the one that started this process.
    fn sender(&self, received: Received) -> Requester {
        let Received { signo, pid, uid } = received;
        let signal = signal::name(signo);
        if self.notify.is_heard() && pid != 0 && pid == process::parent() {
            return Requester::ServiceManager { signal };
        }
        Requester::Signal { signal, uid, pid }
    }

    /// A command has come.
    pub(super) fn requested(&mut self, ticket: Ticket, request: Request) {
        let by = self.control.asker(ticket);
        match request {
            Request::Reload { scope, set, until } => {
                let verb = Verb::Reload { scope, overrides: set, until };
                self.ask_manager(Some(ticket), verb, by);
            }
            Request::Upgrade { set, until } => {
                self.ask_manager(Some(ticket), Verb::Upgrade { overrides: set, until }, by);
            }
            Request::Rollback { until } => {
                self.ask_manager(Some(ticket), Verb::Rollback { until }, by);
            }
            Request::Scale { workers, task_workers } => {
                let wish = Wish { workers, task_workers };
                self.ask_manager(Some(ticket), Verb::Scale(wish), by);
            }
            Request::Stop { now } => {
                let pid = std::process::id().cast_signed();
                self.control.answer(ticket, &Response::Stopping { pid });
                self.ask_manager(None, if now { Verb::Quit } else { Verb::Stop }, by);
            }
            Request::Status {} => self.ask_manager(Some(ticket), Verb::Status, by),
            Request::History {} => self.ask_manager(Some(ticket), Verb::History, by),
            Request::Metrics {} => self.ask_manager(Some(ticket), Verb::Metrics, by),
        }
    }

    /// Has the manager do it, or says that there is none any more. Without a ticket nobody waits.
    fn ask_manager(&mut self, ticket: Option<Ticket>, verb: Verb, by: Requester) {
        match verb {
            Verb::Stop => {
                self.notify.stopping();
                if !self.delays_stop {
                    self.vault.hide_unix_files();
                }
            }
            Verb::Hurry | Verb::Quit => {
                self.notify.stopping();
                self.vault.hide_unix_files();
            }
            Verb::Reload { .. } | Verb::Upgrade { .. } | Verb::Rollback { .. } => {
                self.notify.reloading();
            }
            Verb::Scale(_) | Verb::Status | Verb::History | Verb::Metrics => {}
        }
        if self.abandoned.is_some() {
            if let Some(ticket) = ticket {
                let reason = "the server is stopping: its manager has died".to_owned();
                self.control.answer(ticket, &Response::Refused { reason, not_permitted: false });
            }
            return;
        }
        if matches!(verb, Verb::Hurry | Verb::Quit) {
            self.pulse.press(monotonic_ms());
        }
        let ticket = ticket.unwrap_or_else(|| self.control.ticket());
        let asked = verb.asked(wall_ms(), by);
        self.succession.ask(ticket, verb, asked);
    }

    /// Somebody at the admin address wants to know something.
    pub(super) fn wanted(&mut self, ticket: Ticket, document: Document) {
        if self.abandoned.is_some() {
            self.admin.refuse(ticket);
            return;
        }
        let verb = match document {
            Document::Metrics => Verb::Metrics,
            Document::Status => Verb::Status,
        };
        self.succession.ask(ticket, verb, None);
    }
}
