//! What the manager gives a process: before it begins, and some of it later.

use std::io;
use std::os::fd::OwnedFd;

use shiftwork_supervisor::protocol::wire;
use shiftwork_supervisor::protocol::worker::{Begin, Resource, ToWorker};
use shiftwork_sys::socket::Channel;

use super::accept::Door;
use super::tasks::TaskSockets;

/// What the manager has given.
#[derive(Default)]
pub(super) struct Gifts {
    pub(super) slab: Option<OwnedFd>,
    pub(super) log: Option<OwnedFd>,
    pub(super) hand_over_send: Option<Channel>,
    pub(super) hand_over_receive: Option<Channel>,
    pub(super) tasks: TaskSockets,
    pub(super) doors: Vec<Door>,
}

/// Everything that the manager gives comes before `Begin`.
pub(super) fn receive(control: &Channel) -> io::Result<(Gifts, Begin)> {
    control.set_blocking(true)?;
    let mut gifts = Gifts::default();
    loop {
        let (bytes, mut received) = control.receive(wire::MAX_PACKET)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match wire::decode(&bytes) {
            Ok(ToWorker::Give(resource)) => {
                if let Some(fd) = received.fds.pop() {
                    gifts.take(resource, fd);
                }
            }
            Ok(ToWorker::Begin(begin)) => return Ok((gifts, begin)),
            Ok(_) => {}
            // Of a newer manager, which cannot count on what this release does not know.
            Err(error) => tracing::warn!("a message was dropped: {error}"),
        }
    }
}

impl Gifts {
    pub(super) fn take(&mut self, resource: Resource, fd: OwnedFd) {
        match resource {
            Resource::Slab => self.slab = Some(fd),
            Resource::Log => self.log = Some(fd),
            Resource::HandOverSend => self.hand_over_send = Some(Channel::from_fd(fd)),
            Resource::HandOverReceive => self.hand_over_receive = Some(Channel::from_fd(fd)),
            Resource::TaskSend => self.tasks.send = Some(Channel::from_fd(fd)),
            Resource::TaskReceive => self.tasks.receive = Some(Channel::from_fd(fd)),
            Resource::ReplyReceive { index } => {
                self.tasks.reply = Some((index, Channel::from_fd(fd)));
            }
            Resource::ReplySend { index } => {
                self.tasks.replies.push((index, Channel::from_fd(fd)));
            }
            Resource::Listener { name, address, backlog, slot } => {
                self.doors.push(Door { name: name.into(), address, backlog, slot, socket: fd });
            }
        }
    }
}
