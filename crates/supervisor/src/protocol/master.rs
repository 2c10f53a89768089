//! Master ↔ manager, over a SOCK_SEQPACKET pair made before the manager is forked.

use serde::{Deserialize, Serialize};

use super::template::ListenerSpec;
use crate::core::event::{Generation, Scope, Ticket, Until};
use crate::core::outcome::{Outcome, Progress};

/// The ticket of the first start, which nobody asked for.
pub const START: Ticket = 0;

/// What can be asked of the server, by command or by signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Replace workers and task workers, or these alone.
    Reload {
        /// Which processes.
        scope: Scope,
        /// `KEY=VALUE`s that hold from now on.
        overrides: Vec<String>,
        /// When to answer.
        until: Until,
    },
    /// Finish what is in hand, then leave.
    Stop,
    /// Leave now.
    Quit,
    /// Tell how things are.
    Status,
}

/// Master → manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToManager {
    /// Somebody asks.
    Verb {
        /// Who is answered; None: nobody.
        ticket: Option<Ticket>,
        /// What is asked.
        verb: Verb,
    },
    /// A duplicate of a socket that the vault holds. Descriptor: the socket.
    Listener {
        /// For which generation.
        generation: Generation,
        /// The listener's name.
        name: String,
        /// The address it is bound to, with the real port.
        address: String,
        /// Its slot.
        slot: u32,
    },
    /// All listeners of a generation have been sent.
    Bound {
        /// Whose.
        generation: Generation,
    },
    /// An address could not be bound; the generation holds nothing new.
    NotBound {
        /// Whose.
        generation: Generation,
        /// For the operator.
        reason: String,
    },
    /// The log was reopened. Descriptor: the log.
    Log,
}

/// Manager → master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromManager {
    /// Bind these addresses for a generation.
    Bind {
        /// Whose.
        generation: Generation,
        /// The addresses.
        listeners: Vec<ListenerSpec>,
        /// Sockets per address.
        slots: u32,
    },
    /// This generation is in force. Descriptors: executable, snapshot (a memfd).
    Commit {
        /// Which.
        generation: Generation,
        /// For what; listeners are let go only with [`Scope::All`].
        scope: Scope,
    },
    /// Nothing of this generation lives.
    Forget {
        /// Which.
        generation: Generation,
    },
    /// How far a reload is.
    Progress {
        /// Who asked.
        ticket: Ticket,
        /// How far.
        progress: Progress,
    },
    /// What a reload, or the start, came to.
    Finish {
        /// Who asked.
        ticket: Ticket,
        /// What it came to.
        outcome: Outcome,
    },
    /// The status. Descriptor: JSON in a memfd.
    Status {
        /// Who asked.
        ticket: Ticket,
    },
    /// The manager's own pid was sent a signal: a request to its parent.
    Signal {
        /// Which.
        signo: i32,
    },
    /// All processes are gone; the manager exits next.
    Stopped {
        /// Exit status for the master.
        code: i32,
    },
}
