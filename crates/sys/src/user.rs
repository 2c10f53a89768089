//! Users, and the way from root to one of them.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::unistd::{
    Gid, Group, Uid, User, chdir, chroot, initgroups, setgroups, setresgid, setresuid,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Whom to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// Its name, for its further groups; None for a bare number.
    pub name: Option<String>,
}

/// Why there is nobody to become.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("there is no user {0:?} on this machine")]
    NoUser(String),
    /// No such group.
    #[error("there is no group {0:?} on this machine")]
    NoGroup(String),
    /// Only root can become somebody else.
    #[error("only root can become user {wanted}, this is user {own}")]
    NotRoot {
        /// Whom to become.
        wanted: u32,
        /// Who this is.
        own: u32,
    },
    /// The databases cannot be read.
    #[error("cannot look up users: {0}")]
    Io(#[from] io::Error),
}

/// Looks up a user and a group, each a name or a number. Without a user nothing changes; without
/// a group it is the user's own.
///
/// # Errors
/// If there is no such user or group, or this process may not become that one.
pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, UserError> {
    let own = Uid::effective();
    let identity = match user {
        None if group.is_none() => return Ok(None),
        None => Identity { uid: own.as_raw(), gid: Gid::effective().as_raw(), name: None },
        Some(text) => find_user(text)?,
    };
    let gid = group.map(find_group).transpose()?.unwrap_or(identity.gid);
    let identity = Identity { gid, ..identity };
    let same = identity.uid == own.as_raw() && identity.gid == Gid::effective().as_raw();
    if !own.is_root() && !same {
        return Err(UserError::NotRoot { wanted: identity.uid, own: own.as_raw() });
    }
    Ok(if same && !own.is_root() { None } else { Some(identity) })
}

fn find_user(text: &str) -> Result<Identity, UserError> {
    let found = match text.parse::<u32>() {
        Ok(number) => match User::from_uid(Uid::from_raw(number)).map_err(io::Error::from)? {
            Some(user) => user,
            // A bare number need not be in the database, as in containers.
            None => return Ok(Identity { uid: number, gid: number, name: None }),
        },
        Err(_) => User::from_name(text)
            .map_err(io::Error::from)?
            .ok_or_else(|| UserError::NoUser(text.to_owned()))?,
    };
    Ok(Identity { uid: found.uid.as_raw(), gid: found.gid.as_raw(), name: Some(found.name) })
}

fn find_group(text: &str) -> Result<u32, UserError> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let group = Group::from_name(text).map_err(io::Error::from)?;
    group.map(|it| it.gid.as_raw()).ok_or_else(|| UserError::NoGroup(text.to_owned()))
}

/// Becomes somebody for good: groups first, then gid, then uid, real, effective and saved. The
/// process's own entry in /proc stays readable to it.
///
/// # Errors
/// If the kernel refuses, or if the way back is still open afterwards.
pub fn drop_to(identity: &Identity) -> io::Result<()> {
    take_groups(identity)?;
    take_ids(identity)
}

/// As [`drop_to`], with everything but the folder `root` out of reach before the privileges go: it
/// is `/` from now on, and where this process is. Groups are looked up outside.
///
/// # Errors
/// If the folder cannot be entered, if this is not root, and as for [`drop_to`].
pub fn confine(root: &Path, identity: Option<&Identity>) -> io::Result<()> {
    if let Some(identity) = identity {
        take_groups(identity)?;
    }
    chroot(root)?;
    // Else the way out would be open.
    chdir("/")?;
    identity.map_or(Ok(()), take_ids)
}

fn take_groups(identity: &Identity) -> io::Result<()> {
    let gid = Gid::from_raw(identity.gid);
    if Uid::effective().is_root() {
        match &identity.name {
            Some(name) => {
                let name = CString::new(name.as_str()).map_err(io::Error::other)?;
                initgroups(&name, gid)?;
            }
            None => setgroups(&[gid])?,
        }
    }
    Ok(())
}

fn take_ids(identity: &Identity) -> io::Result<()> {
    let uid = Uid::from_raw(identity.uid);
    let gid = Gid::from_raw(identity.gid);
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if !uid.is_root() {
        let back = setresuid(Uid::from_raw(u32::MAX), Uid::from_raw(0), Uid::from_raw(u32::MAX));
        if back.is_ok() {
            return Err(io::Error::other("root's privileges could not be dropped for good"));
        }
    }
    // A change of user makes a process undumpable, and /proc/self/fd root's.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

/// What a user is called, if the machine knows.
#[must_use]
pub fn name_of(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|it| it.name)
}

/// The effective user of this process.
#[must_use]
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}
