//! What each generation is there for, in a word.

use super::event::Generation;
use super::generation::Template;
use super::{Core, Phase};

impl Core {
    /// `starting`, `proving`, `observing`, `serving`, `draining`, `parked` (kept to be gone back to),
    /// `ready` (nothing of it serves, and it could), `leaving`.
    pub fn standing(&self, generation: Generation) -> &'static str {
        let is_run = match &self.phase {
            Phase::Starting(run) | Phase::Replacing(run) => run.generation == generation,
            Phase::RollingBack(back) => back.to.has(generation),
            _ => false,
        };
        let observed = self.observation.as_ref().is_some_and(|it| it.generation() == generation);
        let template = self.generations.get(&generation).map(|it| it.template);
        let lives = self.children.values().any(|it| it.generation == generation);
        match template {
            _ if is_run => "starting",
            _ if self.is_proving(generation) => "proving",
            _ if observed => "observing",
            _ if self.workers == Some(generation) || self.tasks == Some(generation) => "serving",
            _ if lives => "draining",
            _ if self.is_parked(generation) => "parked",
            Some(Template::Loaded) => "ready",
            _ => "leaving",
        }
    }
}
