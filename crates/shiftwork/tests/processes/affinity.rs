//! `cpu_affinity`: who keeps to which processors.

use std::fs;

use shiftwork_sys::cpu;

use crate::support::shop::{Shop, Site, Status};

/// Processors of a process, as the kernel lists them.
fn processors(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

/// By worker id, task workers last.
fn kept(status: &Status) -> Vec<String> {
    let mut all = status.role("worker");
    all.extend(status.role("task_worker"));
    all.sort_by_key(|it| it.worker_id);
    all.iter().map(|it| processors(it.pid)).collect()
}

/// Over these, round and round.
fn rounds(over: &[u32], number: usize) -> Vec<String> {
    over.iter().cycle().take(number).map(u32::to_string).collect()
}

/// When the processes of an older generation are gone.
fn settled(shop: &Shop) -> Status {
    shop.until("three processes serve", |status| {
        status.role("worker").len() == 2 && status.role("task_worker").len() == 1
    })
}

#[test]
fn processes_keep_to_their_own_of_those_that_may_be_used() {
    let all = cpu::allowed().unwrap();
    let mut shop = Site::new().with("server.cpu_affinity", true).start();
    let status = shop.status();
    assert_eq!(kept(&status), rounds(&all, 3));
    // Who loads and who watches is not bound.
    let own = processors(std::process::id().cast_signed());
    for role in ["master", "manager", "template"] {
        assert_eq!(processors(status.one(role)), own, "{role}");
    }
    if let [first, rest @ ..] = &all[..]
        && !rest.is_empty()
    {
        shop.put("server.cpu_affinity_ignore", vec![i64::from(*first)]);
        shop.reload();
        assert_eq!(kept(&settled(&shop)), rounds(rest, 3));
    }
    shop.put("server.cpu_affinity", false);
    shop.reload();
    assert_eq!(kept(&settled(&shop)), vec![own; 3]);

    shop.put("server.cpu_affinity", true);
    shop.put("server.cpu_affinity_ignore", (0..1024_i64).collect::<Vec<_>>());
    let reason = shop.reload_fails().reason.unwrap_or_default();
    assert!(reason.contains("server.cpu_affinity_ignore"), "{reason}");
    shop.stop();
}

#[test]
fn a_narrower_choice_from_outside_is_respected() {
    // As under taskset: what a thread keeps to, its children inherit.
    let tried = std::thread::spawn(|| {
        let one = *cpu::allowed().unwrap().last().unwrap();
        cpu::keep_to(&[one]).unwrap();
        let shop = Site::new().with("server.cpu_affinity", true).start();
        assert_eq!(kept(&shop.status()), rounds(&[one], 3));
        shop.stop();
    });
    tried.join().unwrap();
}
