//! `metrics`: what the server counts, as Prometheus reads it.

use shiftwork_supervisor::control::{Request, Response};

use super::speak::{answer, unexpected};
use super::{Application, Cli, exit, output};

/// Asks the server for its metrics and prints them. Gives the exit status.
pub(super) fn metrics(application: &Application<'_>, cli: &Cli) -> u8 {
    match answer(application, cli, &Request::Metrics {}) {
        Ok(Response::Metrics { text }) => {
            if cli.json {
                output::say(&serde_json::json!({ "text": text }).to_string());
            } else {
                output::say(text.trim_end());
            }
            exit::OK
        }
        Ok(_) => unexpected(application.name),
        Err(status) => status,
    }
}
