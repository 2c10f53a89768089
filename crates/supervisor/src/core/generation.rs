//! One generation, seen from above: its template and what that has said.

use crate::protocol::template::{Hello, HookName};
use serde::{Deserialize, Serialize};

use super::event::Millis;
use super::respawn::Backoff;

/// Where a template is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Template {
    /// Executed; has not said hello.
    Starting,
    /// Waits for its addresses.
    Binding,
    /// Runs `preload`.
    Loading,
    /// Forks on demand.
    Loaded,
    /// Told to exit; killed when the time is over.
    Leaving {
        /// When it is killed.
        kill_at: Millis,
    },
    /// No process.
    Gone {
        /// When it is executed again, if it is needed by then.
        retry_at: Millis,
    },
}

/// A generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationState {
    /// Where its template is.
    pub template: Template,
    /// What its release is, once known.
    pub hello: Option<Hello>,
    /// Whether the master holds its addresses.
    pub bound: bool,
    /// Whether its deadline was brought forward already.
    pub hurried: bool,
    /// What the template said before it failed.
    pub failure: Option<String>,
    /// Deaths in a row of the template.
    pub deaths: Backoff,
    /// When it is killed unless it is loaded by then; None: the reload minds that.
    #[serde(default)]
    pub loaded_by: Option<Millis>,
}

impl GenerationState {
    /// A generation whose template is being executed.
    pub fn starting() -> Self {
        Self {
            template: Template::Starting,
            hello: None,
            bound: false,
            hurried: false,
            failure: None,
            deaths: Backoff::default(),
            loaded_by: None,
        }
    }

    /// Whether there is a template process.
    pub fn has_template(&self) -> bool {
        !matches!(self.template, Template::Gone { .. })
    }

    /// Whether the application has registered this hook.
    pub fn has_hook(&self, name: HookName) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.hooks.contains(&name))
    }
}
