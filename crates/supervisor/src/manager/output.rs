//! What processes write before they are ready: to the log, and kept for the outcome.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::core::event::Generation;

/// How much of a generation's output is kept.
const KEPT: usize = 64 * 1024;

/// The reading end of a process's stdout and stderr.
#[derive(Debug)]
pub struct OutputPipe {
    file: std::fs::File,
}

impl OutputPipe {
    /// Takes over the reading end of a pipe, which must not block.
    pub fn new(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }

    /// Passes on what there is. Tells whether more may come.
    pub fn drain(&mut self, tail: &mut Tail) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    tail.keep(&buffer[..n]);
                    // The log may be gone or full; the process must not wait for that.
                    let _ = std::io::stderr().write_all(&buffer[..n]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl AsFd for OutputPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The last of what a generation's processes wrote.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..excess);
    }

    /// As text, whatever the bytes are.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes.make_contiguous()).into_owned()
    }
}

/// The tails of all generations.
#[derive(Debug, Default)]
pub struct Tails {
    tails: BTreeMap<Generation, Tail>,
}

impl Tails {
    /// The tail of a generation.
    pub fn of(&mut self, generation: Generation) -> &mut Tail {
        self.tails.entry(generation).or_default()
    }

    /// Lets go of a generation's tail.
    pub fn forget(&mut self, generation: Generation) {
        self.tails.remove(&generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        tail.keep(&vec![b'a'; KEPT]);
        tail.keep(b"the end");
        let text = tail.text();
        assert_eq!(text.len(), KEPT);
        assert!(text.ends_with("the end"));
    }
}
