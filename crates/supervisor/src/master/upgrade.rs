//! The master becomes the new program: same pid, same children, same sockets, no signal lost. If the
//! new program cannot go on, this one comes back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::catch_unwind;
use std::process::ExitCode;

use shiftwork_sys::clock::monotonic_ms;
use shiftwork_sys::fd;
use shiftwork_sys::lock::PidFile;
use shiftwork_sys::process::{self, Replacement};
use shiftwork_sys::signal::SignalFd;
use shiftwork_sys::slab::Slab;

use crate::identity;
use crate::log_level;
use crate::passing::{Passed, Passing};
use crate::protocol::master::{Keepsake, ToManager};
use crate::role::{self, Role};
use crate::versions;

use super::admin::{Admin, AdminDoor};
use super::control::Control;
use super::kept::Kept;
use super::launch::leave;
use super::launcher::Launcher;
use super::moves::Moves;
use super::notify::Notify;
use super::pulse::Pulse;
use super::signals::{self, Ears};
use super::state::{Envelope, MasterState};
use super::succession::Succession;
use super::vault::Vault;
use super::{Leave, Master};

impl Master {
    /// Everything, as a new program would find it, and the descriptors in it.
    fn describe(&self) -> io::Result<(Vec<u8>, Passing<'_>)> {
        let mut passing = Passing::default();
        let state = MasterState {
            seed: self.seed.clone(),
            places: self.places.clone(),
            moves: self.moves.wanted.clone(),
            daemon: self.daemon,
            delays_stop: self.delays_stop,
            heartbeat_timeout: self.pulse.limit(),
            pid_file: (passing.add(&self.pid_file)?, self.pid_file.path().to_owned()),
            slab: passing.add(&self.slab)?,
            log: passing.add(&self.log)?,
            ears: self.ears.describe(),
            control: self.control.describe(&mut passing)?,
            admin: self.admin.door().map(|it| it.describe(&mut passing)).transpose()?,
            vault: self.vault.describe(&mut passing)?,
            succession: self.succession.describe(&mut passing)?,
            kept: self.kept.describe(&mut passing)?,
            notify: self.notify.describe(),
        };
        let envelope = Envelope {
            version: versions::NEWEST,
            back: passing.add(&self.executable)?,
            arguments: self.seed.origin.arguments.clone(),
            state: serde_json::to_value(&state)?,
        };
        Ok((serde_json::to_vec(&envelope)?, passing))
    }

    /// Shows the manager what a new program would find.
    pub(super) fn show_state(&mut self) {
        let shown = self.describe().and_then(|(bytes, _)| fd::memfd("shiftwork-master", &bytes));
        match shown {
            Ok(file) => self.succession.line.send(&ToManager::Described, vec![file]),
            Err(error) => tracing::error!("cannot describe the master: {error}"),
        }
    }

    /// Becomes the program that was kept, once nothing waits to be sent to the manager. Comes back
    /// only if it cannot.
    pub(super) fn replace_if_due(&mut self) {
        if !self.replacing || self.succession.line.is_waiting() {
            return;
        }
        self.replacing = false;
        let error = self.replace().unwrap_or_else(|error| error);
        let refusal = Some(format!("the master cannot become the new program: {error}"));
        self.succession.line.send(&ToManager::MasterReplaced { refusal }, Vec::new());
    }

    fn replace(&self) -> io::Result<io::Error> {
        let program = self.kept.get(Keepsake::Program).and_then(<[OwnedFd]>::first);
        let program = program.ok_or_else(|| io::Error::other("it was not kept"))?;
        let (bytes, mut passing) = self.describe()?;
        let file = fd::memfd("shiftwork-master", &bytes)?;
        passing.add(&file)?;
        Ok(process::replace(&Replacement {
            executable: program.as_fd(),
            arguments: &self.seed.origin.arguments,
            keep: passing.fds(),
            variable: (role::VARIABLE, Role::Master.value_for(&file)?),
        }))
    }

    fn restore(state: MasterState) -> io::Result<Self> {
        let mut pulse = Pulse::new();
        pulse.set_limit(state.heartbeat_timeout, monotonic_ms());
        let (pid_file, path) = state.pid_file;
        Ok(Self {
            pid_file: PidFile::resume(pid_file.take()?, path),
            places: state.places,
            moves: Moves::restore(state.moves),
            control: Control::restore(state.control)?,
            admin: Admin::new(state.admin.map(AdminDoor::restore).transpose()?),
            vault: Vault::restore(state.vault)?,
            notify: Notify::restore(state.notify),
            ears: Ears::restore(&state.ears),
            signals: SignalFd::new(&signals::all())?,
            succession: Succession::restore(state.succession)?,
            pulse,
            kept: Kept::restore(state.kept)?,
            seed: state.seed,
            executable: fd::own_executable()?,
            replacing: false,
            launcher: Launcher::silent(),
            delays_stop: state.delays_stop,
            daemon: state.daemon,
            slab: Slab::open(state.slab.take()?)?,
            log: state.log.take()?,
            abandoned: None,
            leave: None,
        })
    }
}

/// Goes on as the master, in a process that was one of another program's (`again`: and of this
/// one's before that). If the state is not to be understood, the process becomes that program again.
pub fn resume(file: OwnedFd, again: bool) -> ExitCode {
    let read = fd::read_memfd(file.as_fd()).map_err(|error| error.to_string());
    let text = read.unwrap_or_default();
    // Whatever goes wrong here, the old program is still to be had.
    let restored = catch_unwind(|| {
        let state = MasterState::read(&text)?;
        Master::restore(state).map_err(|error| error.to_string())
    });
    let restored = restored.unwrap_or_else(|_| Err("it has panicked".to_owned()));
    let mut master = match restored {
        Ok(master) => master,
        Err(reason) if again => {
            tracing::error!("the master cannot go on: {reason}");
            return ExitCode::from(1);
        }
        Err(reason) => {
            tracing::error!("the new program cannot go on as the master: {reason}");
            let error = decline(&file);
            tracing::error!("and there is no way back: {error}");
            return ExitCode::from(1);
        }
    };
    // This one goes on: there is no way back any more, and the old program is let go.
    drop(serde_json::from_slice::<Envelope>(&text).map(|it| it.back.take()));
    log_level::set(master.seed.log_level);
    identity::become_role(&master.seed.name, "master", None, None);
    process::set_title(&format!("{}: master", master.seed.name));
    let refusal = again.then(|| "the new program cannot read the master's state".to_owned());
    if !again {
        tracing::info!("the master is the new program");
    }
    master.succession.line.send(&ToManager::MasterReplaced { refusal }, Vec::new());
    let code = match master.serve() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the master cannot go on: {error}");
            1
        }
    };
    ExitCode::from(leave(master, code))
}

/// Becomes the program again that wrote the state in `file`, whose descriptors are open still, under
/// their numbers. Comes back only if that cannot be.
pub fn decline(file: &OwnedFd) -> io::Error {
    let back = fd::read_memfd(file.as_fd())
        .and_then(|text| Ok(serde_json::from_slice::<Envelope>(&text)?))
        .and_then(|envelope| Ok((envelope.back.take()?, envelope.arguments)));
    let (executable, arguments) = match back {
        Ok(back) => back,
        Err(error) => return error,
    };
    let value = match Role::MasterAgain.value_for(file) {
        Ok(value) => value,
        Err(error) => return error,
    };
    process::replace(&Replacement {
        executable: executable.as_fd(),
        arguments: &arguments,
        // The old program wants to find its own executable, too.
        keep: &[file.as_fd(), executable.as_fd()],
        variable: (role::VARIABLE, value),
    })
}

/// Takes a list of descriptors over.
pub(super) fn take_all(passed: Vec<Passed>) -> io::Result<Vec<OwnedFd>> {
    passed.into_iter().map(Passed::take).collect()
}

impl Leave {
    /// An orderly end.
    pub(super) fn with(code: i32) -> Self {
        Self { code: u8::try_from(code).unwrap_or(1) }
    }
}
