//! `reload` and `stop`, over the control socket.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use shiftwork_supervisor::control::client::{Client, ClientError};
use shiftwork_supervisor::control::status::Status;
use shiftwork_supervisor::control::{Request, Response};
use shiftwork_supervisor::core::event::Until;
use shiftwork_supervisor::core::outcome::{Outcome, Verdict};
use shiftwork_sys::process::pidfd_open;
use shiftwork_sys::wait::{Interest, Poller};

use crate::settings::rooted;

use super::locate::typed_in;
use super::progress::Shown;
use super::{Application, Cli, Reload, Stop, exit, locate, output};

/// A server that is asked how it is and says nothing for so long is stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

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
    fn left(&self) -> Result<Option<Duration>, ClientError> {
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

fn not_running(name: &str, socket: &Path) -> String {
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

/// Asks for a reload and follows it to its end. Gives the exit status.
pub(super) fn reload(application: &Application<'_>, cli: &Cli, reload: &Reload) -> u8 {
    let name = application.name;
    let deadline = Deadline::after(reload.timeout);
    let mut client = match connect(application, cli) {
        Ok(client) => client,
        Err(status) => return status,
    };
    // Paths in them are meant from where this was typed, not from where the server was started.
    let set = match typed_in() {
        Ok(directory) => cli.set.iter().map(|it| rooted(it, &directory)).collect(),
        Err(_) => cli.set.clone(),
    };
    let request = if reload.upgrade {
        Request::Upgrade { set, until: reload.until }
    } else {
        Request::Reload { scope: reload.scope, set, until: reload.until }
    };
    // A server that refuses may have closed already: its reason is read all the same.
    let sent = client.send(&request);
    let socket = locate(application, cli).socket;
    let last = follow(&mut client, deadline, &socket, cli.json);
    match last {
        Ok(Response::Outcome(outcome)) if cli.json => {
            let status = status_of(&outcome);
            output::say(&serde_json::to_string(&outcome).unwrap_or_default());
            status
        }
        Ok(Response::Outcome(outcome)) => tell(&outcome, reload.until),
        Ok(Response::Refused { reason, not_permitted }) => refused(name, &reason, not_permitted),
        Ok(_) => unexpected(name),
        Err(error) => failed(name, sent.as_ref().err().unwrap_or(&error), "; the reload goes on"),
    }
}

/// Shows how far it is until the last line of the answer, and gives that. While old processes drain,
/// they are looked at from time to time.
pub(super) fn follow(
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

fn status_of(outcome: &Outcome) -> u8 {
    if is_good(outcome) { exit::OK } else { exit::FAILED }
}

/// Whether that has come of it that was waited for.
fn is_good(outcome: &Outcome) -> bool {
    matches!(outcome.outcome, Verdict::Committed | Verdict::Replaced)
}

/// Says what a reload came to: good news on stdout, bad news on stderr with the new code's own
/// words before it.
fn tell(outcome: &Outcome, until: Until) -> u8 {
    if !is_good(outcome) && !outcome.output.is_empty() {
        output::warn(outcome.output.trim_end_matches('\n'));
    }
    for warning in &outcome.warnings {
        output::warn(&format!("warning: {warning}"));
    }
    let sentence = sentence(outcome, until);
    match is_good(outcome) {
        true => output::say(&sentence),
        false => output::warn(&sentence),
    }
    status_of(outcome)
}

/// What a reload came to, with the new code's own words if it failed.
#[cfg(feature = "top")]
pub(super) fn told(outcome: &Outcome) -> String {
    let sentence = sentence(outcome, Until::Committed);
    match outcome.outcome {
        Verdict::Committed => sentence,
        _ => format!("{}\n{sentence}", outcome.output.trim_end()).trim_start().to_owned(),
    }
}

fn sentence(outcome: &Outcome, until: Until) -> String {
    let Outcome { generation, reason, duration_ms, .. } = outcome;
    let goes_on = match generation {
        0 => "no generation serves".to_owned(),
        number => format!("generation {number} goes on"),
    };
    match outcome.outcome {
        Verdict::Committed => {
            let reached = match until {
                Until::Replaced => "serves",
                Until::Committed => "is committed",
                Until::Drained => "is committed and the old one gone",
            };
            format!("generation {generation} {reached} after {duration_ms} ms")
        }
        Verdict::Replaced => {
            format!("generation {generation} serves after {duration_ms} ms, and is observed")
        }
        Verdict::RolledBack => format!("reload rolled back, {goes_on}: {reason}"),
        Verdict::Aborted => format!("reload aborted, {goes_on}: {reason}"),
    }
}

/// Asks for a stop and waits until the master is gone. Gives the exit status.
pub(super) fn stop(application: &Application<'_>, cli: &Cli, stop: &Stop) -> u8 {
    let name = application.name;
    let deadline = Deadline::after(stop.timeout);
    let mut client = match connect(application, cli) {
        Ok(client) => client,
        Err(status) => return status,
    };
    let pid = client.pid();
    // Before it is asked, so that the pid cannot be somebody else's by then.
    let process = match pidfd_open(pid) {
        Ok(process) => process,
        Err(error) => {
            output::warn(&format!("{name}: cannot watch the server, pid {pid}: {error}"));
            return exit::FAILED;
        }
    };
    let sent = client.send(&Request::Stop { now: stop.now });
    match deadline.receive(&mut client) {
        Ok(Response::Stopping { .. }) => {}
        Ok(Response::Refused { reason, not_permitted }) => {
            return refused(name, &reason, not_permitted);
        }
        Ok(_) => return unexpected(name),
        // It may be gone by now, which is what was wanted; the process tells.
        Err(ClientError::Closed) if sent.is_ok() => {}
        Err(error) => {
            return failed(name, sent.as_ref().err().unwrap_or(&error), "; the stop goes on");
        }
    }
    loop {
        let mut poller = Poller::new();
        poller.add((), process.as_fd(), Interest::Read);
        let waited = deadline.left().and_then(|left| Ok(poller.wait(left)?));
        match waited {
            Ok(ready) if ready.is_empty() => {}
            Ok(_) => break,
            Err(error) => return failed(name, &error, "; the stop goes on"),
        }
    }
    if cli.json {
        output::say(&serde_json::json!({ "outcome": "stopped", "pid": pid }).to_string());
    } else {
        output::say("stopped");
    }
    exit::OK
}

#[cfg(test)]
mod tests;
