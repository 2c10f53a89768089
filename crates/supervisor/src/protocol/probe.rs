//! Manager ↔ probe: a child of the new program that is shown both states, and says whether it could
//! go on from them.

use serde::{Deserialize, Serialize};

/// Manager → probe. Descriptors: the manager's state and the master's, each a memfd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToProbe {
    /// Version of the library that asks, for the log.
    pub version: String,
}

/// Probe → manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromProbe {
    /// Why not; None: it could.
    pub refusal: Option<String>,
}
