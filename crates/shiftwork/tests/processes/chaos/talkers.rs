//! Those who talk for long: over a WebSocket, and at the till.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use super::clients::{Round, Scene};
use super::plan::Dice;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Texts that come back as they went, and a count that goes on.
pub(super) fn websocket(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let wrong = |what: &str| (what.to_owned(), None);
    let stream = TcpStream::connect_timeout(&scene.web, PATIENCE)
        .and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream))
        .map_err(|error| wrong(&error.to_string()))?;
    let url = format!("ws://{}/ws", scene.web);
    let (mut socket, _) =
        tungstenite::client(url, stream).map_err(|error| wrong(&format!("open: {error}")))?;
    let mut sent = 0_u64;
    while !scene.witness.is_over() {
        let text = match dice.below(5) {
            0 => "count".to_owned(),
            1 => dice.letters(70_000),
            _ => dice.letters(dice.clone().below(200)),
        };
        sent += 1;
        send_message(&mut socket, &text, dice).map_err(|error| wrong(&error.to_string()))?;
        let expected = if text == "count" { sent.to_string() } else { text };
        match heard(&mut socket) {
            Ok(answer) if answer == expected => scene.witness.answered(name),
            Ok(answer) => {
                let answer = answer.chars().take(100).collect::<String>();
                return Err(wrong(&format!("message {sent} was answered {answer:?}")));
            }
            Err(what) => return Err(wrong(&what)),
        }
        if dice.below(4) == 0 {
            thread::sleep(Duration::from_millis(dice.below(100) as u64));
        }
    }
    let _ = socket.close(None);
    while socket.read().is_ok() {}
    Ok(())
}

/// In one frame, or in several with pauses between them.
fn send_message(
    socket: &mut WebSocket<TcpStream>,
    text: &str,
    dice: &mut Dice,
) -> Result<(), tungstenite::Error> {
    if dice.below(3) > 0 {
        return socket.send(Message::text(text));
    }
    let parts: Vec<&[u8]> = text.as_bytes().chunks(text.len() / 3 + 1).collect();
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.iter().enumerate() {
        let data = if index == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(part.to_vec(), OpCode::Data(data), index == last);
        socket.send(Message::Frame(frame))?;
        thread::sleep(Duration::from_millis(dice.below(20) as u64));
    }
    if parts.is_empty() {
        socket.send(Message::text(""))?;
    }
    Ok(())
}

fn heard(socket: &mut WebSocket<TcpStream>) -> Result<String, String> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Ok(text.to_string()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(other) => return Err(format!("{other:?}")),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Lines that come back as they went, whole or in pieces, and a count that goes on.
pub(super) fn till(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let wrong = |what: String| (what, None);
    let stream = TcpStream::connect_timeout(&scene.till, PATIENCE)
        .and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream))
        .map_err(|error| wrong(error.to_string()))?;
    let mut till = BufReader::new(stream);
    let mut sent = 0_u64;
    while !scene.witness.is_over() {
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..=dice.below(4) {
            sent += 1;
            let line = if dice.below(4) == 0 {
                "count".into()
            } else {
                dice.letters(dice.clone().below(300))
            };
            batch.extend_from_slice(format!("{line}\n").as_bytes());
            expected.push(if line == "count" { sent.to_string() } else { line });
        }
        let cut = dice.below(batch.len());
        for part in [&batch[..cut], &batch[cut..]] {
            till.get_mut().write_all(part).map_err(|error| wrong(error.to_string()))?;
            thread::sleep(Duration::from_millis(dice.below(30) as u64));
        }
        for line in expected {
            let mut answer = String::new();
            till.read_line(&mut answer).map_err(|error| wrong(error.to_string()))?;
            if answer.trim_end_matches('\n') != line || !answer.ends_with('\n') {
                return Err(wrong(format!("{answer:?} instead of {line:?}")));
            }
            scene.witness.answered(name);
        }
    }
    Ok(())
}
