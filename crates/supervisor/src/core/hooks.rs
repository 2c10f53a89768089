//! Hooks: callbacks that run in a short-lived process of their own.

use crate::protocol::template::{HookCall, HookName, WorkerDeath};
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::event::{ChildId, Ended, Generation, Millis};
use super::generation::Template;
use super::{Core, Phase};

/// A hook that takes longer is killed.
const HOOK_TIMEOUT: Millis = 10_000;

/// A hook under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HookRun {
    pub(super) name: HookName,
    pub(super) deadline: Millis,
}

impl Core {
    /// Runs a hook from this generation's template, if the application has registered it. Gives
    /// back the number of its process.
    pub(super) fn run_hook(
        &mut self,
        generation: Generation,
        name: HookName,
        died: Option<WorkerDeath>,
    ) -> Option<ChildId> {
        let state = self.generations.get(&generation)?;
        if state.template != Template::Loaded || !state.has_hook(name) {
            return None;
        }
        let child = self.next_child;
        self.next_child += 1;
        self.hooks.insert(child, HookRun { name, deadline: self.now + HOOK_TIMEOUT });
        let call =
            HookCall { name, master_pid: self.pids.master, manager_pid: self.pids.manager, died };
        self.out.push(Action::Hook { child, generation, call });
        Some(child)
    }

    /// A hook's process is gone, or could not be forked.
    pub(super) fn hook_gone(&mut self, child: ChildId, failure: Option<String>) {
        let Some(hook) = self.hooks.remove(&child) else { return };
        if let Some(failure) = failure {
            self.warn(format!("{} {failure}", callback(hook.name)));
            let decides = matches!(&self.phase, Phase::Starting(run) if run.hook == Some(child));
            if decides {
                self.fail_run(format!("{} {failure}", callback(hook.name)));
                return;
            }
        }
        if let Phase::Starting(run) = &mut self.phase
            && run.hook == Some(child)
        {
            run.hook = None;
        }
    }

    pub(super) fn pass_hook_deadlines(&mut self) {
        for (child, hook) in &mut self.hooks {
            if hook.deadline <= self.now {
                hook.deadline = Millis::MAX;
                self.out.push(Action::Kill {
                    child: *child,
                    reason: Some(format!("{} took longer than 10 s", callback(hook.name))),
                });
            }
        }
    }
}

/// How a hook's end reads if it was a failure.
pub(super) fn hook_failure(ended: Ended) -> Option<String> {
    (ended != Ended::Code(0)).then(|| format!("has failed: its process {ended}"))
}

/// The callback as the user wrote it.
fn callback(name: HookName) -> &'static str {
    match name {
        HookName::OnStart => "on_start",
        HookName::OnManagerStart => "on_manager_start",
        HookName::OnWorkerError => "on_worker_error",
        HookName::OnShutdown => "on_shutdown",
    }
}
