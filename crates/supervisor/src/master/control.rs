//! The control socket: private, one request a connection, answered in lines of JSON.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::peer;
use shiftwork_sys::wait::{Interest, has_hung_up};

use crate::control::{Request, Response};
use crate::core::event::{Millis, Ticket};
use crate::core::history::Requester;
use crate::passing::{Passed, Passing};

use super::door::Door;
use super::rest::Rest;
use super::state::{ClientState, ControlState};

/// Connections at a time.
const MOST_CLIENTS: usize = 128;
/// A request is not longer than this, in bytes.
const LONGEST_REQUEST: usize = 64 * 1024;
/// A client that does not read is let go when this much waits for it, in bytes.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// A client that does not ask is let go.
const PATIENCE: Millis = 10_000;

/// Somebody who asks.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    read: Vec<u8>,
    write: Vec<u8>,
    since: Millis,
    asked: bool,
    last: bool,
    /// It says nothing more; it may still listen, as those do that write a request and shut down
    /// their side.
    ended: bool,
}

/// The listening socket and those who ask.
#[derive(Debug)]
pub struct Control {
    door: Option<Door>,
    clients: BTreeMap<Ticket, Client>,
    next: Ticket,
    rest: Rest,
}

impl Control {
    /// Binds the socket; the pid file's lock has told already that no server of this name runs.
    ///
    /// # Errors
    /// If somebody listens there, or the folder does not allow it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let next = crate::protocol::master::START + 1;
        let (door, rest) = (Some(Door::bind(path)?), Rest::default());
        Ok(Self { door, clients: BTreeMap::new(), next, rest })
    }

    /// Listens there from now on; whoever has come by the old door is answered.
    pub(super) fn listen_at(&mut self, door: Door) {
        self.door = Some(door);
    }

    /// All of it, for the program that comes: whoever asks notices nothing.
    ///
    /// # Errors
    /// If a descriptor is not open.
    pub fn describe<'a>(&'a self, passing: &mut Passing<'a>) -> io::Result<ControlState> {
        let mut clients = BTreeMap::new();
        for (ticket, client) in &self.clients {
            let state = ClientState {
                stream: passing.add(&client.stream)?,
                read: client.read.clone(),
                write: client.write.clone(),
                since: client.since,
                asked: client.asked,
                last: client.last,
            };
            clients.insert(*ticket, state);
        }
        Ok(ControlState {
            listener: self.door.as_ref().map(|it| passing.add(it)).transpose()?,
            path: self.door.as_ref().map(|it| it.path().to_owned()).unwrap_or_default(),
            inode: self.door.as_ref().map_or(0, Door::inode),
            next: self.next,
            clients,
        })
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// If a descriptor is not what it was.
    pub fn restore(state: ControlState) -> io::Result<Self> {
        let mut clients = BTreeMap::new();
        for (ticket, client) in state.clients {
            let client = Client {
                stream: client.stream.take()?.into(),
                read: client.read,
                write: client.write,
                since: client.since,
                asked: client.asked,
                last: client.last,
                // Seen again at the next look.
                ended: false,
            };
            clients.insert(ticket, client);
        }
        let listener = state.listener.map(Passed::take).transpose()?;
        Ok(Self {
            door: listener.map(|it| Door::resume(it, state.path, state.inode)),
            clients,
            next: state.next,
            rest: Rest::default(),
        })
    }

    /// The socket to wait on for new clients.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        let open = self.clients.len() < MOST_CLIENTS && self.rest.until().is_none();
        self.door.as_ref().filter(|_| open).map(AsFd::as_fd)
    }

    /// The clients to wait on, and for what.
    pub fn clients(&self) -> impl Iterator<Item = (Ticket, BorrowedFd<'_>, Interest)> {
        self.clients.iter().map(|(ticket, client)| {
            let interest = match (client.ended, client.write.is_empty()) {
                (false, true) => Interest::READ,
                (false, false) => Interest::READ_WRITE,
                (true, true) => Interest::End,
                (true, false) => Interest::Write,
            };
            (*ticket, client.stream.as_fd(), interest)
        })
    }

    /// When the next client is let go because it has not asked.
    pub fn next_deadline(&self) -> Option<Millis> {
        let silent = self.clients.values().filter(|client| !client.asked);
        silent.map(|client| client.since + PATIENCE).chain(self.rest.until()).min()
    }

    /// Lets those go who have not asked in time.
    pub fn pass_deadlines(&mut self) {
        let now = monotonic_ms();
        self.clients.retain(|_, client| client.asked || client.since + PATIENCE > now);
    }

    /// A number for something that nobody waits for.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next - 1
    }

    /// Who has this ticket.
    pub fn asker(&self, ticket: Ticket) -> Requester {
        let client = self.clients.get(&ticket);
        let peer = client.and_then(|it| peer::credentials(&it.stream).ok());
        peer.map_or(Requester::Unknown, |it| Requester::Command { uid: it.uid, pid: it.pid })
    }

    /// Takes new clients; those of other users are refused.
    pub fn accept(&mut self) {
        while self.clients.len() < MOST_CLIENTS {
            let Some(door) = &self.door else { return };
            let stream = match door.accept() {
                Ok(stream) => stream,
                Err(error) => return self.rest.after(&error),
            };
            let permitted = peer::credentials(&stream).is_ok_and(|peer| {
                peer.uid == 0 || peer.uid == shiftwork_sys::user::effective_uid()
            });
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let ticket = self.next;
            self.next += 1;
            let client = Client {
                stream,
                read: Vec::new(),
                write: Vec::new(),
                since: monotonic_ms(),
                asked: false,
                last: false,
                ended: false,
            };
            self.clients.insert(ticket, client);
            if !permitted {
                let reason = "only the server's own user and root may ask".to_owned();
                self.answer(ticket, &Response::Refused { reason, not_permitted: true });
            }
        }
    }

    /// Reads from a client, writes what waits for it, and gives its request once it is whole.
    pub fn turn(&mut self, ticket: Ticket) -> Option<Request> {
        let client = self.clients.get_mut(&ticket)?;
        if !client.flush() {
            self.clients.remove(&ticket);
            return None;
        }
        if client.ended && has_hung_up(&client.stream) {
            // Whoever has asked and hangs up does not want the answer; what was asked goes on.
            self.clients.remove(&ticket);
            return None;
        }
        let mut buffer = [0; 4096];
        while !client.ended {
            match client.stream.read(&mut buffer) {
                Ok(0) => client.ended = true,
                Ok(n) => client.read.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.clients.remove(&ticket);
                    return None;
                }
            }
            if client.read.len() > LONGEST_REQUEST {
                let reason = "the request is longer than 64 KiB".to_owned();
                self.answer(ticket, &Response::Refused { reason, not_permitted: false });
                return None;
            }
        }
        if client.asked {
            return None;
        }
        let Some(end) = client.read.iter().position(|byte| *byte == b'\n') else {
            if client.ended {
                self.clients.remove(&ticket);
            }
            return None;
        };
        client.asked = true;
        match serde_json::from_slice(&client.read[..end]) {
            Ok(request) => Some(request),
            Err(error) => {
                let reason = format!("the request cannot be read: {error}");
                self.answer(ticket, &Response::Refused { reason, not_permitted: false });
                None
            }
        }
    }

    /// Sends a line; anything but progress is the last one.
    pub fn answer(&mut self, ticket: Ticket, response: &Response) {
        let last = !matches!(response, Response::Progress(_));
        if let Ok(json) = serde_json::to_vec(response) {
            self.answer_json(ticket, &json, last);
        }
    }

    /// Sends a line that is JSON already.
    pub fn answer_json(&mut self, ticket: Ticket, json: &[u8], last: bool) {
        let Some(client) = self.clients.get_mut(&ticket) else { return };
        client.write.extend_from_slice(json);
        client.write.push(b'\n');
        client.asked = true;
        client.last |= last;
        if client.write.len() > MOST_WAITING || !client.flush() {
            self.clients.remove(&ticket);
        }
    }

    /// Closes the socket and removes its file, if that is still this one.
    pub fn close(&mut self) {
        self.door = None;
        self.clients.clear();
    }
}

impl Client {
    /// Writes what waits. Tells whether the connection goes on.
    fn flush(&mut self) -> bool {
        while !self.write.is_empty() {
            match self.stream.write(&self.write) {
                Ok(0) => return false,
                Ok(n) => drop(self.write.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        !self.last
    }
}
