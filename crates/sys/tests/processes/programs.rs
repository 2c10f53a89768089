//! Executing programs.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shiftwork_sys::process::{self, Exit, Launch};
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{fd, process::execute};

use crate::common::open_descriptors;

/// Every case of this file.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_program_gets_what_is_named_and_no_more", a_program_gets_what_is_named_and_no_more),
    ("what_is_no_program_is_an_error_here", what_is_no_program_is_an_error_here),
    ("a_program_that_was_replaced_on_the_disk", a_program_that_was_replaced_on_the_disk),
    ("a_program_starts_with_clean_signals", a_program_starts_with_clean_signals),
    ("a_role_is_believed_by_its_inode", a_role_is_believed_by_its_inode),
];

/// Executes a file with these arguments and an output; its role variable is SYS_TEST.
fn launch(
    executable: &File,
    arguments: &[&str],
    channel: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> std::io::Result<i32> {
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    execute(&Launch {
        executable: executable.as_fd(),
        arguments: &arguments,
        channel,
        role: &|number| ("SYS_TEST", format!("role:{number}")),
        output,
        mortal: false,
    })
}

/// Runs a shell command and returns what it printed.
fn shell(script: &str, channel: BorrowedFd<'_>) -> String {
    let file = File::open("/bin/sh").unwrap();
    let (read, write) = fd::pipe().unwrap();
    let pid = launch(&file, &["sh", "-c", script], channel, write.as_fd()).unwrap();
    drop(write);
    assert_eq!(process::wait_for(pid), Some(Exit::Code(0)));
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    text
}

fn a_program_gets_what_is_named_and_no_more() {
    // What whoever started the tests has left open is not ours to account for.
    fd::close_inherited(&[]).unwrap();
    let before = open_descriptors();
    let (ours, theirs) = Channel::pair().unwrap();
    let script =
        "echo $0 $SYS_TEST; for n in /proc/$$/fd/*; do [ -e $n ] && echo ${n##*/}; done; :";
    let said = shell(script, theirs.as_fd());
    let mut lines = said.lines();
    let kept = theirs.as_raw_fd();
    assert_eq!(lines.next(), Some(format!("sh role:{kept}").as_str()));
    let mut open: Vec<i32> = lines.map(|line| line.parse().unwrap()).collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, kept]);
    drop((ours, theirs));
    assert_eq!(open_descriptors(), before);
}

fn what_is_no_program_is_an_error_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let (ours, _theirs) = Channel::pair().unwrap();
    std::fs::write(&path, "not a program").unwrap();
    let before = open_descriptors();
    let file = File::open(&path).unwrap();
    let error = launch(&file, &["x"], ours.as_fd(), ours.as_fd()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = launch(&file, &["x"], ours.as_fd(), ours.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(8), "exec format error");
    assert!(launch(&file, &["a\0b"], ours.as_fd(), ours.as_fd()).is_err());
    drop(file);
    assert_eq!(open_descriptors(), before);
    assert!(!process::has_children(), "no process is left behind");
}

fn a_program_that_was_replaced_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    let (ours, _theirs) = Channel::pair().unwrap();
    write_script(folder.path(), &path, 41);
    let old = File::open(&path).unwrap();
    write_script(folder.path(), &path, 42);
    let new = File::open(&path).unwrap();
    for (file, code) in [(&old, 41), (&new, 42)] {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let pid = launch(file, &["script"], ours.as_fd(), null.as_fd()).unwrap();
        assert_eq!(process::wait_for(pid), Some(Exit::Code(code)));
    }
}

/// A script that exits with a code, moved to its place as a deployment does.
fn write_script(folder: &Path, path: &Path, code: i32) {
    let new = folder.join("new");
    std::fs::write(&new, format!("#!/bin/sh\nexit {code}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn a_program_starts_with_clean_signals() {
    let (ours, _theirs) = Channel::pair().unwrap();
    let _blocked = SignalFd::new(&[signal::TERM, signal::CHLD, signal::USR1]).unwrap();
    signal::ignore(&[signal::HUP, signal::INT]);
    let said = shell("grep -E 'Sig(Blk|Ign)' /proc/self/status", ours.as_fd());
    // The C library keeps 32 and 33 to itself: they are as whoever started the tests had them.
    let private = 0b11 << 31;
    for line in said.lines() {
        let (name, bits) = line.split_once(':').unwrap();
        // A closed peer and a full disk are errors where they are met, and end no process.
        let ignored = (1 << (signal::PIPE - 1)) | (1 << (signal::XFSZ - 1));
        let expected = if name == "SigIgn" { ignored } else { 0 };
        let found = u64::from_str_radix(bits.trim(), 16).unwrap() & !private;
        assert_eq!(found, expected, "{said}");
    }
    assert_eq!(said.lines().count(), 2);
}

fn a_role_is_believed_by_its_inode() {
    let (a, _b) = Channel::pair().unwrap();
    let inode = fd::inode(a.as_fd()).unwrap();
    let raw = a.as_raw_fd();
    assert!(fd::take_inherited(raw, inode + 1).is_none());
    assert!(fd::take_inherited(9999, inode).is_none());
    assert!(fd::take_inherited(0, fd::inode(std::io::stdin().as_fd()).unwrap()).is_none());
    fd::set_cloexec(a.as_fd(), false).unwrap();
    std::mem::forget(a);
    let taken = fd::take_inherited(raw, inode).unwrap();
    assert_eq!(taken.as_raw_fd(), raw);
    assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}
