//! Three connections that somebody keeps: HTTP, WebSocket and the till. Whatever happens, they go on,
//! and their sessions count on.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use tungstenite::{Message, WebSocket};

use super::http::Client;
use super::shop::Shop;
use super::wait::LONG;

pub(crate) struct Kept {
    web: Client,
    socket: WebSocket<TcpStream>,
    till: BufReader<TcpStream>,
    count: u64,
}

fn stream(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Kept {
    #[track_caller]
    pub(crate) fn open(shop: &Shop) -> Self {
        let url = format!("ws://{}/ws", shop.web());
        let socket = tungstenite::client(url, stream(shop.web())).unwrap().0;
        let till = BufReader::new(stream(shop.till()));
        Self { web: shop.client(), socket, till, count: 0 }
    }

    /// Each of them answers, and has heard all that was said before. Gives the generation that
    /// answers over HTTP.
    #[track_caller]
    pub(crate) fn works(&mut self) -> u64 {
        self.count += 1;
        let count = self.count.to_string();
        self.socket.send(Message::text("count")).unwrap();
        let heard = loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => break text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(heard, count);
        self.till.get_mut().write_all(b"count\n").unwrap();
        let mut rung = String::new();
        self.till.read_line(&mut rung).unwrap();
        assert_eq!(rung, format!("{count}\n"));
        let response = self.web.get("/hello").unwrap();
        assert!(!response.says_close());
        response.generation()
    }
}
