//! What was asked for, by whom, and what came of it: the last of it, for whoever asks later.
//!
//! A request is noted by its ticket when it comes in and written down when the run that covers it is
//! over; requests that one run has covered stand in one entry. All of it is part of the core's
//! state, and so outlives a manager and an upgrade.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::Core;
use super::event::{Generation, Millis, Ticket};
use super::outcome::{Outcome, Sizes, Verdict};
use super::scale::Wish;

/// Older entries are forgotten.
pub const MOST_ENTRIES: usize = 100;
/// Requests of one run that are told one by one; of the others only the number.
const MOST_REQUESTS: usize = 16;
/// Requests that are noted at a time.
const MOST_NOTED: usize = 1024;
/// A longer reason is cut, in bytes.
const LONGEST_REASON: usize = 500;

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "snake_case")]
pub enum Requester {
    /// Whoever has started the server.
    Start,
    /// Somebody at the control socket, as the kernel knows them.
    Command {
        /// The user's number.
        uid: u32,
        /// The process; 0: one of another pid namespace.
        pid: i32,
    },
    /// A process that has sent a signal.
    Signal {
        /// Its name, as `USR1`.
        signal: String,
        /// The sender's user.
        uid: u32,
        /// The sender; 0: the kernel, or one of another pid namespace.
        pid: i32,
    },
    /// The service manager, by a signal.
    ServiceManager {
        /// Its name, as `HUP`.
        signal: String,
    },
    /// The application, in a worker or task worker.
    Worker {
        /// Its worker id.
        worker_id: u32,
        /// Its pid; None: it is gone.
        pid: Option<i32>,
    },
    /// Somebody whom only another version knows.
    #[serde(other)]
    Unknown,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The start of the server.
    Start,
    /// More or fewer processes.
    Scale,
    /// New task workers alone.
    ReloadTasks,
    /// A new generation.
    Reload,
    /// The generation before, once more.
    Rollback,
    /// A new manager and master, and a new generation.
    Upgrade,
    /// Something that only another version knows.
    #[default]
    #[serde(other)]
    Other,
}

impl What {
    /// What a sentence calls it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Scale => "change of number",
            Self::ReloadTasks => "reload of the task workers",
            Self::Reload | Self::Other => "reload",
            Self::Rollback => "rollback",
            Self::Upgrade => "upgrade",
        }
    }
}

/// A request, as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// When: milliseconds since 1970, by the wall clock.
    pub at_ms: u64,
    /// By whom.
    pub by: Requester,
    /// For what.
    pub what: What,
    /// Keys that were set with it; their values may be secrets.
    #[serde(default)]
    pub set: Vec<String>,
    /// To `scale`: how many processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
}

impl Asked {
    /// A request for `what`; of the `KEY=VALUE`s in `overrides` the keys are kept.
    pub fn new(at_ms: u64, by: Requester, what: What, overrides: &[String]) -> Self {
        let key = |it: &String| it.split('=').next().unwrap_or_default().trim().to_owned();
        Self { at_ms, by, what, set: overrides.iter().map(key).collect(), wish: None }
    }
}

/// A run, and all that was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1, over everything that has been forgotten as well.
    pub number: u64,
    /// What it was.
    pub what: What,
    /// When its turn came: milliseconds since 1970, by the wall clock; 0: nobody knows any more.
    pub began_ms: u64,
    /// From then to its end, in milliseconds.
    pub duration_ms: u64,
    /// The generation that served before (0: none).
    pub from: Generation,
    /// The one that was to serve.
    pub to: Generation,
    /// How it ended.
    pub outcome: Verdict,
    /// Why it was not committed; empty if it was.
    pub reason: String,
    /// Of `scale`: how many processes there were afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled: Option<Sizes>,
    /// Who asked for it, the first one first: several, if one run has covered them all.
    pub requests: Vec<Asked>,
    /// Requests beyond those, which are not told.
    #[serde(default)]
    pub more_requests: u64,
}

/// A request whose run is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    asked: Asked,
    /// When it came in, by the clock of the core.
    at: Millis,
}

/// A run that is over.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) what: What,
    pub(super) from: Generation,
    pub(super) to: Generation,
    pub(super) began: Millis,
    pub(super) tickets: Vec<Ticket>,
    pub(super) outcome: &'a Outcome,
}

/// The last runs, and the requests that wait for the end of theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    written: u64,
    noted: BTreeMap<Ticket, Noted>,
}

impl History {
    fn note(&mut self, ticket: Ticket, asked: Asked, at: Millis) {
        // One that is asked again after the death of a manager keeps its time.
        self.noted.entry(ticket).or_insert(Noted { asked, at });
        while self.noted.len() > MOST_NOTED {
            self.noted.pop_first();
        }
    }

    fn write(&mut self, ended: &Ended<'_>) {
        let mut requests: Vec<Noted> =
            ended.tickets.iter().filter_map(|it| self.noted.remove(it)).collect();
        requests.sort_by_key(|it| it.at);
        let outcome = ended.outcome;
        // A reload that an upgrade has begun with is an upgrade.
        let what = requests.iter().map(|it| it.asked.what).max();
        let began_ms = requests
            .first()
            .map_or(0, |it| it.asked.at_ms.saturating_add(ended.began.saturating_sub(it.at)));
        self.written += 1;
        self.entries.push_back(Entry {
            number: self.written,
            what: what.unwrap_or(ended.what).max(ended.what),
            began_ms,
            duration_ms: outcome.duration_ms,
            from: ended.from,
            to: ended.to,
            outcome: outcome.outcome,
            reason: shortened(&outcome.reason),
            scaled: outcome.scaled,
            more_requests: requests.len().saturating_sub(MOST_REQUESTS) as u64,
            requests: requests.into_iter().take(MOST_REQUESTS).map(|it| it.asked).collect(),
        });
        while self.entries.len() > MOST_ENTRIES {
            self.entries.pop_front();
        }
    }
}

impl Core {
    /// The last runs, the oldest one first.
    pub fn history(&self) -> impl Iterator<Item = &Entry> {
        self.history.entries.iter()
    }

    /// Notes who asks, before what is asked comes in.
    pub(super) fn note(&mut self, ticket: Ticket, asked: Asked) {
        self.history.note(ticket, asked, self.now);
    }

    /// Writes down what came of something.
    pub(super) fn record(&mut self, ended: &Ended<'_>) {
        self.history.write(ended);
    }
}

fn shortened(reason: &str) -> String {
    match (0..=LONGEST_REASON).rev().find(|at| reason.is_char_boundary(*at)) {
        Some(at) if at < reason.len() => format!("{}…", &reason[..at]),
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(at_ms: u64, what: What) -> Asked {
        let set = ["app.token=secret".to_owned()];
        Asked::new(at_ms, Requester::Command { uid: 7, pid: 8 }, what, &set)
    }

    fn outcome(reason: &str) -> Outcome {
        Outcome {
            what: What::Reload,
            outcome: Verdict::Aborted,
            generation: 1,
            reason: reason.to_owned(),
            output: String::new(),
            duration_ms: 5,
            warnings: Vec::new(),
            scaled: None,
            task_generation: None,
        }
    }

    fn ended<'a>(tickets: &[Ticket], outcome: &'a Outcome) -> Ended<'a> {
        let tickets = tickets.to_vec();
        Ended { what: What::Reload, from: 1, to: 2, began: 300, tickets, outcome }
    }

    #[test]
    fn requests_of_one_run_are_one_entry_and_values_are_not_told() {
        let mut history = History::default();
        history.note(9, asked(5_000, What::Reload), 100);
        history.note(3, asked(5_050, What::Upgrade), 150);
        history.note(9, asked(9_999, What::Reload), 200);
        history.write(&ended(&[3, 9, 12], &outcome("é".repeat(400).as_str())));
        let entry = history.entries.pop_front().unwrap();
        assert_eq!((entry.number, entry.what, entry.began_ms), (1, What::Upgrade, 5_200));
        assert_eq!(entry.requests, [asked(5_000, What::Reload), asked(5_050, What::Upgrade)]);
        assert_eq!(entry.requests[0].set, ["app.token"]);
        assert!(entry.reason.ends_with("é…") && entry.reason.len() < 510);
        assert!(history.noted.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut history = History::default();
        for ticket in 0..5_000 {
            history.note(ticket, asked(1, What::Reload), 1);
        }
        assert_eq!(history.noted.len(), MOST_NOTED);
        let tickets: Vec<Ticket> = (0..5_000).collect();
        for _ in 0..150 {
            history.write(&ended(&tickets, &outcome("no")));
        }
        assert_eq!(history.entries.len(), MOST_ENTRIES);
        assert_eq!(history.entries.back().unwrap().number, 150);
        history.note(1, asked(1, What::Reload), 1);
        history.write(&ended(&[1], &outcome("")));
        assert_eq!(history.entries.back().unwrap().requests.len(), 1);
    }

    #[test]
    fn what_another_version_knows_can_be_read() {
        let asked: Asked = serde_json::from_str(
            r#"{"at_ms":1,"by":{"who":"moon","phase":3},"what":"dance","set":[]}"#,
        )
        .unwrap();
        assert_eq!((asked.by, asked.what), (Requester::Unknown, What::Other));
    }
}
