//! The codec against tables, against tungstenite, and against anything at all.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameSocket};

use super::codec::{Decoded, Decoder, decode, encode_close, encode_message};
use super::message::Message;

const LIMIT: usize = 70_000;

/// A client's frame, written by hand so that nothing forbidden is impossible.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn in_chunks(bytes: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> (Vec<Decoded>, Option<u16>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut unread = BytesMut::new();
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = left;
        unread.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut unread) {
                Ok(Some(one)) => found.push(one),
                Ok(None) => break,
                Err(violation) => return (found, Some(violation.code)),
            }
        }
        // All that is remembered can be written down and read again, at every byte.
        let saved = postcard::to_allocvec(&decoder).unwrap();
        decoder = postcard::from_bytes(&saved).unwrap();
    }
    (found, None)
}

fn conversation() -> (Vec<u8>, Vec<Decoded>) {
    let long = "é".repeat(40_000 / 2);
    let bytes = [
        frame(0x81, b"hello"),
        frame(0x82, &[0; 126]),
        frame(0x01, "eur: \u{20ac}".as_bytes().split_at(6).0),
        frame(0x89, b"are you there"),
        frame(0x00, b""),
        frame(0x8a, b""),
        frame(0x80, "eur: \u{20ac}".as_bytes().split_at(6).1),
        frame(0x81, b""),
        frame(0x81, long.as_bytes()),
        frame(0x02, b"bin"),
        frame(0x80, b"ary"),
        frame(0x88, b"\x03\xe8bye"),
        frame(0x81, b"never seen"),
    ];
    let found = vec![
        Decoded::Message("hello".into()),
        Decoded::Message(vec![0; 126].into()),
        Decoded::Ping(Bytes::from_static(b"are you there")),
        Decoded::Pong(Bytes::new()),
        Decoded::Message("eur: \u{20ac}".into()),
        Decoded::Message("".into()),
        Decoded::Message(long.into()),
        Decoded::Message(Bytes::from_static(b"binary").into()),
        Decoded::Close { code: Some(1000), reason: "bye".to_owned() },
    ];
    (bytes.concat(), found)
}

#[test]
fn a_conversation_is_the_same_cut_in_two_at_every_byte() {
    let (bytes, expected) = conversation();
    assert_eq!(decode(&bytes, LIMIT), (expected.clone(), None));
    for cut in (1..700).chain(bytes.len() - 100..bytes.len()) {
        assert_eq!(in_chunks(&bytes, &mut [cut, usize::MAX].into_iter()), (expected.clone(), None));
    }
}

#[test]
fn a_conversation_is_the_same_in_small_pieces() {
    let (bytes, expected) = conversation();
    for size in [1, 7, 100] {
        let pieces = in_chunks(&bytes[..400], &mut std::iter::repeat(size));
        assert_eq!(pieces.0, expected[..pieces.0.len()], "{size}");
        assert_eq!((pieces.0.len(), pieces.1), (6, None), "{size}");
    }
    assert_eq!(in_chunks(&bytes, &mut std::iter::repeat(97)), (expected, None));
}

#[test]
fn what_the_protocol_forbids_has_its_code() {
    let unmasked = vec![0x81, 0x02, b'h', b'i'];
    let long_form = [&[0x81, 0x80 | 126, 0, 2, 0, 0, 0, 0][..], b"hi"].concat();
    let longer_form = [&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0][..]].concat();
    let negative = vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", unmasked, 1002),
        ("length in two bytes for no reason", long_form, 1002),
        ("length in eight bytes for no reason", longer_form, 1002),
        ("negative length", negative, 1002),
        ("rsv1", frame(0xc1, b"hi"), 1002),
        ("rsv2", frame(0xa1, b"hi"), 1002),
        ("rsv3", frame(0x91, b"hi"), 1002),
        ("reserved data opcode", frame(0x83, b"hi"), 1002),
        ("reserved control opcode", frame(0x8b, b"hi"), 1002),
        ("fragmented ping", frame(0x09, b"hi"), 1002),
        ("long ping", frame(0x89, &[0; 126]), 1002),
        ("continuation of nothing", frame(0x80, b"hi"), 1002),
        ("message in message", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        ("half a close code", frame(0x88, &[3]), 1002),
        ("close code 1005", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close code 1006", frame(0x88, &1006_u16.to_be_bytes()), 1002),
        ("close code 1015", frame(0x88, &1015_u16.to_be_bytes()), 1002),
        ("close code 999", frame(0x88, &999_u16.to_be_bytes()), 1002),
        ("close code 2000", frame(0x88, &2000_u16.to_be_bytes()), 1002),
        ("close code 5000", frame(0x88, &5000_u16.to_be_bytes()), 1002),
        ("close reason not UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
        ("text not UTF-8", frame(0x81, b"\xc3\x28"), 1007),
        ("text cut in a character", frame(0x81, b"\xe2\x82"), 1007),
        ("first fragment not UTF-8", frame(0x01, b"\xff"), 1007),
        ("last fragment cut", [frame(0x01, b"a"), frame(0x80, b"\xe2")].concat(), 1007),
        ("too big", frame(0x82, &vec![0; LIMIT + 1]), 1009),
        (
            "too big in fragments",
            [frame(0x02, &vec![0; LIMIT]), frame(0x00, b""), frame(0x80, b"1")].concat(),
            1009,
        ),
    ];
    for (name, bytes, code) in cases {
        let (found, violation) = decode(&bytes, LIMIT);
        assert_eq!((found, violation.map(|one| one.code)), (vec![], Some(code)), "{name}");
        let (found, violation) = in_chunks(&bytes, &mut std::iter::repeat(1000));
        assert_eq!((found, violation), (vec![], Some(code)), "{name}, in chunks");
    }
}

#[test]
fn the_limit_itself_is_allowed() {
    let (found, violation) = decode(&frame(0x82, &vec![7; LIMIT]), LIMIT);
    assert_eq!((found.len(), violation), (1, None));
    let halves = [frame(0x02, &vec![7; LIMIT / 2]), frame(0x80, &vec![7; LIMIT / 2])].concat();
    let (found, violation) = decode(&halves, LIMIT);
    assert_eq!((found, violation), (vec![Decoded::Message(vec![7; LIMIT].into())], None));
}

#[test]
fn a_declared_length_reserves_nothing_and_a_wrong_one_is_not_waited_for() {
    let mut decoder = Decoder::new(1 << 40);
    let mut unread = BytesMut::from(&frame(0x82, &vec![0; LIMIT])[..14]);
    unread[2..10].copy_from_slice(&(1_u64 << 39).to_be_bytes());
    let before = unread.capacity();
    assert_eq!(decoder.decode(&mut unread).unwrap(), None);
    assert_eq!(unread.capacity(), before);
    let (_, violation) = decode(&unread, LIMIT);
    assert_eq!(violation.map(|one| one.code), Some(1009));
}

#[test]
fn a_close_reason_is_cut_at_a_character() {
    let mut out = BytesMut::new();
    encode_close(Some(1000), &"é".repeat(100), &mut out);
    assert_eq!(out[1], 2 + 122);
    assert_eq!(std::str::from_utf8(&out[4..]).unwrap().chars().count(), 61);
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<String>().prop_map(Message::from),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Message::from),
        (0_usize..LIMIT).prop_map(|length| Message::from(vec![b'x'; length])),
        (0_usize..LIMIT).prop_map(|length| Message::from("y".repeat(length))),
    ]
}

/// The frames that tungstenite writes for a message cut into fragments.
fn by_tungstenite(message: &Message, cuts: &[usize], mask: [u8; 4], out: &mut Vec<u8>) {
    let kind = if message.as_text().is_some() { Data::Text } else { Data::Binary };
    let bytes = message.as_bytes();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let last = cuts.len() - 2;
    for (index, pair) in cuts.windows(2).enumerate() {
        let kind = if index == 0 { kind } else { Data::Continue };
        let part = bytes[pair[0]..pair[1]].to_vec();
        let mut frame = Frame::message(part, OpCode::Data(kind), index == last);
        frame.header_mut().mask = Some(mask);
        frame.format(out).unwrap();
        if index != last {
            let mut ping = Frame::ping(vec![index as u8]);
            ping.header_mut().mask = Some(mask);
            ping.format(out).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tungstenite_is_understood_in_any_fragments_and_chunks(
        messages in prop::collection::vec(
            (any_message(), prop::collection::vec(any::<usize>(), 0..4), any::<[u8; 4]>()), 0..6),
        chunks in prop::collection::vec(1_usize..20_000, 1..20),
    ) {
        let mut bytes = Vec::new();
        for (message, cuts, mask) in &messages {
            by_tungstenite(message, cuts, *mask, &mut bytes);
        }
        let (found, violation) = in_chunks(&bytes, &mut chunks.iter().copied().cycle());
        prop_assert_eq!(violation, None);
        let found: Vec<Message> = found
            .into_iter()
            .filter_map(|one| match one { Decoded::Message(message) => Some(message), _ => None })
            .collect();
        let sent: Vec<Message> = messages.into_iter().map(|(message, ..)| message).collect();
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn tungstenite_understands_us(messages in prop::collection::vec(any_message(), 0..4)) {
        let mut out = BytesMut::new();
        for message in &messages {
            encode_message(message.clone(), &mut out);
        }
        let mut socket = FrameSocket::new(&out[..]);
        for message in &messages {
            let frame = socket.read(None).unwrap().unwrap();
            let kind = if message.as_text().is_some() { Data::Text } else { Data::Binary };
            prop_assert_eq!(frame.header().opcode, OpCode::Data(kind));
            prop_assert!(frame.header().is_final && frame.header().mask.is_none());
            prop_assert_eq!(frame.payload(), message.as_bytes());
        }
        prop_assert!(socket.read(None).unwrap().is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_never_panics_and_means_the_same_in_any_chunks(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1_usize..50, 1..10),
    ) {
        let (found, violation) = decode(&bytes, LIMIT);
        let in_chunks = in_chunks(&bytes, &mut chunks.into_iter().cycle());
        prop_assert_eq!((found, violation.map(|one| one.code)), in_chunks);
    }

    #[test]
    fn half_right_frames_never_panic_and_mean_the_same_in_any_chunks(
        frames in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..140)), 0..8),
        likely in prop::collection::vec(prop::sample::select(
            vec![0x81_u8, 0x01, 0x00, 0x80, 0x82, 0x02, 0x89, 0x8a, 0x88]), 8),
        chunks in prop::collection::vec(1_usize..50, 1..10),
    ) {
        let mut bytes = Vec::new();
        for (index, (odd, payload)) in frames.iter().enumerate() {
            let first = if odd % 16 == 0 { *odd } else { likely[index] };
            bytes.extend(frame(first, payload));
        }
        let (found, violation) = decode(&bytes, LIMIT);
        let in_chunks = in_chunks(&bytes, &mut chunks.into_iter().cycle());
        prop_assert_eq!((found, violation.map(|one| one.code)), in_chunks);
    }
}

#[test]
fn control_frames_have_the_right_opcodes() {
    let mut out = BytesMut::new();
    super::codec::encode_ping(b"", &mut out);
    super::codec::encode_pong(Bytes::from_static(b"p"), &mut out);
    encode_close(None, "", &mut out);
    let mut socket = FrameSocket::new(&out[..]);
    for expected in [Control::Ping, Control::Pong, Control::Close] {
        let frame = socket.read(None).unwrap().unwrap();
        assert_eq!(frame.header().opcode, OpCode::Control(expected));
    }
}
