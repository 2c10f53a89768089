//! `reload` and `stop`, over the control socket.

use std::os::fd::AsFd;

use shiftwork_supervisor::control::client::ClientError;
use shiftwork_supervisor::control::{Request, Response};
use shiftwork_supervisor::core::event::Until;
use shiftwork_supervisor::core::outcome::{Outcome, Verdict};
use shiftwork_sys::process::pidfd_open;
use shiftwork_sys::wait::{Interest, Poller};

use crate::settings::rooted;

use super::locate::typed_in;
use super::speak::{Deadline, connect, failed, outcome, refused, unexpected};
use super::{Application, Cli, Reload, Stop, exit, output};

/// Asks for a reload and follows it to its end. Gives the exit status.
pub(super) fn reload(application: &Application<'_>, cli: &Cli, reload: &Reload) -> u8 {
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
    match outcome(application, cli, &request, reload.timeout, "the reload") {
        Ok(outcome) if cli.json => {
            output::say(&serde_json::to_string(&outcome).unwrap_or_default());
            status_of(&outcome)
        }
        Ok(outcome) => tell(&outcome, reload.until),
        Err(status) => status,
    }
}

fn status_of(outcome: &Outcome) -> u8 {
    if is_good(outcome) { exit::OK } else { exit::FAILED }
}

/// Whether that has come of it that was waited for.
fn is_good(outcome: &Outcome) -> bool {
    matches!(outcome.outcome, Verdict::Committed | Verdict::Replaced)
}

/// Says what a reload or an upgrade came to: good news on stdout, bad news on stderr with the new code's own
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
    if let Some(tasks) = outcome.task_generation {
        let gone = if until == Until::Drained { " and the old ones gone" } else { "" };
        return format!("the task workers are of generation {tasks}{gone} after {duration_ms} ms");
    }
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
        Verdict::Aborted => format!("{} aborted, {goes_on}: {reason}", outcome.what.noun()),
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
