//! The command line.
use crate::server::Server;
use shiftwork_supervisor::control::{Request, Response, client::Client};
use shiftwork_supervisor::core::event::{Scope, Until};
use shiftwork_supervisor::manager::release::Origin;
use shiftwork_supervisor::master::{self, Start};
use shiftwork_supervisor::protocol::template::Snapshot;
use std::process::ExitCode;

pub(crate) fn run<P: Send + Sync + 'static, S: Send + Sync + 'static>(
    server: &'static Server<P, S>,
) -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let mut overrides = vec![];
    let mut verb = "start".to_string();
    let mut file = None;
    let mut i = 1;
    while i < args.len() {
        match args[i].as_str() {
            "--set" => {
                i += 1;
                overrides.push(args[i].clone());
            }
            "--config" => {
                i += 1;
                file = Some(args[i].clone());
            }
            "--json" => {}
            "-d" => overrides.push("-d".into()),
            v => verb = v.into(),
        }
        i += 1;
    }
    let directory = std::env::current_dir().unwrap_or_default();
    let file = file.map(|f| {
        let p = directory.join(f);
        let t = std::fs::read_to_string(&p).unwrap_or_default();
        (p, t)
    });
    let snapshot = Snapshot { directory: directory.clone(), file, overrides: overrides.clone() };
    let settings = match server.load(&snapshot) {
        Ok(s) => s,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    let places =
        crate::settings::places(&server.name, &settings.server, &crate::server::environment());
    crate::log::set_level(settings.server.log_level);
    if verb == "start" {
        let arguments = std::env::args_os().collect();
        let executable = settings
            .server
            .executable
            .clone()
            .unwrap_or_else(|| std::env::current_exe().unwrap_or_default());
        return master::run(Start {
            name: server.name.clone(),
            settings: settings.server,
            places,
            snapshot,
            origin: Origin { executable, arguments },
            json: false,
        });
    }
    let mut client = match Client::connect(&places.control_socket) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(3);
        }
    };
    let request = match verb.as_str() {
        "reload" => Request::Reload { scope: Scope::All, set: overrides, until: Until::Committed },
        "stop" => Request::Stop { now: false },
        _ => Request::Status {},
    };
    let _ = client.send(&request);
    let code = loop {
        match client.receive() {
            Ok(Response::Progress(p)) => eprintln!("{p:?}"),
            Ok(Response::Status(s)) => {
                println!("{}", serde_json::to_string(&s).unwrap_or_default());
                break 0;
            }
            Ok(other) => {
                println!("{}", serde_json::to_string(&other).unwrap_or_default());
                break 0;
            }
            Err(e) => {
                eprintln!("{e}");
                break 1;
            }
        }
    };
    ExitCode::from(code)
}
