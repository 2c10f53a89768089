//! Actions become system calls, and what comes of them becomes events.

use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::{fd, signal};

use crate::core::action::Action;
use crate::core::event::{ChildId, Event, Generation, Scope, Ticket};
use crate::core::millis;
use crate::core::outcome::{ASKED_BACK, Outcome, Verdict};
use crate::log_level;
use crate::protocol::master::FromManager;
use crate::protocol::template::ToTemplate;
use crate::protocol::worker::{Resource, ToWorker};

use super::{Manager, WORKER_TICKETS};

/// Why a generation's sockets are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    /// It begins: the server's own files are to be where it wants them, too.
    New,
    /// It serves already.
    Known,
    /// It comes back: what of it can be had is enough.
    Again,
}

impl Manager {
    /// Carries out an action.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::SpawnTemplate { generation, source } => {
                if let Err(reason) = self.spawn_template(generation, &source) {
                    self.events.push_back(Event::TemplateFailed { generation, reason });
                    let ended = crate::core::event::Ended::Code(1);
                    self.events.push_back(Event::TemplateGone { generation, ended });
                }
            }
            Action::Bind { generation } => self.bind(generation, Binding::New),
            Action::Rebind { generation } => self.bind(generation, Binding::Again),
            Action::Widen { generation } => self.widen(generation),
            Action::Doors { child, workers } => self.assign_doors(child, workers),
            Action::Load { generation } => self.tell_template(generation, &ToTemplate::Load),
            Action::Fork { child, generation, kind, worker_id, queue } => {
                if let Err(error) = self.fork(child, generation, kind, worker_id, queue) {
                    self.drop_child(child);
                    let reason = format!("no descriptors or memory for it: {error}");
                    self.events.push_back(Event::NotForked { child, reason });
                }
            }
            Action::Hook { child, generation, call } => {
                if let Err(error) = self.hook(child, generation, call) {
                    self.drop_child(child);
                    self.events.push_back(Event::NotForked { child, reason: error.to_string() });
                }
            }
            Action::Serve { child } => {
                // From readiness on it writes to the log itself; what it wrote before is all.
                self.read_child_output(child);
                self.tell_child(child, &ToWorker::Serve, Vec::new());
            }
            Action::Trial { child, judged } => {
                if let Some(row) = self.processes.children.get(&child).and_then(|it| it.row) {
                    self.slab.row(row).set_on_trial(judged.into());
                }
            }
            Action::Drain { child, mode, finish_queue, grace } => {
                self.drain(child, mode, finish_queue, grace);
            }
            Action::Kill { child, reason } => self.kill(child, reason),
            Action::Look { children } => self.look(children),
            Action::CheckHealth { child, attempt } => {
                self.tell_child(child, &ToWorker::Probe { attempt }, Vec::new());
            }
            Action::Measure { children } => self.measure(children),
            Action::Inspect { child } => self.inspect(child),
            Action::ExitTemplate { generation } => {
                self.tell_template(generation, &ToTemplate::Exit);
            }
            Action::KillTemplate { generation } => {
                if let Some(template) = self.processes.templates.get(&generation) {
                    let _ = signal::kill(template.pid, signal::KILL);
                }
            }
            Action::Commit { generation, scope } => self.commit(generation, scope),
            Action::Forget { generation } => self.forget(generation),
            Action::Progress { tickets, progress } => {
                for ticket in tickets.into_iter().filter(|it| *it < WORKER_TICKETS) {
                    let progress = progress.clone();
                    self.tell_master(&FromManager::Progress { ticket, progress }, Vec::new());
                }
            }
            Action::Probe => self.begin_probe(),
            Action::EndProbe => self.end_probe(),
            Action::ReplaceManager => self.replace_soon(),
            Action::ReplaceMaster => self.tell_master(&FromManager::ReplaceMaster, Vec::new()),
            Action::StepDown => {
                tracing::info!("stepping down: a manager of the old program takes up");
                self.exit = Some(0);
            }
            Action::Stopping => self.tell_master(&FromManager::Stopping, Vec::new()),
            Action::Finish { tickets, outcome } => {
                log_outcome(&outcome);
                self.finish(tickets, outcome);
            }
            Action::Answer { tickets, outcome } => self.finish(tickets, outcome),
            Action::Log { warning: true, text } => tracing::warn!("{text}"),
            Action::Log { warning: false, text } => tracing::info!("{text}"),
            Action::Exit { code } => {
                self.tell_master(&FromManager::Stopped { code }, Vec::new());
                self.exit = Some(code);
            }
        }
    }

    /// Asks the master for the sockets of a generation.
    pub(super) fn bind(&mut self, generation: Generation, binding: Binding) {
        let hello = self
            .core
            .generations()
            .find(|(number, _)| *number == generation)
            .and_then(|(_, state)| state.hello.clone());
        if let Some(hello) = hello {
            self.listeners.remove(&generation);
            let message = FromManager::Bind {
                generation,
                listeners: hello.listeners,
                slots: self.core.worker_num(generation),
                places: hello.places.filter(|_| binding == Binding::New),
                again: binding == Binding::Again,
                umask: hello.settings.umask,
            };
            self.tell_master(&message, Vec::new());
        }
    }

    /// The generation is in force: the next release starts from its settings.
    fn commit(&mut self, generation: Generation, scope: Scope) {
        let Some(release) = self.releases.get(&generation) else { return };
        self.snapshot = release.snapshot.clone();
        let settings = self.core.settings();
        let delays_stop = settings.is_some_and(|it| !it.pre_stop_delay.is_zero());
        let log_level = settings.map(|it| it.log_level);
        if let Some(level) = log_level {
            log_level::set(level);
        }
        let heartbeat = settings.map_or(0, |it| millis(it.heartbeat_timeout));
        let message = FromManager::Commit { generation, scope, delays_stop, log_level, heartbeat };
        self.tell_master(&message, Vec::new());
        if scope == Scope::All {
            // Nothing is forked from older generations any more; what they still accept on, their
            // workers hold themselves until they have emptied it.
            self.listeners.retain(|number, _| *number == generation);
        }
    }

    fn forget(&mut self, generation: Generation) {
        self.releases.remove(&generation);
        self.listeners.remove(&generation);
        self.queues.remove(&generation);
        self.tails.forget(generation);
        self.tell_master(&FromManager::Forget { generation }, Vec::new());
    }

    fn finish(&mut self, tickets: Vec<Ticket>, mut outcome: Outcome) {
        if outcome.outcome != Verdict::Committed {
            outcome.output = self.tails.of(self.latest).text();
        }
        for ticket in tickets {
            if ticket < WORKER_TICKETS {
                let outcome = outcome.clone();
                self.tell_master(&FromManager::Finish { ticket, outcome }, Vec::new());
            } else {
                let json = serde_json::to_string(&outcome).unwrap_or_default();
                self.answer(ticket, json);
            }
        }
    }

    /// The log was reopened: everybody takes it.
    pub(super) fn take_log(&mut self, log: OwnedFd) {
        if let Err(error) = fd::redirect_output(log.as_fd()) {
            tracing::error!("cannot take the reopened log: {error}");
            return;
        }
        self.log = log;
        let children: Vec<ChildId> = self.processes.children.keys().copied().collect();
        for child in children {
            if let Ok(log) = self.log.try_clone() {
                self.tell_child(child, &ToWorker::Give(Resource::Log), vec![log]);
            }
        }
        let templates: Vec<Generation> = self.processes.templates.keys().copied().collect();
        for generation in templates {
            if let Ok(log) = self.log.try_clone() {
                self.tell_template_with(generation, &ToTemplate::Log, vec![log]);
            }
        }
        tracing::info!("the log was reopened");
    }
}

fn log_outcome(outcome: &Outcome) {
    let Outcome { generation, duration_ms, reason, .. } = outcome;
    if let Some(sizes) = outcome.scaled {
        match outcome.outcome {
            Verdict::Committed => tracing::info!("{sizes} after {duration_ms} ms"),
            _ => tracing::error!("{reason} (as before: {sizes})"),
        }
        return;
    }
    if let Some(tasks) = outcome.task_generation {
        tracing::info!("the task workers are of generation {tasks} after {duration_ms} ms");
        return;
    }
    match outcome.outcome {
        Verdict::Committed => {
            tracing::info!("generation {generation} is committed after {duration_ms} ms");
        }
        Verdict::Replaced => {
            tracing::info!(
                "generation {generation} serves after {duration_ms} ms, and is observed"
            );
        }
        Verdict::RolledBack if reason == ASKED_BACK => {
            tracing::warn!("generation {generation} serves again after {duration_ms} ms");
        }
        Verdict::RolledBack => {
            tracing::error!("rolled back, generation {generation} serves: {reason}");
        }
        Verdict::Aborted if *generation == 0 => tracing::error!("the start has failed: {reason}"),
        Verdict::Aborted => {
            let noun = outcome.what.noun();
            tracing::error!("{noun} aborted, generation {generation} goes on: {reason}");
        }
    }
    for warning in &outcome.warnings {
        tracing::warn!("{warning}");
    }
}
