//! What a reload executes: the path by which the server was started, its links unresolved, so that
//! a link which points to the newest release is followed anew.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shiftwork_supervisor::protocol::template::Snapshot;

use crate::settings::{Settings, absolute};

/// The setting, else where this program was found when the command was typed.
pub(super) fn executable(
    settings: &Settings,
    snapshot: &Snapshot,
    arguments: &[OsString],
) -> PathBuf {
    if let Some(path) = &settings.server.executable {
        return path.clone();
    }
    let typed = arguments.first().map(OsString::as_os_str).unwrap_or_default();
    let search = std::env::var_os("PATH").unwrap_or_default();
    find(typed, &snapshot.directory, &search, Path::new("/proc/self/exe"))
        .or_else(|| std::env::current_exe().ok())
        .unwrap_or_else(|| absolute(Path::new(typed), &snapshot.directory))
}

/// The path that the first argument stands for, as a shell reads it; None unless it leads to the
/// file `running` (a program can be given any name for its first argument).
fn find(typed: &OsStr, directory: &Path, search: &OsStr, running: &Path) -> Option<PathBuf> {
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let wanted = inode(running)?;
    let right = |path: &PathBuf| inode(path) == Some(wanted);
    if typed.as_encoded_bytes().contains(&b'/') {
        return Some(absolute(Path::new(typed), directory)).filter(right);
    }
    let folders = std::env::split_paths(search);
    folders.map(|folder| absolute(&folder.join(typed), directory)).find(right)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_stay_and_pretenders_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("release-1"), "").unwrap();
        std::fs::write(at("other"), "").unwrap();
        std::os::unix::fs::symlink("release-1", at("shop")).unwrap();
        let found = |typed: &str, search: &str| {
            find(OsStr::new(typed), folder.path(), OsStr::new(search), &at("release-1"))
        };
        assert_eq!(found("./shop", ""), Some(at("shop")));
        let search = format!("/nowhere:{}", folder.path().display());
        assert_eq!(found("shop", &search), Some(at("shop")));
        assert_eq!(found("shop", "."), Some(at("shop")));
        assert_eq!(found("./other", &search), None);
        assert_eq!(found("gone", &search), None);
    }
}
