//! What all commands have in common that speak to a server: connect, ask, wait, and say what went wrong.

use std::path::Path;
use std::time::{Duration, Instant};

use shiftwork_supervisor::control::client::{Client, ClientError};
use shiftwork_supervisor::control::status::Status;
use shiftwork_supervisor::control::{Request, Response};
use shiftwork_supervisor::core::outcome::Outcome;

use super::progress::Shown;
use super::{Application, Cli, exit, locate, output};

/// A server that is asked how it is and says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Draining processes are looked at so often.
const LOOK: Duration = Duration::from_millis(500);

/// The end of the user's patience.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    end: Option<Instant>,
    given: Duration,
}

impl Deadline {
    pub(super) fn after(timeout: Option<Duration>) -> Self {
        let end = timeout.and_then(|it| Instant::now().checked_add(it));
        Self { end, given: timeout.unwrap_or_default() }
    }

    /// This one, or a nearer one.
    fn within(self, patience: Duration) -> Self {
        let near = Self::after(Some(patience));
        if self.end.is_some_and(|end| Some(end) < near.end) { self } else { near }
    }

    /// What is left; None: for ever.
    pub(super) fn left(&self) -> Result<Option<Duration>, ClientError> {
        let Some(end) = self.end else { return Ok(None) };
        match end.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(ClientError::TimedOut(self.given)),
        }
    }

    /// The next line of the answer, in time.
    pub(super) fn receive(&self, client: &mut Client) -> Result<Response, ClientError> {
        client.set_timeout(self.left()?)?;
        client.receive().map_err(|error| match error {
            ClientError::TimedOut(_) => ClientError::TimedOut(self.given),
            other => other,
        })
    }
}

/// Connects to the server that is meant; the error is the exit status, and said.
pub(super) fn connect(application: &Application<'_>, cli: &Cli) -> Result<Client, u8> {
    let located = locate(application, cli);
    Client::connect(&located.socket).map_err(|error| match error {
        ClientError::NotRunning(_) if !located.errors.is_empty() => {
            if !cli.json {
                output::warn(&not_running(application.name, &located.socket));
                output::warn("That may be the wrong place, for the settings are not right:");
            }
            output::settings_errors(application.name, &located.errors, cli.json)
        }
        ClientError::NotRunning(_) => {
            output::warn(&not_running(application.name, &located.socket));
            exit::NOT_RUNNING
        }
        other => failed(application.name, &other, ""),
    })
}

pub(super) fn not_running(name: &str, socket: &Path) -> String {
    format!(
        "{name} is not running: nobody answers at {}. If it runs with other settings, name them \
         with --config, or its control socket with --control",
        socket.display()
    )
}

/// Says why there is no answer; gives the exit status.
pub(super) fn failed(name: &str, error: &ClientError, meanwhile: &str) -> u8 {
    let status = match error {
        ClientError::NotRunning(_) => exit::NOT_RUNNING,
        ClientError::NotPermitted(_) => exit::NOT_PERMITTED,
        ClientError::TimedOut(_) => exit::DEADLINE,
        _ => exit::FAILED,
    };
    match error {
        ClientError::TimedOut(given) => output::warn(&format!(
            "{name}: it is not done after {}{meanwhile}",
            humantime::format_duration(*given)
        )),
        other => output::warn(&format!("{name}: {other}")),
    }
    status
}

/// Says why the server does not do it; gives the exit status.
pub(super) fn refused(name: &str, reason: &str, not_permitted: bool) -> u8 {
    output::warn(&format!("{name}: refused: {reason}"));
    if not_permitted { exit::NOT_PERMITTED } else { exit::FAILED }
}

/// Says that the answer is none; gives the exit status.
pub(super) fn unexpected(name: &str) -> u8 {
    output::warn(&format!("{name}: the server's answer makes no sense"));
    exit::FAILED
}

/// Asks the server a question; without an answer the error is the exit status, and said.
pub(super) fn answer(
    application: &Application<'_>,
    cli: &Cli,
    question: &Request,
) -> Result<Response, u8> {
    let name = application.name;
    let mut client = connect(application, cli)?;
    // A server that refuses may have closed already: its reason is read all the same.
    let sent = client.send(question);
    match Deadline::after(Some(PATIENCE)).receive(&mut client) {
        Ok(Response::Refused { reason, not_permitted }) => {
            Err(refused(name, &reason, not_permitted))
        }
        Ok(answer) => Ok(answer),
        Err(error) => Err(failed(name, sent.as_ref().err().unwrap_or(&error), "")),
    }
}

/// Has the server do something and shows how it goes, until there is an outcome; without one the error
/// is the exit status, and said. `what` goes on if the time is over before.
pub(super) fn outcome(
    application: &Application<'_>,
    cli: &Cli,
    wish: &Request,
    timeout: Option<Duration>,
    what: &str,
) -> Result<Outcome, u8> {
    let name = application.name;
    let deadline = Deadline::after(timeout);
    let mut client = connect(application, cli)?;
    let sent = client.send(wish);
    let socket = locate(application, cli).socket;
    match follow(&mut client, deadline, &socket, cli.json) {
        Ok(Response::Outcome(outcome)) => Ok(outcome),
        Ok(Response::Refused { reason, not_permitted }) => {
            Err(refused(name, &reason, not_permitted))
        }
        Ok(_) => Err(unexpected(name)),
        Err(error) => {
            let error = sent.as_ref().err().unwrap_or(&error);
            Err(failed(name, error, &format!("; {what} goes on")))
        }
    }
}

/// Shows how far it is until the last line of the answer, and gives that. While old processes drain,
/// they are looked at from time to time.
fn follow(
    client: &mut Client,
    deadline: Deadline,
    socket: &Path,
    json: bool,
) -> Result<Response, ClientError> {
    let mut shown = Shown::new(json);
    let last = loop {
        let turn = if shown.drains() { deadline.within(LOOK) } else { deadline };
        match turn.receive(client) {
            Ok(Response::Progress(progress)) => shown.update(progress),
            Err(ClientError::TimedOut(_)) if shown.drains() && deadline.left().is_ok() => {
                if let Ok(status) = look(socket, deadline.within(LOOK)) {
                    shown.remains(&status);
                }
            }
            Err(ClientError::TimedOut(_)) => break Err(ClientError::TimedOut(deadline.given)),
            other => break other,
        }
    };
    shown.finish();
    last
}

/// Asks the server how it is.
fn look(socket: &Path, deadline: Deadline) -> Result<Box<Status>, ClientError> {
    let mut client = Client::connect(socket)?;
    client.send(&Request::Status {})?;
    match deadline.receive(&mut client)? {
        Response::Status(status) => Ok(status),
        _ => Err(ClientError::Closed),
    }
}
