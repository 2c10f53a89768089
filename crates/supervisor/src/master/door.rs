//! A private listening socket, the control socket's for one: a file that goes when its server goes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use shiftwork_sys::listen::take_over_unix;

/// A bound socket. Its file is removed with it, if it is still this one.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Door {
    /// Binds the socket, mode 0600. A file left by a server that is gone is taken over.
    ///
    /// # Errors
    /// If somebody listens there, a file of another kind is there, or the folder does not allow it.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        take_over_unix(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                io::Error::new(error.kind(), "another server listens on this socket")
            }
            _ => error,
        })?;
        let listener = {
            let _private = shiftwork_sys::umask::Changed::to(0o177);
            UnixListener::bind(path)?
        };
        listener.set_nonblocking(true)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(path)?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Goes on with the socket of the program that was this process before.
    pub(super) fn resume(listener: OwnedFd, path: PathBuf, inode: u64) -> Self {
        Self { listener: listener.into(), path, inode }
    }

    /// Takes whoever waits.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The inode of its file.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|it| it.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
