//! What comes of the core's actions, and of what is wrong with a generation.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::core::action::Action;
use crate::core::event::{ChildId, Ended, Event, Generation};
use crate::core::sample::Sample;
use crate::protocol::template::{Formats, Hello, Kind};
use crate::protocol::worker::DrainMode;
use crate::slab_format;

use super::{Fault, Process, World};

impl World {
    pub(super) fn perform(&mut self, action: &Action) {
        match action {
            Action::SpawnTemplate { generation, .. } => self.execute(*generation),
            Action::Bind { generation } => {
                let generation = *generation;
                self.events.push_back(if self.fault(generation) == Fault::NotBound {
                    Event::NotBound { generation, reason: "in use".into() }
                } else {
                    Event::Bound { generation }
                });
            }
            Action::Rebind { generation } => {
                let generation = *generation;
                self.events.push_back(if self.fault(generation) == Fault::NotBound {
                    Event::NotBound { generation, reason: "in use by now".into() }
                } else {
                    Event::Bound { generation }
                });
            }
            Action::Widen { generation } => {
                let generation = *generation;
                self.used = self.used.max(self.core.worker_num(generation));
                self.events.push_back(if self.fault(generation) == Fault::NotBound {
                    Event::NotBound { generation, reason: "no descriptors".into() }
                } else {
                    Event::Bound { generation }
                });
            }
            Action::Doors { child, workers } => {
                let process = self.processes.get(child).cloned();
                if let Some(process) = process {
                    let doors = self.doors(*workers, process.worker_id);
                    if process.serving && !process.draining {
                        self.opened.extend(&doors);
                    }
                    self.processes.insert(*child, Process { doors, ..process });
                }
            }
            Action::Load { generation } => self.load(*generation),
            Action::Fork { child, generation, kind, worker_id, .. } => {
                self.fork(*child, *generation, *kind, *worker_id);
            }
            Action::Hook { child, .. } => {
                self.hooks.insert(*child);
                self.events.push_back(Event::Forked { child: *child, pid: 7 });
                self.gone(*child, Ended::Code(0));
            }
            Action::Serve { child } => {
                if let Some(process) = self.processes.get_mut(child) {
                    process.serving = true;
                    if process.kind == Kind::Worker {
                        self.opened.extend(&process.doors);
                    }
                    self.events.push_back(Event::Serving { child: *child });
                    let generation = process.generation;
                    if process.kind == Kind::Worker && self.fault(generation) == Fault::Crashes {
                        self.kill(*child);
                    }
                }
            }
            Action::Drain { child, grace, mode, .. } => {
                if let Some(process) = self.processes.get_mut(child) {
                    process.draining = true;
                    let slow =
                        self.slow_drain && grace.max_wait > 0 && *mode == DrainMode::HandOver;
                    let stays = slow || self.drains_by_hand;
                    if !stays && process.stuck.is_none() {
                        self.gone(*child, Ended::Code(0));
                    }
                }
            }
            Action::Kill { child, .. } => self.gone(*child, Ended::Signal(9)),
            Action::Look { children } => {
                let beat = |child: &ChildId| {
                    let process = self.processes.get(child)?;
                    Some((*child, process.stuck.unwrap_or(self.now)))
                };
                let beats = children.iter().filter_map(beat).collect();
                self.events.push_back(Event::Looked { beats });
            }
            Action::CheckHealth { child, attempt } => {
                let generation = self.processes.get(child).map_or(0, |it| it.generation);
                let failure = match self.fault(generation) {
                    Fault::Mute => return,
                    Fault::Unhealthy => Some("503".to_owned()),
                    _ => None,
                };
                let (child, attempt) = (*child, *attempt);
                self.events.push_back(Event::Health { child, attempt, failure });
            }
            Action::Measure { children } => {
                let samples = children.iter().filter_map(|child| self.count(*child)).collect();
                self.events.push_back(Event::Measured { samples });
            }
            Action::ExitTemplate { generation } => {
                let generation = *generation;
                if self.templates.remove(&generation) {
                    let ended = Ended::Code(0);
                    self.events.push_back(Event::TemplateGone { generation, ended });
                }
            }
            Action::KillTemplate { generation } => self.kill_template(*generation),
            Action::Finish { tickets, outcome } | Action::Answer { tickets, outcome } => {
                for ticket in tickets {
                    let twice = self.finished.insert(*ticket, outcome.clone());
                    assert!(twice.is_none(), "ticket {ticket} was answered twice");
                }
            }
            Action::Exit { code } => {
                assert_eq!(self.exit, None, "two exits");
                self.exit = Some(*code);
            }
            Action::Probe => {
                let refused = self.plan.fault == Fault::ProbeRefuses;
                let result = if refused { Err("too new".into()) } else { Ok(()) };
                self.events.push_back(Event::Probed { result });
            }
            Action::ReplaceManager if self.plan.fault == Fault::ManagerStays => {
                self.events.push_back(Event::NotReplaced { reason: "no program".into() });
            }
            Action::ReplaceManager => self.manager = Some(true),
            Action::ReplaceMaster => {
                let stays = self.plan.fault == Fault::MasterStays;
                let result = if stays { Err("no program".into()) } else { Ok(()) };
                self.events.push_back(Event::MasterReplaced { result });
            }
            Action::StepDown => self.manager = Some(false),
            Action::EndProbe => self.events.retain(|it| !matches!(it, Event::Probed { .. })),
            Action::Commit { generation, .. } => {
                self.used = self.used.max(self.core.worker_num(*generation));
            }
            Action::Inspect { .. }
            | Action::Trial { .. }
            | Action::Stopping
            | Action::Forget { .. }
            | Action::Progress { .. }
            | Action::Log { .. } => {}
        }
    }

    /// Whoever is measured has served something since the last time.
    fn count(&mut self, child: ChildId) -> Option<(ChildId, Sample)> {
        let generation = self.processes.get(&child)?.generation;
        if self.fault(generation) == Fault::CrashesLater {
            self.kill(child);
            return None;
        }
        let failures = if self.fault(generation) == Fault::Errors { 5 } else { 0 };
        let traffic = self.traffic;
        let process = self.processes.get_mut(&child)?;
        if traffic {
            let more = Sample { requests: 10, failures, timed: 10, spent_us: 1_000 };
            process.counted = process.counted + more;
        }
        Some((child, process.counted))
    }

    fn execute(&mut self, generation: Generation) {
        let plan =
            self.plans.entry(generation).or_insert_with(|| Rc::new(self.plan.clone())).clone();
        self.templates.insert(generation);
        match plan.fault {
            Fault::TemplateExits => {
                self.templates.remove(&generation);
                let ended = Ended::Code(3);
                self.events.push_back(Event::TemplateGone { generation, ended });
            }
            Fault::TemplateHangs => {}
            _ => {
                let formats = Formats { oldest: 1, newest: 1 };
                let hello = Box::new(Hello {
                    hand_over: formats,
                    slab: Formats { oldest: slab_format(), newest: slab_format() },
                    task: formats,
                    release: "r".into(),
                    settings: plan.settings.clone(),
                    listeners: Vec::new(),
                    hooks: plan.hooks.clone(),
                    health: plan.settings.health.is_some(),
                    places: None,
                });
                self.events.push_back(Event::Hello { generation, hello });
            }
        }
    }

    fn load(&mut self, generation: Generation) {
        // It has died, and the news is under way.
        if !self.templates.contains(&generation) {
            return;
        }
        if self.fault(generation) == Fault::PreloadFails {
            let reason = "preload has panicked".into();
            self.events.push_back(Event::TemplateFailed { generation, reason });
            self.templates.remove(&generation);
            let ended = Ended::Code(1);
            self.events.push_back(Event::TemplateGone { generation, ended });
        } else {
            self.events.push_back(Event::Loaded { generation });
        }
    }

    fn fork(&mut self, child: ChildId, generation: Generation, kind: Kind, worker_id: u32) {
        // It has died, and the news is under way: nothing comes of this.
        if !self.templates.contains(&generation) {
            return;
        }
        let fault = self.fault(generation);
        if fault == Fault::ForkRefused {
            let reason = "two threads".into();
            self.events.push_back(Event::NotForked { child, reason });
            return;
        }
        let doors = match kind {
            Kind::Worker => self.doors(self.core.worker_num(generation), worker_id),
            Kind::TaskWorker => BTreeSet::new(),
        };
        let (serving, draining) = (false, false);
        let (stuck, counted) = (None, Sample::default());
        let process =
            Process { generation, kind, worker_id, serving, draining, counted, stuck, doors };
        self.processes.insert(child, process);
        self.events.push_back(Event::Forked { child, pid: i32::try_from(child).unwrap() + 100 });
        let fails = match fault {
            Fault::StartFails => true,
            Fault::StartFailsFrom(first) => kind == Kind::Worker && worker_id >= first,
            _ => false,
        };
        if fails {
            self.events.push_back(Event::Failed { child, reason: "it panicked".into() });
            self.gone(child, Ended::Code(1));
        } else if fault != Fault::StartHangs {
            self.events.push_back(Event::Ready { child });
        }
    }
}
