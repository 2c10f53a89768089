//! Where a server's own files are, and where it is asked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The files of a server itself; all paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The private folder.
    pub run_dir: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The pid file.
    pub pid_file: PathBuf,
    /// The log of a daemon.
    pub log_file: PathBuf,
    /// Where metrics and status are served over HTTP; None: nowhere.
    #[serde(default)]
    pub admin_address: Option<String>,
}
