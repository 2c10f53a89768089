//! A socket between two processes: messages out, with a queue for when it is full, and in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use shiftwork_sys::socket::Channel;

use crate::envelope;
use crate::protocol::wire;

/// A socket to a process, with what could not be sent yet.
#[derive(Debug)]
pub struct Line {
    channel: Channel,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// More messages than this can only mean that the other side has stopped reading.
const MOST_WAITING: usize = 16 * 1024;

impl Line {
    /// Takes over a socket.
    pub fn new(channel: Channel) -> Self {
        Self { channel, waiting: VecDeque::new() }
    }

    /// The socket alone; what waits is given up.
    pub fn into_channel(self) -> Channel {
        self.channel
    }

    /// The socket, to wait on.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether something waits until the other side reads.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a message, or keeps it until the socket takes it. A peer that is gone is no error
    /// here: its end is learned by other means.
    pub fn send<T: Serialize>(&mut self, message: &T, fds: Vec<OwnedFd>) {
        let sealed = wire::encode(message)
            .map_err(io::Error::other)
            .and_then(|bytes| envelope::seal(bytes, fds));
        match sealed {
            Ok(packet) if self.waiting.len() < MOST_WAITING => {
                self.waiting.push_back(packet);
                self.flush();
            }
            Ok(_) => tracing::warn!("a process does not read what it is told"),
            Err(error) => tracing::error!("a message cannot be sent: {error}"),
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) {
        while let Some((bytes, fds)) = self.waiting.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match self.channel.send(bytes, &borrowed) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.waiting.clear();
                    return;
                }
            }
        }
    }
}

/// What a line has brought.
#[derive(Debug)]
pub enum Heard<T> {
    /// A message, with its descriptors.
    Message(T, Vec<OwnedFd>),
    /// The other side has closed.
    End,
    /// Nothing for now.
    Nothing,
}

/// What a packet says; what remains of `fds` came with it.
///
/// # Errors
/// If it is not a `T`.
pub fn read<T: serde::de::DeserializeOwned>(
    packet: Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<T> {
    wire::decode(&envelope::open(packet, fds)?).map_err(io::Error::other)
}

/// Reads one message.
pub fn hear<T: serde::de::DeserializeOwned>(channel: &Channel) -> Heard<T> {
    loop {
        match channel.receive(wire::MAX_PACKET) {
            Ok((bytes, received)) if bytes.is_empty() && received.fds.is_empty() => {
                return Heard::End;
            }
            Ok((packet, mut received)) => match read(packet, &mut received.fds) {
                Ok(message) => return Heard::Message(message, received.fds),
                Err(error) => tracing::warn!("a message that cannot be read was dropped: {error}"),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Heard::End,
        }
    }
}
