//! What bytes from outside go through, one function a target: none of it may panic, and what was read
//! must be what would be written.
//!
//! The fuzzer calls these (`fuzz_targets/`), and so does an ordinary test with chance and with the
//! seeds of [`SEEDS`] (`crates/shiftwork/tests/fuzz.rs`).

use bytes::BytesMut;
use shiftwork::hand_over;
use shiftwork::session::{self, Saved};
use shiftwork::task::wire::{ReplyPacket, TaskPacket, read_sizes};
use shiftwork::tcp::{LengthField, Lines};
use shiftwork::websocket::{Decoded, Decoder, Message, Partial};
use shiftwork_supervisor::control::{Request, Response};
use shiftwork_supervisor::protocol::master::{FromManager, ToManager};
use shiftwork_supervisor::protocol::probe::{FromProbe, ToProbe};
use shiftwork_supervisor::protocol::template::{FromTemplate, ToTemplate};
use shiftwork_supervisor::protocol::wire;
use shiftwork_supervisor::protocol::worker::{FromWorker, ToWorker};
use tokio_util::codec::Decoder as _;

/// A target, and what to begin with.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static [u8]]);

/// All targets with seeds that lead far into them.
pub const SEEDS: &[Target] = &[
    (
        "passports",
        passports,
        &[
            b"\x01\x01\x00\x03web\x00\x05GET /\x00\xac\x02",
            b"\x01\x01\x01\x04till\x01\x04echo\x00\x01\x03\x01\x02\xff\x00",
        ],
    ),
    ("saved", saved, &[b"\x02\x01\x02\xac\x02\x01\x03\x00\x05\x06", b"\x01\x00\x02a\xc3\x01\xc3"]),
    (
        "websocket",
        websocket,
        &[
            b"\x21\x81\x82\x01\x02\x03\x04ij\x88\x80\x00\x00\x00\x00",
            b"\x43\x01\x81\x00\x00\x00\x00\xc3\x80\x81\x00\x00\x00\x00\xa4\x89\x80\x00\x00\x00\x00",
        ],
    ),
    ("framings", framings, &[b"\x11one\r\ntwo\nthr", b"\x32\x00\x03abc\x00\x00\x00"]),
    ("tasks", tasks, &[b"\x01\x00\x02\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0hipayload"]),
    (
        "control",
        control,
        &[
            br#"{"verb":"reload","set":["app.a=1"]}"#,
            br#"{"verb":"stop","now":true}"#,
            br#"{"verb":"status"}"#,
        ],
    ),
    (
        "supervisor",
        supervisor,
        &[br#"{"Give":"Slab"}"#, br#""Serve""#, br#"{"Retire":{"reason":"x"}}"#],
    ),
];

/// What stands in a hand-over packet.
pub fn passports(bytes: &[u8]) {
    let Ok(passports) = hand_over::decode(bytes) else { return };
    let format = bytes.first().copied().unwrap_or_default();
    let written = hand_over::encode(format, &passports).expect("what was read can be written");
    assert_eq!(hand_over::decode(&written).as_ref(), Ok(&passports));
}

/// What travels with a long-lived connection: its state, and the half message in it.
pub fn saved(bytes: &[u8]) {
    if let Some(saved) = Saved::from_bytes(bytes) {
        let written = saved.to_bytes().expect("what was read can be written");
        assert_eq!(Saved::from_bytes(&written), Some(saved));
    }
    let Some(mut decoder) = session::decode::<Decoder>(bytes) else { return };
    let _ = decoder.partial().map(Partial::len);
    // Whatever state was believed, a frame after it is an answer or an error.
    let mut rest = BytesMut::from(&b"\x80\x81\0\0\0\0a"[..]);
    while let Ok(Some(_)) = decoder.decode(&mut rest) {}
}

/// A client's frames: in one piece or in several, they are the same messages. The first byte says
/// where to cut, and how long a message may be.
pub fn websocket(bytes: &[u8]) {
    let Some((&dice, frames)) = bytes.split_first() else { return };
    let limit = 1 << (dice & 0x0f);
    let whole = decode(limit, [frames]);
    let cuts = frames.chunks(usize::from(dice >> 4) + 1);
    assert_eq!(whole, decode(limit, cuts));
    for message in &whole.0 {
        if let Decoded::Message(message) = message {
            assert!(message.as_bytes().len() <= limit);
            assert!(
                !matches!(message, Message::Text(text) if std::str::from_utf8(text.as_bytes()).is_err())
            );
        }
    }
}

/// All that is found before it ends, whether it ended in a violation, and what is left.
fn decode<'a>(limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Decoded>, bool) {
    let (mut decoder, mut unread, mut found) = (Decoder::new(limit), BytesMut::new(), Vec::new());
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut unread) {
                Ok(Some(one)) => found.push(one),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// A client's bytes in lines and in packets, in one piece or in several. The first byte says which
/// length field, and where to cut.
pub fn framings(bytes: &[u8]) {
    let Some((&dice, stream)) = bytes.split_first() else { return };
    let limit = 64;
    let step = usize::from(dice >> 4) + 1;
    let lines = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut lines = Lines::new(limit);
        cut(pieces, |unread| lines.decode(unread).map_err(drop))
    };
    assert_eq!(lines(&mut std::iter::once(stream)), lines(&mut stream.chunks(step)));
    use LengthField::{U8, U16, U16Le, U32, U32Le};
    let field = [U8, U16, U16Le, U32, U32Le][usize::from(dice & 0x0f) % 5];
    let packets = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        cut(pieces, |unread| field.take(unread, limit).map_err(drop))
    };
    let whole = packets(&mut std::iter::once(stream));
    assert_eq!(whole, packets(&mut stream.chunks(step)));
    // And back.
    let mut written = BytesMut::new();
    for packet in &whole.0 {
        assert!(packet.len() <= limit && field.write(packet.len(), &mut written));
        written.extend_from_slice(packet);
    }
    assert!(stream.starts_with(&written));
}

fn cut(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    mut take: impl FnMut(&mut BytesMut) -> Result<Option<bytes::Bytes>, ()>,
) -> (Vec<bytes::Bytes>, bool) {
    let (mut unread, mut found) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            match take(&mut unread) {
                Ok(Some(one)) => found.push(one),
                Ok(None) => break,
                Err(()) => return (found, true),
            }
        }
    }
    (found, false)
}

/// Tasks and their answers.
pub fn tasks(bytes: &[u8]) {
    if let Ok(task) = TaskPacket::decode(bytes) {
        let mut written = Vec::new();
        TaskPacket::begin(&mut written, task.flags, task.reply_index, task.deadline_ms, task.name);
        TaskPacket::set_id(&mut written, task.id);
        written.extend_from_slice(task.payload);
        assert_eq!(written, bytes);
    }
    if let Ok(reply) = ReplyPacket::decode(bytes) {
        let _ = read_sizes(reply.payload);
        let mut written = Vec::new();
        ReplyPacket::begin(&mut written, reply.status, reply.id);
        written.extend_from_slice(reply.payload);
        assert_eq!(written, bytes);
    }
}

/// Lines over the control socket, in both directions.
pub fn control(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let written = serde_json::to_vec(&request).expect("what was read can be written");
        serde_json::from_slice::<Request>(&written).expect("and read again");
    }
    if let Ok(response) = serde_json::from_slice::<Response>(bytes) {
        let written = serde_json::to_vec(&response).expect("what was read can be written");
        serde_json::from_slice::<Response>(&written).expect("and read again");
    }
}

/// What master, manager, templates and workers say to each other.
pub fn supervisor(bytes: &[u8]) {
    let _ = wire::decode::<ToManager>(bytes);
    let _ = wire::decode::<FromManager>(bytes);
    let _ = wire::decode::<ToTemplate>(bytes);
    let _ = wire::decode::<FromTemplate>(bytes);
    let _ = wire::decode::<ToWorker>(bytes);
    let _ = wire::decode::<FromWorker>(bytes);
    let _ = wire::decode::<ToProbe>(bytes);
    let _ = wire::decode::<FromProbe>(bytes);
}
