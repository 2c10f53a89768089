//! Clients that talk for long: WebSockets, and lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tungstenite::{Message, WebSocket};

use super::shop::Shop;
use super::wait::LONG;

pub(crate) fn stream(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn open(shop: &Shop, path: &str) -> WebSocket<TcpStream> {
    let url = format!("ws://{}{path}", shop.web());
    tungstenite::client(url, stream(shop.web())).unwrap().0
}

/// The next text.
#[track_caller]
pub(crate) fn heard(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
pub(crate) fn say(socket: &mut WebSocket<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).unwrap();
    heard(socket)
}

/// A line, and the answer to it.
#[track_caller]
pub(crate) fn ring(till: &mut BufReader<impl Read + Write>, line: &str) -> String {
    till.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    answer(till)
}

/// The next line.
#[track_caller]
pub(crate) fn answer(till: &mut BufReader<impl Read + Write>) -> String {
    let mut answer = String::new();
    till.read_line(&mut answer).unwrap();
    assert!(answer.ends_with('\n'), "{answer:?}");
    answer.trim_end().to_owned()
}
