//! `scale`: more or fewer workers and task workers, over the control socket.

use std::time::Duration;

use shiftwork_supervisor::control::Request;
use shiftwork_supervisor::core::outcome::{Outcome, Verdict};
use shiftwork_supervisor::core::scale::{Count, LAST_TASK_WORKER, MOST, Wish};

use super::speak::outcome;
use super::{Application, Cli, exit, output};

/// How to scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// How many processes.
    pub wish: Wish,
    /// The longest wait. The change itself goes on afterwards.
    pub timeout: Option<Duration>,
}

/// `4`: so many; `+1`, `-1`: so many more or fewer.
pub(super) fn count(text: &str) -> Result<Count, String> {
    let wrong = || format!("write a number from 1 to {MOST}, or +1 or -1 for one more or fewer");
    if text.starts_with(['+', '-']) {
        let most = MOST.cast_signed();
        let more = text.parse::<i32>().ok().filter(|it| (-most..=most).contains(it));
        return more.map(Count::By).ok_or_else(wrong);
    }
    let number = text.parse::<u32>().ok().filter(|it| (1..=MOST).contains(it));
    number.map(Count::To).ok_or_else(wrong)
}

/// The same of task workers, of which one stays.
pub(super) fn task_count(text: &str) -> Result<Count, String> {
    if text == "0" { Err(LAST_TASK_WORKER.into()) } else { count(text) }
}

/// Asks for another number of processes and waits until they serve. Gives the exit status.
pub(super) fn scale(application: &Application<'_>, cli: &Cli, scale: &Scale) -> u8 {
    match outcome(application, cli, &Request::from(scale.wish), scale.timeout, "the change") {
        Ok(outcome) => tell(&outcome, cli.json),
        Err(status) => status,
    }
}

fn tell(outcome: &Outcome, json: bool) -> u8 {
    let done = outcome.outcome == Verdict::Committed;
    if json {
        output::say(&serde_json::to_string(outcome).unwrap_or_default());
    } else if done {
        output::say(&sentence(outcome));
    } else {
        if !outcome.output.is_empty() {
            output::warn(outcome.output.trim_end_matches('\n'));
        }
        output::warn(&sentence(outcome));
    }
    if done { exit::OK } else { exit::FAILED }
}

fn sentence(outcome: &Outcome) -> String {
    let sizes = outcome.scaled.map(|it| it.to_string()).unwrap_or_default();
    match outcome.outcome {
        Verdict::Committed => format!("{sizes} after {} ms", outcome.duration_ms),
        _ => format!("{} (as before: {sizes})", outcome.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count("4"), Ok(Count::To(4)));
        assert_eq!(count("+2"), Ok(Count::By(2)));
        assert_eq!(count("-1"), Ok(Count::By(-1)));
        for wrong in ["0", "1025", "x", "", "+", "--1", "+9999", "4 "] {
            assert!(count(wrong).is_err(), "{wrong:?}");
            assert!(task_count(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(task_count("0"), Err(LAST_TASK_WORKER.into()));
        assert_eq!(task_count("-1"), Ok(Count::By(-1)));
    }
}
