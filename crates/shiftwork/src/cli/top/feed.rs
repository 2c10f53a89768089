//! What speaks to the server: a thread that asks how it is, and one for each reload.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use shiftwork_supervisor::control::client::{Client, ClientError};
use shiftwork_supervisor::control::{Request, Response};
use shiftwork_supervisor::core::event::{Scope, Until};

use super::model::Heard;

/// A server that is silent for longer is asked anew: it may have been replaced in place.
const PATIENCE: Duration = Duration::from_secs(5);
/// While something goes on, it is looked at more often.
const CLOSE: Duration = Duration::from_millis(150);

/// The way to the server. The threads end with the process.
#[derive(Debug)]
pub(super) struct Feed {
    socket: PathBuf,
    to: Sender<Heard>,
    /// Look again now.
    nudge: Sender<()>,
}

impl Feed {
    /// Asks how the server is from now on, and tells `to`.
    pub(super) fn begin(socket: PathBuf, interval: Duration, to: Sender<Heard>) -> Self {
        let (nudge, nudged) = channel();
        let feed = Self { socket: socket.clone(), to: to.clone(), nudge };
        thread::spawn(move || look_on(&socket, interval, &to, &nudged));
        feed
    }

    /// Asks for a reload, and tells how it goes.
    pub(super) fn reload(&self) {
        let (socket, to, nudge) = (self.socket.clone(), self.to.clone(), self.nudge.clone());
        thread::spawn(move || {
            if let Err(error) = reload(&socket, &to, &nudge) {
                let _ = to.send(Heard::NoOutcome(error.to_string()));
            }
        });
    }
}

fn look_on(socket: &Path, interval: Duration, to: &Sender<Heard>, nudged: &Receiver<()>) {
    loop {
        let heard = match status(socket) {
            Ok(heard) => heard,
            Err(error) => Heard::Silence(error.to_string()),
        };
        let still = matches!(&heard, Heard::Status(it) if it.state == "serving");
        if to.send(heard).is_err() {
            return;
        }
        let pause = if still { interval } else { interval.min(CLOSE) };
        if nudged.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn status(socket: &Path) -> Result<Heard, ClientError> {
    let mut client = Client::connect(socket)?;
    client.set_timeout(Some(PATIENCE))?;
    client.send(&Request::Status {})?;
    Ok(match client.receive()? {
        Response::Status(status) => Heard::Status(status),
        Response::Refused { reason, .. } => Heard::Silence(reason),
        _ => Heard::Silence("the server's answer makes no sense".into()),
    })
}

fn reload(socket: &Path, to: &Sender<Heard>, nudge: &Sender<()>) -> Result<(), ClientError> {
    let mut client = Client::connect(socket)?;
    client.send(&Request::Reload {
        scope: Scope::All,
        set: Vec::new(),
        until: Until::Committed,
    })?;
    loop {
        let heard = match client.receive()? {
            Response::Progress(progress) => Heard::Progress(progress),
            Response::Outcome(outcome) => Heard::Outcome(outcome),
            Response::Refused { reason, .. } => Heard::NoOutcome(reason),
            _ => Heard::NoOutcome("the server's answer makes no sense".into()),
        };
        let last = !matches!(heard, Heard::Progress(_));
        let _ = nudge.send(());
        if to.send(heard).is_err() || last {
            return Ok(());
        }
    }
}
