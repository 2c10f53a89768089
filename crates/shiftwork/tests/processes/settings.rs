//! Where settings come from, and how a mistake in them is told.

use crate::support::command::run;
use crate::support::shop::{Shop, Site};

#[test]
fn check_prints_every_setting_with_its_source() {
    let site = Site::new();
    let ended = run(site
        .command(&["check", "--set", "server.max_wait_time=7s"])
        .env("SHIFTWORK__SERVER__BACKLOG", "77"))
    .expect(0);
    for (key, value) in
        [("worker_num", "2"), ("backlog", "77"), ("max_wait_time", "7s"), ("release", "1")]
    {
        let line = ended.stdout.lines().find(|line| line.contains(key));
        assert!(line.is_some_and(|line| line.contains(value)), "{key}: {}", ended.stdout);
    }
    assert!(ended.stdout.contains("SHIFTWORK__SERVER__BACKLOG"), "{}", ended.stdout);
    assert!(ended.stdout.contains("shop.toml"), "{}", ended.stdout);
    assert!(ended.stdout.contains("--set"), "{}", ended.stdout);
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    let site = Site::new().with("server.worker_nun", 3);
    for arguments in [&["check"][..], &["start", "-d"][..]] {
        let ended = site.run(arguments).expect(2);
        assert!(ended.stderr.contains("worker_nun"), "{ended:?}");
        assert!(ended.stderr.contains("worker_num"), "{ended:?}");
        assert!(ended.stderr.contains("shop.toml"), "{ended:?}");
    }
    site.assert_nothing_left();
}

#[test]
fn an_unknown_fault_is_told_with_the_known_ones() {
    let site = Site::new().with("app.fault", "exit_at_strat");
    let ended = site.run(&["check"]).expect(2);
    assert!(ended.stderr.contains("exit_at_strat"), "{ended:?}");
    assert!(ended.stderr.contains("exit_at_start"), "{ended:?}");
}

#[test]
fn an_address_that_could_not_be_bound_is_told_by_check() {
    let site = Site::new().with("listen.web.address", "vm:19711");
    for arguments in [&["check"][..], &["start", "-d"]] {
        let ended = site.run(arguments).expect(2);
        assert!(ended.stderr.contains("listen.web.address"), "{ended:?}");
        assert!(ended.stderr.contains("names are not looked up"), "{ended:?}");
    }
    site.assert_nothing_left();
}

#[test]
fn flags_win_over_environment_over_file() {
    let site = Site::new();
    let mut command = site.command(&["check", "--set", "server.worker_num=5"]);
    let ended = run(command
        .env("SHIFTWORK__SERVER__WORKER_NUM", "4")
        .env("SHIFTWORK__APP__RELEASE", "from-environment"))
    .expect(0);
    let line =
        |key: &str| ended.stdout.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("server.worker_num").contains('5'), "{}", ended.stdout);
    assert!(line("app.release").contains("from-environment"), "{}", ended.stdout);
}

#[test]
fn the_shop_works_without_a_settings_file() {
    let site = Site::new();
    let folder = site.path("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    // No --config, and no shop.toml where the command is typed.
    let mut command = std::process::Command::new(site.path("current/shop"));
    command.current_dir(&folder).args(["start", "-d"]);
    let mut common = vec!["--set".to_owned(), format!("server.run_dir={}", folder.display())];
    for key in ["listen.web.address", "listen.till.address"] {
        common.extend(["--set".to_owned(), format!("{key}=127.0.0.1:0")]);
    }
    run(command.args(&common)).expect(0);
    let mut stop = std::process::Command::new(site.path("current/shop"));
    stop.current_dir(&folder).arg("stop").arg("--control").arg(folder.join("shop.sock"));
    run(&mut stop).expect(0);
    assert!(folder.join("shop.sqlite").exists(), "the ledger is not where the command was typed");
    site.assert_nothing_left();
}

#[test]
fn broken_settings_fail_a_reload_by_name() {
    let mut shop = Shop::start();
    let control = shop.site.path("run/shop.sock");
    let control = control.to_str().unwrap();
    for (text, named) in
        [("[server]\nworker_nun = 3\n", "worker_nun"), ("this is no toml [", "shop.toml")]
    {
        shop.site.write_settings(text);
        let ended = shop.site.run(&["reload", "--control", control]).expect(1);
        assert!(ended.said().contains(named), "{ended:?}");
        assert_eq!(shop.get("/hello").unwrap().generation(), 1);
    }
    shop.put("server.worker_nun", 3);
    let ended = shop.site.run(&["reload"]).expect(1);
    assert!(ended.said().contains("worker_nun"), "{ended:?}");
    let mut settings = shop.site.run(&["status", "--json", "--control", control]).expect(0).stdout;
    settings.retain(|c| !c.is_whitespace());
    assert!(settings.contains(r#""generation":1"#), "{settings}");
    shop.remove("server.worker_nun");
    shop.reload();
    shop.stop();
}

#[test]
fn reload_reads_the_settings_anew() {
    let mut shop = Shop::start();
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("1"));
    shop.put("app.release", "two");
    shop.reload();
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("two"));
    assert_eq!(shop.status().release, "two");
    shop.stop();
}

#[test]
fn reload_set_holds_from_then_on() {
    let mut shop = Shop::start();
    assert_eq!(shop.reload_with(&["--set", "app.release=2"]).code, 0);
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("2"));
    shop.put("app.release", "from-file");
    shop.reload();
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("2"));
    shop.reload_with(&["--set", "app.release=3"]);
    assert_eq!(shop.get("/hello").unwrap().header("x-release"), Some("3"));
    shop.stop();
}

#[test]
fn a_reload_set_that_fails_is_forgotten() {
    let shop = Shop::start();
    let reloaded = shop.reload_with(&["--set", "app.fault=exit_at_start"]);
    assert_eq!(reloaded.code, 1, "{reloaded:?}");
    shop.reload();
    shop.stop();
}

#[test]
fn log_level_holds_for_manager_and_master_from_the_reload_that_brings_it() {
    let mut shop = Shop::start();
    shop.put("server.log_level", "error");
    shop.reload();
    shop.site.run(&["reload"]).expect(0);
    assert!(!shop.site.log().contains("generation 3"), "{}", shop.site.log());
    // So it stays for programs and managers that come later.
    shop.site.run(&["upgrade"]).expect(0);
    shop.site.run(&["reload"]).expect(0);
    assert!(!shop.site.log().contains("generation 5"), "{}", shop.site.log());
    shop.put("server.log_level", "info");
    shop.reload();
    shop.site.run(&["reload"]).expect(0);
    assert!(shop.site.log().contains("generation 7 is committed"), "{}", shop.site.log());
    shop.stop();
}
