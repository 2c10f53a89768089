//! More or fewer workers: the sockets that each needs, made and given while all of them serve.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::core::event::{ChildId, Event, Generation};
use crate::protocol::master::FromManager;
use crate::protocol::template::{Hello, Kind};
use crate::protocol::worker::{Resource, ToWorker};

use super::Manager;
use super::resources::{listeners_of, reply_sockets};

impl Manager {
    /// Has the master make sockets for the slots that are new, and makes the reply sockets of so
    /// many workers. The answer is [`Event::Bound`].
    pub(super) fn widen(&mut self, generation: Generation) {
        let wanted = reply_sockets(self.core.worker_num(generation));
        if let Err(error) = self.add_replies(generation, wanted) {
            let reason = format!("no descriptors for the replies to their tasks: {error}");
            self.events.push_back(Event::NotBound { generation, reason });
            return;
        }
        if let Some(hello) = self.hello_of(generation) {
            let listeners = hello.listeners.clone();
            let slots = self.core.worker_num(generation);
            let umask = hello.settings.umask.clone();
            let message = FromManager::Bind {
                generation,
                listeners,
                slots,
                places: None,
                again: false,
                umask,
            };
            self.tell_master(&message, Vec::new());
        }
    }

    /// Task workers get their ends before any worker that has the other one is forked.
    pub(super) fn add_replies(&mut self, generation: Generation, wanted: u32) -> io::Result<()> {
        let size = self.hello_of(generation).map_or(0, |it| it.settings.task_queue_size.as_u64());
        let Some(queue) = self.queues.get_mut(&generation) else { return Ok(()) };
        let added = queue.widen(wanted, usize::try_from(size).unwrap_or(usize::MAX))?;
        let task_workers: Vec<ChildId> = (self.core.children())
            .filter(|it| it.kind == Kind::TaskWorker && it.queue == generation)
            .map(|it| it.id)
            .collect();
        for index in added {
            let Some((what, ends)) =
                self.queues.get(&generation).and_then(|it| it.reply_keepsake(generation, index))
            else {
                continue;
            };
            let [send, receive] = ends;
            let gifts = (task_workers.iter())
                .map(|child| Ok((*child, send.as_fd().try_clone_to_owned()?)))
                .collect::<io::Result<Vec<(ChildId, OwnedFd)>>>()?;
            self.keep(what, &[send.as_fd(), receive.as_fd()])?;
            for (child, end) in gifts {
                let gift = ToWorker::Give(Resource::ReplySend { index });
                self.tell_child(child, &gift, vec![end]);
            }
        }
        Ok(())
    }

    /// Gives a worker the sockets that it may not have yet, and says which ones are its own among so
    /// many workers.
    pub(super) fn assign_doors(&mut self, child: ChildId, workers: u32) {
        let Some((generation, worker_id)) =
            self.core.child(child).map(|it| (it.generation, it.worker_id))
        else {
            return;
        };
        let Some(settings) = self.hello_of(generation).map(|it| &it.settings) else { return };
        let (mode, backlog) = (settings.listen_mode, settings.backlog);
        let listeners = self.listeners.get(&generation).map_or(&[][..], Vec::as_slice);
        let mut slots = Vec::new();
        let mut gifts = Vec::new();
        for it in listeners_of(listeners, mode, workers, worker_id) {
            slots.push(it.slot);
            match it.socket.try_clone() {
                Ok(socket) => gifts.push((it.resource(backlog), socket)),
                Err(error) => tracing::error!("cannot give worker {worker_id} a socket: {error}"),
            }
        }
        for (resource, socket) in gifts {
            self.tell_child(child, &ToWorker::Give(resource), vec![socket]);
        }
        slots.sort_unstable();
        slots.dedup();
        self.tell_child(child, &ToWorker::Doors { slots }, Vec::new());
    }

    /// What a generation's template has said of its release.
    pub(super) fn hello_of(&self, generation: Generation) -> Option<&Hello> {
        let mut all = self.core.generations();
        all.find(|(number, _)| *number == generation).and_then(|(_, it)| it.hello.as_ref())
    }
}
