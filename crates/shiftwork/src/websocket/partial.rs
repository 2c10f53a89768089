//! The part of a fragmented message that has come in so far: plain data, so that it can travel.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::message::{Message, Text};

/// The fragments of an unfinished message, put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Partial {
    /// Text: what is known to be UTF-8, and at most three bytes of a character whose rest is to come.
    Text {
        /// The valid beginning.
        text: String,
        /// The cut character.
        tail: Vec<u8>,
    },
    /// Binary.
    Binary {
        /// The beginning.
        data: Vec<u8>,
    },
}

/// Text that can never become UTF-8, whatever follows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotUtf8;

impl Partial {
    pub(crate) fn new(is_text: bool) -> Self {
        match is_text {
            true => Partial::Text { text: String::new(), tail: Vec::new() },
            false => Partial::Binary { data: Vec::new() },
        }
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Partial::Text { text, tail } => text.len() + tail.len(),
            Partial::Binary { data } => data.len(),
        }
    }

    /// Whether only empty fragments came so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a fragment. Text is checked at once: what is wrong in the first fragment must not wait
    /// for the last.
    pub(crate) fn push(&mut self, fragment: &[u8]) -> Result<(), NotUtf8> {
        match self {
            Partial::Binary { data } => {
                data.extend_from_slice(fragment);
                Ok(())
            }
            Partial::Text { text, tail } => push_text(text, tail, fragment),
        }
    }

    /// The message, after its last fragment.
    pub(crate) fn finish(self) -> Result<Message, NotUtf8> {
        match self {
            Partial::Text { tail, .. } if !tail.is_empty() => Err(NotUtf8),
            Partial::Text { text, .. } => Ok(Message::Text(Text::from(text))),
            Partial::Binary { data } => Ok(Message::Binary(Bytes::from(data))),
        }
    }
}

fn push_text(text: &mut String, tail: &mut Vec<u8>, mut fragment: &[u8]) -> Result<(), NotUtf8> {
    // First the character that the last fragment left open, byte by byte.
    while !tail.is_empty() {
        let Some((&byte, rest)) = fragment.split_first() else { return Ok(()) };
        fragment = rest;
        tail.push(byte);
        match std::str::from_utf8(tail) {
            Ok(whole) => {
                text.push_str(whole);
                tail.clear();
            }
            Err(error) if error.error_len().is_some() => return Err(NotUtf8),
            Err(_) => {}
        }
    }
    match std::str::from_utf8(fragment) {
        Ok(whole) => text.push_str(whole),
        Err(error) if error.error_len().is_some() => return Err(NotUtf8),
        Err(error) => {
            let (whole, open) = fragment.split_at(error.valid_up_to());
            // Valid as the error says; checked again rather than trusted.
            text.push_str(std::str::from_utf8(whole).map_err(|_| NotUtf8)?);
            tail.extend_from_slice(open);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_may_be_cut_inside_a_character() {
        let whole = "aé€😀z";
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let mut partial = Partial::new(true);
                let bytes = whole.as_bytes();
                for part in [&bytes[..first], &bytes[first..second], &[], &bytes[second..]] {
                    partial.push(part).unwrap();
                }
                assert_eq!(partial.len(), whole.len());
                assert_eq!(partial.finish().unwrap(), Message::from(whole));
            }
        }
    }

    #[test]
    fn wrong_text_is_refused_at_its_first_wrong_byte() {
        let mut partial = Partial::new(true);
        partial.push(b"ok \xe2\x82").unwrap();
        assert_eq!(partial.push(b"\x00 rest"), Err(NotUtf8));
        assert_eq!(Partial::new(true).push(b"\xc0"), Err(NotUtf8));
        // A surrogate is wrong after its second byte.
        let mut partial = Partial::new(true);
        partial.push(b"\xed").unwrap();
        assert_eq!(partial.push(b"\xa0"), Err(NotUtf8));
    }

    #[test]
    fn text_that_ends_inside_a_character_is_refused() {
        let mut partial = Partial::new(true);
        partial.push(b"\xf0\x9f").unwrap();
        assert_eq!(partial.finish(), Err(NotUtf8));
    }
}
