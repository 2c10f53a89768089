//! The admin address: metrics and status over HTTP, for whoever scrapes them.
//!
//! It changes nothing and asks nobody who he is, so it belongs on the loopback or in a Unix socket.
//! It is bounded in everything, and never waits for anybody: the master has more to do.

mod door;
mod http;

pub use door::AdminDoor;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use shiftwork_sys::clock::monotonic_ms;

use crate::control::Response;
use crate::core::event::{Millis, Ticket};
use crate::metrics::MEDIA_TYPE;
use door::Socket;
pub use http::Document;
use http::{Read, Refusal};

use super::rest::Rest;

/// Connections at a time; for one more the oldest has to go that has not asked yet.
const MOST_CLIENTS: usize = 32;
/// Connections taken in one turn.
const MOST_ACCEPTED: usize = 16;
/// Bytes that a client may send in all, of which its head is the only part that counts.
const MOST_READ: usize = 64 * 1024;
/// From the connection to the end of the head.
const HEAD_PATIENCE: Millis = 5_000;
/// From there to the manager's answer.
const ANSWER_PATIENCE: Millis = 5_000;
/// From there to its last byte.
const WRITE_PATIENCE: Millis = 10_000;
/// What a client then gets to close its side: else a reset could overtake the answer.
const FAREWELL: Millis = 1_000;

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The head comes in.
    Reading,
    /// The manager is asked.
    Waiting,
    /// The answer goes out.
    Writing,
    /// It is sent; the client closes.
    Leaving,
}

/// Somebody who asks.
#[derive(Debug)]
struct Client {
    socket: Box<dyn Socket>,
    stage: Stage,
    /// When the stage has to be over.
    until: Millis,
    head: Vec<u8>,
    /// Bytes read in all.
    read: usize,
    answer: Vec<u8>,
    /// Bytes of it that are written.
    written: usize,
}

/// The listening socket and those who ask.
#[derive(Debug, Default)]
pub struct Admin {
    door: Option<AdminDoor>,
    clients: BTreeMap<Ticket, Client>,
    rest: Rest,
}

impl Admin {
    /// With this door; None: it is nowhere.
    pub fn new(door: Option<AdminDoor>) -> Self {
        if let Some(door) = &door {
            tracing::info!("metrics and status are served at {door}");
        }
        Self { door, ..Self::default() }
    }

    /// Listens there from now on, or nowhere; whoever has come by the old door is answered.
    pub fn listen_at(&mut self, door: Option<AdminDoor>) {
        let clients = std::mem::take(&mut self.clients);
        *self = Self { clients, ..Self::new(door) };
    }

    /// The door, if somebody may be let in by it now.
    pub fn open_door(&self) -> Option<&AdminDoor> {
        self.door().filter(|_| self.rest.until().is_none())
    }

    /// The door.
    pub fn door(&self) -> Option<&AdminDoor> {
        self.door.as_ref()
    }

    /// The clients to wait on, and whether something waits to be written to each.
    pub fn clients(&self) -> impl Iterator<Item = (Ticket, BorrowedFd<'_>, bool)> {
        self.clients
            .iter()
            .map(|(ticket, it)| (*ticket, it.socket.as_fd(), it.stage == Stage::Writing))
    }

    /// When the next stage has to be over.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.clients.values().map(|it| it.until).chain(self.rest.until()).min()
    }

    /// Lets those go who are too slow.
    pub fn pass_deadlines(&mut self) {
        let now = monotonic_ms();
        let late: Vec<Ticket> =
            self.clients.iter().filter(|(_, it)| it.until <= now).map(|(it, _)| *it).collect();
        for ticket in late {
            match self.clients.get(&ticket).map(|it| it.stage) {
                Some(Stage::Waiting) => self.send(ticket, http::refused(Refusal::Unavailable)),
                _ => drop(self.clients.remove(&ticket)),
            }
        }
    }

    /// Takes who has come; `ticket` numbers them.
    pub fn accept(&mut self, mut ticket: impl FnMut() -> Ticket) {
        for _ in 0..MOST_ACCEPTED {
            let Some(door) = &self.door else { return };
            let socket = match door.accept() {
                Ok(socket) => socket,
                Err(error) => return self.rest.after(&error),
            };
            if self.clients.len() >= MOST_CLIENTS {
                self.make_room();
            }
            let client = Client {
                socket,
                stage: Stage::Reading,
                until: monotonic_ms() + HEAD_PATIENCE,
                head: Vec::new(),
                read: 0,
                answer: Vec::new(),
                written: 0,
            };
            self.clients.insert(ticket(), client);
        }
    }

    /// The longest here of those with the least to lose.
    fn make_room(&mut self) {
        let order = [Stage::Leaving, Stage::Reading, Stage::Writing, Stage::Waiting];
        let oldest = order.into_iter().find_map(|stage| {
            self.clients.iter().find(|(_, it)| it.stage == stage).map(|(ticket, _)| *ticket)
        });
        if let Some(ticket) = oldest {
            self.clients.remove(&ticket);
        }
    }

    /// Reads from a client and writes to it; gives what it wants, once.
    pub fn turn(&mut self, ticket: Ticket) -> Option<Document> {
        let client = self.clients.get_mut(&ticket)?;
        if !client.take_in() {
            self.clients.remove(&ticket);
            return None;
        }
        match client.stage {
            Stage::Reading => match http::read(&client.head) {
                Read::Incomplete => {}
                Read::Wanted(document) => {
                    client.enter(Stage::Waiting, ANSWER_PATIENCE);
                    return Some(document);
                }
                Read::Refused(refusal) => self.send(ticket, http::refused(refusal)),
            },
            Stage::Writing => self.write(ticket),
            Stage::Waiting | Stage::Leaving => {}
        }
        None
    }

    /// Whether somebody waits here under this number.
    pub fn has(&self, ticket: Ticket) -> bool {
        self.clients.contains_key(&ticket)
    }

    /// The manager has answered, with a line of the control protocol.
    pub fn answer(&mut self, ticket: Ticket, line: &[u8]) {
        let answer = match serde_json::from_slice(line) {
            Ok(Response::Metrics { text }) => http::found(MEDIA_TYPE, text.as_bytes()),
            Ok(Response::Status(status)) => match serde_json::to_vec(&*status) {
                Ok(json) => http::found("application/json", &json),
                Err(_) => http::refused(Refusal::Unavailable),
            },
            _ => http::refused(Refusal::Unavailable),
        };
        self.send(ticket, answer);
    }

    /// There is no manager to ask.
    pub fn refuse(&mut self, ticket: Ticket) {
        self.send(ticket, http::refused(Refusal::Unavailable));
    }

    fn send(&mut self, ticket: Ticket, answer: Vec<u8>) {
        let Some(client) = self.clients.get_mut(&ticket) else { return };
        client.answer = answer;
        client.enter(Stage::Writing, WRITE_PATIENCE);
        self.write(ticket);
    }

    fn write(&mut self, ticket: Ticket) {
        let Some(client) = self.clients.get_mut(&ticket) else { return };
        if !client.write() {
            self.clients.remove(&ticket);
        }
    }
}

impl Client {
    fn enter(&mut self, stage: Stage, patience: Millis) {
        self.stage = stage;
        self.until = monotonic_ms() + patience;
    }

    /// Reads what there is. False: the client has gone, or sends without an end.
    fn take_in(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.read += n;
                    if self.stage == Stage::Reading {
                        self.head.extend_from_slice(&buffer[..n]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.read > MOST_READ {
                return false;
            }
        }
    }

    /// Writes what waits. False: the client has gone.
    fn write(&mut self) -> bool {
        while let Some(rest @ [_, ..]) = self.answer.get(self.written..) {
            match self.socket.write(rest) {
                Ok(0) => return false,
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.answer = Vec::new();
        self.enter(Stage::Leaving, FAREWELL);
        self.socket.finish()
    }
}
