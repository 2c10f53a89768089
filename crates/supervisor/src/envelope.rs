//! Messages that are longer than a packet may be: they travel in a memfd.
//!
//! The kernel takes no packet beyond the socket's buffer, of which an ordinary user gets about 200 KiB;
//! the status of a thousand processes is longer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::fd;

/// What is longer than this, in bytes, is enclosed.
const LONGEST_PACKET: usize = 64 * 1024;

/// What is longer than this, in bytes, is not read.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What the packet says then. No JSON: a reader that does not know of it drops it with a word.
const ENCLOSED: &[u8] = b"enclosed";

/// Makes a packet of a message and its descriptors.
///
/// # Errors
/// If there is no memory for a long one.
pub fn seal(message: Vec<u8>, fds: Vec<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    if message.len() <= LONGEST_PACKET {
        return Ok((message, fds));
    }
    let enclosed = fd::memfd("shiftwork-message", &message)?;
    let mut all = Vec::with_capacity(fds.len() + 1);
    all.push(enclosed);
    all.extend(fds);
    Ok((ENCLOSED.to_vec(), all))
}

/// The message of a packet; what remains of `fds` came with it.
///
/// # Errors
/// If what was enclosed is missing, is no sealed memory, or is too long.
pub fn open(packet: Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    if packet != ENCLOSED {
        return Ok(packet);
    }
    if fds.is_empty() {
        return Err(io::Error::other("nothing is enclosed"));
    }
    fd::read_sealed(fds.remove(0).as_fd(), LONGEST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn long_and_short_come_as_they_were_with_what_belongs_to_them() {
        for length in [1, LONGEST_PACKET, LONGEST_PACKET + 1, 3 * 1024 * 1024] {
            let other = fd::memfd("other", b"other").unwrap();
            let (packet, mut fds) = seal(vec![b'x'; length], vec![other]).unwrap();
            assert!(packet.len() <= LONGEST_PACKET);
            assert_eq!(open(packet, &mut fds).unwrap(), vec![b'x'; length]);
            assert_eq!(fds.len(), 1);
            assert_eq!(fd::read_memfd(fds[0].as_fd()).unwrap(), b"other");
        }
    }

    #[test]
    fn a_liar_is_not_believed() {
        assert!(open(ENCLOSED.to_vec(), &mut Vec::new()).is_err());
        let other = fd::scratch("other").unwrap();
        assert!(open(ENCLOSED.to_vec(), &mut vec![other]).is_err());
        let long = vec![0; usize::try_from(LONGEST).unwrap() + 1];
        let (packet, mut fds) = seal(long, Vec::new()).unwrap();
        assert!(open(packet, &mut fds).is_err());
    }
}
