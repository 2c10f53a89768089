//! A release that wants the server's own files elsewhere: the new ones are made while it is tried,
//! and the old ones go when it is committed. Nothing changes if it fails.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use shiftwork_sys::lock::{PidError, PidFile, private_dir};

use crate::core::event::Generation;
use crate::places::Places;

use super::Master;
use super::admin::AdminDoor;
use super::door::Door;
use super::launch::open_log;

/// What each generation wants, and what is made for the one that is tried.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) wanted: BTreeMap<Generation, Places>,
    made: Option<(Generation, Made)>,
}

/// New files. What is None stays where it was.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) pid_file: Option<PidFile>,
    pub(super) door: Option<Door>,
    /// Some(None): it is to be nowhere.
    pub(super) admin: Option<Option<AdminDoor>>,
    pub(super) log: Option<OwnedFd>,
}

impl Moves {
    /// Goes on from what was written down.
    pub(super) fn restore(wanted: BTreeMap<Generation, Places>) -> Self {
        Self { wanted, made: None }
    }

    /// Makes what a generation wants elsewhere than it is.
    ///
    /// # Errors
    /// A sentence that names setting and path.
    pub(super) fn prepare(
        &mut self,
        generation: Generation,
        now: &Places,
        then: Places,
        daemon: bool,
    ) -> Result<(), String> {
        self.made = None;
        if *now != then {
            self.made = Some((generation, make(now, &then, daemon)?));
        }
        self.wanted.insert(generation, then);
        Ok(())
    }

    /// What is to be used from now on, if that is another place than before. A generation that is
    /// returned to was prepared long ago: its files are made again.
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare).
    pub(super) fn commit(
        &mut self,
        generation: Generation,
        now: &Places,
        daemon: bool,
    ) -> Result<Option<(Places, Made)>, String> {
        let Some(then) = self.wanted.get(&generation).filter(|it| *it != now) else {
            return Ok(None);
        };
        let made = match self.made.take() {
            Some((prepared, made)) if prepared == generation => made,
            _ => make(now, then, daemon)?,
        };
        Ok(Some((then.clone(), made)))
    }

    /// A generation is gone, or has failed.
    pub(super) fn forget(&mut self, generation: Generation) {
        self.wanted.remove(&generation);
        self.made.take_if(|(prepared, _)| *prepared == generation);
    }
}

impl Master {
    /// The server's own files are where the committed release wants them.
    pub(super) fn move_files(&mut self, generation: Generation) {
        match self.moves.commit(generation, &self.places, self.daemon) {
            Ok(None) => {}
            Ok(Some((places, made))) => {
                self.places = places;
                if let Some(file) = made.pid_file {
                    self.pid_file = file;
                }
                if let Some(door) = made.door {
                    self.control.listen_at(door);
                }
                if let Some(admin) = made.admin {
                    self.admin.listen_at(admin);
                }
                if let Some(log) = made.log {
                    tracing::info!("the log goes on in {}", self.places.log_file.display());
                    self.use_log(log);
                }
            }
            Err(reason) => tracing::error!("the server's files stay where they are: {reason}"),
        }
    }
}

/// Opens the admin address, if there is to be one.
///
/// # Errors
/// A sentence that names setting and address.
pub(super) fn open_admin(places: &Places) -> Result<Option<AdminDoor>, String> {
    let Some(address) = &places.admin_address else { return Ok(None) };
    let explain = |error| format!("server.admin_address: {address}: {error}");
    AdminDoor::bind(address).map(Some).map_err(explain)
}

fn make(now: &Places, then: &Places, daemon: bool) -> Result<Made, String> {
    let explain = |key: &'static str, path: &std::path::Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("server.{key}: {path}: {error}")
    };
    if now.run_dir != then.run_dir {
        private_dir(&then.run_dir).map_err(explain("run_dir", &then.run_dir))?;
    }
    let mut made = Made::default();
    if now.pid_file != then.pid_file {
        let mut file = PidFile::open(&then.pid_file).map_err(|error| match error {
            PidError::Held { pid } => format!(
                "server.pid_file: {} is held by another server{}",
                then.pid_file.display(),
                pid.map_or_else(String::new, |pid| format!(", pid {pid}"))
            ),
            PidError::Io(error) => explain("pid_file", &then.pid_file)(error),
        })?;
        file.write(std::process::id().cast_signed())
            .map_err(explain("pid_file", &then.pid_file))?;
        made.pid_file = Some(file);
    }
    if now.control_socket != then.control_socket {
        let door = Door::bind(&then.control_socket);
        made.door = Some(door.map_err(explain("control_socket", &then.control_socket))?);
    }
    if now.admin_address != then.admin_address {
        made.admin = Some(open_admin(then)?);
    }
    if daemon && now.log_file != then.log_file {
        let log = open_log(&then.log_file);
        made.log = Some(log.map_err(explain("log_file", &then.log_file))?);
    }
    Ok(made)
}
