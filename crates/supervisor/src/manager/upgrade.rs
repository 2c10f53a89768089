//! The manager becomes the new program: a child of that is asked first, then this process executes
//! it and goes on under its pid, with its children.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::process::{self, Launch, Replacement};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{fd, signal};

use crate::core::event::{Ended, Event, Generation};
use crate::line::{Heard, Line, hear};
use crate::protocol::master::{FromManager, Keepsake};
use crate::protocol::probe::{FromProbe, ToProbe};
use crate::role::{self, Role};

use super::Manager;
use super::output::OutputPipe;
use super::release::open_executable;

/// Under what number a new program's words are kept: no generation ever has it.
const WORDS: Generation = Generation::MAX;

/// A program that manager and master are to become.
#[derive(Debug)]
pub(super) struct NewProgram {
    executable: OwnedFd,
    probe: Option<Probe>,
    /// Whether to become it as soon as nothing waits to be sent.
    go: bool,
}

/// The child that is asked.
#[derive(Debug)]
struct Probe {
    pid: i32,
    line: Line,
    output: Option<OutputPipe>,
}

impl NewProgram {
    /// The pid of the child that is asked.
    pub(super) fn probe(&self) -> Option<i32> {
        self.probe.as_ref().map(|it| it.pid)
    }
}

impl Manager {
    /// Opens the new program, and asks the master for its state, to show it to a probe.
    pub(super) fn begin_probe(&mut self) {
        let path = self.executable_path();
        match open_executable(&path) {
            Ok(executable) => {
                self.upgrade = Some(NewProgram { executable, probe: None, go: false });
                self.tails.forget(WORDS);
                self.latest = WORDS;
                self.tell_master(&FromManager::Describe, Vec::new());
            }
            Err(reason) => self.events.push_back(Event::Probed { result: Err(reason) }),
        }
    }

    /// The master has described itself: the probe can begin.
    pub(super) fn described(&mut self, master: OwnedFd) {
        if let Err(error) = self.execute_probe(master) {
            let result = Err(format!("the new program cannot be executed: {error}"));
            self.take(Event::Probed { result });
        }
    }

    fn execute_probe(&mut self, master: OwnedFd) -> io::Result<()> {
        let Some(program) = &mut self.upgrade else { return Ok(()) };
        let own = fd::memfd("shiftwork-manager", self.journal.last())?;
        let (ours, theirs) = Channel::pair_sized(1024 * 1024)?;
        theirs.set_blocking(true)?;
        let (output, input) = fd::pipe()?;
        let inode = fd::inode(theirs.as_fd())?;
        let pid = process::execute(&Launch {
            executable: program.executable.as_fd(),
            arguments: &self.origin.arguments,
            channel: theirs.as_fd(),
            role: &|number| (role::VARIABLE, Role::Probe.value(number, inode)),
            output: input.as_fd(),
            // It may hang, and be known to nobody when this manager dies.
            mortal: true,
        })?;
        let mut line = Line::new(ours);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        line.send(&ToProbe { version }, vec![own, master]);
        program.probe = Some(Probe { pid, line, output: Some(OutputPipe::new(output)) });
        Ok(())
    }

    /// What to wait on: the probe's socket and its output.
    pub(super) fn probe_sources(&self) -> (Option<&Line>, Option<&OutputPipe>) {
        let probe = self.upgrade.as_ref().and_then(|it| it.probe.as_ref());
        (probe.map(|it| &it.line), probe.and_then(|it| it.output.as_ref()))
    }

    pub(super) fn read_probe(&mut self) {
        let Some(probe) = self.upgrade.as_mut().and_then(|it| it.probe.as_mut()) else { return };
        probe.line.flush();
        match hear::<FromProbe>(probe.line.channel()) {
            Heard::Message(FromProbe { refusal }, _) => {
                self.read_probe_output();
                self.answered_probe(refusal.map_or(Ok(()), Err));
            }
            Heard::Nothing => {}
            Heard::End => {
                self.read_probe_output();
                self.answered_probe(Err("the new program has not answered the probe".into()));
            }
        }
    }

    pub(super) fn read_probe_output(&mut self) {
        let Some(probe) = self.upgrade.as_mut().and_then(|it| it.probe.as_mut()) else { return };
        if let Some(output) = &mut probe.output
            && !output.drain(self.tails.of(WORDS))
        {
            probe.output = None;
        }
    }

    /// Whether a process that has ended is the probe; what it has said is heard first.
    pub(super) fn probe_ended(&mut self, pid: i32, ended: Ended) -> bool {
        let probe = self.upgrade.as_ref().and_then(|it| it.probe.as_ref());
        if probe.is_none_or(|it| it.pid != pid) {
            return false;
        }
        self.read_probe();
        self.read_probe_output();
        if self.upgrade.as_ref().is_some_and(|it| it.probe.is_some()) {
            self.answered_probe(Err(format!("the new program {ended} instead of answering")));
        }
        true
    }

    fn answered_probe(&mut self, result: Result<(), String>) {
        let Some(program) = &mut self.upgrade else { return };
        program.probe = None;
        let kept = program.executable.try_clone();
        match kept {
            Ok(executable) => {
                self.tell_master(&FromManager::Keep { what: Keepsake::Program }, vec![executable]);
                self.take(Event::Probed { result });
            }
            Err(error) => self.take(Event::Probed { result: Err(error.to_string()) }),
        }
    }

    /// The upgrade is over, one way or the other.
    pub(super) fn end_probe(&mut self) {
        if let Some(NewProgram { probe: Some(probe), .. }) = self.upgrade.take() {
            let _ = signal::kill(probe.pid, signal::KILL);
        }
        self.let_go(Keepsake::Program);
    }

    /// Become the new program as soon as nothing waits to be sent.
    pub(super) fn replace_soon(&mut self) {
        if let Some(program) = &mut self.upgrade {
            program.go = true;
        }
    }

    /// Becomes the new program, if that is to be and nothing would be lost: everything is written
    /// down, sent, or kept by the master. Comes back only if it is not to be.
    pub(super) fn replace_if_due(&mut self) {
        let Some(program) = self.upgrade.as_mut().filter(|it| it.go) else { return };
        let lines = self.processes.lines();
        if self.master.is_waiting() || lines.into_iter().any(Line::is_waiting) {
            return;
        }
        program.go = false;
        let error = self.replace();
        let reason = format!("the manager cannot become the new program: {error}");
        self.take(Event::NotReplaced { reason });
        self.work();
        self.save(&[]);
    }

    /// Becomes the new program. Comes back only with the reason why it has not: one that could not
    /// read what this one knows would begin all over again.
    fn replace(&mut self) -> io::Error {
        if let Err(error) = self.try_save(&[]) {
            return io::Error::other(format!("where things stand cannot be written down: {error}"));
        }
        let Some(program) = &self.upgrade else { return io::ErrorKind::NotFound.into() };
        let channel = self.master.channel();
        match Role::Manager.value_for(channel) {
            Ok(value) => process::replace(&Replacement {
                executable: program.executable.as_fd(),
                arguments: &self.origin.arguments,
                keep: &[channel.as_fd()],
                variable: (role::VARIABLE, value),
            }),
            Err(error) => error,
        }
    }
}
