//! The start: from the command that the user typed to a master that serves, and back to the
//! terminal with the truth about it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftwork_sys::daemon::{self, Detached};
use shiftwork_sys::lock::{self, PidError, PidFile};
use shiftwork_sys::notify::{self, Told};
use shiftwork_sys::process;
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, Poller};
use shiftwork_sys::{fd, limits, umask};

use crate::identity;
use crate::manager::release::Origin;
use crate::places::Places;
use crate::protocol::master::Seed;
use crate::protocol::template::Snapshot;
use crate::protocol::wire;
use crate::settings::ServerSettings;

use super::Master;
use super::activation::{self, Given};
use super::admin::Admin;
use super::control::Control;
use super::kept::Kept;
use super::moves::{self, Moves};
use super::notify::Notify;
use super::signals::{self, Ears};
use super::succession::Succession;
use super::vault::Vault;

/// Processes that there can be at a time: the most generations of the most workers and task workers
/// that the settings allow, and some. Rows that are not used take no memory.
const ROWS: u32 = 64 * 2 * 1024 + 1024;

/// Beyond start_timeout, how long a daemon may take to say that it has passed.
const SILENCE: Duration = Duration::from_secs(30);

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

/// A failed start in JSON.
fn failure(reason: &str, output: &str) -> serde_json::Value {
    serde_json::json!({ "outcome": "failed", "reason": reason, "output": output })
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
    umask::set(start.settings.umask.as_deref().and_then(|it| u32::from_str_radix(it, 8).ok()));
    lock::private_dir(&places.run_dir).map_err(path("cannot use run_dir", &places.run_dir))?;
    let mut pid_file = PidFile::open(&places.pid_file).map_err(|error| match error {
        PidError::Held { pid } => StartError::Running {
            name: start.name.clone(),
            pid: pid.map_or_else(|| "unknown".into(), |pid| pid.to_string()),
            file: places.pid_file.display().to_string(),
        },
        PidError::Io(error) => path("cannot use the pid file", &places.pid_file)(error),
    })?;
    let log = start
        .settings
        .daemonize
        .then(|| open_log(&places.log_file))
        .transpose()
        .map_err(path("cannot open the log", &places.log_file))?;
    let mut launcher = Launcher::new(&start);
    if let Some(log) = &log {
        match daemon::detach().map_err(system("cannot go to the background"))? {
            Detached::Launcher { channel, .. } => {
                // The lock is the daemon's from here on.
                pid_file.leave();
                return Ok(report(&start, &channel));
            }
            Detached::Daemon { channel } => launcher.channel = Some(channel),
        }
        let kept = launcher.channel.iter().map(AsFd::as_fd).collect::<Vec<_>>();
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
        .map_err(path("cannot use the control socket", &places.control_socket))?;
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

/// Opens the log for appending, and makes it, readable by its owner and group, if it is missing.
pub(super) fn open_log(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let file: File = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    Ok(file.into())
}

/// What the master tells the process that the user waits for.
#[derive(Debug, Serialize, Deserialize)]
enum News {
    Ready { pid: i32, addresses: Vec<String> },
    Failed { reason: String, output: String, code: u8 },
}

/// The way back to the terminal on which the command was typed.
#[derive(Debug)]
pub(super) struct Launcher {
    name: String,
    channel: Option<Channel>,
    foreground: bool,
    told: bool,
}

impl Launcher {
    fn new(start: &Start) -> Self {
        Self {
            name: start.name.clone(),
            channel: None,
            foreground: !start.settings.daemonize,
            told: false,
        }
    }

    /// One that tells nobody.
    pub(super) fn silent() -> Self {
        Self { name: String::new(), channel: None, foreground: false, told: true }
    }

    /// The server is ready.
    pub(super) fn ready(&mut self, addresses: &BTreeSet<String>) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let pid = std::process::id().cast_signed();
        let addresses: Vec<String> = addresses.iter().cloned().collect();
        tracing::info!("{} is ready: pid {pid}, {}", self.name, addresses.join(", "));
        self.tell(&News::Ready { pid, addresses });
    }

    /// The server has failed to start.
    pub(super) fn failed(&mut self, reason: &str, output: &str, code: u8) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if self.foreground {
            // What the new code wrote stands on this terminal already.
            eprintln!("{} has not started: {reason}", self.name);
        } else {
            tracing::error!("{} has not started: {reason}", self.name);
        }
        self.tell(&News::Failed { reason: reason.to_owned(), output: output.to_owned(), code });
    }

    fn tell(&mut self, news: &News) {
        if let Some(channel) = self.channel.take()
            && let Ok(bytes) = wire::encode(news)
        {
            let _ = channel.set_blocking(true);
            let _ = channel.send(&bytes, &[]);
        }
    }
}

/// In the process that the user waits for: waits too, and prints what came of it.
fn report(start: &Start, channel: &Channel) -> u8 {
    let _ = channel.set_blocking(true);
    let mut buffer = vec![0; wire::MAX_PACKET];
    // The daemon keeps start_timeout itself; this is for one that cannot keep anything any more.
    let patience = start.settings.start_timeout.saturating_add(SILENCE);
    let mut poller = Poller::new();
    poller.add((), channel.as_fd(), Interest::READ);
    let spoke = poller.wait(Some(patience)).is_ok_and(|ready| !ready.is_empty());
    let news = Some(channel)
        .filter(|_| spoke)
        .and_then(|channel| channel.recv(&mut buffer).ok())
        .filter(|received| received.len > 0)
        .and_then(|received| wire::decode::<News>(&buffer[..received.len]).ok())
        .unwrap_or_else(|| News::Failed {
            reason: format!(
                "its process has said nothing; its log is {}",
                start.places.log_file.display()
            ),
            output: String::new(),
            code: 1,
        });
    let name = &start.name;
    match news {
        News::Ready { pid, addresses } => {
            let log = start.places.log_file.display().to_string();
            if start.json {
                let line = serde_json::json!({
                    "outcome": "ready", "pid": pid, "addresses": addresses, "log_file": log,
                });
                println!("{line}");
            } else {
                println!("{name} is ready: pid {pid}");
                for address in addresses {
                    println!("  {address}");
                }
                println!("  log {log}");
            }
            0
        }
        News::Failed { reason, output, code } => {
            if start.json {
                println!("{}", failure(&reason, &output));
            } else {
                let mut stderr = io::stderr().lock();
                let _ = stderr.write_all(output.as_bytes());
                if !output.is_empty() && !output.ends_with('\n') {
                    let _ = stderr.write_all(b"\n");
                }
                let _ = writeln!(stderr, "{name} has not started: {reason}");
            }
            code
        }
    }
}
