//! An upgrade: manager and master become the new program, each in its place; then the workers are
//! reloaded.
//!
//! ```text
//! Idle → Probing → Manager → Master → Idle, and at once → Starting → …
//!            └─────────┴─────────┴──→ Idle: all as it was
//! ```

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::event::{Millis, Scope, Ticket, Until};
use super::history::{Ended, What};
use super::outcome::{Progress, Verdict};
use super::reload::Request;
use super::{Core, Phase};

/// Each stage may take so long, and no longer than `start_timeout`.
const PATIENCE: Millis = 10_000;

/// What the names of an upgrade's stages begin with, where progress is told.
pub(super) const UPGRADING: &str = "upgrading_";

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// A child of the new program says which states it can read.
    Probing,
    /// The manager becomes the new program.
    Manager,
    /// The master does.
    Master,
}

/// An upgrade under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Upgrade {
    /// The reload that follows, and who waits for it.
    pub(super) request: Request,
    pub(super) began: Millis,
    pub(super) stage: Stage,
    pub(super) deadline: Millis,
}

impl Core {
    /// Takes a request; it waits like one for a reload, and is one, with something before it.
    pub(super) fn upgrade_asked(
        &mut self,
        ticket: Option<Ticket>,
        overrides: Vec<String>,
        until: Until,
    ) {
        self.queue(Request {
            upgrade: true,
            ..Request::reload(ticket, Scope::All, overrides, until)
        });
    }

    /// Begins; the core is idle.
    pub(super) fn begin_upgrade(&mut self, request: Request) {
        self.log("upgrading: the new program is probed");
        self.phase = Phase::Upgrading(Upgrade {
            request,
            began: self.now,
            stage: Stage::Probing,
            deadline: self.now + self.stage_time(),
        });
        self.begin_telling();
        self.report_upgrade("probing");
        self.out.push(Action::Probe);
    }

    /// The probe has answered, or will not.
    pub(super) fn probed(&mut self, result: Result<(), String>) {
        if !self.is_upgrading(Stage::Probing) {
            return;
        }
        match result {
            Ok(()) => {
                self.enter(Stage::Manager, "manager");
                self.out.push(Action::ReplaceManager);
            }
            Err(reason) => self.fail_upgrade(&reason),
        }
    }

    /// The manager could not become the new program.
    pub(super) fn not_replaced(&mut self, reason: &str) {
        if self.is_upgrading(Stage::Manager) {
            self.fail_upgrade(reason);
        }
    }

    /// A manager has taken up: the new program, or, unplanned, one of the old program after a death.
    pub(super) fn upgrade_taken_up(&mut self, planned: bool) {
        if !matches!(self.phase, Phase::Upgrading(_)) {
            return;
        }
        if planned && self.is_upgrading(Stage::Manager) {
            self.begin_telling();
            self.enter(Stage::Master, "master");
            self.out.push(Action::ReplaceMaster);
        } else if !planned {
            self.fail_upgrade("the manager has died in the middle of it");
        }
    }

    /// The master is the new program, or could not become it.
    pub(super) fn master_replaced(&mut self, result: Result<(), String>) {
        let Phase::Upgrading(upgrade) = &self.phase else { return };
        if upgrade.stage != Stage::Master {
            return;
        }
        let mut request = upgrade.request.clone();
        match result {
            Ok(()) => {
                self.log("upgraded: manager and master are the new program");
                request.upgrade = false;
                request.upgraded = true;
                if let Some(later) = self.waiting.take() {
                    request.absorb(later);
                }
                self.waiting = Some(request);
                self.phase = Phase::Idle;
            }
            Err(reason) => {
                self.fail_upgrade(&reason);
                self.out.push(Action::StepDown);
            }
        }
    }

    /// Nothing takes for ever.
    pub(super) fn advance_upgrading(&mut self) {
        let Phase::Upgrading(upgrade) = &self.phase else { return };
        if upgrade.deadline > self.now {
            return;
        }
        let (stage, reason) = match upgrade.stage {
            Stage::Probing => (Stage::Probing, "the new program has not answered the probe"),
            Stage::Manager => (Stage::Manager, "the manager could not be replaced in time"),
            Stage::Master => (Stage::Master, "the master could not be replaced in time"),
        };
        self.fail_upgrade(reason);
        if stage == Stage::Master {
            self.out.push(Action::StepDown);
        }
    }

    /// All is as it was; whoever asked is told.
    pub(super) fn fail_upgrade(&mut self, reason: &str) {
        let Phase::Upgrading(upgrade) = &self.phase else { return };
        let upgrade = upgrade.clone();
        let outcome = self.outcome(What::Upgrade, Verdict::Aborted, reason, upgrade.began);
        let tickets: Vec<_> = upgrade.request.waiters.iter().map(|it| it.ticket).collect();
        self.record(&Ended {
            what: What::Upgrade,
            from: self.generation(),
            to: self.generation(),
            began: upgrade.began,
            tickets: tickets.clone(),
            outcome: &outcome,
        });
        self.out.push(Action::EndProbe);
        self.out.push(Action::Finish { tickets, outcome });
        self.phase = Phase::Idle;
    }

    fn stage_time(&self) -> Millis {
        self.settings().map_or(PATIENCE, |it| super::millis(it.start_timeout).min(PATIENCE))
    }

    fn is_upgrading(&self, stage: Stage) -> bool {
        matches!(&self.phase, Phase::Upgrading(upgrade) if upgrade.stage == stage)
    }

    fn enter(&mut self, stage: Stage, name: &str) {
        let deadline = self.now + self.stage_time();
        if let Phase::Upgrading(upgrade) = &mut self.phase {
            upgrade.stage = stage;
            upgrade.deadline = deadline;
        }
        self.report_upgrade(name);
    }

    fn report_upgrade(&mut self, stage: &str) {
        let phase = format!("{UPGRADING}{stage}");
        let progress = Progress { phase, generation: self.generation(), ..Progress::default() };
        self.tell_progress(progress);
    }
}
