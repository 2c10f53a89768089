//! Metrics: what is counted, over reloads and deaths.

use shiftwork_supervisor::control::status::Status;
use shiftwork_supervisor::metrics::{AcceptQueue, Metrics, render};
use shiftwork_sys::signal;

use crate::support::exposition::{Exposition, scrape};
use crate::support::load::Load;
use crate::support::processes::send;
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, within};

#[test]
fn requests_add_up_over_reloads_and_no_total_goes_back() {
    let shop = Shop::start();
    let before = scrape(&shop);
    let load = Load::keep_alive(shop.web(), 4);
    let mut last = before;
    for _ in 0..3 {
        load.wait_more(200);
        shop.reload();
        let now = scrape(&shop);
        now.assert_not_behind(&last);
        last = now;
    }
    let counts = load.finish();
    counts.assert_flawless();
    // A request counts when its answer has been handed on, which the client may see first.
    let (name, ok) = ("shiftwork_requests_total", &[("class", "2xx")]);
    let end = within(LONG, "all requests are counted", || {
        let now = scrape(&shop);
        (now.value(name, ok) >= counts.answered as f64).then_some(now)
    });
    end.assert_not_behind(&last);
    assert_eq!(end.value(name, ok), counts.answered as f64);
    let all = end.sum(name, &[]);
    assert_eq!(end.value("shiftwork_request_duration_seconds_count", &[]), all);
    assert!(end.value("shiftwork_request_duration_seconds_sum", &[]) > 0.0);
    assert_eq!(end.value("shiftwork_reloads_total", &[("outcome", "committed")]), 3.0);
    assert_eq!(end.value("shiftwork_generation", &[]), 4.0);
    let handed = end.value("shiftwork_connections_handed_over_total", &[]);
    let adopted = end.value("shiftwork_connections_adopted_total", &[]);
    assert!(handed >= 3.0, "four clients, three reloads: {handed} were handed over");
    assert_eq!(handed, adopted);
    assert_eq!(end.value("shiftwork_hand_over_failures_total", &[]), 0.0);
    assert!(end.value("shiftwork_memory_bytes", &[]) > 1e6);
    assert_eq!(end.sum("shiftwork_accept_queue_connections", &[("listener", "web")]), 0.0);
    shop.stop();
}

#[test]
fn failures_tasks_and_deaths_have_their_own_counts() {
    let mut shop = Site::new().with("server.worker_num", 1).start();
    let mut client = shop.client();
    assert_eq!(client.get("/no/such/page").unwrap().status, 404);
    assert_eq!(client.post("/orders", r#"{"item":"lamp","quantity":1}"#).unwrap().status, 201);
    let first = within(LONG, "everything is counted", || {
        let now = scrape(&shop);
        (now.value("shiftwork_requests_total", &[("class", "2xx")]) == 1.0).then_some(now)
    });
    let requests = |class| first.value("shiftwork_requests_total", &[("class", class)]);
    assert_eq!((requests("5xx"), requests("4xx"), requests("none")), (0.0, 1.0, 0.0));
    assert_eq!(first.value("shiftwork_handler_errors_total", &[]), 0.0);
    assert_eq!(first.value("shiftwork_tasks_total", &[("result", "done")]), 1.0);
    assert_eq!(first.value("shiftwork_task_duration_seconds_count", &[]), 1.0);
    let own = [("role", "worker"), ("worker_id", "0"), ("generation", "1"), ("class", "4xx")];
    assert_eq!(first.value("shiftwork_worker_requests_total", &own), 1.0);

    for signo in [signal::KILL, signal::TERM] {
        let pid = shop.status().one("worker");
        send(pid, signo);
        shop.until("it is replaced", |status| {
            let workers = status.role("worker");
            workers.len() == 1 && workers[0].pid != pid && workers[0].state == "serving"
        });
    }
    shop.put("app.fault", "panic_in_preload");
    shop.reload_fails();
    let second = scrape(&shop);
    second.assert_not_behind(&first);
    let crash = [("role", "worker"), ("cause", "crash")];
    assert_eq!(second.value("shiftwork_respawns_total", &crash), 1.0);
    let told = [("role", "worker"), ("cause", "signal")];
    assert_eq!(second.value("shiftwork_respawns_total", &told), 1.0);
    assert_eq!(second.sum("shiftwork_respawns_total", &[]), 2.0);
    assert_eq!(second.value("shiftwork_reloads_total", &[("outcome", "aborted")]), 1.0);
    assert_eq!(
        second.value("shiftwork_reload_duration_seconds_count", &[("outcome", "aborted")]),
        1.0
    );

    // The next manager goes on counting where this one was.
    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    shop.until("there is another manager", |status| {
        status.role("manager").iter().all(|it| it.pid != manager && it.pid != 0)
    });
    let third = scrape(&shop);
    third.assert_not_behind(&second);
    assert_eq!(third.value("shiftwork_manager_restarts_total", &[]), 1.0);
    assert_eq!(third.value("shiftwork_respawns_total", &crash), 1.0);
    shop.stop();
}

#[test]
fn names_that_would_end_a_label_are_written_all_the_same() {
    let odd = "a\"b\\c\nd{e=\"f\"} 7\n# EOF";
    let status =
        Status { generation: 7, release: odd.into(), uptime_ms: 1500, ..Status::default() };
    let queue = AcceptQueue { listener: odd.into(), slot: 3, waiting: 9 };
    let text = render(Metrics {
        status,
        sums: Default::default(),
        workers: Vec::new(),
        queues: vec![queue],
        tally: Default::default(),
        manager_deaths: 2,
    });
    let read = Exposition::read(&text);
    let labels = [("listener", odd), ("slot", "3")];
    assert_eq!(read.value("shiftwork_accept_queue_connections", &labels), 9.0);
    assert_eq!(read.sum("shiftwork_build_info", &[("release", odd)]), 1.0);
    assert_eq!(read.value("shiftwork_uptime_seconds", &[]), 1.5);
}
