//! Where a manager writes down what it knows, so that another one can go on: a memfd with two
//! pages, written in turn. Death in the middle of writing one leaves the other.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Where the second page begins; no state comes near it.
const PAGE: u64 = 64 * 1024 * 1024;
/// Sequence number, length and checksum.
const HEADER: usize = 24;

/// The writing and the reading end in one.
#[derive(Debug)]
pub struct Journal {
    file: File,
    sequence: u64,
    last: Vec<u8>,
}

impl Journal {
    /// An empty one.
    ///
    /// # Errors
    /// If no descriptor or memory is to be had.
    pub fn create() -> io::Result<Self> {
        let file: File = shiftwork_sys::fd::scratch("shiftwork-journal")?.into();
        Ok(Self { file, sequence: 0, last: Vec::new() })
    }

    /// One that was written by another process, and what stands in it last.
    ///
    /// # Errors
    /// If nothing whole stands in it.
    pub fn open(fd: OwnedFd) -> io::Result<(Self, Vec<u8>)> {
        let file: File = fd.into();
        let pages = [read_page(&file, 0), read_page(&file, PAGE)];
        let (sequence, last) = pages
            .into_iter()
            .flatten()
            .max_by_key(|(sequence, _)| *sequence)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "nothing is written"))?;
        Ok((Self { file, sequence, last: last.clone() }, last))
    }

    /// What stands in it last.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// Writes down what holds from now on. What stands there already is not written again.
    ///
    /// # Errors
    /// If no memory is to be had; then what was written before stands.
    pub fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        if bytes == self.last {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let mut page = Vec::with_capacity(HEADER + bytes.len());
        page.extend(sequence.to_le_bytes());
        page.extend((bytes.len() as u64).to_le_bytes());
        page.extend(checksum(sequence, &bytes).to_le_bytes());
        page.extend(&bytes);
        self.file.write_all_at(&page, (sequence % 2) * PAGE)?;
        self.sequence = sequence;
        self.last = bytes;
        Ok(())
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_page(file: &File, start: u64) -> Option<(u64, Vec<u8>)> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, start).ok()?;
    let word = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let (sequence, length, sum) = (word(0)?, word(8)?, word(16)?);
    if sequence == 0 || length > PAGE - HEADER as u64 {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, start + HEADER as u64).ok()?;
    (checksum(sequence, &bytes) == sum).then_some((sequence, bytes))
}

/// FNV-1a: it tells a torn page, which is all that can happen to memory.
fn checksum(sequence: u64, bytes: &[u8]) -> u64 {
    let all = sequence.to_le_bytes().into_iter().chain(bytes.iter().copied());
    all.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reopened(journal: &Journal) -> io::Result<Vec<u8>> {
        Journal::open(journal.as_fd().try_clone_to_owned().unwrap()).map(|(_, bytes)| bytes)
    }

    #[test]
    fn what_was_written_last_is_read() {
        let mut journal = Journal::create().unwrap();
        assert!(reopened(&journal).is_err());
        for text in ["one", "two and more", "three", ""] {
            journal.write(text.into()).unwrap();
            assert_eq!(reopened(&journal).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_torn_page_leaves_the_one_before() {
        let mut journal = Journal::create().unwrap();
        journal.write(b"whole".to_vec()).unwrap();
        journal.write(b"torn".to_vec()).unwrap();
        journal.file.write_all_at(b"X", HEADER as u64 + 1).unwrap();
        assert_eq!(reopened(&journal).unwrap(), b"whole");
        // And it goes on from there.
        let (mut again, _) = Journal::open(journal.as_fd().try_clone_to_owned().unwrap()).unwrap();
        again.write(b"next".to_vec()).unwrap();
        assert_eq!(reopened(&again).unwrap(), b"next");
    }
}
