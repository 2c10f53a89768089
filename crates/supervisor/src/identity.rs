//! What this process is, for its log lines. Rewritten after each fork.

use std::sync::{PoisonError, RwLock};

/// What a log line says about the process that wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The server's name.
    pub server: String,
    /// `master`, `manager`, `template`, `worker`, `task worker`, `hook`.
    pub role: String,
    /// Of workers and task workers.
    pub worker_id: Option<u32>,
    /// Of templates and what they fork.
    pub generation: Option<u64>,
    /// This process.
    pub pid: u32,
}

static IDENTITY: RwLock<Option<Identity>> = RwLock::new(None);

/// Says what this process is from now on.
pub fn become_role(server: &str, role: &str, worker_id: Option<u32>, generation: Option<u64>) {
    let identity = Identity {
        server: server.to_owned(),
        role: role.to_owned(),
        worker_id,
        generation,
        pid: std::process::id(),
    };
    *IDENTITY.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
}

/// What this process is; None before anybody has said it.
pub fn current() -> Option<Identity> {
    IDENTITY.read().unwrap_or_else(PoisonError::into_inner).clone()
}
