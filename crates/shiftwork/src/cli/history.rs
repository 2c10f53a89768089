//! `history`: what was asked of the server, by whom, and what came of it.

use shiftwork_supervisor::control::{History, Request, Response};
use shiftwork_supervisor::core::history::{Asked, Entry, Requester, What};
use shiftwork_supervisor::core::outcome::Verdict;
use shiftwork_supervisor::core::scale::{Count, Wish};
use shiftwork_sys::user;

use super::output::{colour, moment, paint};
use super::speak::{answer, unexpected};
use super::{Application, Cli, exit, output};

/// Asks the server for its history and prints that. Gives the exit status.
pub(super) fn history(application: &Application<'_>, cli: &Cli) -> u8 {
    match answer(application, cli, &Request::History {}) {
        Ok(Response::History(history)) => {
            output::say(&if cli.json {
                serde_json::to_string(&history).unwrap_or_default()
            } else {
                table(&history, user::name_of, colour())
            });
            exit::OK
        }
        Ok(_) => unexpected(application.name),
        Err(status) => status,
    }
}

/// The history to read, the latest at the end: a line for each run, and one for each request beyond
/// the first that it has covered.
fn table(history: &History, user: impl Fn(u32) -> Option<String>, colour: bool) -> String {
    let heads = ["WHEN (UTC)", "WHAT", "BY", "GENERATION", "TOOK", "OUTCOME"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut verdicts = vec![None];
    for entry in &history.entries {
        let mut requests = entry.requests.iter();
        let first = requests.next();
        rows.push(vec![
            moment(entry.began_ms),
            first.map_or_else(|| word(entry.what).to_owned(), command),
            first.map_or_else(|| "-".to_owned(), |it| by(&it.by, &user)),
            generations(entry),
            format!("{} ms", entry.duration_ms),
            outcome(entry),
        ]);
        verdicts.push(Some(entry.outcome));
        for request in requests {
            rows.push(vec![String::new(), command(request), by(&request.by, &user)]);
            verdicts.push(None);
        }
        if entry.more_requests > 0 {
            rows.push(vec![String::new(), format!("and {} more requests", entry.more_requests)]);
            verdicts.push(None);
        }
    }
    let lines = output::align(&rows, &[4]).into_iter().zip(verdicts);
    let painted = lines.enumerate().map(|(i, (line, verdict))| match verdict {
        _ if i == 0 => paint(&line, "2", colour),
        Some(verdict @ (Verdict::Aborted | Verdict::RolledBack)) => {
            let word = verdict_word(verdict);
            line.replacen(word, &paint(word, "31", colour), 1)
        }
        _ => line,
    });
    painted.collect::<Vec<_>>().join("\n")
}

fn word(what: What) -> &'static str {
    match what {
        What::Start => "start",
        What::Scale => "scale",
        What::ReloadTasks => "reload --tasks",
        What::Reload => "reload",
        What::Rollback => "rollback",
        What::Upgrade => "upgrade",
        What::Other => "something new",
    }
}

/// What was asked for, as it would be typed; values are not told.
fn command(asked: &Asked) -> String {
    let mut words = vec![word(asked.what).to_owned()];
    let count = |it: Count| match it {
        Count::To(number) => number.to_string(),
        Count::By(more) => format!("{more:+}"),
    };
    if let Some(Wish { workers, task_workers }) = asked.wish {
        words.extend(workers.map(count));
        words.extend(task_workers.map(|it| format!("--task-workers {}", count(it))));
    }
    words.extend(asked.set.iter().map(|key| format!("--set {key}")));
    words.join(" ")
}

fn by(requester: &Requester, user: impl Fn(u32) -> Option<String>) -> String {
    let user = |uid: u32| user(uid).unwrap_or_else(|| format!("user {uid}"));
    let process = |pid: i32| if pid > 0 { format!(", pid {pid}") } else { String::new() };
    match requester {
        Requester::Start => "-".into(),
        Requester::Command { uid, pid } => format!("{}{}", user(*uid), process(*pid)),
        Requester::Signal { signal, pid: 0, .. } => signal.clone(),
        Requester::Signal { signal, uid, pid } => {
            format!("{signal} from {}{}", user(*uid), process(*pid))
        }
        Requester::ServiceManager { signal } => format!("{signal} from the service manager"),
        Requester::Worker { worker_id, pid } => {
            format!("worker {worker_id}{}", process(pid.unwrap_or(0)))
        }
        Requester::Unknown => "somebody".into(),
    }
}

fn generations(entry: &Entry) -> String {
    match (entry.from, entry.to) {
        (from, to) if from == to => to.to_string(),
        (0, to) => format!("→ {to}"),
        (from, to) => format!("{from} → {to}"),
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Committed => "committed",
        Verdict::Replaced => "replaced",
        Verdict::RolledBack => "rolled back",
        Verdict::Aborted => "aborted",
    }
}

fn outcome(entry: &Entry) -> String {
    let word = verdict_word(entry.outcome);
    let sizes = entry.scaled.map(|it| format!(", {it}")).unwrap_or_default();
    match entry.reason.lines().next() {
        Some(reason) => format!("{word}{sizes}: {reason}"),
        None => format!("{word}{sizes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwork_supervisor::core::outcome::Sizes;

    fn asked(what: What, by: Requester, set: &[&str]) -> Asked {
        let set: Vec<String> = set.iter().map(|it| (*it).to_owned()).collect();
        Asked::new(1_764_291_954_000, by, what, &set)
    }

    fn entry(number: u64, from: u64, to: u64, requests: Vec<Asked>) -> Entry {
        Entry {
            number,
            what: requests.first().map_or(What::Reload, |it| it.what),
            began_ms: requests.first().map_or(0, |it| it.at_ms),
            duration_ms: number * 10,
            from,
            to,
            outcome: Verdict::Committed,
            reason: String::new(),
            scaled: None,
            requests,
            more_requests: 0,
        }
    }

    #[test]
    fn a_table_to_read() {
        let root = Requester::Command { uid: 0, pid: 77 };
        let somebody = Requester::Command { uid: 1001, pid: 0 };
        let signal = Requester::Signal { signal: "USR1".into(), uid: 0, pid: 5 };
        let manager = Requester::ServiceManager { signal: "HUP".into() };
        let wish = Wish { workers: Some(Count::By(1)), task_workers: Some(Count::To(2)) };
        let scale = Asked { wish: Some(wish), ..asked(What::Scale, signal, &[]) };
        let failed = Entry {
            outcome: Verdict::Aborted,
            reason: "preload: no\nsecond line".into(),
            more_requests: 4,
            ..entry(
                3,
                2,
                3,
                vec![
                    asked(What::Upgrade, root.clone(), &["app.token=x"]),
                    asked(What::Reload, somebody, &[]),
                ],
            )
        };
        let history = History {
            entries: vec![
                entry(1, 0, 1, vec![asked(What::Start, Requester::Start, &[])]),
                entry(2, 1, 2, vec![asked(What::Reload, manager, &[])]),
                failed,
                Entry {
                    scaled: Some(Sizes { workers: 3, task_workers: 2 }),
                    ..entry(4, 2, 2, vec![scale])
                },
                entry(5, 2, 4, Vec::new()),
            ],
        };
        let user = |uid| (uid == 0).then(|| "root".to_owned());
        let text = table(&history, user, false);
        let expected = "\
WHEN (UTC)           WHAT                       BY                            GENERATION   TOOK  OUTCOME
2025-11-28 01:05:54  start                      -                             → 1         10 ms  committed
2025-11-28 01:05:54  reload                     HUP from the service manager  1 → 2       20 ms  committed
2025-11-28 01:05:54  upgrade --set app.token    root, pid 77                  2 → 3       30 ms  aborted: preload: no
                     reload                     user 1001
                     and 4 more requests
2025-11-28 01:05:54  scale +1 --task-workers 2  USR1 from root, pid 5         2           40 ms  committed, 3 workers and 2 task workers
-                    reload                     -                             2 → 4       50 ms  committed";
        assert_eq!(text, expected, "\n{text}");
        assert!(table(&history, user, true).contains("\x1b[31maborted\x1b[0m: preload"));
    }
}
