//! What happens next, by the throw of dice that always fall the same way for the same seed.

use std::fmt;

/// A generator of numbers that are random enough, from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of somebody's own.
    pub(super) fn split(&mut self) -> Self {
        Self(self.throw())
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, but not including, `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.throw() % end.max(1) as u64) as usize
    }

    /// One of them.
    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// So many bytes.
    pub(super) fn letters(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }
}

/// A release that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The shop has this fault.
    Fault(&'static str),
    /// The settings file is no settings file.
    Settings,
    /// The executable is no executable.
    Executable,
}

/// A process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Worker,
    TaskWorker,
    Template,
    Manager,
}

/// Something that happens to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The command `reload`.
    Reload,
    /// USR1, so many at once.
    Signals(usize),
    /// USR2.
    TaskWorkers,
    /// TERM to a worker.
    Retire,
    /// Another executable is installed, and `reload`ed.
    Release,
    /// Another executable is installed, and becomes master and manager, too.
    Upgrade,
    /// Another number of workers, by the settings file.
    Workers(usize),
    /// From here on releases have to prove themselves so.
    Proof { canary: bool, observed: bool },
    /// Another number of workers, by the command `scale`.
    Scale(usize),
    /// A reload, and the way back from it.
    Rollback,
    /// A reload that must fail.
    Broken(Broken),
    /// kill -9.
    Kill(Victim),
    /// kill -9 so many milliseconds after a reload was asked for.
    KillInReload(Victim, u64),
    /// Several at once.
    Together(Vec<Event>),
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}

const FAULTS: [&str; 5] = [
    "exit_at_start",
    "panic_in_preload",
    "thread_in_preload",
    "panic_in_worker_start",
    "unhealthy",
];

/// The next event.
pub(super) fn next(dice: &mut Dice, kills: bool) -> Event {
    if kills && dice.below(2) == 0 {
        let victim = *dice.one(&[
            Victim::Worker,
            Victim::Worker,
            Victim::TaskWorker,
            Victim::Template,
            Victim::Manager,
        ]);
        return match dice.below(3) {
            0 => Event::KillInReload(victim, dice.below(40) as u64),
            _ => Event::Kill(victim),
        };
    }
    match dice.below(15) {
        0 => Event::Signals(1 + dice.below(20)),
        1 => Event::TaskWorkers,
        2 => Event::Retire,
        3 => Event::Release,
        4 => Event::Upgrade,
        5 => Event::Workers(1 + dice.below(4)),
        6 => Event::Broken(Broken::Fault(FAULTS[dice.below(FAULTS.len())])),
        7 => Event::Broken(*dice.one(&[Broken::Settings, Broken::Executable])),
        8 => {
            let simple = [Event::Reload, Event::Retire, Event::TaskWorkers, Event::Upgrade];
            let all = (0..2 + dice.below(2)).map(|_| dice.one(&simple).clone());
            Event::Together(all.collect())
        }
        9 => Event::Scale(1 + dice.below(5)),
        10 => Event::Rollback,
        11 => Event::Proof { canary: dice.below(2) == 0, observed: dice.below(2) == 0 },
        _ => Event::Reload,
    }
}

#[test]
fn the_same_seed_plans_the_same() {
    let plan = |seed| {
        let mut dice = Dice::new(seed);
        (0..50).map(|_| next(&mut dice, true)).collect::<Vec<_>>()
    };
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}
