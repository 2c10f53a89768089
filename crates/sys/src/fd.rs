//! Descriptors: which are handed on, which are not, and the three that every process has.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

/// The inode of what a descriptor stands for: two descriptors of one thing have the same.
///
/// # Errors
/// If the kernel cannot tell.
pub fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(fstat(fd)?.st_ino)
}

/// Whether an exec closes the descriptor.
///
/// # Errors
/// If the descriptor is not open.
pub fn set_cloexec(fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<()> {
    let flags = if cloexec { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(fcntl_setfd(fd, flags)?)
}

/// Takes over a descriptor that the parent left open by name. It is believed only if it is open
/// and has the inode that was named with it, and is close-on-exec from then on.
#[must_use]
pub fn take_inherited(number: RawFd, inode: u64) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: the borrow ends with this block; fstat on a closed number is an error, no harm.
    let found = fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    if found.st_ino != inode {
        return None;
    }
    // SAFETY: the descriptor is open, and its parent has named it as this process's own; nothing
    // in this process has taken it, since the variable that names it is removed when it is read.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_cloexec(fd.as_fd(), true).ok()?;
    Some(fd)
}

/// The executable of this process, whatever lies at its path by now.
///
/// # Errors
/// If /proc is not there.
pub fn own_executable() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/self/exe")?.into())
}

/// A pipe for a process's output: the reading end does not block, the writing end does.
///
/// # Errors
/// If no descriptors are to be had.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// Bytes in memory behind a descriptor; sealed, so that nobody can change them.
///
/// # Errors
/// If there is no memory.
pub fn memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// Memory behind a descriptor that can be written again and again.
///
/// # Errors
/// If no descriptor is to be had.
pub fn scratch(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// Reads what [`memfd`] has made, from its beginning.
///
/// # Errors
/// If it cannot be read.
pub fn read_memfd(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut file = File::from(fd.try_clone_to_owned()?);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads what [`memfd`] has made in another process, which need not be trusted: whatever else the
/// descriptor may be, it is neither waited for nor read.
///
/// # Errors
/// If it is no sealed memory, or holds more than `most` bytes.
pub fn read_sealed(fd: BorrowedFd<'_>, most: u64) -> io::Result<Vec<u8>> {
    let firm = SealFlags::WRITE | SealFlags::GROW;
    if !fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(firm)) {
        return Err(io::Error::other("this is no sealed memory"));
    }
    let length = u64::try_from(fstat(fd)?.st_size).unwrap_or(u64::MAX);
    if length > most {
        return Err(io::Error::other(format!("{length} bytes, and at most {most} are read")));
    }
    read_memfd(fd)
}

/// Makes this descriptor stdout and stderr.
///
/// # Errors
/// If it is not open.
pub fn redirect_output(fd: BorrowedFd<'_>) -> io::Result<()> {
    use std::io::Write as _;
    // What waits in the buffer belongs to where it was written to.
    let _ = io::stdout().flush();
    rustix::stdio::dup2_stdout(fd)?;
    rustix::stdio::dup2_stderr(fd)?;
    Ok(())
}

/// Makes /dev/null stdin.
///
/// # Errors
/// If it cannot be opened.
pub fn stdin_from_null() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(())
}

/// The descriptors beyond stderr that this process has open.
fn open_numbers() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(number) = entry?.file_name().to_str().and_then(|it| it.parse().ok())
            && number > 2
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Closes what the process inherited over its exec and nobody has named: everything beyond stderr
/// that is not close-on-exec, but what is in `keep`. Descriptors that Rust code opens are
/// close-on-exec, so these are not touched.
///
/// # Errors
/// If /proc is not there.
pub fn close_inherited(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    for number in open_numbers()? {
        if keep.iter().any(|it| it.as_raw_fd() == number) {
            continue;
        }
        // SAFETY: the borrow ends with this statement; a closed number is an error, no harm.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
        if flags.is_ok_and(|it| !it.contains(FdFlags::CLOEXEC)) {
            // SAFETY: nothing in this process owns it: it came over the exec without a name.
            unsafe {
                libc::close(number);
            }
        }
    }
    Ok(())
}

/// Closes every descriptor beyond stderr but those in `keep`. For a forked child, before it runs
/// anything else: values that own such a descriptor must be forgotten, never dropped.
pub fn close_foreign(keep: &[RawFd]) {
    let mut kept: Vec<RawFd> = keep.iter().copied().filter(|it| *it > 2).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for number in kept {
        if number > first {
            close_between(first, number - 1);
        }
        first = number + 1;
    }
    close_between(first, RawFd::MAX);
}

fn close_between(first: RawFd, last: RawFd) {
    // SAFETY: the caller of close_foreign has said that nothing in here is owned any more.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, first.cast_unsigned(), last.cast_unsigned(), 0)
    };
    if done == 0 {
        return;
    }
    // Filtered out, as some containers do: one by one.
    for number in open_numbers().unwrap_or_default() {
        if (first..=last).contains(&number) {
            // SAFETY: as above.
            unsafe {
                libc::close(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_sealed_memory_of_a_length_is_read_for_others() {
        let sealed = memfd("test", b"settings").unwrap();
        assert_eq!(read_sealed(sealed.as_fd(), 8).unwrap(), b"settings");
        assert!(read_sealed(sealed.as_fd(), 7).is_err());
        assert!(read_sealed(scratch("test").unwrap().as_fd(), 8).is_err());
        let (nobody_writes, _writer) = std::io::pipe().unwrap();
        assert!(read_sealed(nobody_writes.as_fd(), 8).is_err());
    }

    #[test]
    fn a_memfd_keeps_its_bytes() {
        let fd = memfd("test", b"settings").unwrap();
        assert_eq!(read_memfd(fd.as_fd()).unwrap(), b"settings");
        assert_eq!(read_memfd(fd.as_fd()).unwrap(), b"settings");
        assert!(File::from(fd).write_all(b"x").is_err());
    }

    #[test]
    fn an_inherited_descriptor_is_believed_only_with_its_inode() {
        let (read, write) = pipe().unwrap();
        let inode = inode(read.as_fd()).unwrap();
        assert!(take_inherited(write.as_raw_fd(), inode + 1).is_none());
        assert!(take_inherited(1, inode).is_none());
        let number = std::os::fd::IntoRawFd::into_raw_fd(read);
        assert!(take_inherited(number, inode).is_some());
        assert!(take_inherited(1_000_000, inode).is_none());
    }
}
