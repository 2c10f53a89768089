//! Actions become system calls, and what comes of them becomes events.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::process::{self, Exit, Launch};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{fd, signal};

use crate::core::child::Purpose;
use crate::core::event::{Action, ChildId, Event, Generation, Grace, Scope, Source, Ticket};
use crate::core::outcome::{Outcome, Verdict};
use crate::line::Line;
use crate::protocol::master::FromManager;
use crate::protocol::template::{Hello, HookCall, Kind, ROLE_VARIABLE, ToTemplate};
use crate::protocol::worker::{Begin, DrainMode, Resource, ToWorker};

use super::output::OutputPipe;
use super::process::{Process, TemplateProcess};
use super::release::Release;
use super::resources::{BoundListener, Queue, listeners_of};
use super::{Manager, WORKER_TICKETS, ended};

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
            Action::Bind { generation } => self.bind(generation),
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
                self.log_over_output(child);
                self.tell_child(child, &ToWorker::Serve, Vec::new());
            }
            Action::Drain { child, mode, finish_queue, grace } => {
                self.drain(child, mode, finish_queue, grace);
            }
            Action::Kill { child, reason } => self.kill(child, reason),
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
            Action::Finish { tickets, outcome } => self.finish(tickets, outcome),
            Action::Log { warning: true, text } => tracing::warn!("{text}"),
            Action::Log { warning: false, text } => tracing::info!("{text}"),
            Action::Exit { code } => {
                self.tell_master(&FromManager::Stopped { code }, Vec::new());
                self.exit = Some(code);
            }
        }
    }

    /// Executes a release, and gives it what it has to know.
    fn spawn_template(&mut self, generation: Generation, source: &Source) -> Result<(), String> {
        if let Source::Disk { overrides } = source {
            let path = self.executable_path();
            let release = Release::open(&path, &self.snapshot, overrides)?;
            self.releases.insert(generation, release);
            self.latest = generation;
        }
        self.execute(generation).map_err(|error| format!("cannot execute the release: {error}"))
    }

    /// Where the next release is looked for: the setting in force, else where the start found it.
    fn executable_path(&self) -> std::path::PathBuf {
        let set = self.core.settings().and_then(|settings| settings.executable.clone());
        set.unwrap_or_else(|| self.origin.executable.clone())
    }

    fn execute(&mut self, generation: Generation) -> io::Result<()> {
        let release = self
            .releases
            .get(&generation)
            .ok_or_else(|| io::Error::other("its executable is not held any more"))?;
        let (ours, theirs) = Channel::pair_sized(1024 * 1024)?;
        theirs.set_blocking(true)?;
        let (output, input) = fd::pipe()?;
        let inode = fd::inode(theirs.as_fd())?;
        let role = |number: i32| (ROLE_VARIABLE, format!("template:{number}:{inode}"));
        let row =
            self.rows.take(&self.slab).ok_or_else(|| io::Error::other("too many processes"))?;
        let launched = process::execute(&Launch {
            executable: release.executable.as_fd(),
            arguments: &self.origin.arguments,
            channel: theirs.as_fd(),
            role: &role,
            output: input.as_fd(),
        });
        let pid = match launched {
            Ok(pid) => pid,
            Err(error) => {
                self.rows.free(&self.slab, row);
                return Err(error);
            }
        };
        let mut line = Line::new(ours);
        line.send(
            &ToTemplate::Start {
                generation,
                master_pid: self.pids.master,
                manager_pid: self.pids.manager,
            },
            vec![release.snapshot_file()?, self.log.try_clone()?],
        );
        let slot = self.slab.row(row);
        slot.set_pid(pid);
        slot.set_generation(generation);
        slot.set_started_ms(monotonic_ms());
        let output = Some(OutputPipe::new(output));
        self.processes
            .templates
            .insert(generation, TemplateProcess { pid, line: Some(line), output, row });
        Ok(())
    }

    /// A release may name another executable than the one it was found as; that one is meant.
    pub(super) fn template_hello(&mut self, generation: Generation, hello: Box<Hello>) {
        let other = self.releases.get(&generation).zip(hello.settings.executable.as_deref());
        if let Some((release, path)) = other
            && release.path != path
            && generation == self.latest
            && self.core.settings().is_none_or(|it| it.executable != hello.settings.executable)
        {
            match self.execute_instead(generation, path) {
                Ok(()) => return,
                Err(reason) => {
                    self.take(Event::TemplateFailed { generation, reason });
                    return;
                }
            }
        }
        self.take(Event::Hello { generation, hello });
    }

    fn execute_instead(&mut self, generation: Generation, path: &Path) -> Result<(), String> {
        let before = self.releases.get(&generation).map(|it| it.snapshot.clone());
        let release = Release::open(path, &before.unwrap_or_default(), &[])?;
        self.releases.insert(generation, release);
        if let Some(first) = self.processes.templates.remove(&generation) {
            let _ = signal::kill(first.pid, signal::KILL);
            self.rows.free(&self.slab, first.row);
        }
        self.execute(generation).map_err(|error| format!("cannot execute the release: {error}"))
    }

    /// Asks the master for the sockets of a generation.
    fn bind(&mut self, generation: Generation) {
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
                slots: hello.settings.worker_num,
            };
            self.tell_master(&message, Vec::new());
        }
    }

    fn tell_template(&mut self, generation: Generation, message: &ToTemplate) {
        self.tell_template_with(generation, message, Vec::new());
    }

    fn tell_template_with(
        &mut self,
        generation: Generation,
        message: &ToTemplate,
        fds: Vec<OwnedFd>,
    ) {
        if let Some(template) = self.processes.templates.get_mut(&generation)
            && let Some(line) = &mut template.line
        {
            line.send(message, fds);
        }
    }

    /// Has a process forked, and gives it all it needs over its own socket meanwhile.
    fn fork(
        &mut self,
        child: ChildId,
        generation: Generation,
        kind: Kind,
        worker_id: u32,
        queue: Generation,
    ) -> io::Result<()> {
        let (ours, theirs) = Channel::pair_sized(1024 * 1024)?;
        let (output, input) = fd::pipe()?;
        let row =
            self.rows.take(&self.slab).ok_or_else(|| io::Error::other("too many processes"))?;
        self.processes.children.insert(
            child,
            Process {
                generation,
                queue: Some(queue),
                pid: None,
                line: Some(Line::new(ours)),
                output: Some(OutputPipe::new(output)),
                row: Some(row),
                reply: None,
                doomed: false,
            },
        );
        if self.core.child(child).is_some_and(|it| it.purpose == Purpose::Respawn) {
            self.rows.restarted(kind, worker_id);
        }
        let slot = self.slab.row(row);
        slot.set_generation(generation);
        slot.set_worker_id(worker_id);
        slot.set_started_ms(monotonic_ms());
        let gifts = self.gifts(child, generation, kind, worker_id, queue)?;
        for (resource, gift) in gifts {
            self.tell_child(child, &ToWorker::Give(resource), vec![gift]);
        }
        let begin = Begin {
            kind,
            worker_id,
            generation,
            row,
            master_pid: self.pids.master,
            manager_pid: self.pids.manager,
            hand_over_format: self.hand_over_format(generation),
        };
        self.tell_child(child, &ToWorker::Begin(begin), Vec::new());
        let fds = vec![theirs.as_fd().try_clone_to_owned()?, input];
        let message = ToTemplate::Fork { child, kind, worker_id };
        self.tell_template_with(generation, &message, fds);
        Ok(())
    }

    fn gifts(
        &mut self,
        child: ChildId,
        generation: Generation,
        kind: Kind,
        worker_id: u32,
        queue: Generation,
    ) -> io::Result<Vec<(Resource, OwnedFd)>> {
        let settings = self
            .core
            .generations()
            .find(|(number, _)| *number == queue)
            .and_then(|(_, state)| state.hello.as_ref())
            .map(|hello| hello.settings.clone())
            .unwrap_or_default();
        let own = match self.queues.entry(queue) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Queue::new(&settings)?)
            }
        };
        let reply = if kind == Kind::Worker { own.take_reply() } else { None };
        if let Some(process) = self.processes.children.get_mut(&child) {
            process.reply = reply;
        }
        let mut gifts = vec![
            (Resource::Slab, self.slab.fd().try_clone_to_owned()?),
            (Resource::Log, self.log.try_clone()?),
        ];
        gifts.extend(own.gifts(kind, reply)?);
        if kind == Kind::Worker {
            let (send, receive) = &self.hand_over;
            gifts.push((Resource::HandOverSend, send.as_fd().try_clone_to_owned()?));
            gifts.push((Resource::HandOverReceive, receive.as_fd().try_clone_to_owned()?));
            let listeners = self.listeners.get(&generation).map_or(&[][..], Vec::as_slice);
            for it in listeners_of(listeners, &settings, worker_id) {
                let resource = Resource::Listener {
                    name: it.name.clone(),
                    address: it.address.clone(),
                    backlog: settings.backlog,
                };
                gifts.push((resource, it.socket.try_clone()?));
            }
        }
        Ok(gifts)
    }

    fn hand_over_format(&self, generation: Generation) -> u8 {
        self.core
            .generations()
            .find(|(number, _)| *number == generation)
            .and_then(|(_, state)| state.hello.as_ref())
            .map_or(1, |hello| hello.hand_over.newest)
    }

    fn hook(&mut self, child: ChildId, generation: Generation, call: HookCall) -> io::Result<()> {
        let (output, input) = fd::pipe()?;
        self.processes.children.insert(
            child,
            Process {
                generation,
                queue: None,
                pid: None,
                line: None,
                output: Some(OutputPipe::new(output)),
                row: None,
                reply: None,
                doomed: false,
            },
        );
        self.tell_template_with(generation, &ToTemplate::Hook { child, call }, vec![input]);
        Ok(())
    }

    /// From readiness on a process writes to the log itself; what it wrote before is all there is.
    fn log_over_output(&mut self, child: ChildId) {
        self.read_child_output(child);
    }

    fn drain(&mut self, child: ChildId, mode: DrainMode, finish_queue: bool, grace: Grace) {
        // Marked before anybody is told that the reload is over: a connection opened after that is
        // served by the new generation, whatever the old one has not read yet.
        if let Some(row) = self.processes.children.get(&child).and_then(|it| it.row) {
            self.slab.row(row).set_draining(1);
        }
        let removed = self.missing_for(child, |it| &it.address);
        let gone = self.missing_for(child, |it| &it.name);
        let message = ToWorker::Drain {
            mode,
            removed,
            gone,
            finish_queue,
            max_wait_ms: grace.max_wait,
            guard_ms: grace.guard,
        };
        self.tell_child(child, &message, Vec::new());
    }

    /// Addresses, or names, of a child's generation that the newest bound generation lacks.
    fn missing_for(&self, child: ChildId, of: fn(&BoundListener) -> &String) -> Vec<String> {
        let Some(process) = self.processes.children.get(&child) else { return Vec::new() };
        let all = |generation: &Generation| -> BTreeSet<&String> {
            let listeners = self.listeners.get(generation).map_or(&[][..], Vec::as_slice);
            listeners.iter().map(of).collect()
        };
        let Some((newest, _)) = self.listeners.last_key_value() else { return Vec::new() };
        all(&process.generation).difference(&all(newest)).map(|it| (*it).clone()).collect()
    }

    fn kill(&mut self, child: ChildId, reason: Option<String>) {
        let Some(process) = self.processes.children.get_mut(&child) else { return };
        match process.pid {
            Some(pid) => {
                if let Some(reason) = reason {
                    let row = process.row.map(|row| self.slab.row(row));
                    let (in_hand, oldest) =
                        row.map_or((0, 0), |row| (row.in_flight(), row.oldest_ms()));
                    let age = if oldest == 0 { 0 } else { monotonic_ms().saturating_sub(oldest) };
                    tracing::warn!(
                        "killing it: {reason}; {in_hand} requests in hand, the oldest {age} ms old"
                    );
                }
                let _ = signal::kill(pid, signal::KILL);
            }
            None => process.doomed = true,
        }
    }

    /// The generation is in force: the vault holds its executable and settings from now on.
    fn commit(&mut self, generation: Generation, scope: Scope) {
        let Some(release) = self.releases.get(&generation) else { return };
        self.snapshot = release.snapshot.clone();
        let held = release
            .executable
            .try_clone()
            .and_then(|executable| Ok(vec![executable, release.snapshot_file()?]));
        match held {
            Ok(fds) => self.tell_master(&FromManager::Commit { generation, scope }, fds),
            Err(error) => tracing::error!("the vault cannot hold generation {generation}: {error}"),
        }
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
        log_outcome(&outcome);
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

    /// The template has named the pid of a process that it forked.
    pub(super) fn child_named(&mut self, child: ChildId, pid: i32) {
        let exit = self.processes.named(child, pid);
        let Some(process) = self.processes.children.get_mut(&child) else {
            // Nobody waits for it any more.
            let _ = signal::kill(pid, signal::KILL);
            return;
        };
        if let Some(row) = process.row {
            self.slab.row(row).set_pid(pid);
        }
        if process.doomed {
            let _ = signal::kill(pid, signal::KILL);
        }
        self.take(Event::Forked { child, pid });
        if let Some(exit) = exit {
            self.child_ended(child, exit);
        }
    }

    /// A child has been reaped: its last words first, then the news.
    pub(super) fn child_ended(&mut self, child: ChildId, exit: Exit) {
        self.read_child(child);
        self.read_child_output(child);
        let Some(process) = self.processes.children.get(&child) else { return };
        let tasks_wait =
            process.queue.and_then(|queue| self.queues.get(&queue)).is_some_and(Queue::is_waiting);
        self.settle_task(child);
        self.drop_child(child);
        self.take(Event::Gone { child, ended: ended(exit), tasks_wait });
    }

    /// A task worker that died in a task: its owner is told at once.
    fn settle_task(&mut self, child: ChildId) {
        let Some(process) = self.processes.children.get(&child) else { return };
        let Some((reply, task)) = process.row.and_then(|row| self.slab.row(row).claim()) else {
            return;
        };
        let queue = process.queue;
        let owner = self
            .processes
            .children
            .iter()
            .find(|(_, it)| it.queue == queue && it.reply == Some(reply))
            .map(|(owner, _)| *owner);
        if let Some(owner) = owner {
            self.tell_child(owner, &ToWorker::TaskLost { task }, Vec::new());
        }
    }

    /// Lets go of everything held for a child.
    pub(super) fn drop_child(&mut self, child: ChildId) {
        let Some(process) = self.processes.children.remove(&child) else { return };
        if let Some(row) = process.row {
            self.rows.free(&self.slab, row);
        }
        if let Some(index) = process.reply
            && let Some(queue) = process.queue.and_then(|queue| self.queues.get_mut(&queue))
        {
            queue.free_reply(index);
        }
        self.askers.retain(|_, asker| asker.child != child);
    }

    /// A template has been reaped.
    pub(super) fn template_ended(&mut self, generation: Generation, exit: Exit) {
        self.read_template(generation);
        self.read_template_output(generation);
        if let Some(template) = self.processes.templates.remove(&generation) {
            self.rows.free(&self.slab, template.row);
        }
        // What it was asked to fork and has not named will never be named: end of file on its
        // socket tells such a process that nobody knows it.
        let nameless: Vec<ChildId> = self
            .processes
            .children
            .iter()
            .filter(|(_, it)| it.generation == generation && it.pid.is_none())
            .map(|(child, _)| *child)
            .collect();
        for child in nameless {
            self.drop_child(child);
            if self.core.child(child).is_none() {
                let reason = "the template is gone".to_owned();
                self.take(Event::NotForked { child, reason });
            }
        }
        self.take(Event::TemplateGone { generation, ended: ended(exit) });
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
    match outcome.outcome {
        Verdict::Committed => {
            tracing::info!("generation {generation} is committed after {duration_ms} ms");
        }
        Verdict::RolledBack => {
            tracing::error!("rolled back, generation {generation} serves: {reason}");
        }
        Verdict::Aborted if *generation == 0 => tracing::error!("the start has failed: {reason}"),
        Verdict::Aborted => {
            tracing::error!("reload aborted, generation {generation} goes on: {reason}");
        }
    }
    for warning in &outcome.warnings {
        tracing::warn!("{warning}");
    }
}
