//! Every rule of the settings, and that nothing typed can break them.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct App {
    release: String,
    fault: Option<String>,
    #[serde(default)]
    retries: u32,
    mail: Mail,
}

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Mail {
    from: String,
    max_size: u32,
}

impl Default for App {
    fn default() -> Self {
        Self { release: "1".into(), fault: None, retries: 0, mail: Mail::default() }
    }
}

#[derive(Default)]
struct Given {
    file: Option<String>,
    environment: Vec<(String, String)>,
    overrides: Vec<String>,
    builder: Table,
}

impl Given {
    fn load(&self) -> Result<Settings, SettingsErrors> {
        let snapshot = Snapshot {
            directory: "/home/me".into(),
            file: self.file.clone().map(|text| ("/etc/shop/shop.toml".into(), text)),
            overrides: self.overrides.clone(),
        };
        let mut builder: Table = "[listen.web]\naddress = '127.0.0.1:9501'\n\
            [listen.Till-2]\naddress = '127.0.0.1:9502'"
            .parse()
            .unwrap();
        builder.extend(self.builder.clone());
        load(&Inputs {
            snapshot: &snapshot,
            environment: &self.environment,
            builder: &builder,
            listeners: &["web", "Till-2"],
            http_listeners: &["web"],
            app_default: &app_default::<App>().unwrap(),
            app_check: &app_problems::<App>,
        })
    }

    fn errors(&self) -> Vec<String> {
        self.load()
            .err()
            .map(|it| it.0.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }
}

fn file(text: &str) -> Given {
    Given { file: Some(text.into()), ..Given::default() }
}

fn set(overrides: &[&str]) -> Given {
    Given { overrides: overrides.iter().map(|it| (*it).into()).collect(), ..Given::default() }
}

fn environment(variables: &[(&str, &str)]) -> Given {
    let environment = variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Given { environment, ..Given::default() }
}

#[test]
fn defaults_alone() {
    let settings = Given::default().load().unwrap();
    assert_eq!(settings.server, ServerSettings::default());
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.app::<App>().unwrap(), App::default());
    assert_eq!(settings.base, Path::new("/home/me"));
    assert_eq!(settings.sources["server.worker_num"], Source::Default);
    assert_eq!(settings.sources["listen.web.address"], Source::Builder);
}

#[test]
fn later_layers_win() {
    let mut given = Given {
        builder: "server = { backlog = 2, worker_num = 2, max_request = 2, task_worker_num = 2 }"
            .parse()
            .unwrap(),
        file: Some("[server]\nworker_num = 3\nmax_request = 3\ntask_worker_num = 3".into()),
        environment: vec![
            ("SHIFTWORK__SERVER__MAX_REQUEST".into(), "4".into()),
            ("SHIFTWORK__SERVER__TASK_WORKER_NUM".into(), "4".into()),
        ],
        overrides: vec!["server.task_worker_num=9".into(), "server.task_worker_num=5".into()],
    };
    let settings = given.load().unwrap();
    let server = &settings.server;
    assert_eq!(
        (server.backlog, server.worker_num, server.max_request, server.task_worker_num),
        (2, 3, 4, 5)
    );
    let source = |key: &str| settings.sources[&format!("server.{key}")].to_string();
    assert_eq!(source("backlog"), "the program");
    assert_eq!(source("worker_num"), "/etc/shop/shop.toml:2");
    assert_eq!(source("max_request"), "environment SHIFTWORK__SERVER__MAX_REQUEST");
    assert_eq!(source("task_worker_num"), "--set server.task_worker_num=5");
    given.overrides.push(DAEMONIZE.into());
    let settings = given.load().unwrap();
    assert!(settings.server.daemonize);
    assert_eq!(settings.sources["server.daemonize"], Source::Daemonize);
}

#[test]
fn text_becomes_what_the_default_is() {
    let settings = set(&[
        "app.release=2",
        "app.fault=7",
        "app.retries=3",
        "app.mail.from=\"me\"",
        "server.daemonize=yes",
        "server.user=1000",
        "server.umask=0027",
        "server.max_request_grace=5",
        "server.max_wait_time=1m 5s",
        "server.listen_mode=shared",
        "limits.body_size=2MiB",
        "listen.web.address=[::1]:80",
    ])
    .load()
    .unwrap();
    let app: App = settings.app().unwrap();
    assert_eq!((&*app.release, app.fault.as_deref(), app.retries), ("2", Some("7"), 3));
    assert_eq!(app.mail.from, "me");
    let server = settings.server;
    assert!(server.daemonize);
    assert_eq!(server.user.as_deref(), Some("1000"));
    assert_eq!(server.umask.as_deref(), Some("0027"));
    assert_eq!(server.max_request_grace, Some(5));
    assert_eq!(server.max_wait_time, Duration::from_secs(65));
    assert_eq!(settings.limits.body_size.0, 2 << 20);
    assert_eq!(settings.listen["web"], "[::1]:80");
}

#[test]
fn variables_find_names_that_they_cannot_spell() {
    let settings = environment(&[
        ("SHIFTWORK__LISTEN__TILL_2__ADDRESS", "127.0.0.1:1"),
        ("SHIFTWORK__APP__MAIL__MAXSIZE", "9"),
        ("SHIFTWORK_ROLE", "not a setting"),
        ("PATH", "/bin"),
    ])
    .load()
    .unwrap();
    assert_eq!(settings.listen["Till-2"], "127.0.0.1:1");
    assert_eq!(settings.app::<App>().unwrap().mail.max_size, 9);
}

#[test]
fn unknown_names_are_errors_with_the_nearest_name() {
    for (text, expected) in [
        ("server.worker_nmu=1", "did you mean server.worker_num?"),
        ("limits.body_sise=1", "did you mean limits.body_size?"),
        ("worker_num=1", "did you mean server.worker_num?"),
        ("sever.worker_num=1", "did you mean server.worker_num?"),
        ("listen.wbe.address=127.0.0.1:1", "did you mean listen.web.address?"),
        ("listen.web.adress=127.0.0.1:1", "did you mean listen.web.address?"),
        ("listen.shop.address=127.0.0.1:1", "this program has: web, Till-2"),
        ("listen.web=127.0.0.1:1", "address ="),
        ("app.relaese=2", "did you mean app.release?"),
        ("app.mail.form=x", "did you mean app.mail.from?"),
        ("app.release.x=2", "app.release is a value"),
        ("server=2", "this is a table"),
        ("server.worker_num.x=2", "has no parts"),
        ("server.worker_num", "KEY=VALUE"),
        ("=2", "KEY=VALUE"),
        ("server..x=2", "KEY=VALUE"),
    ] {
        let errors = set(&[text]).errors();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].contains(expected), "{text}: {}", errors[0]);
        assert!(errors[0].contains(&format!("--set {text}")), "{text}: {}", errors[0]);
    }
    let errors = environment(&[("SHIFTWORK__SERVER__WORKERS_NUM", "1")]).errors();
    assert_eq!(
        errors,
        ["server.workers_num (environment SHIFTWORK__SERVER__WORKERS_NUM): there is no such \
          setting; did you mean server.worker_num?"]
    );
    assert_eq!(environment(&[("SHIFTWORK__", "1"), ("SHIFTWORK__SERVER", "1")]).errors().len(), 2);
    assert_eq!(set(&[&format!("app{}=1", ".a".repeat(9000))]).errors().len(), 1);
}

#[test]
fn everything_is_found_at_once_with_file_and_line() {
    let errors = file(
        "[server]\nworker_num = \"many\"\nworker_threads = 0\nlog_level = \"inof\"\n\
         umask = \"9\"\nhello = 1\nmax_wait_time = 30\n[limits]\nheader_size = \"1KiB\"\n\
         [listen.web]\naddress = \"nowhere\"\n[app]\nretries = -1\nrelease = 2\n[colour]\nx = 1",
    )
    .errors();
    let lines: Vec<&str> = errors
        .iter()
        .map(|it| it.split_once("shop.toml:").unwrap().1.split_once(')').unwrap().0)
        .collect();
    let mut sorted = lines.iter().map(|it| it.parse::<u32>().unwrap()).collect::<Vec<_>>();
    sorted.sort_unstable();
    assert_eq!(sorted, [2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 15], "{errors:#?}");
}

#[test]
fn a_file_that_is_no_toml_is_explained_by_line_and_the_rest_checked() {
    let mut given = file("[server]\nworker_num = 2\nlog_level = = 3\n[limits]\nbody_siz = 1\n");
    given.overrides.push("server.x=1".into());
    let errors = given.errors();
    assert!(errors[0].starts_with("/etc/shop/shop.toml:3: this is not TOML"), "{errors:#?}");
    assert!(errors.iter().any(|it| it.contains("limits.body_size")), "{errors:#?}");
    assert!(errors.iter().any(|it| it.contains("--set server.x=1")), "{errors:#?}");
}

#[test]
fn paths_start_where_they_were_written() {
    let mut given = file("[server]\npid_file = 'run/a.pid'\nlog_file = '/var/log/a'\nrun_dir='r'");
    given.overrides = vec!["server.run_dir=./mine".into(), "listen.web.address=unix:w.sock".into()];
    given.environment = vec![("SHIFTWORK__SERVER__EXECUTABLE".into(), "bin/shop".into())];
    let settings = given.load().unwrap();
    let path = |it: &Option<PathBuf>| it.clone().unwrap();
    assert_eq!(path(&settings.server.pid_file), Path::new("/etc/shop/run/a.pid"));
    assert_eq!(path(&settings.server.log_file), Path::new("/var/log/a"));
    assert_eq!(path(&settings.server.run_dir), Path::new("/home/me/mine"));
    assert_eq!(path(&settings.server.executable), Path::new("/home/me/bin/shop"));
    assert_eq!(settings.listen["web"], "unix:/home/me/w.sock");
    assert_eq!(settings.base, Path::new("/etc/shop"));
    let settings = file("listen.web.address = 'unix:w.sock'").load().unwrap();
    assert_eq!(settings.listen["web"], "unix:/etc/shop/w.sock");
}

#[test]
fn listeners_need_an_address_of_their_own() {
    let given = Given { builder: "listen = {}".parse().unwrap(), ..Given::default() };
    let errors = given.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("no address") && errors[0].contains("[listen.web]"), "{errors:?}");
    let errors = set(&["listen.web.address=127.0.0.1:9502"]).errors();
    assert!(errors[0].contains("already"), "{errors:?}");
    let any = set(&["listen.web.address=127.0.0.1:0", "listen.Till-2.address=127.0.0.1:0"]);
    assert_eq!(any.errors(), [""; 0]);
    assert!(file("listen.web.address = 80").errors()[0].contains("must be a string"));
}

#[test]
fn who_is_asked_for_its_health_has_to_be_there_and_to_speak_http() {
    for right in ["/health", "web:/health"] {
        assert_eq!(set(&[&format!("server.health={right}")]).errors(), [""; 0]);
    }
    for wrong in ["wbe", "Till-2"] {
        let errors = set(&[&format!("server.health={wrong}:/health")]).errors();
        let reason = format!("there is no {wrong:?} that speaks HTTP");
        assert!(errors.len() == 1 && errors[0].contains(&reason), "{errors:?}");
    }
}

#[test]
fn an_application_without_settings_takes_none() {
    let snapshot = Snapshot { overrides: vec!["app.x=1".into()], ..Snapshot::default() };
    let inputs = Inputs {
        snapshot: &snapshot,
        environment: &[],
        builder: &Table::new(),
        listeners: &[],
        http_listeners: &[],
        app_default: &Table::new(),
        app_check: &app_problems::<NoApp>,
    };
    let errors = load(&inputs).unwrap_err();
    assert_eq!(errors.0[0].key, "app.x");
}

#[test]
fn lenient_keeps_what_is_right() {
    let snapshot = Snapshot {
        directory: "/d".into(),
        file: Some((
            "/d/shop.toml".into(),
            "[server]\nworker_num = 'x'\ncontrol_socket = 'c.sock'\n[".into(),
        )),
        overrides: Vec::new(),
    };
    let inputs = Inputs {
        snapshot: &snapshot,
        environment: &[],
        builder: &Table::new(),
        listeners: &[],
        http_listeners: &[],
        app_default: &Table::new(),
        app_check: &app_problems::<NoApp>,
    };
    let (settings, errors) = load_lenient(&inputs);
    assert!(errors.len() >= 2, "{errors:?}");
    assert_eq!(settings.server.control_socket.unwrap(), Path::new("/d/c.sock"));
    assert_eq!(settings.server.worker_num, ServerSettings::default().worker_num);
}

fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("server"),
        Just("limits"),
        Just("listen"),
        Just("app"),
        Just("web"),
        Just("address"),
        Just("worker_num"),
        Just("pid_file"),
        Just("umask"),
        Just("release"),
        Just("mail"),
        Just("from"),
        Just("task_max_size"),
        Just("max_wait_time"),
        Just("="),
        Just("["),
        Just("]"),
        Just("."),
        Just("__"),
        Just("\n"),
        Just("\""),
        Just("'"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("-1"),
        Just("99999999999999999999"),
        Just("1.5e400"),
        Just("30s"),
        Just("8EiB"),
        Just("true"),
        Just("#"),
        Just("unix:"),
        Just("é"),
        Just(" "),
        Just("1979-05-27"),
        Just("\0"),
    ];
    prop::collection::vec(word, 0..24).prop_map(|it| it.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_typed_panics(
        text in prop_oneof![any::<String>(), words()],
        set in prop::collection::vec(prop_oneof![any::<String>(), words()], 0..4),
        variable in words(),
        value in prop_oneof![any::<String>(), words()],
    ) {
        let given = Given {
            file: Some(text),
            environment: vec![(format!("SHIFTWORK__{variable}"), value)],
            overrides: set,
            builder: Table::new(),
        };
        match given.load() {
            Ok(settings) => {
                prop_assert!(settings.server.validate().is_empty());
                prop_assert!(settings.app::<App>().is_ok());
            }
            Err(errors) => prop_assert!(!errors.0.is_empty() && !errors.to_string().is_empty()),
        }
    }

    #[test]
    fn any_text_is_a_value_of_a_string(text in "[^\n\r\"' ][^\n\r\"']{0,20}[^\n\r\"' ]") {
        let settings = set(&[&format!("app.release={text}")]).load().unwrap();
        prop_assert_eq!(settings.app::<App>().unwrap().release, text.trim());
    }
}
