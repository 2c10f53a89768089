//! `run`: which role this process plays, and on with it.

use std::process::ExitCode;

use shiftwork_sys::process;

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
    let inherited = template::inherited();
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
            Some(control) => template::refuse(control, advice),
            None => {
                eprintln!("{}: {advice}", server.name);
                ExitCode::from(2)
            }
        };
    }
    log::install();
    match inherited {
        Some(control) => template::run(server, control),
        None => cli::run(server),
    }
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
