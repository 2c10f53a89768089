//! What is known and what is shown: it changes by what is heard and by keys, and by nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use shiftwork_supervisor::control::status::{ProcessStatus, Status};
use shiftwork_supervisor::core::outcome::{Outcome, Progress, Verdict};

use super::rates::{self, Look, Rates};
use crate::cli::progress::Picture;

/// Rates are measured over at least this long, if there has been so much time.
const SPAN: Duration = Duration::from_millis(950);
/// A server that cannot be asked for so long is gone.
const PATIENCE: Duration = Duration::from_secs(3);

/// News.
#[derive(Debug)]
pub(super) enum Heard {
    /// How the server is.
    Status(Box<Status>),
    /// It could not be asked.
    Silence(String),
    /// How far the reload is that was asked for here.
    Progress(Progress),
    /// What it came to.
    Outcome(Outcome),
    /// Nobody can tell.
    NoOutcome(String),
}

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Escape,
    Reload,
    Yes,
    No,
    Left,
    Right,
    Up,
    Down,
}

/// What somebody wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Quit,
    Reload,
}

/// How far a reload from here is.
#[derive(Debug, Default)]
pub(super) enum Reload {
    #[default]
    None,
    /// `r` was pressed: really?
    Asked,
    UnderWay(Box<Picture>),
    /// What it came to, and whether that is good.
    Over(String, bool),
}

/// By what processes are sorted: the order of the tree, or a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Tree,
    Requests,
    InHand,
    Connections,
    Tasks,
    Latency,
    Memory,
    Restarts,
}

impl Sort {
    const ALL: [Self; 8] = [
        Self::Tree,
        Self::Requests,
        Self::InHand,
        Self::Connections,
        Self::Tasks,
        Self::Latency,
        Self::Memory,
        Self::Restarts,
    ];

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    looks: VecDeque<Look>,
    /// Since when the server cannot be asked, and why.
    silent: Option<(Instant, String)>,
    gone: bool,
    pub(super) reload: Reload,
    pub(super) sort: Sort,
    pub(super) scroll: usize,
}

impl Model {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            looks: VecDeque::new(),
            silent: None,
            gone: false,
            reload: Reload::None,
            sort: Sort::Tree,
            scroll: 0,
        }
    }

    /// Takes in news.
    pub(super) fn hear(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Status(status) => self.look(Look { at: now, status: *status }),
            Heard::Silence(reason) => {
                let since = self.silent.as_ref().map_or(now, |it| it.0);
                self.gone |= now.saturating_duration_since(since) > PATIENCE;
                self.silent = Some((since, reason));
            }
            Heard::Progress(progress) => {
                if !matches!(self.reload, Reload::UnderWay(_)) {
                    self.reload = Reload::UnderWay(Box::default());
                }
                if let Reload::UnderWay(picture) = &mut self.reload {
                    picture.update(&progress);
                }
            }
            Heard::Outcome(outcome) => {
                let good = outcome.outcome == Verdict::Committed;
                self.reload = Reload::Over(crate::cli::commands::told(&outcome), good);
            }
            Heard::NoOutcome(reason) => self.reload = Reload::Over(reason, false),
        }
    }

    fn look(&mut self, look: Look) {
        self.silent = None;
        // Two looks on both sides of the span are enough.
        while self.looks.get(1).is_some_and(|it| look.at - it.at >= SPAN) {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// Takes in a key.
    pub(super) fn press(&mut self, key: Key) -> Option<Wanted> {
        let asked = matches!(self.reload, Reload::Asked);
        match key {
            Key::Yes if asked => {
                self.reload = Reload::UnderWay(Box::default());
                return Some(Wanted::Reload);
            }
            Key::No | Key::Escape if asked => self.reload = Reload::None,
            Key::Escape if matches!(self.reload, Reload::Over(..)) => self.reload = Reload::None,
            Key::Quit | Key::Escape => return Some(Wanted::Quit),
            Key::Reload if !matches!(self.reload, Reload::UnderWay(_)) => {
                self.reload = Reload::Asked;
            }
            Key::Left => self.sort = self.sort.step(Sort::ALL.len() - 1),
            Key::Right => self.sort = self.sort.step(1),
            Key::Up => self.scroll = self.scroll.saturating_sub(1),
            Key::Down => {
                let last = self.status().map_or(0, |it| it.processes.len().saturating_sub(1));
                self.scroll = (self.scroll + 1).min(last);
            }
            Key::Yes | Key::No | Key::Reload => {}
        }
        None
    }

    /// Whether the server has been silent for too long.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Why the server cannot be asked just now.
    pub(super) fn silence(&self) -> Option<&str> {
        self.silent.as_ref().map(|it| it.1.as_str())
    }

    /// The last look.
    pub(super) fn status(&self) -> Option<&Status> {
        self.looks.back().map(|it| &it.status)
    }

    /// Of the whole server.
    pub(super) fn rates(&self) -> Rates {
        self.pair().map_or_else(Rates::default, |(before, now)| rates::of_all(before, now))
    }

    /// The processes as they are shown, with what each does in a second.
    pub(super) fn processes(&self) -> Vec<(&ProcessStatus, Rates)> {
        let rates: BTreeMap<i32, Rates> =
            self.pair().map(|(before, now)| rates::of_processes(before, now)).unwrap_or_default();
        let mut all: Vec<(&ProcessStatus, Rates)> = self
            .status()
            .into_iter()
            .flat_map(|it| &it.processes)
            .map(|it| (it, it.pid.and_then(|pid| rates.get(&pid)).cloned().unwrap_or_default()))
            .collect();
        let by = |of: fn(&(&ProcessStatus, Rates)) -> f64| {
            move |a: &(&ProcessStatus, Rates), b: &(&ProcessStatus, Rates)| of(b).total_cmp(&of(a))
        };
        match self.sort {
            Sort::Tree => {}
            Sort::Requests => all.sort_by(by(|it| it.1.requests)),
            Sort::InHand => all.sort_by(by(|it| it.0.in_flight as f64)),
            Sort::Connections => all.sort_by(by(|it| it.0.connections as f64)),
            Sort::Tasks => all.sort_by(by(|it| it.1.tasks)),
            Sort::Latency => all.sort_by_key(|it| {
                Reverse(it.1.latency.as_ref().map(|it| it.p99_us.unwrap_or(u64::MAX)))
            }),
            Sort::Memory => all.sort_by(by(|it| it.0.memory_bytes as f64)),
            Sort::Restarts => all.sort_by(by(|it| it.0.restarts as f64)),
        }
        all
    }

    fn pair(&self) -> Option<(&Look, &Look)> {
        self.looks.front().zip(self.looks.back()).filter(|(before, now)| before.at < now.at)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shiftwork_supervisor::control::latency::Latency;

    /// A server with three processes that have answered so many requests.
    pub(in crate::cli::top) fn status(generation: u64, requests: u64) -> Box<Status> {
        let process = |role: &str, id: Option<u32>, pid: i32, requests: u64| {
            serde_json::json!({
                "role": role, "worker_id": id, "pid": pid, "generation": id.map(|_| generation),
                "state": if id.is_some() { "serving" } else { "running" }, "uptime_ms": 61_000,
                "requests": requests, "in_flight": 1, "connections": 2, "tasks": 0,
                "memory_bytes": 1_048_576, "restarts": 0
            })
        };
        let status = serde_json::json!({
            "name": "shop", "pid": 10, "state": "serving", "generation": generation,
            "release": "7", "uptime_ms": 61_000, "listeners": [],
            "releases": [{ "generation": generation, "release": "7", "state": "serving",
                "executable": "/srv/shop", "digest": "0123456789abcdef", "started_ms": 0 }],
            "processes": [process("master", None, 10, 0), process("worker", Some(0), 12, requests / 4),
                process("worker", Some(1), 13, requests - requests / 4)],
            "totals": { "requests": requests, "in_flight": 2, "connections": 4, "tasks": 0,
                "memory_bytes": 3_145_728, "restarts": 0 }
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn rates_are_of_about_a_second() {
        let mut model = Model::new("shop");
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        model.hear(Heard::Status(status(1, 1_000)), at(0));
        assert_eq!(model.rates(), Rates::default());
        for (ms, requests) in [(500, 1_000), (1_000, 1_100), (1_500, 1_200), (2_000, 1_300)] {
            model.hear(Heard::Status(status(1, requests)), at(ms));
        }
        assert!((model.rates().requests - 200.0).abs() < 1e-9, "{:?}", model.rates());
        model.sort = Sort::Requests;
        let order: Vec<_> = model.processes().iter().map(|it| it.0.worker_id).collect();
        assert_eq!(order, [Some(1), Some(0), None]);
    }

    #[test]
    fn latencies_are_of_about_a_second_too() {
        let mut model = Model::new("shop");
        let began = Instant::now();
        let worker = |status: &mut Status, id: usize, buckets: &[u64]| {
            let latency = Latency { buckets: buckets.to_vec(), ..Latency::default() };
            status.processes[id].latency = Some(latency);
        };
        let mut before = status(1, 1_000);
        worker(&mut before, 1, &[1_000]);
        let mut after = status(1, 1_200);
        worker(&mut after, 1, &[1_000, 0, 100]);
        worker(&mut after, 2, &[50, 50]);
        model.hear(Heard::Status(before), began);
        model.hear(Heard::Status(after), began + Duration::from_secs(1));
        model.sort = Sort::Latency;
        let p99s: Vec<_> = (model.processes().iter())
            .map(|(process, rates)| (process.worker_id, rates.latency.as_ref().map(|it| it.p99_us)))
            .collect();
        let slowest_first = [(Some(0), Some(Some(500))), (Some(1), Some(Some(250))), (None, None)];
        assert_eq!(p99s, slowest_first);
    }

    #[test]
    fn a_reload_is_asked_twice_for_and_told() {
        let mut model = Model::new("shop");
        assert_eq!(model.press(Key::Yes), None);
        assert_eq!(model.press(Key::Reload), None);
        assert_eq!(model.press(Key::Escape), None);
        assert!(matches!(model.reload, Reload::None));
        model.press(Key::Reload);
        assert_eq!(model.press(Key::Yes), Some(Wanted::Reload));
        assert_eq!(model.press(Key::Reload), None);
        assert!(matches!(model.reload, Reload::UnderWay(_)));
        model.hear(Heard::NoOutcome("gone".into()), Instant::now());
        assert!(matches!(&model.reload, Reload::Over(words, false) if words == "gone"));
        assert_eq!(model.press(Key::Escape), None);
        assert_eq!(model.press(Key::Escape), Some(Wanted::Quit));
    }

    #[test]
    fn a_server_that_is_silent_for_long_is_gone() {
        let mut model = Model::new("shop");
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        model.hear(Heard::Silence("no".into()), at(0));
        model.hear(Heard::Status(status(1, 1)), at(2_000));
        model.hear(Heard::Silence("no".into()), at(4_000));
        model.hear(Heard::Silence("no".into()), at(6_900));
        assert!(!model.is_gone());
        assert_eq!(model.silence(), Some("no"));
        model.hear(Heard::Silence("no".into()), at(7_100));
        assert!(model.is_gone());
    }
}
