//! How the session of a connection is written for another process, which may be of another release.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A session that takes more bytes than this cannot travel: its connection is closed instead (a
/// WebSocket with 1012), and that is logged. What a connection needs in such amounts belongs where all
/// workers find it.
pub const LONGEST_SESSION: usize = 1024 * 1024;

/// Writes a value as sessions are written. For `write_older_session` and for tests.
///
/// # Errors
/// What serde finds wrong with the value, in words.
///
/// ```
/// use shiftwork::session::{decode, encode};
///
/// let bytes = encode(&("lamp", 3_u32)).unwrap();
/// assert_eq!(decode::<(String, u32)>(&bytes), Some(("lamp".to_owned(), 3)));
/// assert_eq!(decode::<(String, u32, u32)>(&bytes), None, "another form");
/// ```
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let bytes = postcard::to_allocvec(value).map_err(|error| error.to_string())?;
    match bytes.len() {
        ..=LONGEST_SESSION => Ok(bytes),
        long => Err(format!("it takes {long} bytes; a session has room for {LONGEST_SESSION}")),
    }
}

/// Reads what [`encode`] has written; None if it is not, from the first to the last byte, a `T`. The
/// form names no fields, so a `T` of another shape can be read from it by accident: give each form a
/// `SESSION_VERSION` of its own.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        // Left-over bytes mean another type that happens to begin alike.
        Ok(_) | Err(_) => None,
    }
}

/// A session type and its older forms, as a handler declares them.
pub(crate) trait Form {
    type Session: Serialize + DeserializeOwned;
    const VERSION: u32;

    fn read_older(version: u32, written: &[u8]) -> Option<Self::Session>;
    fn write_older(session: &Self::Session, version: u32) -> Option<Vec<u8>>;
}

/// Reads a session of any version; None if this release cannot.
pub(crate) fn read<F: Form>(version: u32, written: &[u8]) -> Option<F::Session> {
    let read = || match version == F::VERSION {
        true => decode(written),
        false => F::read_older(version, written),
    };
    // The application's code on bytes from elsewhere.
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

/// Writes a session, in version `wanted` if that is an older one that the handler can write.
pub(crate) fn write<F: Form>(
    session: &F::Session,
    wanted: Option<u32>,
) -> Result<(u32, Vec<u8>), String> {
    let write = || {
        let older = wanted.filter(|version| *version < F::VERSION);
        match older.and_then(|version| Some((version, F::write_older(session, version)?))) {
            Some((_, bytes)) if bytes.len() > LONGEST_SESSION => Err(format!(
                "it takes {} bytes; a session has room for {LONGEST_SESSION}",
                bytes.len()
            )),
            Some(older) => Ok(older),
            None => encode(session).map(|bytes| (F::VERSION, bytes)),
        }
    };
    catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| Err("writing it has panicked".into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Version 1 was a count; version 2 has a name beside it.
    struct Now;

    impl Form for Now {
        type Session = (u64, String);
        const VERSION: u32 = 2;

        fn read_older(version: u32, written: &[u8]) -> Option<(u64, String)> {
            assert!(version < 9, "a panic is a session that cannot be read");
            (version == 1).then(|| Some((decode::<u64>(written)?, "nobody".into())))?
        }

        fn write_older(session: &(u64, String), version: u32) -> Option<Vec<u8>> {
            (version == 1).then(|| encode(&session.0).ok())?
        }
    }

    #[test]
    fn the_own_version_and_the_one_before() {
        let session = (7, "me".to_owned());
        let (version, bytes) = write::<Now>(&session, None).unwrap();
        assert_eq!((version, read::<Now>(version, &bytes)), (2, Some(session.clone())));
        let (version, bytes) = write::<Now>(&session, Some(1)).unwrap();
        assert_eq!((version, decode(&bytes)), (1, Some(7_u64)));
        assert_eq!(read::<Now>(1, &bytes), Some((7, "nobody".into())));
    }

    #[test]
    fn a_version_that_cannot_be_written_is_written_as_the_own() {
        let session = (7, "me".to_owned());
        for wanted in [0, 2, 3] {
            assert_eq!(write::<Now>(&session, Some(wanted)).unwrap().0, 2, "{wanted}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        for (version, bytes) in [(0, &[7][..]), (1, &[]), (1, &[1, 2]), (2, &[1]), (9, &[1])] {
            assert_eq!(read::<Now>(version, bytes), None, "{version} {bytes:?}");
        }
        assert!(encode(&vec![0_u8; LONGEST_SESSION + 1]).is_err());
    }
}
