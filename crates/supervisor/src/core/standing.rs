//! What each generation is there for, in a word.

use super::event::Generation;
use super::generation::Template;
use super::{Core, Phase};

impl Core {
    /// `starting`, `serving`, `draining`, `ready` (nothing of it serves, and it could), `leaving`.
    pub fn standing(&self, generation: Generation) -> &'static str {
        let is_run = match &self.phase {
            Phase::Starting(run) | Phase::Replacing(run) => run.generation == generation,
            _ => false,
        };
        let template = self.generations.get(&generation).map(|it| it.template);
        let lives = self.children.values().any(|it| it.generation == generation);
        match template {
            _ if is_run => "starting",
            _ if self.workers == Some(generation) || self.tasks == Some(generation) => "serving",
            _ if lives => "draining",
            Some(Template::Loaded) => "ready",
            _ => "leaving",
        }
    }
}
