//! A release: an executable, held open, and the settings read with it.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use shiftwork_sys::clock::wall_ms;
use shiftwork_sys::{fd, file};

pub use crate::protocol::master::Origin;
use crate::protocol::template::Snapshot;
use crate::protocol::wire;

use super::digest::Digest;

/// A settings file larger than this is refused.
pub const MAX_SETTINGS_FILE: u64 = 1024 * 1024;

/// One version of the application, as it was when its generation began.
#[derive(Debug)]
pub struct Release {
    /// Where the executable was.
    pub path: PathBuf,
    /// The executable itself: what lies at `path` by now does not matter.
    pub executable: OwnedFd,
    /// The settings as they were.
    pub snapshot: Snapshot,
    /// Which executable it is.
    pub digest: Digest,
    /// When it was opened: milliseconds since 1970, by the wall clock; 0: nobody knows any more.
    pub opened_ms: u64,
}

impl Release {
    /// Opens an executable, and the settings file of `before` as it is now.
    ///
    /// # Errors
    /// A sentence that names the file and what was wrong with it.
    pub fn open(path: &Path, before: &Snapshot, overrides: &[String]) -> Result<Self, String> {
        let executable = open_executable(path)?;
        let mut snapshot = before.clone();
        snapshot.overrides.extend_from_slice(overrides);
        if let Some((path, text)) = &mut snapshot.file {
            *text = read_settings(path)?;
        }
        let digest = Digest::of(executable.as_fd());
        Ok(Self { path: path.to_owned(), executable, snapshot, digest, opened_ms: wall_ms() })
    }

    /// One that the master has kept: executable and snapshot file.
    ///
    /// # Errors
    /// If the snapshot cannot be read.
    pub fn kept(path: PathBuf, opened_ms: u64, mut fds: Vec<OwnedFd>) -> std::io::Result<Self> {
        let missing = || std::io::Error::other("a release is not whole");
        let file = fds.pop().ok_or_else(missing)?;
        let executable = fds.pop().ok_or_else(missing)?;
        let snapshot =
            wire::decode(&fd::read_memfd(file.as_fd())?).map_err(std::io::Error::other)?;
        let digest = Digest::of(executable.as_fd());
        Ok(Self { path, executable, snapshot, digest, opened_ms })
    }

    /// The snapshot in a memfd, for a template or for the vault.
    ///
    /// # Errors
    /// If no descriptor or memory is to be had.
    pub fn snapshot_file(&self) -> std::io::Result<OwnedFd> {
        let bytes = wire::encode(&self.snapshot).map_err(std::io::Error::other)?;
        fd::memfd("shiftwork-snapshot", &bytes)
    }
}

pub(super) fn open_executable(path: &Path) -> Result<OwnedFd, String> {
    use std::os::unix::fs::PermissionsExt;
    let explain =
        |error: std::io::Error| format!("cannot open the executable {}: {error}", path.display());
    let file = file::open_regular(path).map_err(explain)?;
    let metadata = file.metadata().map_err(explain)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("{} is not executable (chmod +x it)", path.display()));
    }
    file.as_fd().try_clone_to_owned().map_err(explain)
}

fn read_settings(path: &Path) -> Result<String, String> {
    let explain = |error: std::io::Error| {
        format!("cannot read the settings file {}: {error}", path.display())
    };
    let mut text = String::new();
    file::open_regular(path)
        .map_err(explain)?
        .take(MAX_SETTINGS_FILE + 1)
        .read_to_string(&mut text)
        .map_err(explain)?;
    if text.len() as u64 > MAX_SETTINGS_FILE {
        return Err(format!("the settings file {} is larger than 1 MiB", path.display()));
    }
    Ok(text)
}
