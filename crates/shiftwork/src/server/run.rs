//! `run`: which role this process plays, and on with it.

use std::process::ExitCode;

use shiftwork_supervisor::role::{self, Role};
use shiftwork_supervisor::{manager, master, probe};
use shiftwork_sys::process;
use shiftwork_sys::socket::Channel;

use crate::{cli, log, template};

use super::Server;

/// Plays this process's role.
pub(super) fn run<P, S>(server: Server<P, S>) -> ExitCode
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    process::prepare_title();
    // It lives as long as the process, in whatever process this becomes.
    let server: &'static Server<P, S> = Box::leak(Box::new(server));
    let inherited = role::inherited();
    if inherited.is_none() && !server.mistakes.is_empty() {
        for mistake in &server.mistakes {
            eprintln!("{}: {mistake}", server.name);
        }
        return ExitCode::from(2);
    }
    if let Some(threads) = second_thread() {
        let advice = format!(
            "run() was called in a process with several threads ({threads}): it forks, and must \
             have one. Call it from a plain `fn main()`, without #[tokio::main] or threads \
             before it; start what you need in on_worker_start"
        );
        return match inherited {
            Some((Role::Template, control)) => template::refuse(Channel::from_fd(control), advice),
            Some(_) | None => {
                eprintln!("{}: {advice}", server.name);
                ExitCode::from(2)
            }
        };
    }
    log::install();
    match inherited {
        Some((Role::Template, control)) => template::run(server, Channel::from_fd(control)),
        Some((Role::Probe, manager)) => exit_code(probe::answer(manager)),
        Some((Role::Manager, master)) => match manager::resume(master) {
            Ok(code) => exit_code(code),
            Err(error) => {
                tracing::error!("the new manager cannot go on: {error}");
                ExitCode::from(1)
            }
        },
        Some((Role::Master, state)) => master::resume(state, false),
        Some((Role::MasterAgain, state)) => master::resume(state, true),
        None => cli::run(server),
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The names of this process's threads, if there is more than one; one that has just ended may
/// linger for a moment.
fn second_thread() -> Option<String> {
    let began = std::time::Instant::now();
    loop {
        let names = process::thread_names();
        if names.len() <= 1 {
            return None;
        }
        if began.elapsed().as_millis() > 200 {
            return Some(names.join(", "));
        }
        std::thread::yield_now();
    }
}
