//! What templates say, and how they end.

use std::collections::BTreeSet;

use crate::protocol::template::{Formats, Hello, HookName};
use crate::slab_format;

use super::action::Action;
use super::event::{Ended, Generation, Millis};
use super::generation::Template;
use super::{Core, Phase};

impl Core {
    /// A template has said what its release is.
    pub(super) fn hello(&mut self, generation: Generation, hello: Hello) {
        let refusal =
            self.unreadable(generation, &hello).or_else(|| self.queueless(generation, &hello));
        let Some(state) = self.generations.get_mut(&generation) else { return };
        if state.template != Template::Starting {
            return;
        }
        // A template that is executed once more is the same release: what was said first holds.
        if state.hello.is_none() {
            state.hello = Some(hello);
        }
        state.template = Template::Binding;
        let bound = state.bound;
        if let Some(reason) = refusal {
            self.template_failed(generation, reason);
        } else if bound || !self.is_full_run(generation) {
            self.bound(generation);
        } else {
            self.out.push(Action::Bind { generation });
        }
    }

    /// Why processes of this release and those that serve could not work together.
    fn unreadable(&self, generation: Generation, hello: &Hello) -> Option<String> {
        let reads =
            |formats: &Formats, version: u8| (formats.oldest..=formats.newest).contains(&version);
        if !reads(&hello.slab, slab_format()) {
            return Some(format!(
                "the release reads the shared slab in formats {} to {}, this server has format {}",
                hello.slab.oldest,
                hello.slab.newest,
                slab_format()
            ));
        }
        let current = self.workers.filter(|current| *current != generation)?;
        let written = self.hand_over_format(current);
        (!reads(&hello.hand_over, written)).then(|| {
            format!(
                "the serving release hands connections over in format {written}, the new one \
                 reads {} to {}",
                hello.hand_over.oldest, hello.hand_over.newest
            )
        })
    }

    /// Why new task workers alone would be of no use to the workers that serve, or leave their tasks
    /// to nobody: a worker is told at its start whether there are any.
    fn queueless(&self, generation: Generation, hello: &Hello) -> Option<String> {
        if self.phase.run().is_none_or(|run| run.generation != generation)
            || self.is_full_run(generation)
        {
            return None;
        }
        let reload = "reload the workers as well";
        match (self.settings()?.task_worker_num, hello.settings.task_worker_num) {
            (1.., 0) => Some(format!(
                "server.task_worker_num is 0, and the workers that serve send tasks: {reload}"
            )),
            (0, 1..) => Some(format!(
                "the workers that serve were started with server.task_worker_num 0 and send no \
                 tasks: {reload}"
            )),
            _ => None,
        }
    }

    /// In which format workers of a generation hand connections over: the newest that it, whatever it
    /// may have to give way to, and whatever follows can read.
    pub fn hand_over_format(&self, generation: Generation) -> u8 {
        let formats = |number: Generation| {
            self.generations.get(&number)?.hello.as_ref().map(|it| it.hand_over)
        };
        let Some(own) = formats(generation) else { return 1 };
        let run = self.phase.run().map(|it| it.generation);
        let readers = self.parked.iter().map(|it| it.workers).chain(self.workers).chain(run);
        written(own, readers.filter_map(formats))
    }

    /// Whether addresses matter to this generation: not if only task workers are replaced.
    fn is_full_run(&self, generation: Generation) -> bool {
        match &self.phase {
            Phase::Starting(run) => {
                run.generation == generation && run.scope == super::event::Scope::All
            }
            _ => false,
        }
    }

    /// The master holds the addresses of a generation: `preload` may run.
    pub(super) fn bound(&mut self, generation: Generation) {
        if self.bound_again(generation) {
            return;
        }
        let Some(state) = self.generations.get_mut(&generation) else { return };
        if state.template == Template::Binding {
            state.template = Template::Loading;
            state.bound = true;
            self.out.push(Action::Load { generation });
        } else {
            self.widened(generation);
        }
    }

    /// The master could not bind.
    pub(super) fn not_bound(&mut self, generation: Generation, reason: String) {
        match self.phase {
            Phase::Scaling(_) if self.workers == Some(generation) => self.fail_scaling(&reason),
            Phase::RollingBack(_) => self.not_bound_again(generation, &reason),
            _ => self.template_failed(generation, reason),
        }
    }

    /// `preload` has returned.
    pub(super) fn loaded(&mut self, generation: Generation) {
        let Some(state) = self.generations.get_mut(&generation) else { return };
        if state.template != Template::Loading {
            return;
        }
        state.template = Template::Loaded;
        state.loaded_by = None;
        state.deaths = super::Backoff::default();
        if let Phase::Starting(run) = &mut self.phase
            && run.generation == generation
            && !self.greeted
        {
            self.greeted = true;
            let hook = self.run_hook(generation, HookName::OnStart, None);
            if let Phase::Starting(run) = &mut self.phase {
                run.hook = hook;
            }
        }
    }

    /// A template gives up. Its end follows, or has come already.
    pub(super) fn template_failed(&mut self, generation: Generation, reason: String) {
        let Some(state) = self.generations.get_mut(&generation) else { return };
        state.failure = Some(reason.clone());
        if self.is_starting(generation) {
            self.fail_run(reason);
        } else {
            self.out.push(Action::KillTemplate { generation });
        }
    }

    /// A template process is gone.
    pub(super) fn template_gone(&mut self, generation: Generation, ended: Ended) {
        let Some(state) = self.generations.get_mut(&generation) else { return };
        let was = state.template;
        let wait = state.deaths.died(None);
        state.template = Template::Gone { retry_at: self.now + wait };
        state.loaded_by = None;
        let failure = state.failure.take();
        let said = match (was, failure) {
            (_, Some(failure)) => failure,
            (Template::Loaded, None) => format!("the template {ended}"),
            (_, None) => format!("the template {ended} before it was ready"),
        };
        let orphans: Vec<_> = self
            .children
            .values()
            .filter(|it| it.generation == generation && it.pid.is_none())
            .map(|it| it.id)
            .collect();
        // Whoever leaves at once kills it.
        let expected =
            self.is_stopping() || matches!(was, Template::Leaving { .. } | Template::Gone { .. });
        if self.is_starting(generation) {
            self.fail_run(said);
        } else if !expected {
            self.warn(format!("{said} (gen {generation})"));
        }
        // What it was asked to fork and has not named will never be named.
        for child in orphans {
            self.unborn(child, "the template is gone".into());
        }
    }

    /// When templates come back that are gone: an idle one is missed only at the next death of a
    /// worker, and is there again before that.
    pub(super) fn templates_due(&self) -> impl Iterator<Item = (Generation, Millis)> {
        let stopping = self.is_stopping();
        let needed = [self.workers, self.tasks].into_iter().flatten().filter(move |_| !stopping);
        needed.filter_map(|generation| match self.generations.get(&generation)?.template {
            Template::Gone { retry_at } => Some((generation, retry_at)),
            _ => None,
        })
    }

    pub(super) fn bring_templates_back(&mut self) {
        let due: BTreeSet<Generation> = self
            .templates_due()
            .filter(|(_, at)| *at <= self.now)
            .map(|(generation, _)| generation)
            .collect();
        for generation in due {
            self.execute_again(generation);
        }
    }

    /// Whether the run under way is this generation's, and it has not served yet.
    fn is_starting(&self, generation: Generation) -> bool {
        match &self.phase {
            Phase::Starting(run) => run.generation == generation,
            Phase::Proving(proving) => proving.run.generation == generation,
            Phase::Replacing(run) => run.generation == generation && !run.opened,
            _ => false,
        }
    }
}

/// The newest format that a release and all `readers` can read; its own oldest, if they are behind that.
fn written(own: Formats, readers: impl Iterator<Item = Formats>) -> u8 {
    let newest = readers.map(|it| it.newest).min();
    newest.map_or(own.newest, |it| it.clamp(own.oldest, own.newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_written_so_that_everybody_there_is_can_read_them() {
        let formats = |oldest, newest| Formats { oldest, newest };
        let own = formats(2, 4);
        for (readers, expected) in [
            (vec![], 4),
            (vec![own], 4),
            (vec![own, formats(3, 6)], 4),
            (vec![own, formats(1, 3)], 3),
            (vec![formats(3, 6), formats(2, 2), formats(1, 3)], 2),
            (vec![formats(1, 1)], 2),
        ] {
            assert_eq!(written(own, readers.clone().into_iter()), expected, "{readers:?}");
        }
    }
}
