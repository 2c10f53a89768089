//! The start: from the command that the user typed to a master that serves, and back to the
//! terminal with the truth about it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use shiftwork_sys::daemon::{self, Detached};
use shiftwork_sys::lock::{self, PidError, PidFile};
use shiftwork_sys::notify::{self, Told};
use shiftwork_sys::process;
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::slab::Slab;
use shiftwork_sys::{fd, file, limits};

use crate::identity;
use crate::manager::release::Origin;
use crate::places::Places;
use crate::protocol::master::Seed;
use crate::protocol::template::Snapshot;
use crate::settings::ServerSettings;

use super::Master;
use super::activation::{self, Given};
use super::admin::Admin;
use super::control::Control;
use super::kept::Kept;
use super::launcher::{Launcher, failure, report};
use super::moves::{self, Moves};
use super::notify::Notify;
use super::pulse::Pulse;
use super::signals::{self, Ears};
use super::succession::Succession;
use super::vault::Vault;

/// Processes that there can be at a time: the most generations of the most workers and task workers
/// that the settings allow, and some. Rows that are not used take no memory.
const ROWS: u32 = 64 * 2 * 1024 + 1024;

/// Everything that a start needs to know.
#[derive(Debug)]
pub struct Start {
    /// The server's name.
    pub name: String,
    /// The effective settings of the start.
    pub settings: ServerSettings,
    /// Where its files are.
    pub places: Places,
    /// What the settings were made from.
    pub snapshot: Snapshot,
    /// How the command was typed.
    pub origin: Origin,
    /// Whether to answer in JSON.
    pub json: bool,
}

/// Starts a server and, in the foreground, runs it to its end.
///
/// In the background it returns as soon as the server is ready (status 0) or has failed (status
/// 1, with the cause on stderr). In the processes that are forked on the way it does not return.
#[must_use]
pub fn run(start: Start) -> ExitCode {
    let json = start.json;
    match begin(start) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if json {
                println!("{}", failure(&error.to_string(), ""));
            } else {
                eprintln!("{error}");
            }
            ExitCode::from(1)
        }
    }
}

/// What a service manager has given to this process.
struct Service {
    told: Told,
    given: Vec<Given>,
}

impl Service {
    /// Taken first of all: in the background the pid that it was meant for is another's.
    fn take() -> Self {
        let (told, given) = (notify::told(), activation::take());
        if told.store > 0 || !given.is_empty() {
            process::set_variable(crate::KEPT_LISTENERS, "1");
        } else {
            // Another server's, of which this one is a child.
            process::remove_variable(crate::KEPT_LISTENERS);
        }
        Self { told, given }
    }
}

/// Why a start has failed before there was a manager.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{name} runs already: pid {pid} (its pid file is {file})")]
    Running { name: String, pid: String, file: String },
    #[error("{what} {path}: {error}")]
    Path { what: &'static str, path: String, error: io::Error },
    #[error("{0}")]
    Setting(String),
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
}

fn path(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.display().to_string();
    move |error| StartError::Path { what, path, error }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

fn begin(start: Start) -> Result<u8, StartError> {
    let service = Service::take();
    let places = &start.places;
    let terminal = !start.settings.daemonize && daemon::has_terminal();
    lock::private_dir(&places.run_dir).map_err(path("cannot use run_dir", &places.run_dir))?;
    let mut pid_file = PidFile::open(&places.pid_file).map_err(|error| match error {
        PidError::Held { pid } => StartError::Running {
            name: start.name.clone(),
            pid: pid.map_or_else(|| "unknown".into(), |pid| pid.to_string()),
            file: places.pid_file.display().to_string(),
        },
        PidError::Io(error) => path("cannot use server.pid_file", &places.pid_file)(error),
    })?;
    let log = start
        .settings
        .daemonize
        .then(|| open_log(&places.log_file))
        .transpose()
        .map_err(path("cannot open server.log_file", &places.log_file))?;
    let mut launcher = Launcher::new(&start.name, !start.settings.daemonize);
    if let Some(log) = &log {
        match daemon::detach().map_err(system("cannot go to the background"))? {
            Detached::Launcher { channel, .. } => {
                // The lock is the daemon's from here on.
                pid_file.leave();
                return Ok(report(
                    &channel,
                    start.settings.start_timeout,
                    &start.name,
                    &start.places.log_file,
                    start.json,
                ));
            }
            Detached::Daemon { channel } => launcher.tell_by(channel),
        }
        let kept = launcher.channel().into_iter().map(AsFd::as_fd).collect::<Vec<_>>();
        if let Err(error) = leave_terminal(log, &kept, &pid_file) {
            launcher.failed(&format!("cannot leave the terminal: {error}"), "", 1);
            return Ok(1);
        }
    }
    match serve(&start, service, pid_file, log, launcher, terminal) {
        Ok(code) => Ok(code),
        Err((mut launcher, error)) => {
            launcher.failed(&error.to_string(), "", 1);
            Ok(1)
        }
    }
}

/// No descriptor of the launching terminal is kept, whatever it is.
fn leave_terminal(
    log: &OwnedFd,
    kept: &[std::os::fd::BorrowedFd<'_>],
    pid_file: &PidFile,
) -> io::Result<()> {
    let mut kept = kept.to_vec();
    kept.push(log.as_fd());
    kept.push(pid_file.as_fd());
    fd::close_inherited(&kept)?;
    fd::stdin_from_null()?;
    fd::redirect_output(log.as_fd())
}

/// Makes the vault, forks the manager, and hears signals and commands until the end.
fn serve(
    start: &Start,
    service: Service,
    pid_file: PidFile,
    log: Option<OwnedFd>,
    launcher: Launcher,
    terminal: bool,
) -> Result<u8, (Launcher, StartError)> {
    let mut master = match make(start, service, pid_file, log, terminal) {
        Ok(master) => master,
        Err(error) => return Err((launcher, error)),
    };
    if let Err(error) = master.fork_manager() {
        return Err((launcher, system("cannot fork the manager")(error)));
    }
    master.launcher = launcher;
    let code = match master.serve() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the master cannot go on: {error}");
            1
        }
    };
    Ok(leave(master, code))
}

/// The end: the manager has said that everything is gone; it is itself next.
pub(super) fn leave(mut master: Master, code: u8) -> u8 {
    if let Some(pid) = master.succession.pid {
        process::wait_for(pid);
    }
    master.vault.give_back();
    master.control.close();
    master.pid_file.remove();
    if code == 0 {
        tracing::info!("stopped");
    }
    // Last of all: who waits for it may start another server at once.
    let launcher = std::mem::replace(&mut master.launcher, Launcher::silent());
    drop(master);
    drop(launcher);
    code
}

fn make(
    start: &Start,
    service: Service,
    mut pid_file: PidFile,
    log: Option<OwnedFd>,
    terminal: bool,
) -> Result<Master, StartError> {
    let places = &start.places;
    process::become_subreaper().map_err(system("cannot become a subreaper"))?;
    if let Err(error) = limits::raise_open_files(None) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    // A log that may not grow any more costs its lines, and not the server.
    signal::ignore(&[signal::XFSZ]);
    let signals = SignalFd::new(&signals::all()).map_err(system("cannot receive signals"))?;
    let pid = std::process::id().cast_signed();
    pid_file.write(pid).map_err(path("cannot write the pid file", &places.pid_file))?;
    let control = Control::bind(&places.control_socket)
        .map_err(path("cannot use server.control_socket", &places.control_socket))?;
    let admin = moves::open_admin(places).map_err(StartError::Setting)?;
    let slab = Slab::create(ROWS).map_err(system("cannot make the shared slab"))?;
    let succession = Succession::new().map_err(system("cannot make a socket"))?;
    let daemon = log.is_some();
    let log = match log {
        Some(log) => log,
        None => io::stderr().as_fd().try_clone_to_owned().map_err(system("cannot keep stderr"))?,
    };
    identity::become_role(&start.name, "master", None, None);
    process::set_title(&format!("{}: master", start.name));
    let seed = Seed {
        name: start.name.clone(),
        origin: start.origin.clone(),
        snapshot: start.snapshot.clone(),
        start_timeout: start.settings.start_timeout,
        log_level: start.settings.log_level,
    };
    let executable = fd::own_executable().map_err(system("cannot open the own executable"))?;
    Ok(Master {
        places: places.clone(),
        moves: Moves::default(),
        pid_file,
        control,
        admin: Admin::new(admin),
        vault: Vault::new(service.given, service.told.store > 0),
        notify: Notify::new(&service.told),
        ears: Ears::new(terminal),
        signals,
        succession,
        pulse: Pulse::new(),
        kept: Kept::default(),
        seed,
        executable,
        replacing: false,
        launcher: Launcher::silent(),
        delays_stop: false,
        daemon,
        slab,
        log,
        abandoned: None,
        leave: None,
    })
}

/// Opens the log for appending, and makes it, readable by its owner and group, if it is missing. What
/// would have to be waited for, as a FIFO, is refused.
pub(super) fn open_log(path: &Path) -> io::Result<OwnedFd> {
    Ok(file::open_log(path, 0o640)?.into())
}
