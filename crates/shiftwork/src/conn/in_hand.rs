//! What a connection has in hand: written for every request, read when it lasts too long.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use http::{Method, Uri};

use super::entry::lock;
use super::work::Work;
use crate::session::Call;

/// What is in hand on one connection. Written by whoever serves the connection, one at a time.
#[derive(Debug)]
pub(super) struct InHand {
    /// A [`Kind`], which alone says whether there is anything.
    kind: AtomicU8,
    /// When it began, in microseconds of the monotonic clock.
    since_us: AtomicU64,
    words: Mutex<Words>,
}

/// A request in words. Its memory is kept from one request to the next.
#[derive(Debug)]
struct Words {
    method: Method,
    path: String,
}

/// Of a longer path the log gets the beginning.
const LONGEST_PATH: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Nothing = 0,
    Request = 1,
    Open = 2,
    Resume = 3,
    Message = 4,
    Close = 5,
}

impl Kind {
    pub(super) fn of(call: Call) -> Self {
        match call {
            Call::Open => Self::Open,
            Call::Resume => Self::Resume,
            Call::Message => Self::Message,
            Call::Close => Self::Close,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Request,
            2 => Self::Open,
            3 => Self::Resume,
            4 => Self::Message,
            5 => Self::Close,
            _ => Self::Nothing,
        }
    }

    fn call(self) -> Option<Call> {
        match self {
            Self::Nothing | Self::Request => None,
            Self::Open => Some(Call::Open),
            Self::Resume => Some(Call::Resume),
            Self::Message => Some(Call::Message),
            Self::Close => Some(Call::Close),
        }
    }

    /// Whether the client has asked for it. What a hand-over brings with it is no request: else
    /// workers with `max_request` would wear each other out.
    #[inline]
    pub(super) fn is_asked_for(self) -> bool {
        !matches!(self, Self::Nothing | Self::Resume)
    }
}

impl InHand {
    pub(super) fn nothing() -> Self {
        let words = Words { method: Method::GET, path: String::new() };
        Self {
            kind: AtomicU8::new(Kind::Nothing as u8),
            since_us: AtomicU64::new(0),
            words: Mutex::new(words),
        }
    }

    /// A request begins. `first` is done before it can be seen or [judged](InHand::judge).
    #[inline]
    pub(super) fn request(&self, method: &Method, uri: &Uri, now_us: u64, first: impl FnOnce()) {
        let mut words = lock(&self.words);
        first();
        if words.method != *method {
            words.method = method.clone();
        }
        let path = uri.path();
        words.path.clear();
        words.path.push_str(&path[..path.floor_char_boundary(LONGEST_PATH)]);
        self.since_us.store(now_us, Relaxed);
        self.kind.store(Kind::Request as u8, Relaxed);
    }

    /// The handler of another protocol begins. `first`: as of a request.
    pub(super) fn call(&self, call: Call, now_us: u64, first: impl FnOnce()) {
        let _nobody_judges = lock(&self.words);
        first();
        self.since_us.store(now_us, Relaxed);
        self.kind.store(Kind::of(call) as u8, Relaxed);
    }

    /// It is done. Gives what it was, and when it began.
    #[inline]
    pub(super) fn end(&self) -> (Kind, u64) {
        let kind = self.kind.load(Relaxed);
        self.kind.store(Kind::Nothing as u8, Relaxed);
        (Kind::from_byte(kind), self.since_us.load(Relaxed))
    }

    /// Since when something is in hand, if anything is; `judge` hears it, and no other can begin
    /// meanwhile.
    pub(super) fn judge(&self, judge: impl FnOnce(u64)) -> Option<u64> {
        let _none_begins = lock(&self.words);
        let (_, since) = self.now()?;
        judge(since);
        Some(since)
    }

    /// What is in hand, and since when.
    pub(super) fn read(&self) -> Option<(Work, u64)> {
        let words = lock(&self.words);
        let (kind, since) = self.now()?;
        let work = match kind.call() {
            Some(call) => Work::Handler(call),
            None => Work::Request(words.method.clone(), words.path.clone()),
        };
        Some((work, since))
    }

    fn now(&self) -> Option<(Kind, u64)> {
        match Kind::from_byte(self.kind.load(Relaxed)) {
            Kind::Nothing => None,
            kind => Some((kind, self.since_us.load(Relaxed))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn get(in_hand: &InHand, path: &str, now_us: u64) {
        in_hand.request(&Method::GET, &path.parse().unwrap(), now_us, || {});
    }

    #[test]
    fn a_request_is_known_by_method_and_path_until_it_ends() {
        let in_hand = InHand::nothing();
        assert!(in_hand.read().is_none() && in_hand.judge(|_| panic!("of nothing")).is_none());
        in_hand.request(&Method::POST, &"/orders?card=1234".parse().unwrap(), 7, || {});
        let (work, since) = in_hand.read().unwrap();
        assert_eq!((work.to_string().as_str(), since), ("POST /orders", 7));
        assert_eq!(in_hand.judge(|since| assert_eq!(since, 7)), Some(7));
        assert_eq!(in_hand.end(), (Kind::Request, 7));
        assert!(in_hand.read().is_none());
        assert_eq!(in_hand.end().0, Kind::Nothing);
    }

    #[test]
    fn the_next_request_brings_its_own_words() {
        let in_hand = InHand::nothing();
        in_hand.request(&Method::POST, &"/a/long/one".parse().unwrap(), 1, || {});
        in_hand.end();
        get(&in_hand, "/b", 2);
        assert_eq!(in_hand.read().unwrap().0.to_string(), "GET /b");
    }

    #[test]
    fn of_a_long_path_the_beginning_is_kept() {
        let in_hand = InHand::nothing();
        get(&in_hand, &format!("/{}é", "x".repeat(LONGEST_PATH - 2)), 1);
        let told = in_hand.read().unwrap().0.to_string();
        assert_eq!(told.len(), "GET ".len() + LONGEST_PATH - 1, "{told}");
    }

    #[test]
    fn calls_of_other_protocols_are_known_by_their_names() {
        let in_hand = InHand::nothing();
        for call in [Call::Open, Call::Resume, Call::Message, Call::Close] {
            in_hand.call(call, 3, || {});
            assert_eq!(in_hand.read().unwrap().0.to_string(), call.to_string());
            let (kind, since) = in_hand.end();
            assert_eq!((kind, since), (Kind::of(call), 3));
            assert_eq!(kind.is_asked_for(), call != Call::Resume);
        }
    }

    #[test]
    fn what_is_done_first_is_done_before_it_can_be_seen() {
        let in_hand = InHand::nothing();
        in_hand.call(Call::Message, 3, || assert!(in_hand.now().is_none()));
        in_hand.end();
        in_hand.request(&Method::GET, &Uri::from_static("/"), 3, || {
            assert!(in_hand.now().is_none());
        });
    }
}
