//! The role that a process was executed for, by the one that executed it.
//!
//! The variable [`VARIABLE`] says `ROLE:FD:INODE`; it is believed only if FD is open and has that
//! inode, and is removed at once.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use shiftwork_sys::{fd, process};

pub use crate::protocol::template::ROLE_VARIABLE as VARIABLE;

/// What an executed process is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A release's template. Its descriptor: the manager.
    Template,
    /// One that says whether it could go on as master and manager. Its descriptor: the manager.
    Probe,
    /// A manager that goes on as this program. Its descriptor: the master.
    Manager,
    /// A master that goes on as this program. Its descriptor: the state.
    Master,
    /// A master that has come back to this program, since the other one could not go on.
    MasterAgain,
}

const NAMES: [(Role, &str); 5] = [
    (Role::Template, "template"),
    (Role::Probe, "probe"),
    (Role::Manager, "manager"),
    (Role::Master, "master"),
    (Role::MasterAgain, "master-again"),
];

impl Role {
    /// The value of the variable, for a descriptor that stays open under its number.
    pub fn value(self, number: i32, inode: u64) -> String {
        let name = NAMES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name);
        format!("{name}:{number}:{inode}")
    }

    /// The same, for a descriptor of this process.
    ///
    /// # Errors
    /// If it is not open.
    pub fn value_for(self, descriptor: impl AsFd) -> std::io::Result<String> {
        let fd = descriptor.as_fd();
        Ok(self.value(fd.as_raw_fd(), fd::inode(fd)?))
    }
}

/// The role of this process and the descriptor that came with it; None if a user has started it.
pub fn inherited() -> Option<(Role, OwnedFd)> {
    let value = std::env::var(VARIABLE).ok()?;
    // What this process executes must not take itself for the same.
    process::remove_variable(VARIABLE);
    let (role, number, inode) = parse(&value)?;
    Some((role, fd::take_inherited(number, inode)?))
}

fn parse(value: &str) -> Option<(Role, i32, u64)> {
    let mut parts = value.split(':');
    let name = parts.next()?;
    let (role, _) = NAMES.iter().find(|(_, known)| *known == name)?;
    let (number, inode) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((*role, number, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (role, _) in NAMES {
            assert_eq!(parse(&role.value(7, 99)), Some((role, 7, 99)));
        }
        for wrong in ["", "worker:3:4", "template:3", "template:x:4", "template:3:4:5"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
