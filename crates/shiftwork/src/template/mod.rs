//! The template: executes the release once, loads, and forks the generation's processes.
//!
//! One thread, no runtime, nothing served. It does as the manager says, and ends with it.

mod births;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use shiftwork_supervisor::identity;
use shiftwork_supervisor::log_level;
use shiftwork_supervisor::protocol::template::{
    Formats, FromTemplate, Hello, ListenerSpec, Snapshot, ToTemplate,
};
use shiftwork_supervisor::protocol::wire;
use shiftwork_supervisor::settings::ServerSettings;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::user::Identity;
use shiftwork_sys::{fd, limits, process, signal, umask, user};

use crate::server::{AnyApp, Boot, Server, environment};
use crate::settings::{Settings, places};
use crate::worker::affinity::candidates;
use crate::{hand_over, task};

use births::Births;

/// Tells the manager why this release cannot be started.
pub(crate) fn refuse(control: Channel, reason: String) -> ExitCode {
    eprintln!("{reason}");
    let _ = tell(&control, &FromTemplate::Failed { reason });
    ExitCode::from(1)
}

/// Plays the template.
pub(crate) fn run<P, S>(server: &'static Server<P, S>, control: Channel) -> ExitCode
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    signal::ignore(&[signal::TERM]);
    signal::ignore(&births::requests());
    match Template::start(server, &control) {
        Ok(template) => template.obey(&control),
        Err(Stop::Refused(reason)) => refuse(control, reason),
        Err(Stop::Gone) => ExitCode::from(1),
    }
}

/// Why a template ends early.
enum Stop {
    /// For the operator.
    Refused(String),
    /// The manager does not want it any more.
    Gone,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A release, loaded.
struct Template<P: 'static, S: 'static> {
    births: Births<P, S>,
    log: OwnedFd,
}

impl<P, S> Template<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    fn start(server: &'static Server<P, S>, control: &Channel) -> Result<Self, Stop> {
        control.set_blocking(true)?;
        let (message, mut fds) = hear(control)?;
        let ToTemplate::Start { generation, .. } = message else { return Err(Stop::Gone) };
        let (Some(log), Some(snapshot)) = (fds.pop(), fds.pop()) else { return Err(Stop::Gone) };
        let name = &server.name;
        identity::become_role(name, "template", None, Some(generation));
        process::set_title(&format!("{name}: template (gen {generation})"));
        if !server.mistakes.is_empty() {
            return Err(Stop::Refused(server.mistakes.join("; ")));
        }
        let snapshot: Snapshot =
            wire::decode(&fd::read_memfd(snapshot.as_fd())?).map_err(io::Error::other)?;
        let settings = server
            .load(&snapshot)
            .map_err(|errors| Stop::Refused(format!("the settings are not right: {errors}")))?;
        log_level::set(settings.server.log_level);
        let app = (server.app.read)(&settings)
            .map_err(|errors| Stop::Refused(format!("the settings are not right: {errors}")))?;
        let boot = make_boot(server, generation, &settings, app);
        prepare(&settings)?;
        tell(control, &FromTemplate::Hello(Box::new(hello(server, &settings, &boot.release))))?;
        become_user(&settings)?;
        let (ToTemplate::Load, _) = hear(control)? else { return Err(Stop::Gone) };
        let preloaded = Arc::new(preload(server, &boot)?);
        require_one_thread()?;
        crate::log::write_to(log.as_fd())?;
        tell(control, &FromTemplate::Loaded)?;
        let births = Births { server, settings, boot, preloaded };
        Ok(Self { births, log })
    }

    /// Does as the manager says, until it has said `Exit` or is gone.
    fn obey(mut self, control: &Channel) -> ExitCode {
        loop {
            let answer = match hear(control) {
                Err(_) | Ok((ToTemplate::Exit, _)) => return ExitCode::SUCCESS,
                Ok((ToTemplate::Fork { child, .. }, fds)) => Some(self.births.fork(child, fds)),
                Ok((ToTemplate::Hook { child, call }, fds)) => {
                    Some(self.births.hook(child, call, fds))
                }
                Ok((ToTemplate::Log, mut fds)) => {
                    if let Some(log) = fds.pop()
                        && crate::log::write_to(log.as_fd()).is_ok()
                    {
                        self.log = log;
                    }
                    None
                }
                Ok((ToTemplate::Start { .. } | ToTemplate::Load, _)) => None,
            };
            if let Some(answer) = answer
                && tell(control, &answer).is_err()
            {
                return ExitCode::SUCCESS;
            }
        }
    }
}

fn make_boot<P, S>(
    server: &Server<P, S>,
    generation: u64,
    settings: &Settings,
    app: AnyApp,
) -> Boot {
    let base: Arc<Path> = settings.base.clone().into();
    let mut boot = Boot { generation, release: String::new(), app, base };
    boot.release = match &server.release {
        Some(label) => label(&boot),
        None => executable_time(),
    };
    boot
}

/// When the executable was last changed: what tells releases apart that have no name.
fn executable_time() -> String {
    let changed = std::fs::metadata("/proc/self/exe").and_then(|it| it.modified());
    changed.map_or_else(
        |_| "unknown".into(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

/// What needs privileges that are about to go.
fn prepare(settings: &Settings) -> Result<(), Stop> {
    limits::raise_open_files(settings.server.open_files).map_err(|error| {
        Stop::Refused(format!("cannot set the limit of open files (server.open_files): {error}"))
    })?;
    umask::set(settings.server.umask.as_deref().and_then(umask::parse));
    if settings.server.cpu_affinity {
        candidates(&settings.server).map_err(Stop::Refused)?;
    }
    Ok(())
}

fn become_user(settings: &Settings) -> Result<(), Stop> {
    let server = &settings.server;
    let identity = user::resolve(server.user.as_deref(), server.group.as_deref())
        .map_err(|error| Stop::Refused(format!("server.user or server.group: {error}")))?;
    match (&server.chroot, identity) {
        (None, None) => Ok(()),
        (None, Some(identity)) => user::drop_to(&identity)
            .map_err(|error| Stop::Refused(format!("cannot become {identity:?}: {error}"))),
        (Some(root), identity) => enter_jail(root, identity.as_ref(), server),
    }
}

fn enter_jail(
    root: &Path,
    identity: Option<&Identity>,
    server: &ServerSettings,
) -> Result<(), Stop> {
    let refuse =
        |reason: &str| Stop::Refused(format!("server.chroot: {}: {reason}", root.display()));
    if user::effective_uid() != 0 {
        return Err(refuse("only root can change its root directory"));
    }
    user::confine(root, identity).map_err(|error| refuse(&error.to_string()))?;
    // A limit that nobody can look at would never be reached.
    if server.max_memory.as_u64() > 0 && !Path::new("/proc/self/statm").exists() {
        return Err(refuse("server.max_memory needs a /proc in it"));
    }
    Ok(())
}

fn hello<P, S>(server: &Server<P, S>, settings: &Settings, release: &str) -> Hello {
    let listeners = server.listeners.iter().filter_map(|(name, listener)| {
        Some(ListenerSpec {
            name: name.clone(),
            address: settings.listen.get(name)?.clone(),
            protocol: listener.protocol().name().to_owned(),
        })
    });
    let slab = shiftwork_supervisor::slab_format();
    Hello {
        hand_over: Formats { oldest: hand_over::OLDEST, newest: hand_over::NEWEST },
        slab: Formats { oldest: slab, newest: slab },
        task: task::wire::FORMATS,
        release: release.to_owned(),
        settings: settings.server.clone(),
        listeners: listeners.collect(),
        hooks: server.hooks.values().map(|(name, _)| *name).collect(),
        health: settings.server.health.is_some() || server.callbacks.health.is_some(),
        places: Some(places(&server.name, &settings.server, &environment())),
    }
}

fn preload<P, S>(server: &Server<P, S>, boot: &Boot) -> Result<P, Stop> {
    match catch_unwind(AssertUnwindSafe(|| (server.preload)(boot))) {
        Ok(Ok(preloaded)) => Ok(preloaded),
        Ok(Err(error)) => Err(Stop::Refused(format!("preload has failed: {error}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .map_or_else(String::new, |text| format!(": {text}"));
            Err(Stop::Refused(format!("preload has panicked{text}")))
        }
    }
}

/// A second thread would be missing in every worker, with whatever locks it holds.
fn require_one_thread() -> Result<(), Stop> {
    process::require_one_thread().map_err(|error| {
        Stop::Refused(format!(
            "preload has left threads behind: {error}; start threads in on_worker_start instead"
        ))
    })
}

fn tell(control: &Channel, message: &FromTemplate) -> io::Result<()> {
    let bytes = wire::encode(message).map_err(io::Error::other)?;
    control.send(&bytes, &[])
}

fn hear(control: &Channel) -> io::Result<(ToTemplate, Vec<OwnedFd>)> {
    loop {
        match control.receive(wire::MAX_PACKET) {
            Ok((bytes, _)) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((bytes, received)) => match wire::decode(&bytes) {
                Ok(message) => return Ok((message, received.fds)),
                Err(error) => tracing::warn!("a message was dropped: {error}"),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
