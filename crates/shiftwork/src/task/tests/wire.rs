use proptest::prelude::*;

use crate::task::wire::{
    self, FORMATS, MAX_MESSAGE, ReplyPacket, Status, TaskPacket, WireError, append, read,
    read_sizes, shorten, sizes,
};

/// The bytes of format 1, for ever: a task worker of the next release reads them (USR2).
#[test]
fn the_format_is_fixed() {
    let mut packet = Vec::new();
    TaskPacket::begin(&mut packet, wire::IDEMPOTENT, 0x0102_0304, 0x1112_1314_1516_1718, "ship");
    TaskPacket::set_id(&mut packet, 0x2122_2324_2526_2728);
    append(&mut packet, &(300_u32, "x")).unwrap();
    #[rustfmt::skip]
    let expected = [
        1, 1, 4, 0,
        0x04, 0x03, 0x02, 0x01,
        0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        b's', b'h', b'i', b'p',
        0xac, 0x02, 1, b'x',
    ];
    assert_eq!(packet, expected);

    let mut reply = Vec::new();
    ReplyPacket::begin(&mut reply, Status::Failed, 0x2122_2324_2526_2728);
    reply.extend_from_slice(b"no");
    assert_eq!(reply, [1, 5, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, b'n', b'o']);
    assert_eq!((FORMATS.oldest, FORMATS.newest), (1, 1));
}

#[test]
fn another_version_is_named_even_when_it_is_short() {
    assert_eq!(TaskPacket::decode(&[9]), Err(WireError::Version(9)));
    assert_eq!(TaskPacket::decode(&[9; 40]), Err(WireError::Version(9)));
    assert_eq!(ReplyPacket::decode(&[9; 40]), Err(WireError::Version(9)));
    assert_eq!(ReplyPacket::decode(&[9]), Err(WireError::Version(9)));
    assert_eq!(TaskPacket::decode(&[]), Err(WireError::Short(0)));
    assert_eq!(ReplyPacket::decode(&[1, 77, 0, 0, 0, 0, 0, 0, 0, 0]), Err(WireError::Status(77)));
}

#[test]
fn a_name_that_is_longer_than_its_packet_or_no_text_is_refused() {
    let mut packet = Vec::new();
    TaskPacket::begin(&mut packet, 0, 0, 0, "ship");
    assert_eq!(TaskPacket::decode(&packet[..27]), Err(WireError::Short(27)));
    packet[25] = 0xff;
    assert_eq!(TaskPacket::decode(&packet), Err(WireError::Name));
}

#[test]
fn bytes_left_over_are_an_error() {
    assert_eq!(read::<u8>(&[7]), Ok(7));
    assert_eq!(read::<u8>(&[7, 8]), Err("1 of 2 bytes left over".to_owned()));
    assert!(read::<u64>(&[0x80]).is_err());
}

#[test]
fn messages_are_shortened_between_characters() {
    let long = "é".repeat(MAX_MESSAGE);
    let short = shorten(&long);
    assert_eq!(short.len(), MAX_MESSAGE);
    assert_eq!(shorten(&format!("x{long}")).len(), MAX_MESSAGE - 1);
    assert_eq!(shorten("ok"), "ok");
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Done,
        Status::Unknown,
        Status::Unreadable,
        Status::Unencodable,
        Status::OutputTooLarge,
        Status::Failed,
        Status::Panicked,
        Status::Cut,
        Status::Expired,
    ])
}

proptest! {
    #[test]
    fn tasks_come_back_as_they_went(
        flags: u8, reply_index: u32, id: u64, deadline_ms: u64, name in ".{0,40}",
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut packet = vec![1, 2, 3];
        TaskPacket::begin(&mut packet, flags, reply_index, deadline_ms, &name);
        TaskPacket::set_id(&mut packet, id);
        packet.extend_from_slice(&payload);
        let expected =
            TaskPacket { flags, reply_index, id, deadline_ms, name: &name, payload: &payload };
        prop_assert_eq!(TaskPacket::decode(&packet), Ok(expected));
    }

    #[test]
    fn answers_come_back_as_they_went(
        first in status(), then in status(), id: u64,
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut packet = vec![1, 2, 3];
        ReplyPacket::begin(&mut packet, first, id);
        packet.extend_from_slice(b"half an output");
        ReplyPacket::replace(&mut packet, then, &payload);
        let expected = ReplyPacket { status: then, id, payload: &payload };
        prop_assert_eq!(ReplyPacket::decode(&packet), Ok(expected));
    }

    #[test]
    fn sizes_come_back(size: usize, limit: usize) {
        prop_assert_eq!(read_sizes(&sizes(size, limit)), (size, limit));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut ours = bytes.clone();
        if let Some(version) = ours.first_mut() {
            *version = wire::VERSION;
        }
        for bytes in [&bytes, &ours] {
            if let Ok(task) = TaskPacket::decode(bytes) {
                prop_assert!(task.name.len() + task.payload.len() < bytes.len());
            }
            let _ = ReplyPacket::decode(bytes);
            let _ = read_sizes(bytes);
            let _ = read::<(u64, String, Vec<Option<f64>>)>(bytes);
        }
    }
}
