//! The commands against a server that a thread plays.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use super::super::speak::not_running;
use super::super::{Next, play};
use super::*;
use crate::settings::{NoApp, app_problems};
use shiftwork_supervisor::core::history::What;
use tempfile::TempDir;
use toml::Table;

/// Answers one client with these lines, keeps it until it hangs up, and gives what it asked.
fn server(lines: &'static [&'static str]) -> (TempDir, JoinHandle<String>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("shop.sock")).unwrap();
    let thread = std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut asked = String::new();
        stream.read_line(&mut asked).unwrap();
        for line in lines {
            // A client that has run out of time may have gone before that.
            let _ = writeln!(stream.get_mut(), "{line}");
        }
        let _ = stream.read_line(&mut String::new());
        asked
    });
    (folder, thread)
}

fn command(line: &str) -> u8 {
    let (builder, default) = (Table::new(), Table::new());
    let application = Application {
        name: "shop",
        version: "1",
        environment: &[],
        builder: &builder,
        listeners: &[],
        http_listeners: &[],
        app_default: &default,
        app_check: &app_problems::<NoApp>,
    };
    match play(&application, line.split_whitespace().map(Into::into)) {
        Next::Exit(status) => status,
        Next::Start(prepared) => panic!("{prepared:?}"),
    }
}

const COMMITTED: &str = r#"{"event":"outcome","outcome":"committed","generation":2,"reason":"","output":"","duration_ms":45}"#;
const ABORTED: &str = r#"{"event":"outcome","outcome":"aborted","generation":1,"reason":"no","output":"panicked","duration_ms":45}"#;
const PROGRESS: &str =
    r#"{"event":"progress","phase":"starting","generation":2,"done":1,"total":4}"#;

#[test]
fn a_reload_is_asked_for_and_its_end_is_the_status() {
    for json in ["", " --json"] {
        let (folder, thread) = server(&[PROGRESS, COMMITTED]);
        let socket = folder.path().join("shop.sock");
        let line = format!("shop reload --set app.x=1 --wait --control {}{json}", socket.display());
        assert_eq!(command(&line), exit::OK);
        let asked: Request = serde_json::from_str(&thread.join().unwrap()).unwrap();
        let expected = Request::Reload {
            scope: shiftwork_supervisor::core::event::Scope::All,
            set: vec!["app.x=1".into()],
            until: Until::Drained,
        };
        assert_eq!(asked, expected);
    }
    let (folder, thread) = server(&[PROGRESS, ABORTED]);
    let socket = folder.path().join("shop.sock");
    assert_eq!(command(&format!("shop reload --control {}", socket.display())), exit::FAILED);
    thread.join().unwrap();
}

#[test]
fn statuses_of_what_goes_wrong() {
    let cases: [(&'static [&'static str], &str, u8); 4] = [
        (
            &[r#"{"event":"refused","reason":"others","not_permitted":true}"#],
            "reload",
            exit::NOT_PERMITTED,
        ),
        (
            &[r#"{"event":"refused","reason":"stopping","not_permitted":false}"#],
            "stop",
            exit::FAILED,
        ),
        (&[PROGRESS], "reload --timeout 50ms", exit::DEADLINE),
        (&[r#"{"event":"stopping","pid":1}"#], "stop --timeout 50ms", exit::DEADLINE),
    ];
    for (lines, verb, expected) in cases {
        let (folder, thread) = server(lines);
        let socket = folder.path().join("shop.sock");
        assert_eq!(command(&format!("shop {verb} --control {}", socket.display())), expected);
        thread.join().unwrap();
    }
}

#[test]
fn nobody_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("shop.sock");
    for verb in ["reload", "stop", "status"] {
        let line = format!("shop {verb} --control {}", socket.display());
        assert_eq!(command(&line), exit::NOT_RUNNING);
        let line = format!("shop {verb} --set server.run_dir={}", folder.path().display());
        assert_eq!(command(&line), exit::NOT_RUNNING);
        assert_eq!(command(&format!("{line} --set server.colour=red")), exit::USAGE);
    }
    let said = not_running("shop", &socket);
    assert!(said.contains(&*socket.display().to_string()) && said.contains("--control"), "{said}");
    assert_eq!(command("shop fly"), exit::USAGE);
    assert_eq!(command("shop check --set server.colour=red"), exit::USAGE);
    assert_eq!(command("shop check"), exit::OK);
}

#[test]
fn a_server_that_is_found_makes_mistakes_in_the_settings_its_own_business() {
    let (folder, thread) = server(&[ABORTED]);
    let run_dir = folder.path().display();
    let line = format!("shop reload --set server.run_dir={run_dir} --set server.colour=red");
    assert_eq!(command(&line), exit::FAILED);
    assert!(thread.join().unwrap().contains("server.colour=red"));
}

#[test]
fn sentences() {
    let outcome = |outcome, generation| Outcome {
        what: What::Reload,
        outcome,
        generation,
        reason: "preload: no".into(),
        output: String::new(),
        duration_ms: 45,
        warnings: Vec::new(),
        scaled: None,
        task_generation: None,
    };
    let committed = outcome(Verdict::Committed, 2);
    assert_eq!(sentence(&committed, Until::Committed), "generation 2 is committed after 45 ms");
    let tasks = Outcome { task_generation: Some(3), ..committed.clone() };
    assert_eq!(
        sentence(&tasks, Until::Drained),
        "the task workers are of generation 3 and the old ones gone after 45 ms"
    );
    assert_eq!(sentence(&committed, Until::Replaced), "generation 2 serves after 45 ms");
    assert_eq!(
        sentence(&outcome(Verdict::Aborted, 1), Until::Committed),
        "reload aborted, generation 1 goes on: preload: no"
    );
    for (what, said) in [
        (What::Upgrade, "upgrade aborted, generation 1 goes on: preload: no"),
        (
            What::ReloadTasks,
            "reload of the task workers aborted, generation 1 goes on: preload: no",
        ),
    ] {
        let outcome = Outcome { what, ..outcome(Verdict::Aborted, 1) };
        assert_eq!(sentence(&outcome, Until::Committed), said);
    }
    assert_eq!(
        sentence(&outcome(Verdict::RolledBack, 1), Until::Committed),
        "reload rolled back, generation 1 goes on: preload: no"
    );
}
