//! A small HTTP/1.1 client of our own: every byte is checked, and the ways in which a connection
//! can end are told apart.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take before it counts as never given.
const PATIENCE: Duration = Duration::from_secs(20);

/// How an exchange went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Nobody listens.
    Refused,
    /// The connection ended before the first byte of an answer.
    Closed,
    /// The connection ended within an answer.
    Cut(usize),
    /// The connection was reset.
    Reset,
    /// No answer.
    TimedOut,
    /// Something that is no HTTP.
    Malformed(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Broken::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Broken::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Broken::TimedOut,
            _ => Broken::Other(error.to_string()),
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A header that must be a number.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        let value = self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name}: {value} is no number"))
    }

    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        self.number("x-generation")
    }

    #[track_caller]
    pub(crate) fn worker_pid(&self) -> i32 {
        self.number("x-worker-pid") as i32
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Does the server want the connection to end?
    pub(crate) fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
pub(crate) struct Client {
    stream: Stream,
    /// Read, and not yet part of an answer.
    rest: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, Broken> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Tcp(stream), rest: Vec::new() })
    }

    pub(crate) fn connect_unix(path: &Path) -> Result<Self, Broken> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Unix(stream), rest: Vec::new() })
    }

    /// Waits less long for answers from now on.
    pub(crate) fn set_patience(&mut self, patience: Duration) -> Result<(), Broken> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(patience))?,
            Stream::Unix(stream) => stream.set_read_timeout(Some(patience))?,
        }
        Ok(())
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Response, Broken> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes())?;
        self.receive()
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<Response, Broken> {
        self.send(&post(path, body))?;
        self.receive()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes)?,
            Stream::Unix(stream) => stream.write_all(bytes)?,
        }
        Ok(())
    }

    /// Receives one answer, whole.
    pub(crate) fn receive(&mut self) -> Result<Response, Broken> {
        let head = loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                break self.take(end + 4);
            }
            self.more()?;
        };
        let head = String::from_utf8(head).map_err(|error| Broken::Malformed(error.to_string()))?;
        let mut lines = head.trim_end().split("\r\n");
        let start = lines.next().unwrap_or_default();
        let status = match start.split(' ').collect::<Vec<_>>()[..] {
            ["HTTP/1.1", status, ..] => status.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| Broken::Malformed(start.to_owned()))?;
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) =
                line.split_once(':').ok_or_else(|| Broken::Malformed(line.to_owned()))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        response.body = self.body(&response)?;
        Ok(response)
    }

    fn body(&mut self, response: &Response) -> Result<Vec<u8>, Broken> {
        if response.status == 101 || response.status == 204 || response.status == 304 {
            return Ok(Vec::new());
        }
        if response.header("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).map_err(|_| Broken::Malformed(line))?;
                let mut chunk = self.exactly(size + 2)?;
                if chunk.split_off(size) != b"\r\n" {
                    return Err(Broken::Malformed("a chunk without its end".into()));
                }
                if size == 0 {
                    return Ok(body);
                }
                body.append(&mut chunk);
            }
        }
        let length = response
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| Broken::Malformed(format!("a body of unknown length: {response:?}")))?;
        self.exactly(length)
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return String::from_utf8(line).map_err(|e| Broken::Malformed(e.to_string()));
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.rest.len() < length {
            self.more()?;
        }
        Ok(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.rest.split_off(length);
        std::mem::replace(&mut self.rest, rest)
    }

    fn more(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut buffer)?,
            Stream::Unix(stream) => stream.read(&mut buffer)?,
        };
        if read == 0 {
            return Err(match self.rest.len() {
                0 => Broken::Closed,
                length => Broken::Cut(length),
            });
        }
        self.rest.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    /// Waits for the server to close an idle connection; anything else is an error.
    pub(crate) fn wait_closed(&mut self) -> Result<(), Broken> {
        match self.more() {
            Err(Broken::Closed) => Ok(()),
            Err(broken) => Err(broken),
            Ok(()) => Err(Broken::Malformed(String::from_utf8_lossy(&self.rest).into_owned())),
        }
    }
}

/// The bytes of a POST with a JSON body.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
