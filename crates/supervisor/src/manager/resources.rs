//! What a generation's processes share: listeners, the task queue, the reply sockets.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shiftwork_sys::socket::Channel;

use crate::core::event::Generation;
use crate::protocol::master::Keepsake;
use crate::protocol::template::Kind;
use crate::protocol::worker::Resource;
use crate::settings::{ListenMode, ServerSettings};

/// A socket of the vault, held for a generation.
#[derive(Debug)]
pub struct BoundListener {
    /// The listener's name.
    pub name: String,
    /// The address it is bound to.
    pub address: String,
    /// Its slot.
    pub slot: u32,
    /// A duplicate.
    pub socket: OwnedFd,
}

/// The task queue of a generation and its pool of reply sockets.
#[derive(Debug)]
pub struct Queue {
    send: Channel,
    receive: Channel,
    replies: Vec<(Channel, Channel)>,
    free: BTreeSet<u32>,
}

impl Queue {
    /// Makes the sockets.
    ///
    /// # Errors
    /// If no descriptors are to be had.
    pub fn new(settings: &ServerSettings, worker_num: u32) -> io::Result<Self> {
        let size = usize::try_from(settings.task_queue_size.as_u64()).unwrap_or(usize::MAX);
        let pool = reply_sockets(worker_num);
        let (send, receive) = Channel::pair_sized(size)?;
        let replies =
            (0..pool).map(|_| Channel::pair_sized(size)).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { send, receive, replies, free: (0..pool).collect() })
    }

    /// Makes more reply sockets, for more workers, and tells their numbers.
    ///
    /// # Errors
    /// If no descriptors are to be had; those made so far stay.
    pub fn widen(&mut self, pool: u32, size: usize) -> io::Result<std::ops::Range<u32>> {
        let first = self.replies.len() as u32;
        for index in first..pool {
            self.replies.push(Channel::pair_sized(size)?);
            self.free.insert(index);
        }
        Ok(first..pool)
    }

    /// A reply socket's duplicates, sending and receiving, and what the master knows them by.
    pub fn reply_keepsake(
        &self,
        generation: Generation,
        index: u32,
    ) -> Option<(Keepsake, [OwnedFd; 2])> {
        let (send, receive) = self.replies.get(index as usize)?;
        let ends = [duplicate(send).ok()?, duplicate(receive).ok()?];
        Some((Keepsake::Reply(generation, index), ends))
    }

    /// One that the master has kept. Its reply sockets are free, but for those that are `taken`.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn kept(
        ends: Vec<OwnedFd>,
        replies: Vec<(u32, Vec<OwnedFd>)>,
        taken: &BTreeSet<u32>,
    ) -> io::Result<Self> {
        let (send, receive) = pair(ends)?;
        let mut free = BTreeSet::new();
        let mut pairs = Vec::new();
        for (index, ends) in replies {
            // They are numbered without a gap; what comes after one is of no use.
            if index as usize != pairs.len() {
                break;
            }
            pairs.push(pair(ends)?);
            if !taken.contains(&index) {
                free.insert(index);
            }
        }
        Ok(Self { send, receive, replies: pairs, free })
    }

    /// What the master keeps of it.
    pub fn keepsakes(&self, generation: Generation) -> Vec<(Keepsake, [BorrowedFd<'_>; 2])> {
        let mut all =
            vec![(Keepsake::Queue(generation), [self.send.as_fd(), self.receive.as_fd()])];
        all.extend((0..).zip(&self.replies).map(|(index, (send, receive))| {
            (Keepsake::Reply(generation, index), [send.as_fd(), receive.as_fd()])
        }));
        all
    }

    /// How many reply sockets there are, if all of them are taken.
    pub fn exhausted(&self) -> Option<u32> {
        self.free.is_empty().then_some(self.replies.len() as u32)
    }

    /// Takes a reply socket for a worker.
    pub fn take_reply(&mut self) -> Option<u32> {
        self.free.pop_first()
    }

    /// Gives it back when its worker is gone.
    pub fn free_reply(&mut self, index: u32) {
        self.free.insert(index);
    }

    /// Whether tasks wait.
    pub fn is_waiting(&self) -> bool {
        shiftwork_sys::wait::is_readable(&self.receive)
    }

    /// What a process of this kind is given of it.
    ///
    /// # Errors
    /// If no descriptors are to be had.
    pub fn gifts(&self, kind: Kind, reply: Option<u32>) -> io::Result<Vec<(Resource, OwnedFd)>> {
        let mut gifts = Vec::new();
        match kind {
            Kind::Worker => {
                gifts.push((Resource::TaskSend, duplicate(&self.send)?));
                if let Some(index) = reply
                    && let Some((_, receive)) = self.replies.get(index as usize)
                {
                    gifts.push((Resource::ReplyReceive { index }, duplicate(receive)?));
                }
            }
            Kind::TaskWorker => {
                gifts.push((Resource::TaskReceive, duplicate(&self.receive)?));
                for (index, (send, _)) in (0..).zip(&self.replies) {
                    gifts.push((Resource::ReplySend { index }, duplicate(send)?));
                }
            }
        }
        Ok(gifts)
    }
}

/// Besides the one of each worker there are as many reply sockets again, for those that drain while
/// their successors serve.
pub fn reply_sockets(worker_num: u32) -> u32 {
    2 * worker_num + 2
}

impl BoundListener {
    /// As what it is given to a worker.
    pub fn resource(&self, backlog: u32) -> Resource {
        Resource::Listener {
            name: self.name.clone(),
            address: self.address.clone(),
            backlog,
            slot: self.slot,
        }
    }
}

/// The listeners that worker `worker_id` accepts on.
///
/// Its own slot's; those of slots beyond `worker_num`, left over from when there were more
/// workers, belong to all; so does everything that cannot or shall not be a slot.
pub fn listeners_of(
    listeners: &[BoundListener],
    mode: ListenMode,
    worker_num: u32,
    worker_id: u32,
) -> impl Iterator<Item = &BoundListener> {
    listeners.iter().filter(move |it| {
        mode == ListenMode::Shared
            || it.address.starts_with("unix:")
            || it.slot == worker_id
            || it.slot >= worker_num
    })
}

/// Two ends as they were kept.
pub fn pair(ends: Vec<OwnedFd>) -> io::Result<(Channel, Channel)> {
    let [one, other] = <[OwnedFd; 2]>::try_from(ends)
        .map_err(|_| io::Error::other("a pair of sockets is not whole"))?;
    Ok((Channel::from_fd(one), Channel::from_fd(other)))
}

fn duplicate(channel: &Channel) -> io::Result<OwnedFd> {
    channel.as_fd().try_clone_to_owned()
}
