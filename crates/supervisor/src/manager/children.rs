//! Workers, task workers and hooks as processes: forked, given what they need, told, and gone.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{fd, signal};

use crate::core::action::{Action, Grace};
use crate::core::child::{Child, Purpose};
use crate::core::event::{ChildId, Ended, Event, Generation};
use crate::line::Line;
use crate::protocol::master::Keepsake;
use crate::protocol::template::{HookCall, Kind, ToTemplate};
use crate::protocol::worker::{Begin, DrainMode, Resource, ToWorker};

use super::Manager;
use super::inspect::in_hand;
use super::output::OutputPipe;
use super::process::Process;
use super::resources::{BoundListener, Queue, listeners_of};

impl Manager {
    /// Has a process forked, and gives it all it needs over its own socket meanwhile.
    pub(super) fn fork(
        &mut self,
        child: ChildId,
        generation: Generation,
        kind: Kind,
        worker_id: u32,
        queue: Generation,
    ) -> io::Result<()> {
        let (ours, theirs) = Channel::pair_sized(1024 * 1024)?;
        let (output, input) = fd::pipe()?;
        self.keep(Keepsake::Child(child), &[ours.as_fd()])?;
        self.keep(Keepsake::ChildOutput(child), &[output.as_fd()])?;
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
        let fills = |it: &Child| it.purpose == Purpose::Respawn && !self.core.returns(it);
        if self.core.child(child).is_some_and(fills) {
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
            hand_over_format: self.core.hand_over_format(generation),
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
        if !self.queues.contains_key(&queue) {
            let made = Queue::new(&settings, self.core.worker_num(queue))?;
            for (what, ends) in made.keepsakes(queue) {
                self.keep(what, &ends)?;
            }
            self.queues.insert(queue, made);
        }
        // A generation that has come back may have workers of its first time that still drain.
        let taken = self.queues.get(&queue).and_then(Queue::exhausted);
        if let Some(number) = taken.filter(|_| kind == Kind::Worker) {
            self.add_replies(queue, number + self.core.worker_num(queue).max(1))?;
        }
        let own = self.queues.get_mut(&queue).ok_or_else(|| io::Error::other("it has no queue"))?;
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
            let workers = self.core.worker_num(generation);
            for it in listeners_of(listeners, settings.listen_mode, workers, worker_id) {
                gifts.push((it.resource(settings.backlog), it.socket.try_clone()?));
            }
        }
        Ok(gifts)
    }

    pub(super) fn hook(
        &mut self,
        child: ChildId,
        generation: Generation,
        call: HookCall,
    ) -> io::Result<()> {
        let (output, input) = fd::pipe()?;
        self.keep(Keepsake::ChildOutput(child), &[output.as_fd()])?;
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

    /// Marks everybody who is to drain, before anybody is told anything: a connection that is opened
    /// once the reload is over is served by the new generation, whatever the old one has not read
    /// yet; and none of those who go takes up what another one of them hands over.
    pub(super) fn mark(&self, actions: &[Action]) {
        for action in actions {
            if let Action::Drain { child, .. } = action
                && let Some(row) = self.processes.children.get(child).and_then(|it| it.row)
            {
                self.slab.row(row).set_draining(1);
            }
        }
    }

    pub(super) fn drain(
        &mut self,
        child: ChildId,
        mode: DrainMode,
        finish_queue: bool,
        grace: Grace,
    ) {
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

    /// Addresses, or names, of a child's generation that the one which takes over lacks.
    fn missing_for(&self, child: ChildId, of: fn(&BoundListener) -> &String) -> Vec<String> {
        let Some(process) = self.processes.children.get(&child) else { return Vec::new() };
        let all = |generation: &Generation| -> BTreeSet<&String> {
            let listeners = self.listeners.get(generation).map_or(&[][..], Vec::as_slice);
            listeners.iter().map(of).collect()
        };
        let heir = self.core.heir_of(process.generation);
        if !self.listeners.contains_key(&heir) {
            return Vec::new();
        }
        all(&process.generation).difference(&all(&heir)).map(|it| (*it).clone()).collect()
    }

    pub(super) fn kill(&mut self, child: ChildId, reason: Option<String>) {
        let Some(process) = self.processes.children.get_mut(&child) else { return };
        match process.pid {
            Some(pid) => {
                if let Some(reason) = reason {
                    let in_hand = in_hand(&self.slab, process.row);
                    tracing::warn!("killing it: {reason}; {in_hand}");
                }
                let _ = signal::kill(pid, signal::KILL);
            }
            None => process.doomed = true,
        }
    }

    /// The template has named the pid of a process that it forked.
    pub(super) fn child_named(&mut self, child: ChildId, pid: i32) {
        let ended = self.processes.named(child, pid);
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
        if let Some(ended) = ended {
            self.child_ended(child, ended);
        }
    }

    /// A child has been reaped: its last words first, then the news.
    pub(super) fn child_ended(&mut self, child: ChildId, ended: Ended) {
        self.read_child(child);
        self.read_child_output(child);
        let Some(process) = self.processes.children.get(&child) else { return };
        let tasks_wait =
            process.queue.and_then(|queue| self.queues.get(&queue)).is_some_and(Queue::is_waiting);
        self.settle_task(child);
        self.drop_child(child);
        self.take(Event::Gone { child, ended, tasks_wait });
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
        self.let_go(Keepsake::Child(child));
        if process.output.is_some() {
            self.let_go(Keepsake::ChildOutput(child));
        }
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
}
