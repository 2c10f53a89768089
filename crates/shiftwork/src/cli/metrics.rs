//! `metrics`: what the server counts, as Prometheus reads it.

use std::time::Duration;

use shiftwork_supervisor::control::{Request, Response};

use super::commands::{Deadline, connect, failed, refused, unexpected};
use super::{Application, Cli, exit, output};

/// A server that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the server for its metrics and prints them. Gives the exit status.
pub(super) fn metrics(application: &Application<'_>, cli: &Cli) -> u8 {
    let name = application.name;
    let mut client = match connect(application, cli) {
        Ok(client) => client,
        Err(status) => return status,
    };
    let sent = client.send(&Request::Metrics {});
    match Deadline::after(Some(PATIENCE)).receive(&mut client) {
        Ok(Response::Metrics { text }) => {
            if cli.json {
                output::say(&serde_json::json!({ "text": text }).to_string());
            } else {
                output::say(text.trim_end());
            }
            exit::OK
        }
        Ok(Response::Refused { reason, not_permitted }) => refused(name, &reason, not_permitted),
        Ok(_) => unexpected(name),
        Err(error) => failed(name, sent.as_ref().err().unwrap_or(&error), ""),
    }
}
