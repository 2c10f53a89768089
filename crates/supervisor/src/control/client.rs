//! The asking side: what commands use.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use shiftwork_sys::peer;

use super::{Request, Response};

/// How long a command waits until it is taken in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server listens there.
    #[error("no server answers at {0}")]
    NotRunning(String),
    /// The server takes nobody in.
    #[error(
        "the server at {0} takes nobody in: too many commands wait there, or it hangs; see whether \
         its master runs"
    )]
    Busy(String),
    /// The socket is somebody else's.
    #[error("not permitted to speak to the server at {0}")]
    NotPermitted(String),
    /// The server has gone in the middle of it.
    #[error("the server closed the control connection without an answer")]
    Closed,
    /// The time is over.
    #[error("no answer within {}", .0.as_secs_f32())]
    TimedOut(Duration),
    /// Anything else.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The server speaks otherwise.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    pid: i32,
    timeout: Option<Duration>,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Client {
    /// Connects to a control socket. If it is full of those who wait, this takes 10 s at most.
    ///
    /// # Errors
    /// If nobody listens there, or not for this user, or if nobody is taken in.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let shown = || path.display().to_string();
        let stream = peer::connect(path, PATIENCE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(shown())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted(shown()),
            io::ErrorKind::WouldBlock => ClientError::Busy(shown()),
            _ => ClientError::Io(error),
        })?;
        let pid = peer::credentials(&stream)?.pid;
        Ok(Self { stream: BufReader::new(stream), pid, timeout: None, line: Vec::new() })
    }

    /// The longest wait for each line of the answer. Default: for ever.
    ///
    /// # Errors
    /// If the duration is zero.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = timeout;
        self.stream.get_ref().set_read_timeout(timeout)
    }

    /// The pid of the master, as the kernel knows it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends the request.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        Ok(())
    }

    /// Reads the next line of the answer.
    ///
    /// # Errors
    /// If the server is gone, silent for too long, or not to be understood.
    pub fn receive(&mut self) -> Result<Response, ClientError> {
        // After a wait that was too short the rest of the line still comes.
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(0) => Err(ClientError::Closed),
            Ok(_) => Ok(serde_json::from_slice(&std::mem::take(&mut self.line))?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::TimedOut(self.timeout.unwrap_or_default()))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(ClientError::Closed)
            }
            Err(error) => Err(error.into()),
        }
    }
}
