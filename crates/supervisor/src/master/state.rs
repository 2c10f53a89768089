//! What a master writes down for the program that it becomes.
//!
//! The outer part never changes its form, so that a program that cannot read the inner one still
//! finds the way back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::core::event::{Generation, Millis, Ticket};
use crate::core::history::Asked;
use crate::core::respawn::Backoff;
use crate::passing::Passed;
use crate::places::Places;
use crate::protocol::master::{Keepsake, Seed, Verb};
use crate::versions;

use super::notify::NotifyState;

/// The outer part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Of the inner part.
    pub version: u32,
    /// The executable that wrote this: the way back.
    pub back: Passed,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The inner part.
    pub state: serde_json::Value,
}

/// The inner part: everything that the master has.
#[derive(Debug, Serialize, Deserialize)]
pub struct MasterState {
    pub(super) seed: Seed,
    pub(super) places: Places,
    #[serde(default)]
    pub(super) moves: BTreeMap<Generation, Places>,
    pub(super) daemon: bool,
    #[serde(default)]
    pub(super) delays_stop: bool,
    #[serde(default)]
    pub(super) heartbeat_timeout: Millis,
    pub(super) pid_file: (Passed, PathBuf),
    pub(super) slab: Passed,
    pub(super) log: Passed,
    pub(super) ears: EarsState,
    pub(super) control: ControlState,
    #[serde(default)]
    pub(super) admin: Option<AdminState>,
    pub(super) vault: VaultState,
    pub(super) succession: SuccessionState,
    pub(super) kept: Vec<(Keepsake, Vec<Passed>)>,
    #[serde(default)]
    pub(super) notify: NotifyState,
}

/// What has been heard.
#[derive(Debug, Serialize, Deserialize)]
pub struct EarsState {
    pub(super) first_term: Option<Millis>,
    pub(super) terminal: bool,
}

/// The control socket and those who ask, in the middle of whatever they say.
#[derive(Debug, Serialize, Deserialize)]
pub struct ControlState {
    pub(super) listener: Option<Passed>,
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    pub(super) next: Ticket,
    pub(super) clients: BTreeMap<Ticket, ClientState>,
}

/// The admin address. Whoever asks there in this moment has to ask again.
#[derive(Debug, Serialize, Deserialize)]
pub struct AdminState {
    pub(super) listener: Passed,
    /// The file of a Unix socket.
    pub(super) path: Option<PathBuf>,
    pub(super) inode: u64,
}

/// Somebody who asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientState {
    pub(super) stream: Passed,
    pub(super) read: Vec<u8>,
    pub(super) write: Vec<u8>,
    pub(super) since: Millis,
    pub(super) asked: bool,
    pub(super) last: bool,
}

/// The listening sockets.
#[derive(Debug, Serialize, Deserialize)]
pub struct VaultState {
    pub(super) listeners: BTreeMap<String, HeldState>,
    pub(super) committed: Option<Generation>,
    #[serde(default)]
    pub(super) given: Vec<GivenState>,
    #[serde(default)]
    pub(super) keeps: bool,
}

/// A socket that the service manager has passed.
#[derive(Debug, Serialize, Deserialize)]
pub struct GivenState {
    pub(super) name: String,
    pub(super) socket: Passed,
}

/// The sockets of one address.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldState {
    pub(super) sockets: Vec<Passed>,
    pub(super) real: String,
    pub(super) used: u32,
    pub(super) wanted: BTreeMap<Generation, u32>,
    /// The file of a Unix socket.
    pub(super) file: Option<PathBuf>,
    #[serde(default)]
    pub(super) listener: String,
    #[serde(default)]
    pub(super) kept: String,
    #[serde(default)]
    pub(super) activated: usize,
}

/// The manager, seen from above.
#[derive(Debug, Serialize, Deserialize)]
pub struct SuccessionState {
    pub(super) line: Passed,
    pub(super) pid: Option<i32>,
    pub(super) born: Millis,
    pub(super) backoff: Backoff,
    pub(super) deaths: u64,
    pub(super) settled: bool,
    pub(super) open: BTreeMap<Ticket, Verb>,
    #[serde(default)]
    pub(super) asked: BTreeMap<Ticket, Asked>,
}

impl MasterState {
    /// Reads what another master wrote.
    ///
    /// # Errors
    /// A sentence about what this program would not understand.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let envelope: Envelope =
            serde_json::from_slice(text).map_err(|error| format!("it cannot be read: {error}"))?;
        versions::check(envelope.version)?;
        serde_json::from_value(envelope.state)
            .map_err(|error| format!("it cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FIRST: &[u8] = include_bytes!("../../fixtures/state-1/master.json");

    #[test]
    fn what_the_first_version_wrote_can_be_gone_on_from() {
        let state = MasterState::read(FIRST).unwrap();
        assert_eq!(state.seed.name, "shop");
        assert_eq!(state.vault.listeners.len(), 2);
        assert_eq!(state.vault.committed, Some(3));
        assert_eq!(state.control.clients.len(), 1);
        assert!(state.kept.iter().any(|(what, _)| *what == Keepsake::Journal));
    }

    #[test]
    fn the_way_back_is_found_in_a_state_of_any_version() {
        let mut value: serde_json::Value = serde_json::from_slice(FIRST).unwrap();
        value["version"] = 99.into();
        value["state"] = "something else altogether".into();
        let text = serde_json::to_vec(&value).unwrap();
        let refused = MasterState::read(&text).unwrap_err();
        assert!(refused.contains("99"), "{refused}");
        let envelope: Envelope = serde_json::from_slice(&text).unwrap();
        assert_eq!(envelope.arguments[1], "start");
    }
}
