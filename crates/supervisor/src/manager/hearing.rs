//! What has become readable, and what it says: signals, master, templates, children.

use std::os::fd::OwnedFd;

use shiftwork_sys::clock::wall_ms;
use shiftwork_sys::process::reap;
use shiftwork_sys::signal::{self, Received};
use shiftwork_sys::socket::Channel;

use crate::core::event::{ChildId, Ended, Event, Generation, Scope, Ticket, Until};
use crate::core::history::{Asked, Requester, What};
use crate::line::{Heard, Line, hear};
use crate::protocol::master::{FromManager, Keepsake, ToManager, Verb};
use crate::protocol::template::FromTemplate;
use crate::protocol::worker::{Ask, FromWorker, ToWorker};

use super::process::Whose;
use super::resources::BoundListener;
use super::{Asker, Manager, Source, ended};

impl Manager {
    pub(super) fn read(&mut self, source: Source) {
        match source {
            Source::Signals => self.read_signals(),
            Source::Master => self.read_master(),
            Source::Template(generation) => self.read_template(generation),
            Source::TemplateOutput(generation) => self.read_template_output(generation),
            Source::Child(child) => self.read_child(child),
            Source::ChildOutput(child) => self.read_child_output(child),
            Source::Probe => self.read_probe(),
            Source::ProbeOutput => self.read_probe_output(),
            Source::Orphan(pid) => self.orphan_ended(pid),
        }
    }

    pub(super) fn read_signals(&mut self) {
        while let Ok(Some(received)) = self.signals.read() {
            if received.signo != signal::CHLD {
                // The master decides, as if it had been sent there.
                let Received { signo, pid, uid } = received;
                self.tell_master(&FromManager::Signal { signo, pid, uid }, Vec::new());
            }
        }
        while let Ok(Some((pid, exit))) = reap() {
            self.reaped(pid, ended(exit));
        }
    }

    /// A process is gone, whoever has reaped it.
    pub(super) fn reaped(&mut self, pid: i32, ended: Ended) {
        if self.probe_ended(pid, ended) {
            return;
        }
        match self.processes.reaped(pid, ended) {
            Whose::Template(generation) => self.template_ended(generation, ended),
            Whose::Child(child) => self.child_ended(child, ended),
            Whose::Unknown => {}
        }
    }

    fn read_master(&mut self) {
        self.master.flush();
        loop {
            match hear(self.master.channel()) {
                Heard::Message(message, fds) => self.master_said(message, fds),
                Heard::Nothing => return,
                Heard::End => {
                    tracing::error!("the master is gone: draining everything, then leaving");
                    self.part_with_listeners();
                    self.take(Event::MasterGone);
                    self.watch_orphans();
                    // Its end of the line stays readable for ever; nothing more comes from it.
                    if let Ok((ours, theirs)) = Channel::pair() {
                        self.master = Line::new(ours);
                        // Open for as long as this process: an end that is closed is readable, too.
                        std::mem::forget(theirs);
                    }
                    self.exit_when_empty();
                    return;
                }
            }
        }
    }

    /// If somebody keeps the listening sockets for the next server, workers are to leave them as they
    /// are, and not to empty them: as if nobody were there any more to give them orders.
    fn part_with_listeners(&mut self) {
        let listeners = std::mem::take(&mut self.listeners);
        if std::env::var_os(crate::KEPT_LISTENERS).is_none() {
            return self.parting.begin(listeners);
        }
        let workers: Vec<ChildId> = self
            .core
            .children()
            .filter(|it| it.kind == crate::protocol::template::Kind::Worker)
            .map(|it| it.id)
            .collect();
        for child in workers {
            if let Some(process) = self.processes.children.get_mut(&child) {
                process.line = None;
            }
        }
    }

    /// Somebody asks, by way of the master.
    fn told(&mut self, ticket: Option<Ticket>, verb: Verb, asked: Option<Asked>) {
        if let Some((ticket, asked)) = ticket.zip(asked) {
            self.take(Event::Asked { ticket, asked });
        }
        match verb {
            Verb::Reload { scope, overrides, until } => {
                self.take(Event::Reload { ticket, scope, overrides, until });
            }
            Verb::Upgrade { overrides, until } => {
                self.take(Event::Upgrade { ticket, overrides, until });
            }
            Verb::Rollback { until } => self.take(Event::Rollback { ticket, until }),
            Verb::Scale(wish) => self.take(Event::Scale { ticket, wish }),
            Verb::Stop => self.take(Event::Stop),
            Verb::Hurry => self.take(Event::Hurry),
            Verb::Quit => self.take(Event::Quit),
            Verb::Status => self.send_status(ticket),
            Verb::History => self.send_history(ticket),
            Verb::Metrics => self.send_metrics(ticket),
        }
    }

    pub(super) fn master_said(&mut self, message: ToManager, mut fds: Vec<OwnedFd>) {
        match message {
            ToManager::Verb { ticket, verb, asked } => self.told(ticket, verb, asked),
            ToManager::Listener { generation, name, address, slot } => {
                if let Some(socket) = fds.pop() {
                    let listener = BoundListener { name, address, slot, socket };
                    let all = self.listeners.entry(generation).or_default();
                    // All are told again when some are added.
                    all.retain(|it| (&it.name, it.slot) != (&listener.name, slot));
                    all.push(listener);
                }
            }
            ToManager::Bound { generation } => self.take(Event::Bound { generation }),
            ToManager::NotBound { generation, reason } => {
                if self.core.generation() != generation {
                    self.listeners.remove(&generation);
                }
                self.take(Event::NotBound { generation, reason });
            }
            ToManager::Log => {
                if let Some(log) = fds.pop() {
                    self.take_log(log);
                }
            }
            ToManager::Described => {
                if let Some(state) = fds.pop() {
                    self.described(state);
                }
            }
            ToManager::MasterReplaced { refusal } => {
                self.take(Event::MasterReplaced { result: refusal.map_or(Ok(()), Err) });
            }
            ToManager::Reaped { pid, ended } => self.reaped(pid, ended),
            ToManager::Ping => self.tell_master(&FromManager::Pong, Vec::new()),
            // Said at the beginning only, where they are read by another hand.
            ToManager::Kept { .. } | ToManager::TakeUp { .. } | ToManager::Seed(_) => {}
        }
    }

    pub(super) fn read_template(&mut self, generation: Generation) {
        loop {
            let Some(template) = self.processes.templates.get_mut(&generation) else { return };
            let Some(line) = &mut template.line else { return };
            line.flush();
            match hear(line.channel()) {
                Heard::Message(message, _) => self.template_said(generation, message),
                Heard::Nothing => return,
                // Its end is learned when it is reaped.
                Heard::End => {
                    template.line = None;
                    self.let_go(Keepsake::Template(generation));
                    return;
                }
            }
        }
    }

    fn template_said(&mut self, generation: Generation, message: FromTemplate) {
        match message {
            FromTemplate::Hello(hello) => self.template_hello(generation, hello),
            FromTemplate::Loaded => self.take(Event::Loaded { generation }),
            FromTemplate::Failed { reason } => {
                self.read_template_output(generation);
                self.take(Event::TemplateFailed { generation, reason });
            }
            FromTemplate::Forked { child, pid } => self.child_named(child, pid),
            FromTemplate::NotForked { child, reason } => {
                self.drop_child(child);
                self.take(Event::NotForked { child, reason });
            }
        }
    }

    pub(super) fn read_template_output(&mut self, generation: Generation) {
        let Some(template) = self.processes.templates.get_mut(&generation) else { return };
        if let Some(output) = &mut template.output
            && !output.drain(self.tails.of(generation))
        {
            template.output = None;
            self.let_go(Keepsake::TemplateOutput(generation));
        }
    }

    pub(super) fn read_child(&mut self, child: ChildId) {
        loop {
            let Some(process) = self.processes.children.get_mut(&child) else { return };
            let Some(line) = &mut process.line else { return };
            line.flush();
            match hear(line.channel()) {
                Heard::Message(message, _) => self.child_said(child, message),
                Heard::Nothing => return,
                Heard::End => {
                    process.line = None;
                    return;
                }
            }
        }
    }

    fn child_said(&mut self, child: ChildId, message: FromWorker) {
        match message {
            FromWorker::Ready => self.take(Event::Ready { child }),
            FromWorker::Failed { reason } => self.take(Event::Failed { child, reason }),
            FromWorker::Serving => self.take(Event::Serving { child }),
            FromWorker::Health { attempt, failure } => {
                self.take(Event::Health { child, attempt, failure });
            }
            FromWorker::Retire { cause, reason } => {
                self.take(Event::Retire { child, cause, reason });
            }
            FromWorker::Ask { ticket, ask } => self.asked(child, ticket, ask),
        }
    }

    /// Application code in a worker asks.
    fn asked(&mut self, child: ChildId, ticket: u64, ask: Ask) {
        // One that was asked before the last manager died is asked again, and known.
        if self.askers.values().any(|it| it.child == child && it.ticket == ticket) {
            return;
        }
        let own = self.next_ticket;
        self.next_ticket += 1;
        self.askers.insert(own, Asker { child, ticket });
        match ask {
            Ask::Stats => self.send_status(Some(own)),
            Ask::Reload => {
                let worker = self.core.child(child);
                let by = Requester::Worker {
                    worker_id: worker.map_or(0, |it| it.worker_id),
                    pid: worker.and_then(|it| it.pid),
                };
                let asked = Asked::new(wall_ms(), by, What::Reload, &[]);
                self.take(Event::Asked { ticket: own, asked });
                self.take(Event::Reload {
                    ticket: Some(own),
                    scope: Scope::All,
                    overrides: Vec::new(),
                    until: Until::Committed,
                });
            }
            Ask::Shutdown => {
                self.answer(own, "{\"event\":\"stopping\"}".into());
                self.take(Event::Stop);
            }
        }
    }

    /// Answers somebody inside a worker.
    pub(super) fn answer(&mut self, ticket: Ticket, json: String) {
        let Some(asker) = self.askers.remove(&ticket) else { return };
        self.tell_child(asker.child, &ToWorker::Answer { ticket: asker.ticket, json }, Vec::new());
    }

    pub(super) fn read_child_output(&mut self, child: ChildId) {
        let Some(process) = self.processes.children.get_mut(&child) else { return };
        if let Some(output) = &mut process.output
            && !output.drain(self.tails.of(process.generation))
        {
            process.output = None;
            self.let_go(Keepsake::ChildOutput(child));
        }
    }
}
