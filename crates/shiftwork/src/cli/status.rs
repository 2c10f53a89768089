//! `status`: the server and its processes, for people or as JSON.

use std::time::Duration;

use bytesize::ByteSize;
use shiftwork_supervisor::control::latency::Latency;
use shiftwork_supervisor::control::status::{ProcessStatus, ReleaseStatus, Role, Status};
use shiftwork_supervisor::control::{Request, Response};
use shiftwork_sys::slab::BOUNDS_US;

use super::output::{moment, paint};
use super::speak::{answer, unexpected};
use super::{Application, Cli, exit, output};

/// Asks the server how it is and prints that. Gives the exit status.
pub(super) fn status(application: &Application<'_>, cli: &Cli) -> u8 {
    match answer(application, cli, &Request::Status {}) {
        Ok(Response::Status(status)) => {
            output::say(&if cli.json {
                serde_json::to_string(&*status).unwrap_or_default()
            } else {
                tree(&status, output::colour())
            });
            exit::OK
        }
        Ok(_) => unexpected(application.name),
        Err(status) => status,
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";

fn code_of(state: &str) -> Option<&'static str> {
    match state {
        "serving" | "running" | "ready" => Some("32"),
        "draining" | "starting" | "proving" | "observing" | "reloading" | "rolling_back"
        | "scaling" | "upgrading" | "stopping" => Some("33"),
        _ => None,
    }
}

/// Which code serves, and since when.
fn releases(status: &Status, colour: bool) -> Vec<String> {
    let row = |it: &ReleaseStatus| {
        let digest = it.digest.as_deref().map_or("", |it| it.get(..12).unwrap_or(it));
        vec![
            format!("  generation {}", it.generation),
            format!("release {:?}", it.release),
            it.state.clone(),
            format!("since {}", moment(it.started_ms)),
            format!("sha256 {digest:12}"),
            it.executable.clone(),
        ]
    };
    let rows: Vec<_> = status.releases.iter().map(row).collect();
    let lines = output::align(&rows, &[]).into_iter().zip(&status.releases);
    let painted = lines.map(|(line, it)| match code_of(&it.state) {
        Some(code) => line.replacen(
            &format!("  {}  ", it.state),
            &format!("  {}  ", paint(&it.state, code, colour)),
            1,
        ),
        None => line,
    });
    painted.collect()
}

/// The status to read.
fn tree(status: &Status, colour: bool) -> String {
    let state = code_of(&status.state)
        .map_or_else(|| status.state.clone(), |code| paint(&status.state, code, colour));
    let mut lines = vec![format!(
        "{}: {state}, generation {}, release {:?}, up {}",
        paint(&status.name, BOLD, colour),
        status.generation,
        status.release,
        time(status.uptime_ms)
    )];
    let addresses: Vec<Vec<String>> = status
        .listeners
        .iter()
        .map(|it| vec![format!("  {}", it.name), it.protocol.clone(), it.address.clone()])
        .collect();
    lines.extend(output::align(&addresses, &[]));
    lines.extend(releases(status, colour));
    lines.push(String::new());
    let heads = [
        "PROCESS",
        "PID",
        "GEN",
        "STATE",
        "UP",
        "REQUESTS",
        "IN HAND",
        "CONNECTIONS",
        "TASKS",
        "P50",
        "P99",
        "MEMORY",
        "RESTARTS",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let last = status.processes.len().saturating_sub(1);
    rows.extend(status.processes.iter().enumerate().map(|(i, it)| row(it, i == last)));
    let totals = &status.totals;
    rows.push(
        ["total", "", "", "", ""]
            .map(str::to_owned)
            .into_iter()
            .chain([totals.requests, totals.in_flight, totals.connections, totals.tasks].map(count))
            .chain(quantiles(totals.latency.as_ref()))
            .chain([memory(totals.memory_bytes), count(totals.restarts)])
            .collect(),
    );
    let aligned = output::align(&rows, &[1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    for (i, line) in aligned.into_iter().enumerate() {
        let process = i.checked_sub(1).and_then(|i| status.processes.get(i));
        lines.push(match process {
            None => paint(&line, DIM, colour),
            // Painted after the columns were measured. No other column has letters before it.
            Some(process) => match code_of(&process.state) {
                Some(code) if colour => {
                    let state = format!("  {}  ", process.state);
                    let painted = format!("  {}  ", paint(&process.state, code, true));
                    line.replacen(&state, &painted, 1)
                }
                _ => line,
            },
        });
    }
    lines.join("\n")
}

/// The name of a process, at its place in the tree.
pub(super) fn branch(process: &ProcessStatus, last: bool) -> String {
    let branch = if last { "└─" } else { "├─" };
    let name = name(process);
    match process.role {
        Role::Master => name,
        Role::Manager => format!("└─ {name}"),
        Role::Template | Role::Worker | Role::TaskWorker => format!("   {branch} {name}"),
    }
}

/// The name of a process.
pub(super) fn name(process: &ProcessStatus) -> String {
    let id = process.worker_id.map(|it| format!(" {it}")).unwrap_or_default();
    match process.role {
        Role::Master => "master".to_owned(),
        Role::Manager => "manager".to_owned(),
        Role::Template => "template".to_owned(),
        Role::Worker => format!("worker{id}"),
        Role::TaskWorker => format!("task worker{id}"),
    }
}

fn row(process: &ProcessStatus, last: bool) -> Vec<String> {
    let number = |it: Option<String>| it.unwrap_or_else(|| "-".into());
    let works = matches!(process.role, Role::Worker | Role::TaskWorker);
    let counted = |it: u64| if works { count(it) } else { String::new() };
    let [p50, p99] = quantiles(process.latency.as_ref());
    vec![
        branch(process, last),
        number(process.pid.map(|it| it.to_string())),
        process.generation.map(|it| it.to_string()).unwrap_or_default(),
        process.state.clone(),
        time(process.uptime_ms),
        counted(process.requests),
        counted(process.in_flight),
        counted(process.connections),
        counted(process.tasks),
        p50,
        p99,
        memory(process.memory_bytes),
        counted(process.restarts),
    ]
}

fn count(number: u64) -> String {
    number.to_string()
}

/// Half of all, and 99 of 100, took no longer.
pub(super) fn quantiles(latency: Option<&Latency>) -> [String; 2] {
    latency.map_or_else(Default::default, |it| [it.p50_us, it.p99_us].map(bound))
}

/// A bound of the buckets that durations are counted in, short; none: longer than the last one.
fn bound(us: Option<u64>) -> String {
    let short = |whole: u64, unit: u64, name: &str| match whole * 10 / unit % 10 {
        0 => format!("{}{name}", whole / unit),
        tenth => format!("{}.{tenth}{name}", whole / unit),
    };
    match us {
        None => format!(">{}", bound(BOUNDS_US.last().copied())),
        Some(us @ ..1_000) => format!("{us}us"),
        Some(us @ ..1_000_000) => short(us, 1_000, "ms"),
        Some(us) => short(us, 1_000_000, "s"),
    }
}

pub(super) fn memory(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// The two largest units are enough.
pub(super) fn time(ms: u64) -> String {
    let whole =
        if ms < 1_000 { Duration::from_millis(ms) } else { Duration::from_secs(ms / 1_000) };
    let text = humantime::format_duration(whole).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwork_supervisor::control::status::{ListenerStatus, Totals};

    fn process(role: Role, worker_id: Option<u32>, pid: i32, state: &str) -> ProcessStatus {
        ProcessStatus {
            role,
            worker_id,
            pid: Some(pid),
            generation: worker_id.map(|_| 2),
            state: state.into(),
            uptime_ms: 3_723_004,
            requests: 12,
            in_flight: 1,
            connections: 3,
            tasks: 0,
            memory_bytes: 2_097_152,
            restarts: 0,
            latency: None,
        }
    }

    fn sample() -> Status {
        Status {
            name: "shop".into(),
            pid: 10,
            state: "serving".into(),
            progress: None,
            generation: 2,
            release: "2".into(),
            uptime_ms: 500,
            listeners: vec![ListenerStatus {
                name: "web".into(),
                address: "127.0.0.1:9501".into(),
                protocol: "http".into(),
            }],
            releases: vec![ReleaseStatus {
                generation: 2,
                release: "2".into(),
                state: "serving".into(),
                executable: "/srv/shop/current/shop".into(),
                digest: Some("0123456789abcdef".repeat(4)),
                started_ms: 1_764_291_954_000,
            }],
            processes: vec![
                process(Role::Master, None, 10, "running"),
                process(Role::Manager, None, 11, "running"),
                process(Role::Worker, Some(0), 12, "serving"),
                process(Role::TaskWorker, Some(1), 13, "draining"),
            ],
            totals: Totals { requests: 24, ..Totals::default() },
        }
    }

    #[test]
    fn a_tree_to_read() {
        let text = tree(&sample(), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "shop: serving, generation 2, release \"2\", up 500ms");
        assert_eq!(lines[1], "  web  http  127.0.0.1:9501");
        assert_eq!(
            lines[2],
            "  generation 2  release \"2\"  serving  since 2025-11-28 01:05:54  sha256 0123456789ab  \
             /srv/shop/current/shop"
        );
        let lines = &lines[1..];
        assert!(lines[3].starts_with("PROCESS"));
        assert!(lines[4].starts_with("master ") && lines[5].starts_with("└─ manager "));
        assert!(lines[6].starts_with("   ├─ worker 0 ") && lines[6].contains("1h 2m"));
        assert!(lines[7].starts_with("   └─ task worker 1 ") && lines[7].contains(" draining "));
        assert!(lines[8].starts_with("total ") && lines[8].contains(" 24 "));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn bounds_are_short() {
        for (us, said) in [(250, "250us"), (2_500, "2.5ms"), (10_000, "10ms"), (2_500_000, "2.5s")]
        {
            assert_eq!(bound(Some(us)), said);
        }
        assert_eq!(bound(None), ">30s");
        assert_eq!(quantiles(None), ["", ""]);
    }

    #[test]
    fn colours_change_nothing_else() {
        let painted = tree(&sample(), true);
        assert!(painted.contains("\x1b[32mserving\x1b[0m"));
        assert!(painted.contains("\x1b[33mdraining\x1b[0m"));
        let mut plain = String::new();
        let mut rest = painted.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |it| it.1);
        }
        plain.push_str(rest);
        assert_eq!(plain, tree(&sample(), false));
    }
}
