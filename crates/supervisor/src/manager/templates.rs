//! Templates as processes: executed, spoken to, and gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::process::{self, Launch};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{fd, signal};

use crate::core::action::Source;
use crate::core::event::{ChildId, Ended, Event, Generation};
use crate::line::Line;
use crate::protocol::master::Keepsake;
use crate::protocol::template::{Hello, ROLE_VARIABLE, ToTemplate};

use super::Manager;
use super::output::OutputPipe;
use super::process::TemplateProcess;
use super::release::Release;

impl Manager {
    /// Executes a release, and gives it what it has to know.
    pub(super) fn spawn_template(
        &mut self,
        generation: Generation,
        source: &Source,
    ) -> Result<(), String> {
        if let Source::Disk { overrides } = source {
            let path = self.executable_path();
            let release = Release::open(&path, &self.snapshot, overrides)?;
            self.hold_release(generation, release)?;
            self.latest = generation;
        }
        self.execute(generation).map_err(|error| format!("cannot execute the release: {error}"))
    }

    /// Where the next release is looked for: the setting in force, else where the start found it.
    pub(super) fn executable_path(&self) -> PathBuf {
        let set = self.core.settings().and_then(|settings| settings.executable.clone());
        set.unwrap_or_else(|| self.origin.executable.clone())
    }

    fn hold_release(&mut self, generation: Generation, release: Release) -> Result<(), String> {
        release
            .snapshot_file()
            .and_then(|snapshot| {
                let both = [release.executable.as_fd(), snapshot.as_fd()];
                self.keep(Keepsake::Release(generation), &both)
            })
            .map_err(|error| format!("cannot hold the release: {error}"))?;
        self.releases.insert(generation, release);
        self.recall_digests();
        Ok(())
    }

    fn let_go_template(&mut self, generation: Generation) {
        self.let_go(Keepsake::Template(generation));
        self.let_go(Keepsake::TemplateOutput(generation));
    }

    fn execute(&mut self, generation: Generation) -> io::Result<()> {
        let (ours, theirs) = Channel::pair_sized(1024 * 1024)?;
        theirs.set_blocking(true)?;
        let (output, input) = fd::pipe()?;
        self.keep(Keepsake::Template(generation), &[ours.as_fd()])?;
        self.keep(Keepsake::TemplateOutput(generation), &[output.as_fd()])?;
        let release = self
            .releases
            .get(&generation)
            .ok_or_else(|| io::Error::other("its executable is not held any more"))?;
        let inode = fd::inode(theirs.as_fd())?;
        let role = |number: i32| (ROLE_VARIABLE, format!("template:{number}:{inode}"));
        let row =
            self.rows.take(&self.slab).ok_or_else(|| io::Error::other("too many processes"))?;
        let launched = process::execute(&Launch {
            executable: release.executable.as_fd(),
            arguments: &self.origin.arguments,
            channel: theirs.as_fd(),
            role: &role,
            output: input.as_fd(),
            mortal: false,
        });
        let pid = match launched {
            Ok(pid) => pid,
            Err(error) => {
                self.rows.free(&self.slab, row);
                return Err(error);
            }
        };
        let mut line = Line::new(ours);
        line.send(
            &ToTemplate::Start {
                generation,
                master_pid: self.pids.master,
                manager_pid: self.pids.manager,
            },
            vec![release.snapshot_file()?, self.log.try_clone()?],
        );
        let slot = self.slab.row(row);
        slot.set_pid(pid);
        slot.set_generation(generation);
        slot.set_started_ms(monotonic_ms());
        let output = Some(OutputPipe::new(output));
        self.processes
            .templates
            .insert(generation, TemplateProcess { pid, line: Some(line), output, row });
        Ok(())
    }

    /// A release may name another executable than the one it was found as; that one is meant.
    pub(super) fn template_hello(&mut self, generation: Generation, hello: Box<Hello>) {
        let other = self.releases.get(&generation).zip(hello.settings.executable.as_deref());
        if let Some((release, path)) = other
            && release.path != path
            && generation == self.latest
            && self.core.settings().is_none_or(|it| it.executable != hello.settings.executable)
        {
            match self.execute_instead(generation, path) {
                Ok(()) => return,
                Err(reason) => {
                    self.take(Event::TemplateFailed { generation, reason });
                    return;
                }
            }
        }
        self.take(Event::Hello { generation, hello });
    }

    fn execute_instead(&mut self, generation: Generation, path: &Path) -> Result<(), String> {
        let before = self.releases.get(&generation).map(|it| it.snapshot.clone());
        let release = Release::open(path, &before.unwrap_or_default(), &[])?;
        self.hold_release(generation, release)?;
        if let Some(first) = self.processes.templates.remove(&generation) {
            self.let_go_template(generation);
            let _ = signal::kill(first.pid, signal::KILL);
            self.rows.free(&self.slab, first.row);
        }
        self.execute(generation).map_err(|error| format!("cannot execute the release: {error}"))
    }

    pub(super) fn tell_template(&mut self, generation: Generation, message: &ToTemplate) {
        self.tell_template_with(generation, message, Vec::new());
    }

    pub(super) fn tell_template_with(
        &mut self,
        generation: Generation,
        message: &ToTemplate,
        fds: Vec<OwnedFd>,
    ) {
        if let Some(template) = self.processes.templates.get_mut(&generation)
            && let Some(line) = &mut template.line
        {
            line.send(message, fds);
        }
    }

    /// A template has been reaped.
    pub(super) fn template_ended(&mut self, generation: Generation, ended: Ended) {
        self.read_template(generation);
        self.read_template_output(generation);
        if let Some(template) = self.processes.templates.remove(&generation) {
            self.let_go_template(generation);
            self.rows.free(&self.slab, template.row);
        }
        // What it was asked to fork and has not named will never be named: end of file on its
        // socket tells such a process that nobody knows it.
        let nameless: Vec<ChildId> = self
            .processes
            .children
            .iter()
            .filter(|(_, it)| it.generation == generation && it.pid.is_none())
            .map(|(child, _)| *child)
            .collect();
        for child in nameless {
            self.drop_child(child);
            if self.core.child(child).is_none() {
                let reason = "the template is gone".to_owned();
                self.take(Event::NotForked { child, reason });
            }
        }
        self.take(Event::TemplateGone { generation, ended });
    }
}
