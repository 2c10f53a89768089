//! What a reload came to, and how far it is meanwhile.

use serde::{Deserialize, Serialize};

use super::history::What;
use super::slots::Slot;

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The new generation serves and is the one to respawn from.
    Committed,
    /// The new generation serves and is observed from here on: the answer to those who wait for no
    /// more.
    Replaced,
    /// The new generation had begun to serve, or was in force; the old one serves again.
    RolledBack,
    /// Nothing had changed when it failed.
    Aborted,
}

/// The reason of a rollback by hand.
pub const ASKED_BACK: &str = "a rollback was asked for";

/// How many processes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Workers.
    pub workers: u32,
    /// Task workers.
    pub task_workers: u32,
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = |number: u32| if number == 1 { "" } else { "s" };
        write!(f, "{} worker{}", self.workers, plural(self.workers))?;
        match self.task_workers {
            0 => Ok(()),
            number => write!(f, " and {number} task worker{}", plural(number)),
        }
    }
}

/// The answer to `reload`, to `scale`, and to the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it is the outcome of. The reload that follows an upgrade is one of its own.
    #[serde(default)]
    pub what: What,
    /// How it ended.
    pub outcome: Verdict,
    /// The generation that serves now (0: none).
    pub generation: u64,
    /// Why it was not committed; empty if it was.
    pub reason: String,
    /// What the new code wrote before it was ready, at most the last 64 KiB.
    pub output: String,
    /// From the request's turn to its end, in milliseconds.
    pub duration_ms: u64,
    /// What the operator should know all the same.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Answer to `scale`: how many processes there are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled: Option<Sizes>,
    /// If only task workers were replaced: the generation that these are of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_generation: Option<u64>,
}

/// How far a reload is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `waiting`, `starting`, `proving`, `canary`, `replacing`, `observing`, `rolling_back`,
    /// `scaling`, or a stage of an upgrade.
    pub phase: String,
    /// Number of the new generation.
    pub generation: u64,
    /// Processes of it that are ready; requests that the `canary` has served; seconds of `observing`.
    pub done: u32,
    /// Of how many.
    pub total: u32,
    /// The processes that have changed their state since the last report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
}
