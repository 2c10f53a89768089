//! The pid file and the private folder: who runs, and where nobody else may write.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a pid file is not ours.
#[derive(Debug, thiserror::Error)]
pub enum PidError {
    /// A living server has it.
    #[error("held by a running server")]
    Held {
        /// Its pid, if it stands in the file.
        pid: Option<i32>,
    },
    /// It cannot be opened or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A pid file, locked for as long as a process that holds it lives.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
    ours: bool,
}

impl PidFile {
    /// Opens and locks the file. One that a dead server left is taken over.
    ///
    /// # Errors
    /// [`PidError::Held`] if a server runs; else if it cannot be had, or is no regular file.
    pub fn open(path: &Path) -> Result<Self, PidError> {
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                // One that is a FIFO would be waited for when it is read.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)?;
            if !file.metadata()?.is_file() {
                let text = "it is no regular file";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
            }
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    let _ = (&mut file).take(32).read_to_string(&mut text);
                    return Err(PidError::Held { pid: text.trim().parse().ok() });
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
            // A server that has just stopped removes its file: a lock on what nobody finds by
            // this name any more excludes nobody.
            let same = std::fs::metadata(path)
                .is_ok_and(|it| file.metadata().is_ok_and(|own| own.ino() == it.ino()));
            if same {
                return Ok(Self { file, path: path.to_owned(), ours: true });
            }
        }
    }

    /// Goes on with the file of the program that was this process before.
    #[must_use]
    pub fn resume(file: OwnedFd, path: PathBuf) -> Self {
        Self { file: file.into(), path, ours: true }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the pid, in place.
    ///
    /// # Errors
    /// If the disk is full, for example.
    pub fn write(&mut self, pid: i32) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(format!("{pid}\n").as_bytes())?;
        let end = self.file.stream_position()?;
        self.file.set_len(end)
    }

    /// The file belongs to another process that was forked from this one.
    pub fn leave(&mut self) {
        self.ours = false;
    }

    /// Removes the file, if it is still this one.
    pub fn remove(&mut self) {
        let same = std::fs::metadata(&self.path)
            .is_ok_and(|it| self.file.metadata().is_ok_and(|own| own.ino() == it.ino()));
        if same && std::mem::replace(&mut self.ours, false) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes a folder that only this user can enter (mode 0700), its parents too where they are
/// missing. One that is there already must be this user's own, and nobody else's to write to; a
/// link to one must be this user's or root's, since others could turn it elsewhere.
///
/// # Errors
/// If it cannot be made, or is not ours.
pub fn private_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let named = std::fs::symlink_metadata(path)?;
    let own = crate::user::effective_uid();
    if named.is_symlink() && named.uid() != own && named.uid() != 0 {
        let text = format!("it is a link of user {}", named.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let found = std::fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
    }
    if found.uid() != own {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "it belongs to user {}; set server.run_dir to a folder of your own",
                found.uid()
            ),
        ));
    }
    if found.mode() & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("others may write to it (mode {:o}); chmod go-w it", found.mode() & 0o7777),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_held_file_names_its_server_and_a_stale_one_is_taken_over() {
        let folder = std::env::temp_dir().join(format!("shiftwork-pid-{}", std::process::id()));
        private_dir(&folder).unwrap();
        let path = folder.join("a.pid");
        std::fs::write(&path, "999999\n and more").unwrap();
        let mut first = PidFile::open(&path).unwrap();
        first.write(42).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "42\n");
        assert!(matches!(PidFile::open(&path), Err(PidError::Held { pid: Some(42) })));
        drop(first);
        assert!(!path.exists());
        drop(PidFile::open(&path).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_is_no_longer_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        let mut first = PidFile::open(&path).unwrap();
        first.write(42).unwrap();
        std::fs::remove_file(&path).unwrap();
        // Its lock is on a file without a name, and keeps nobody out.
        let mut second = PidFile::open(&path).unwrap();
        second.write(1_234_567).unwrap();
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1234567\n");
        second.write(8).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "8\n");
    }

    #[test]
    fn a_copy_in_another_process_holds_the_lock_and_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        let mut first = PidFile::open(&path).unwrap();
        let copy = first.as_fd().try_clone_to_owned().unwrap();
        first.leave();
        drop(first);
        assert!(path.exists());
        assert!(matches!(PidFile::open(&path), Err(PidError::Held { pid: None })));
        drop(copy);
        PidFile::open(&path).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_pid_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("a.pid"), folder.path().join("precious"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(PidFile::open(&path), Err(PidError::Io(_))));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn a_private_folder_is_ours_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_dir(&path).unwrap();
        for made in [folder.path().join("a"), path.clone()] {
            assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o7777, 0o700);
        }
        private_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(private_dir(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(private_dir(&file).is_err() && private_dir(&file.join("c")).is_err());
        if crate::user::effective_uid() == 0 {
            std::os::unix::fs::chown(&path, Some(54321), None).unwrap();
            assert!(private_dir(&path).unwrap_err().to_string().contains("54321"));
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(folder.path().join("a"), &link).unwrap();
            private_dir(&link).unwrap();
            std::os::unix::fs::lchown(&link, Some(54321), None).unwrap();
            assert!(private_dir(&link).unwrap_err().to_string().contains("link of user 54321"));
        }
    }
}
