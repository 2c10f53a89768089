//! A program that says that it could go on as master and manager, and then cannot. The process tests
//! put it in a release's place; the variable `IMPOSTOR` says where it fails.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use shiftwork_supervisor::role::{self, Role};
use shiftwork_supervisor::{manager, master, probe};
use shiftwork_sys::fd;
use shiftwork_sys::socket::Channel;

fn main() -> ExitCode {
    let mode = env::var("IMPOSTOR").unwrap_or_default();
    let code = match (role::inherited(), mode.as_str()) {
        (Some((Role::Probe, _)), "hangs_as_probe") => loop {
            thread::park();
        },
        (Some((Role::Probe, manager)), "shows_states") => show(manager).map_or(3, |()| 4),
        (Some((Role::Probe, manager)), _) => probe::answer(manager),
        (Some((Role::Manager, _)), "fails_as_manager") => {
            println!("the impostor gives up as the manager");
            3
        }
        (Some((Role::Manager, master)), _) => manager::resume(master).unwrap_or(3),
        (Some((Role::Master, state)), "fails_as_master") => {
            println!("the impostor gives up as the master");
            let error = master::decline(&state);
            println!("and cannot: {error}");
            3
        }
        _ => 9,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(9))
}

/// Writes the states that a probe is shown where `IMPOSTOR_FOLDER` says, and does not answer.
fn show(manager: OwnedFd) -> io::Result<()> {
    let channel = Channel::from_fd(manager);
    channel.set_blocking(true)?;
    let received = channel.recv(&mut [0; 4096])?;
    let folder = env::var("IMPOSTOR_FOLDER").map_err(io::Error::other)?;
    for (file, name) in received.fds.iter().zip(["manager.json", "master.json"]) {
        fs::write(Path::new(&folder).join(name), fd::read_memfd(file.as_fd())?)?;
    }
    Ok(())
}
