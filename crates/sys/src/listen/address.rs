//! Addresses as they stand in settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0: the kernel chooses.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Neither form.
    #[error(
        "{0:?} is no address: write IP:PORT as in \"127.0.0.1:9501\" or \"[::1]:9501\", \
         or \"unix:/path/to/socket\" (names are not looked up, but for \"localhost\")"
    )]
    Form(String),
    /// A Unix path that the kernel cannot hold, or that is relative.
    #[error("{0:?} is no usable socket path: it must be absolute and at most 107 bytes long")]
    Path(PathBuf),
}

impl Address {
    /// Reads `127.0.0.1:9501`, `[::1]:9501`, `localhost:9501` (which is 127.0.0.1) or
    /// `unix:/path`. Other names are not looked up: a server starts without a resolver, and two
    /// readers of one text mean one address.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            let fits = path.is_absolute() && path.as_os_str().len() <= 107;
            return if fits { Ok(Self::Unix(path)) } else { Err(AddressError::Path(path)) };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        text.strip_prefix("localhost:")
            .and_then(|port| port.parse().ok())
            .map(|port| Self::Tcp((Ipv4Addr::LOCALHOST, port).into()))
            .ok_or_else(|| AddressError::Form(text.to_owned()))
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The path of a Unix socket.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The file of a Unix socket; removed when this is dropped, if it is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl SocketFile {
    /// Remembers which file stands at the path now.
    #[must_use]
    pub fn remember(path: &Path) -> Self {
        let inode = std::fs::symlink_metadata(path).ok().map(|it| it.ino());
        Self { path: path.to_owned(), inode }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = std::fs::symlink_metadata(&self.path).ok().map(|it| it.ino());
        if now.is_some() && now == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_forms_of_an_address() {
        assert_eq!(Address::parse("127.0.0.1:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(Address::parse("[::1]:0").unwrap().to_string(), "[::1]:0");
        assert_eq!(Address::parse("unix:/a/b").unwrap().to_string(), "unix:/a/b");
        assert_eq!(Address::parse("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        for wrong in [
            "",
            "localhost:x",
            "example.org:80",
            "80",
            "127.0.0.1",
            "unix:relative",
            "unix:",
            "127.0.0.1:99999",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
