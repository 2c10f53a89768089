//! `rollback`: back to the release before, over the control socket.

use std::time::Duration;

use shiftwork_supervisor::control::Request;
use shiftwork_supervisor::core::event::Until;
use shiftwork_supervisor::core::outcome::{ASKED_BACK, Outcome, Verdict};

use super::speak::outcome;
use super::{Application, Cli, exit, output};

/// How to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// Return only when the generation that is left is gone, too.
    pub wait: bool,
    /// The longest wait. The rollback itself goes on afterwards.
    pub timeout: Option<Duration>,
}

/// Asks for the release before and waits until it serves. Gives the exit status.
pub(super) fn rollback(application: &Application<'_>, cli: &Cli, rollback: &Rollback) -> u8 {
    let until = if rollback.wait { Until::Drained } else { Until::Committed };
    let request = Request::Rollback { until };
    match outcome(application, cli, &request, rollback.timeout, "the rollback") {
        Ok(outcome) => tell(&outcome, cli.json),
        Err(status) => status,
    }
}

fn tell(outcome: &Outcome, json: bool) -> u8 {
    let done = outcome.outcome == Verdict::RolledBack;
    if json {
        output::say(&serde_json::to_string(outcome).unwrap_or_default());
    } else if done {
        output::say(&sentence(outcome));
    } else {
        output::warn(&sentence(outcome));
    }
    if done { exit::OK } else { exit::FAILED }
}

fn sentence(outcome: &Outcome) -> String {
    let Outcome { generation, reason, duration_ms, .. } = outcome;
    match outcome.outcome {
        Verdict::RolledBack if reason == ASKED_BACK => {
            format!("generation {generation} serves again after {duration_ms} ms")
        }
        Verdict::RolledBack => format!("generation {generation} serves: {reason}"),
        Verdict::Committed | Verdict::Replaced => {
            format!(
                "not rolled back: a reload that was asked for later serves, as generation {generation}"
            )
        }
        Verdict::Aborted => format!("not rolled back, generation {generation} goes on: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwork_supervisor::core::history::What;

    fn outcome(verdict: Verdict, reason: &str) -> Outcome {
        Outcome {
            what: What::Rollback,
            outcome: verdict,
            generation: 3,
            reason: reason.to_owned(),
            output: String::new(),
            duration_ms: 7,
            warnings: Vec::new(),
            scaled: None,
            task_generation: None,
        }
    }

    #[test]
    fn sentences() {
        for (verdict, reason, expected) in [
            (Verdict::RolledBack, ASKED_BACK, "generation 3 serves again after 7 ms"),
            (
                Verdict::RolledBack,
                "generation 4 is not in force",
                "generation 3 serves: generation 4 is not in force",
            ),
            (
                Verdict::Aborted,
                "nothing to go back to",
                "not rolled back, generation 3 goes on: nothing to go back to",
            ),
            (
                Verdict::Committed,
                "",
                "not rolled back: a reload that was asked for later serves, as generation 3",
            ),
        ] {
            assert_eq!(sentence(&outcome(verdict, reason)), expected);
        }
    }
}
