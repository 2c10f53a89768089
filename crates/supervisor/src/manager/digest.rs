//! The digest of an executable: which one it was, said so that it can be compared.
//!
//! It is computed a block at a time, in the moments in which the manager has nothing else to do, since
//! an executable may be large and the manager must always be there.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use sha2::{Digest as _, Sha256};
use shiftwork_sys::clock::monotonic_ms;

use super::Manager;

/// A block takes less than a millisecond.
const BLOCK: usize = 256 * 1024;
/// A manager that is never idle reads one after so many milliseconds.
const LATE: u64 = 10;

/// The SHA-256 of an executable, as far as it is known.
#[derive(Debug)]
pub struct Digest {
    /// Which file, as it was: the same file is read once.
    of: Option<Identity>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Reading {
        file: File,
        hasher: Box<Sha256>,
        at: u64,
    },
    /// In hexadecimal digits.
    Done(String),
    Unreadable,
}

/// Device, inode, size, and last change in seconds and nanoseconds.
type Identity = (u64, u64, u64, i64, i64);

impl Digest {
    /// One that is not computed yet.
    pub(super) fn of(executable: BorrowedFd<'_>) -> Self {
        let begun = executable.try_clone_to_owned().and_then(|fd| {
            let file = File::from(fd);
            let it = file.metadata()?;
            let of = (it.dev(), it.ino(), it.size(), it.ctime(), it.ctime_nsec());
            Ok((of, file))
        });
        match begun {
            Ok((of, file)) => {
                let progress = Progress::Reading { file, hasher: Box::default(), at: 0 };
                Self { of: Some(of), progress }
            }
            Err(_) => Self { of: None, progress: Progress::Unreadable },
        }
    }

    /// In hexadecimal digits; None: not computed yet, or the file cannot be read.
    pub(super) fn known(&self) -> Option<&str> {
        match &self.progress {
            Progress::Done(text) => Some(text),
            Progress::Reading { .. } | Progress::Unreadable => None,
        }
    }

    fn is_reading(&self) -> bool {
        matches!(self.progress, Progress::Reading { .. })
    }

    /// Reads the next block.
    fn advance(&mut self) {
        let Progress::Reading { file, hasher, at } = &mut self.progress else { return };
        let mut block = vec![0; BLOCK];
        match file.read_at(&mut block, *at) {
            Ok(0) => {
                let digest = hasher.finalize_reset();
                let digits = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                self.progress = Progress::Done(digits);
            }
            Ok(n) => {
                hasher.update(&block[..n]);
                *at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!("the digest of an executable cannot be computed: {error}");
                self.progress = Progress::Unreadable;
            }
        }
    }
}

impl Manager {
    /// Whether there is an executable whose digest is not known yet.
    pub(super) fn is_digesting(&self) -> bool {
        self.releases.values().any(|it| it.digest.is_reading())
    }

    /// Whether it is time for a block, whatever else there is to do.
    pub(super) fn is_digest_late(&self) -> bool {
        monotonic_ms().saturating_sub(self.digested_ms) >= LATE
    }

    /// Reads one block of one executable.
    pub(super) fn digest_a_block(&mut self) {
        self.digested_ms = monotonic_ms();
        let Some(release) = self.releases.values_mut().find(|it| it.digest.is_reading()) else {
            return;
        };
        release.digest.advance();
        let (of, known) = (release.digest.of, release.digest.known().map(str::to_owned));
        if let Some(known) = known {
            self.share_digest(of, &known);
        }
    }

    /// Other releases may hold the same file.
    fn share_digest(&mut self, of: Option<Identity>, known: &str) {
        for release in self.releases.values_mut() {
            if of.is_some() && release.digest.of == of && release.digest.is_reading() {
                release.digest.progress = Progress::Done(known.to_owned());
            }
        }
    }

    /// A release is held: if the same file is known already, it need not be read again.
    pub(super) fn recall_digests(&mut self) {
        let known: Vec<(Option<Identity>, String)> = (self.releases.values())
            .filter_map(|it| Some((it.digest.of, it.digest.known()?.to_owned())))
            .collect();
        for (of, known) in known {
            self.share_digest(of, &known);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn it_is_what_others_compute() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'a'; 1_000_000]).unwrap();
        let mut digest = Digest::of(file.as_fd());
        assert_eq!((digest.known(), digest.is_reading()), (None, true));
        while digest.is_reading() {
            digest.advance();
        }
        // The third example of FIPS 180-4.
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(digest.known(), Some(expected));
    }

    #[test]
    fn what_cannot_be_read_is_left() {
        let file = File::open(".").unwrap();
        let mut digest = Digest::of(file.as_fd());
        digest.advance();
        assert_eq!((digest.known(), digest.is_reading()), (None, false));
    }
}
