//! What a probe does: it is the new program, is shown the states of manager and master, and says
//! whether it could go on from them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::fd;
use shiftwork_sys::socket::Channel;

use crate::manager::saved::Saved;
use crate::master::state::MasterState;
use crate::protocol::probe::{FromProbe, ToProbe};
use crate::protocol::wire;

/// Answers the manager that has executed this process. Gives the exit status.
#[must_use]
pub fn answer(manager: OwnedFd) -> i32 {
    match converse(&Channel::from_fd(manager)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("the probe cannot answer: {error}");
            1
        }
    }
}

fn converse(manager: &Channel) -> io::Result<()> {
    manager.set_blocking(true)?;
    let (bytes, mut received) = manager.receive(wire::MAX_PACKET)?;
    let _: ToProbe = wire::decode(&bytes).map_err(io::Error::other)?;
    let (Some(master), Some(own)) = (received.fds.pop(), received.fds.pop()) else {
        return Err(io::Error::other("the states have not arrived"));
    };
    let refusal = judge(&fd::read_memfd(own.as_fd())?, &fd::read_memfd(master.as_fd())?).err();
    let bytes = wire::encode(&FromProbe { refusal }).map_err(io::Error::other)?;
    manager.send(&bytes, &[])
}

fn judge(manager: &[u8], master: &[u8]) -> Result<(), String> {
    Saved::read(manager).map_err(|reason| format!("the manager's state: {reason}"))?;
    MasterState::read(master).map_err(|reason| format!("the master's state: {reason}"))?;
    Ok(())
}
