//! Who takes connections up, and what if there is no room for them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};

use shiftwork_sys::signal;

use crate::support::processes::{send, wait_gone};
use crate::support::shop::{Process, Shop, Site, Status};
use crate::support::talk::{ring, stream};
use crate::support::wait::{LONG, within};

type Till = BufReader<TcpStream>;

/// So many open connections, each of which has counted to one.
fn tills(shop: &Shop, many: usize) -> Vec<Till> {
    let mut tills: Vec<Till> = (0..many).map(|_| BufReader::new(stream(shop.till()))).collect();
    for till in &mut tills {
        assert_eq!(ring(till, "count"), "1");
    }
    tills
}

/// All of them count on where they were.
#[track_caller]
fn count_on(tills: &mut [Till], count: u32) {
    for till in tills {
        assert_eq!(ring(till, "count"), count.to_string());
    }
}

/// Connections of each worker, once all are counted where they are.
#[track_caller]
fn shares(shop: &Shop, workers: usize, all: u64) -> Vec<u64> {
    let status = shop.until("all are counted where they are", |status| {
        let held = status.role("worker").iter().map(|it| it.connections).sum::<u64>();
        held == all && status.role("worker").len() == workers
    });
    status.role("worker").iter().map(|it| it.connections).collect()
}

/// Two packets of sixteen connections.
const APART: u64 = 32;

#[test]
fn those_who_adopt_share_them() {
    for workers in [2, 4] {
        let shop = Site::new().with("server.worker_num", workers).start();
        let mut tills = tills(&shop, 400);
        for round in 2..=3 {
            shop.reload();
            count_on(&mut tills, round);
            let shares = shares(&shop, workers as usize, 400);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= APART, "uneven: {shares:?}");
        }
        // Those of one that retires go to its successor, which has none.
        let before = shop.status().role("worker")[0].pid;
        send(before, signal::TERM);
        wait_gone(before);
        count_on(&mut tills, 4);
        let shares = shares(&shop, workers as usize, 400);
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 2 * APART, "uneven: {shares:?}");
        shop.stop();
    }
}

#[test]
fn a_canary_takes_up_nothing_while_it_is_judged() {
    let mut shop = Site::new().with("server.worker_num", 2).start();
    let mut tills = tills(&shop, 200);
    shop.put("server.canary_time", "60s");
    std::thread::scope(|scope| {
        scope.spawn(|| shop.site.run(&["reload"]));
        let canary = |status: &Status| -> Option<Process> {
            let of = |it: &&&Process| it.generation == Some(2) && it.state == "serving";
            status.role("worker").iter().find(of).map(|it| (**it).clone())
        };
        shop.until("the canary serves", |status| canary(status).is_some());
        let victim = shop.status().pids("worker", 1)[0];
        send(victim, signal::TERM);
        wait_gone(victim);
        count_on(&mut tills, 2);
        let status = shop.until("all are counted where they are", |status| {
            status.role("worker").iter().map(|it| it.connections).sum::<u64>() == 200
        });
        assert_eq!(canary(&status).map(|it| it.connections), Some(0), "{status:#?}");
        shop.site.run(&["stop"]).expect(0);
    });
}

/// Kept, and lost: nobody's count begins anew, and nobody waits for ever.
fn survey(tills: &mut [Till]) -> (usize, usize) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for till in tills.iter_mut() {
        let mut answer = String::new();
        let asked = till.get_mut().write_all(b"count\n").is_ok();
        let told = asked && till.read_line(&mut answer).is_ok_and(|read| read > 0);
        let told = if told { answer.trim_end().to_owned() } else { "lost".to_owned() };
        *counts.entry(told).or_default() += 1;
    }
    let many = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!(many("2") + many("lost"), tills.len(), "{counts:?}");
    (many("2"), many("lost"))
}

#[test]
fn an_adopter_that_dies_costs_only_what_it_had_taken() {
    let shop = Site::new().with("server.worker_num", 2).start();
    let mut tills = tills(&shop, 400);
    let old = shop.status().pids("worker", 1);
    // The old ones wait with what they have until somebody takes it: the one adopter that there will
    // be at first is stopped in the middle, and killed.
    let victim = std::thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload());
        let victim = within(LONG, "a worker of the new generation", || {
            shop.status().pids("worker", 2).first().copied().filter(|pid| *pid > 0)
        });
        reload.join().unwrap();
        send(victim, signal::STOP);
        victim
    });
    let taken = shop.status().processes.iter().find(|it| it.pid == victim).unwrap().connections;
    send(victim, signal::KILL);
    wait_gone(victim);
    old.into_iter().for_each(wait_gone);
    let (_, lost) = survey(&mut tills);
    assert!(lost as u64 <= taken, "{lost} are lost, and it had taken {taken}");
    shop.stop();
}

#[test]
fn adopters_that_stand_still_lose_nothing() {
    let shop =
        Site::new().with("server.worker_num", 2).with("server.heartbeat_timeout", "0s").start();
    let mut tills = tills(&shop, 600);
    let old = shop.status().pids("worker", 1);
    let stopped = std::thread::scope(|scope| {
        let reload = scope.spawn(|| shop.reload());
        let fresh = within(LONG, "the workers of the new generation", || {
            let fresh = shop.status().pids("worker", 2);
            (fresh.len() == 2 && fresh.iter().all(|pid| *pid > 0)).then_some(fresh)
        });
        reload.join().unwrap();
        fresh.iter().for_each(|pid| send(*pid, signal::STOP));
        fresh
    });
    // More wait than the queue has room for; the old ones keep them.
    shop.until("nothing moves", |_| true);
    assert_eq!(stopped.len(), 2);
    stopped.iter().for_each(|pid| send(*pid, signal::CONT));
    old.into_iter().for_each(wait_gone);
    assert_eq!(survey(&mut tills), (600, 0));
    shop.stop();
}

/// A user of this test's own: what it may have on its way counts for all its processes.
const USER: u32 = 61_235;

#[test]
fn a_user_with_few_descriptors_loses_nothing() {
    let mut site = Site::new().with("server.worker_num", 2).with("server.open_files", 256);
    // For root there is no limit to descriptors under way.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        site.put("server.user", USER.to_string());
        site.put("server.group", USER.to_string());
        chown(site.path(""), Some(USER), None).unwrap();
    }
    let shop = site.start();
    let mut tills = tills(&shop, 380);
    for round in 2..=4 {
        shop.reload();
        count_on(&mut tills, round);
    }
    assert!(!shop.site.log().contains("connections were closed"));
    shop.stop();
}

#[test]
fn a_worker_without_a_free_descriptor_hands_over_all_the_same() {
    let shop = Site::new().with("server.worker_num", 1).with("server.open_files", 64).start();
    let mut waiting: Vec<Till> = (0..80).map(|_| BufReader::new(stream(shop.till()))).collect();
    for till in &mut waiting {
        till.get_mut().write_all(b"count\n").unwrap();
    }
    shop.wait_log("cannot accept on listener till");
    let mut served = Vec::new();
    for mut till in waiting {
        let patience = if served.len() < 20 { LONG } else { std::time::Duration::from_millis(50) };
        till.get_mut().set_read_timeout(Some(patience)).unwrap();
        let mut answer = String::new();
        if till.read_line(&mut answer).is_ok_and(|read| read > 0) {
            till.get_mut().set_read_timeout(Some(LONG)).unwrap();
            served.push(till);
        }
    }
    let full = served.len();
    assert!((20..64).contains(&full), "{full}");
    shop.reload();
    count_on(&mut served, 2);
    shop.stop();
}
