//! The manager: starts, watches, replaces. It decides nothing itself: what it hears becomes an
//! [`Event`], the [`Core`] answers with actions, and `effects` carries them out.

mod children;
mod digest;
mod effects;
mod hearing;
mod inspect;
mod metrics;
mod orphans;
mod output;
mod parting;
mod process;
pub mod release;
mod resources;
mod rows;
pub mod saved;
mod scale;
mod status;
mod take_up;
mod templates;
mod upgrade;

pub use rows::{MANAGER as MANAGER_ROW, MASTER as MASTER_ROW};

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftwork_sys::clock::{monotonic_ms, wall_ms};
use shiftwork_sys::process::Exit;
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::slab::Slab;
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, Poller};

use crate::core::event::{ChildId, Ended, Event, Generation, Scope, Ticket, Until};
use crate::core::history::{Asked, Requester, What};
use crate::core::{Core, Pids};
use crate::journal::Journal;
use crate::line::Line;
use crate::log_level;
use crate::protocol::master::{FromManager, Keepsake, START};
use crate::protocol::template::Snapshot;
use crate::protocol::worker::ToWorker;

use output::Tails;
use parting::Parting;
use process::Processes;
use release::{Origin, Release};
use resources::{BoundListener, Queue};
use rows::Rows;

/// What the manager begins with.
#[derive(Debug)]
pub struct Setup {
    /// The server's name.
    pub name: String,
    /// Pid of the master.
    pub master_pid: i32,
    /// How the server was started.
    pub origin: Origin,
    /// The settings of the start.
    pub snapshot: Snapshot,
    /// `start_timeout` until the first release has said its own.
    pub start_timeout: Duration,
    /// To the master.
    pub master: Channel,
    /// The shared slab.
    pub slab: Slab,
    /// The log: what processes get for stdout and stderr.
    pub log: OwnedFd,
    /// Whether another manager has died, and the master gives what that left.
    pub successor: bool,
}

/// Tickets of askers inside workers, told apart from the master's.
const WORKER_TICKETS: Ticket = 1 << 63;

/// Who asked from inside a worker.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Asker {
    child: ChildId,
    ticket: u64,
}

/// The manager's own: everything the core does not need for its decisions.
#[derive(Debug)]
pub struct Manager {
    name: String,
    origin: Origin,
    core: Core,
    master: Line,
    signals: SignalFd,
    slab: Slab,
    log: OwnedFd,
    rows: Rows,
    processes: Processes,
    tails: Tails,
    releases: BTreeMap<Generation, Release>,
    /// The settings in force: what the next release starts from.
    snapshot: Snapshot,
    listeners: BTreeMap<Generation, Vec<BoundListener>>,
    parting: Parting,
    queues: BTreeMap<Generation, Queue>,
    hand_over: (Channel, Channel),
    /// The generation whose template was executed last, whose output explains a failure.
    latest: Generation,
    askers: BTreeMap<Ticket, Asker>,
    next_ticket: Ticket,
    events: VecDeque<Event>,
    started_ms: u64,
    pids: Pids,
    memory: status::MemoryCache,
    journal: Journal,
    /// The program that this manager and the master are to become.
    upgrade: Option<upgrade::NewProgram>,
    /// By pid: processes whose end only their own descriptors tell.
    orphans: BTreeMap<i32, OwnedFd>,
    /// Answers that the last manager may not have sent.
    answers: Vec<saved::SavedAnswer>,
    /// Managers that have died before this one.
    deaths: u64,
    /// When this manager began.
    born_ms: u64,
    /// When a block of an executable was read last.
    digested_ms: u64,
    exit: Option<i32>,
}

/// What a descriptor that has become readable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Master,
    Template(Generation),
    TemplateOutput(Generation),
    Child(ChildId),
    ChildOutput(ChildId),
    Probe,
    ProbeOutput,
    Orphan(i32),
}

/// Goes on as the manager, in a process that was one of another program's: the master tells what
/// there is to know. Gives the exit status.
///
/// # Errors
/// If the master is gone, or what was left is not whole.
pub fn resume(master: OwnedFd) -> io::Result<i32> {
    let (seed, slab, log, master) = take_up::ask_for_seed(Channel::from_fd(master))?;
    log_level::set(seed.log_level);
    crate::identity::become_role(&seed.name, "manager", None, None);
    shiftwork_sys::process::set_title(&format!("{}: manager", seed.name));
    run(Setup {
        name: seed.name,
        master_pid: shiftwork_sys::process::parent(),
        origin: seed.origin,
        snapshot: seed.snapshot,
        start_timeout: seed.start_timeout,
        master,
        slab: Slab::open(slab)?,
        log,
        successor: true,
    })
}

/// Runs the manager in this process, and gives back its exit status.
///
/// # Errors
/// If one of its own descriptors cannot be made.
pub fn run(setup: Setup) -> io::Result<i32> {
    shiftwork_sys::process::become_subreaper()?;
    let mut manager =
        if setup.successor { Manager::take_up(setup)? } else { Manager::begin(setup)? };
    loop {
        manager.work();
        manager.save(&[]);
        if let Some(code) = manager.exit {
            return Ok(code);
        }
        manager.replace_if_due();
        for source in manager.wait()? {
            manager.read(source);
        }
        manager.parting.pass();
        manager.events.push_back(Event::Tick);
    }
}

impl Manager {
    /// The first one: starts the first generation.
    fn begin(setup: Setup) -> io::Result<Self> {
        let journal = Journal::create()?;
        let mut manager = Self::new(setup, journal, Channel::pair_sized(HAND_OVER_QUEUE)?)?;
        let journal = manager.journal.as_fd().try_clone_to_owned()?;
        manager.keep(Keepsake::Journal, &[journal.as_fd()])?;
        let (send, receive) = (manager.hand_over.0.try_clone()?, manager.hand_over.1.try_clone()?);
        manager.keep(Keepsake::HandOver, &[send.as_fd(), receive.as_fd()])?;
        let asked = Asked::new(wall_ms(), Requester::Start, What::Start, &[]);
        manager.take(Event::Asked { ticket: START, asked });
        manager.take(Event::Reload {
            ticket: Some(START),
            scope: Scope::All,
            overrides: Vec::new(),
            until: Until::Committed,
        });
        Ok(manager)
    }

    fn new(setup: Setup, journal: Journal, hand_over: (Channel, Channel)) -> io::Result<Self> {
        let signals = SignalFd::new(&[
            signal::CHLD,
            signal::TERM,
            signal::INT,
            signal::QUIT,
            signal::HUP,
            signal::USR1,
            signal::USR2,
            signal::TTIN,
            signal::TTOU,
            signal::rtmin(),
        ])?;
        let pids = Pids { master: setup.master_pid, manager: std::process::id().cast_signed() };
        let rows = Rows::new();
        Ok(Self {
            name: setup.name,
            origin: setup.origin,
            core: Core::new(pids, setup.start_timeout),
            master: Line::new(setup.master),
            signals,
            slab: setup.slab,
            log: setup.log,
            rows,
            processes: Processes::default(),
            tails: Tails::default(),
            releases: BTreeMap::new(),
            snapshot: setup.snapshot,
            listeners: BTreeMap::new(),
            parting: Parting::default(),
            queues: BTreeMap::new(),
            hand_over,
            latest: 0,
            askers: BTreeMap::new(),
            next_ticket: WORKER_TICKETS,
            events: VecDeque::new(),
            started_ms: monotonic_ms(),
            pids,
            memory: status::MemoryCache::default(),
            journal,
            upgrade: None,
            orphans: BTreeMap::new(),
            answers: Vec::new(),
            deaths: 0,
            born_ms: monotonic_ms(),
            digested_ms: 0,
            exit: None,
        })
    }

    /// Takes in what has happened, until nothing more follows from it.
    fn work(&mut self) {
        while let Some(event) = self.events.pop_front() {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        tracing::trace!(?event, "event");
        let actions = self.core.on(event, monotonic_ms());
        if !actions.is_empty() {
            self.save(&actions);
        }
        self.mark(&actions);
        for action in actions {
            tracing::trace!(?action, "action");
            self.perform(action);
        }
    }

    /// Waits for the next thing to happen, or for the next deadline, and does meanwhile what can wait.
    fn wait(&mut self) -> io::Result<Vec<Source>> {
        loop {
            let due = self.core.next_deadline();
            let left = due.map(|due| Duration::from_millis(due.saturating_sub(monotonic_ms())));
            let left = left.into_iter().chain(self.parting.due()).min();
            let digesting = self.is_digesting();
            let sources = self.poll(if digesting { Some(Duration::ZERO) } else { left })?;
            let busy = !sources.is_empty() || left.is_some_and(|it| it.is_zero());
            // Not even a manager that always has something to do keeps it from coming to an end.
            if digesting && (!busy || self.is_digest_late()) {
                self.digest_a_block();
            }
            if busy || !digesting {
                return Ok(sources);
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> io::Result<Vec<Source>> {
        let mut poller = Poller::new();
        poller.add(Source::Signals, self.signals.as_fd(), Interest::READ);
        poller.add(Source::Master, self.master.channel().as_fd(), interest(&self.master));
        for (generation, template) in &self.processes.templates {
            if let Some(line) = &template.line {
                poller.add(Source::Template(*generation), line.channel().as_fd(), interest(line));
            }
            if let Some(output) = &template.output {
                poller.add(Source::TemplateOutput(*generation), output.as_fd(), Interest::READ);
            }
        }
        for (child, process) in &self.processes.children {
            // Heard once its pid is known: of two things that it says and its template does, the next
            // manager would know the first alone, and take it for nobody.
            if let Some(line) = process.line.as_ref().filter(|_| process.pid.is_some()) {
                poller.add(Source::Child(*child), line.channel().as_fd(), interest(line));
            }
            if let Some(output) = &process.output {
                poller.add(Source::ChildOutput(*child), output.as_fd(), Interest::READ);
            }
        }
        for (pid, watched) in &self.orphans {
            poller.add(Source::Orphan(*pid), watched.as_fd(), Interest::READ);
        }
        let (probe, output) = self.probe_sources();
        if let Some(line) = probe {
            poller.add(Source::Probe, line.channel().as_fd(), interest(line));
        }
        if let Some(output) = output {
            poller.add(Source::ProbeOutput, output.as_fd(), Interest::READ);
        }
        Ok(poller.wait(timeout)?.into_iter().map(|ready| ready.token).collect())
    }

    /// Gives the master duplicates to keep, for a manager that comes after this one.
    fn keep(&mut self, what: Keepsake, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds = fds.iter().map(|it| it.try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
        self.tell_master(&FromManager::Keep { what }, fds);
        Ok(())
    }

    fn let_go(&mut self, what: Keepsake) {
        self.tell_master(&FromManager::LetGo { what }, Vec::new());
    }

    fn tell_master(&mut self, message: &FromManager, fds: Vec<OwnedFd>) {
        self.master.send(message, fds);
    }

    fn tell_child(&mut self, child: ChildId, message: &ToWorker, fds: Vec<OwnedFd>) {
        if let Some(process) = self.processes.children.get_mut(&child)
            && let Some(line) = &mut process.line
        {
            line.send(message, fds);
        }
    }

    fn exit_when_empty(&mut self) {
        if self.processes.children.is_empty() && self.processes.templates.is_empty() {
            self.exit = Some(1);
        }
    }
}

/// Kernel memory for connections on their way from draining workers to serving ones.
const HAND_OVER_QUEUE: usize = 4 * 1024 * 1024;

fn interest(line: &Line) -> Interest {
    if line.is_waiting() { Interest::READ_WRITE } else { Interest::READ }
}

fn ended(exit: Exit) -> Ended {
    match exit {
        Exit::Code(code) => Ended::Code(code),
        Exit::Signal { signo, .. } => Ended::Signal(signo),
    }
}
