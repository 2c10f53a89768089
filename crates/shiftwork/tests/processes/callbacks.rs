//! What an application writes: its callbacks, hooks, timers, tasks and background work, each seen
//! by the line that it leaves in a file (`examples/callbacks`).

use std::fs;
use std::process::Command;

use shiftwork_sys::signal;

use crate::support::binary;
use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Shop, Site};
use crate::support::wait::until;

/// The example where the shop would be, with the shop's file names.
fn site() -> Site {
    let mut site = Site::new();
    site.release("first", &binary::callbacks());
    site.remove("listen.till");
    site.remove("app.ledger");
    site.put("app.trace", site.path("trace").to_str().unwrap());
    site.put("server.control_socket", "run/shop.sock");
    site.put("server.pid_file", "run/shop.pid");
    site.put("server.log_file", "run/shop.log");
    site
}

fn start_command(site: &Site) -> Command {
    let mut command = site.command(&["start"]);
    command.env("TRACE", site.path("trace"));
    command
}

fn start(site: Site) -> Shop {
    let command = start_command(&site);
    site.start_by(command, true)
}

/// The lines so far, without those that come again and again.
fn trace(site: &Site) -> Vec<String> {
    let text = fs::read_to_string(site.path("trace")).unwrap_or_default();
    text.lines().filter(|line| *line != "tick").map(str::to_owned).collect()
}

fn wait_for(site: &Site, line: &str) {
    until(&format!("{line:?} is in the trace"), || trace(site).iter().any(|it| it == line));
}

/// The lines, in the order of the alphabet where processes run side by side.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn each_runs_where_and_when_it_should() {
    let shop = start(site());
    wait_for(&shop.site, "OnManagerStart");
    wait_for(&shop.site, "after");
    let mut lines = trace(&shop.site);
    lines.retain(|line| line != "after");
    assert_eq!(lines[..2], ["preload 1", "OnStart"], "{lines:?}");
    let starts = ["on_worker_start 0", "on_worker_start 1", "on_worker_start 2"];
    assert_eq!(sorted(lines[2..5].to_vec()), starts);
    assert_eq!(lines[5..], ["OnManagerStart"]);

    let before = trace(&shop.site).len();
    let ended = shop.site.run(&["reload", "--wait"]).expect(0);
    assert!(ended.stdout.contains("generation 2"), "{ended:?}");
    wait_for(&shop.site, "on_worker_stop 2");
    let lines = trace(&shop.site)[before..].to_vec();
    assert_eq!(lines[0], "preload 2");
    let of = |word: &str| lines.iter().filter(|it| it.starts_with(word)).count();
    assert_eq!(["on_worker_start", "on_worker_exit", "on_worker_stop"].map(of), [3, 3, 3]);
    assert_eq!(of("On"), 0, "hooks of the server's life: {lines:?}");

    let victim = shop.status().role("worker")[1].pid;
    send(victim, signal::KILL);
    wait_for(&shop.site, "OnWorkerError 1 Some(9)");
    shop.until("another one serves", |status| {
        let workers = status.role("worker");
        workers.len() == 2 && workers.iter().all(|it| it.state == "serving" && it.pid != victim)
    });

    let site = {
        let before = trace(&shop.site).len();
        let mut shop = shop;
        shop.site.run(&["stop"]).expect(0);
        assert_eq!(shop.wait(), 0);
        let site = shop.leave_site();
        let lines = trace(&site)[before..].to_vec();
        assert_eq!(lines.last().map(String::as_str), Some("OnShutdown"), "{lines:?}");
        let stops = ["on_worker_stop 0", "on_worker_stop 1", "on_worker_stop 2"];
        let stopped = lines.into_iter().filter(|it| it.starts_with("on_worker_stop"));
        assert_eq!(sorted(stopped.collect()), stops);
        site
    };
    site.assert_nothing_left();
}

#[test]
fn an_on_start_that_refuses_fails_the_start_with_its_words() {
    let site = site();
    let mut command = start_command(&site);
    let ended = crate::support::command::run(command.arg("-d").env("REFUSE", "1")).expect(1);
    assert!(ended.said().contains("on_start was told to refuse"), "{ended:?}");
    let lines = trace(&site);
    assert_eq!(lines, ["preload 1", "OnStart"], "no worker has begun");
    site.assert_nothing_left();
}

#[test]
fn an_on_worker_start_that_awaits_nothing_can_fail_as_well() {
    let mut site = Site::new();
    site.release("first", &binary::talkers());
    for how in ["fail", "panic"] {
        site.put("app.ledger", how);
        let said = site.fails();
        assert!(said.contains(&format!("it was told to {how}")), "{said}");
    }
    site.put("app.ledger", "shop.sqlite");
    let mut shop = site.start();
    shop.put("app.ledger", "panic");
    let reloaded = shop.reload_with(&[]);
    assert_eq!((reloaded.code, reloaded.outcome.as_str()), (1, "aborted"), "{reloaded:?}");
    assert!(reloaded.reason.unwrap().contains("on_worker_start has panicked: it was told to"));
    shop.stop();
}

#[test]
fn what_is_preloaded_is_the_templates_and_new_in_each_generation() {
    let mut shop = start(site().with("app.load", 1000));
    for (generation, load) in [(1, 1000), (2, 2000)] {
        let template = shop.status().pids("template", generation)[0];
        for _ in 0..4 {
            assert_eq!(shop.get("/preloaded").unwrap().text(), format!("{load} {template}"));
        }
        shop.put("app.load", 2000);
        if generation == 1 {
            shop.reload();
        }
    }
    shop.stop();
}

#[test]
fn timers_run_again_and_again_and_end_with_their_worker() {
    let shop = start(site());
    let ticks = |site: &Site| {
        let text = fs::read_to_string(site.path("trace")).unwrap_or_default();
        text.lines().filter(|line| *line == "tick").count()
    };
    until("it has ticked", || ticks(&shop.site) >= 3);
    wait_for(&shop.site, "after");
    shop.site.run(&["stop"]).expect(0);
    let lines = fs::read_to_string(shop.site.path("trace")).unwrap();
    let stopped = lines.lines().position(|line| line == "on_worker_stop 0").unwrap();
    assert!(!lines.lines().skip(stopped).any(|line| line == "tick"), "after on_worker_stop");
    assert_eq!(lines.matches("after\n").count(), 1);
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let shop = start(site().with("server.worker_num", 1));
    let mut waiting = shop.client();
    waiting.send(b"GET /drains HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker")[0].in_flight == 1);
    let mut client = shop.client();
    assert_eq!(client.get("/panic").unwrap().status, 500);
    assert_eq!(client.get("/who").unwrap().status, 200, "on the same connection");
    assert!(shop.site.log().contains("a handler panics"), "it is in the log");
    assert_eq!(shop.status().role("worker")[0].restarts, 0);
    // And what is in hand can wait for the drain.
    shop.reload();
    assert_eq!(waiting.receive().unwrap().text(), "drains");
    shop.stop();
}

#[test]
fn handlers_know_who_they_are_and_can_ask_the_server() {
    let shop = start(site().with("server.worker_num", 1));
    let status = shop.status();
    let (worker, manager) = (status.one("worker"), status.one("manager"));
    let expected = format!("0 {worker} {} {manager} 1 {}", status.pid, status.release);
    assert_eq!(shop.get("/who").unwrap().text(), expected);
    let stats = shop.get("/stats").unwrap().text();
    assert!(stats.contains("\"processes\"") && stats.contains(&worker.to_string()), "{stats}");
    let mut shop = shop;
    assert_eq!(shop.client().post("/shutdown", "").unwrap().text(), "()");
    assert_eq!(shop.wait(), 0);
    wait_gone(worker);
    shop.leave_site().assert_nothing_left();
}

#[test]
fn work_in_the_background_is_finished_before_the_worker_exits() {
    let shop = start(site().with("server.worker_num", 1));
    assert_eq!(shop.client().post("/spawn/300", "").unwrap().status, 200);
    shop.site.run(&["stop"]).expect(0);
    let lines = trace(&shop.site);
    let of = |line: &str| lines.iter().position(|it| it == line);
    let done = of("spawned work is done").expect("it is done");
    assert!(Some(done) < of("on_worker_stop 0"), "{lines:?}");
}

#[test]
fn a_guarded_section_outlives_the_deadline_and_other_work_does_not() {
    let shop = start(site().with("server.worker_num", 1).with("server.max_wait_time", "100ms"));
    let mut guarding = shop.client();
    guarding.send(b"POST /guard/2000 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker")[0].in_flight == 1);
    assert_eq!(shop.client().post("/spawn/20000", "").unwrap().status, 200);
    shop.site.run(&["stop"]).expect(0);
    let lines = trace(&shop.site);
    assert!(lines.iter().any(|it| it == "the guarded section is done"), "{lines:?}");
    assert!(!lines.iter().any(|it| it == "spawned work is done"), "{lines:?}");
    let log = shop.site.log();
    assert!(
        log.contains("cut at the deadline: POST /guard/2000"),
        "what was cut has a name: {log}"
    );
    assert!(log.contains("cut at the deadline: 1 pieces of background work"), "{log}");
}

#[test]
fn a_guarded_section_ends_with_its_own_time() {
    let site = site().with("server.worker_num", 1).with("server.max_wait_time", "100ms");
    let shop = start(site.with("server.guard_time", "100ms"));
    let mut guarding = shop.client();
    guarding.send(b"POST /guard/20000 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    shop.until("it is in hand", |status| status.role("worker")[0].in_flight == 1);
    shop.site.run(&["stop"]).expect(0);
    let (lines, log) = (trace(&shop.site), shop.site.log());
    assert!(!lines.iter().any(|it| it == "the guarded section is done"), "{lines:?}");
    assert!(log.contains("cut at the end of guard_time: 1 guarded sections"), "{log}");
    assert!(lines.iter().any(|it| it == "on_worker_stop 0"), "it has left by itself: {lines:?}");
}

#[test]
fn a_worker_stays_until_what_it_has_sent_is_answered() {
    let shop = start(site().with("server.worker_num", 1));
    assert_eq!(shop.client().post("/detach/late", "").unwrap().text(), "Ok(())");
    shop.site.run(&["stop"]).expect(0);
    let log = shop.site.log();
    assert!(log.contains("a task that nobody awaits has failed"), "{log}");
    assert!(log.contains("it was told to fail late"), "{log}");
}

#[test]
fn tasks_of_a_worker_that_died_are_done_before_a_stop_ends() {
    let shop = start(site().with("server.worker_num", 1));
    let mut client = shop.client();
    let worker = shop.status().role("worker")[0].pid;
    (0..5).for_each(|_| assert_eq!(client.post("/detach/late", "").unwrap().text(), "Ok(())"));
    send(worker, signal::KILL);
    wait_gone(worker);
    shop.site.run(&["stop"]).expect(0);
    let lines = trace(&shop.site);
    assert_eq!(lines.iter().filter(|it| *it == "a late task is done").count(), 5, "{lines:?}");
}

#[test]
fn tasks_beyond_the_deadline_are_cut_and_named() {
    let shop = start(site().with("server.worker_num", 1).with("server.max_wait_time", "100ms"));
    let mut client = shop.client();
    // One runs, and the other waits for its end.
    assert_eq!(client.post("/detach/hang", "").unwrap().text(), "Ok(())");
    shop.until("it runs", |status| status.role("task_worker")[0].in_flight == 1);
    assert_eq!(client.post("/detach/well", "").unwrap().text(), "Ok(())");
    shop.site.run(&["stop"]).expect(0);
    let log = shop.site.log();
    let said = |what: &str| {
        log.lines().filter(|line| line.contains(what) && line.contains("work")).count()
    };
    assert_eq!(said("unanswered task cut at the drain's deadline"), 2, "{log}");
    assert_eq!(said("running task cut at the drain's deadline"), 1, "{log}");
}

#[test]
fn a_task_that_hangs_is_answered_at_its_deadline() {
    // Two task workers: the one that hangs is in nobody's way.
    let shop = start(site().with("server.task_timeout", "700ms").with("server.task_worker_num", 2));
    let task = |how: &str| shop.client().post(&format!("/task/{how}"), "").unwrap().text();
    assert_eq!(task("hang"), "task `work`: no answer within 700ms");
    assert!(task("well").starts_with("done by "));
    // Both hang: what waits in the queue has the same deadline, and is not run after it.
    assert_eq!(task("hang"), "task `work`: no answer within 700ms");
    assert_eq!(task("well"), "task `work`: no answer within 700ms");
    shop.signal(signal::QUIT);
    let mut shop = shop;
    shop.wait();
}

#[test]
fn a_task_is_answered_whatever_becomes_of_it() {
    let shop = start(site());
    let task = |how: &str| shop.client().post(&format!("/task/{how}"), "").unwrap().text();
    assert_eq!(task("well"), "done by 2");
    assert!(task("fail").contains("it was told to fail"));
    assert!(task("panic").contains("panic"), "and the task worker goes on");
    assert_eq!(shop.status().role("task_worker")[0].restarts, 0);
    let died = task("die");
    assert!(died.contains("died") || died.contains("task worker"), "{died}");
    assert_eq!(task("well"), "done by 2", "by its successor");
    shop.until("it was replaced", |status| {
        status.role("task_worker").iter().any(|it| it.restarts == 1)
    });
    shop.stop();
}

#[test]
fn a_full_queue_makes_senders_wait_or_fail_as_they_choose() {
    let mut site = site();
    site.put("server.worker_num", 1);
    site.put("server.task_worker_num", 1);
    site.put("server.task_max_size", "1KiB");
    site.put("server.task_queue_size", "4KiB");
    let shop = start(site);
    // Each of these takes its time, so that the queue fills.
    let mut sent = 0;
    let refused = loop {
        let answer = shop.client().post("/try/late", "").unwrap().text();
        match answer.as_str() {
            "sent" => sent += 1,
            _ => break answer,
        }
        assert!(sent < 1_000, "the queue has no end");
    };
    assert!(refused.contains("work") && refused.contains("full"), "{refused}");
    // This one waits for its turn.
    let waited = shop.client().post("/task/well", "").unwrap().text();
    assert!(waited.starts_with("done by "), "{waited}");
    // What was taken in was run, and nothing else.
    until("all that was sent is done", || {
        trace(&shop.site).iter().filter(|line| *line == "a late task is done").count() == sent
    });
    assert_eq!(shop.client().post("/try/well", "").unwrap().text(), "sent");
    shop.stop();
}
