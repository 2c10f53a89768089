//! Passports as bytes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{NEWEST, Passport, decode, encode};
use crate::conn::Protocol;

#[test]
fn format_1_is_what_it_was() {
    let passports = [
        Passport {
            protocol: Protocol::Http1,
            listener: "web".into(),
            handler: None,
            unread: Bytes::from_static(b"GET /"),
            session: None,
            idle_for: Duration::from_millis(300),
        },
        Passport {
            protocol: Protocol::WebSocket,
            listener: "till".into(),
            handler: Some("echo".into()),
            unread: Bytes::new(),
            session: Some(Bytes::from_static(&[1, 2, 255])),
            idle_for: Duration::ZERO,
        },
    ];
    // Other releases have this format in their code: it must never change under its number.
    let fixture = b"\x01\x02\
        \x00\x03web\x00\x05GET /\x00\xac\x02\
        \x01\x04till\x01\x04echo\x00\x01\x03\x01\x02\xff\x00";
    assert_eq!(encode(1, &passports).unwrap(), fixture);
    assert_eq!(decode(fixture).unwrap(), passports);
    assert!(encode(0, &passports).is_err() && encode(NEWEST + 1, &passports).is_err());
    assert!(decode(&fixture[..fixture.len() - 1]).is_err());
    assert!(decode(&[&fixture[..], b"x"].concat()).is_err());
}

fn any_passport() -> impl Strategy<Value = Passport> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let protocol =
        prop_oneof![Just(Protocol::Http1), Just(Protocol::WebSocket), Just(Protocol::Tcp)];
    (
        protocol,
        ".*",
        proptest::option::of(".*"),
        bytes(),
        proptest::option::of(bytes()),
        any::<u64>(),
    )
        .prop_map(|(protocol, listener, handler, unread, session, idle)| Passport {
            protocol,
            listener,
            handler,
            unread,
            session,
            idle_for: Duration::from_millis(idle),
        })
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(passports in proptest::collection::vec(any_passport(), 0..5)) {
        let bytes = encode(NEWEST, &passports).unwrap();
        let sizes: usize = passports.iter().map(Passport::size).sum();
        prop_assert!(bytes.len() <= sizes + 16);
        prop_assert_eq!(decode(&bytes).unwrap(), passports);
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode(&[&[1], &bytes[..]].concat());
    }
}
