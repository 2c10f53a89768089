//! Executing programs.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use shiftwork_sys::process::{self, Exit, Program};
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::{fd, process::execute};

/// Every case of this file.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_program_gets_what_is_named_and_no_more", a_program_gets_what_is_named_and_no_more),
    ("what_is_no_program_is_an_error_here", what_is_no_program_is_an_error_here),
    ("a_program_that_was_replaced_on_the_disk", a_program_that_was_replaced_on_the_disk),
    ("a_program_starts_with_clean_signals", a_program_starts_with_clean_signals),
    ("a_role_is_believed_by_its_inode", a_role_is_believed_by_its_inode),
];

/// Runs a shell command as a program, and returns what it printed.
fn shell(script: &str, env: &[(&str, String)], keep: &[std::os::fd::BorrowedFd<'_>]) -> String {
    let file = File::open("/bin/sh").unwrap();
    let (read, write) = fd::pipe().unwrap();
    let program = Program {
        argv: ["sh", "-c", script].map(Into::into).to_vec(),
        extra_env: env,
        keep,
        output: Some(write.as_fd()),
        ..Program::new(file.as_fd())
    };
    let pid = program.spawn().unwrap();
    drop(write);
    assert_eq!(process::wait(pid).unwrap(), Exit::Code(0));
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    text
}

fn a_program_gets_what_is_named_and_no_more() {
    let before = fd::open_descriptors().unwrap();
    let (a, b) = fd::pipe().unwrap();
    let env = [("ADDED", "one".to_owned()), ("SYS_TEST", "over".to_owned())];
    let kept = b.as_raw_fd();
    // The glob's own descriptor is gone when echo runs, but stands in the list.
    let script = format!(
        "echo $0 $ADDED $SYS_TEST; [ -e /proc/$$/fd/{kept} ] && echo kept; \
                          for n in /proc/$$/fd/*; do [ -e $n ] && echo ${{n##*/}}; done"
    );
    let said = shell(&script, &env, &[b.as_fd()]);
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("sh one over"));
    assert_eq!(lines.next(), Some("kept"));
    let open: Vec<i32> = lines.map(|line| line.parse().unwrap()).collect();
    assert_eq!(open, [0, 1, 2, kept]);
    drop((a, b));
    assert_eq!(fd::open_descriptors().unwrap(), before);
}

fn what_is_no_program_is_an_error_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "not a program").unwrap();
    let before = fd::open_descriptors().unwrap();
    let file = File::open(&path).unwrap();
    let error = execute(file.as_fd(), &["x"], &[], &[]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    let mut options = File::options();
    let path = folder.path().join("executable text");
    std::fs::write(
        options.write(true).create(true).mode(0o755).open(&path).map(|_| &path).unwrap(),
        "x",
    )
    .unwrap();
    let file = File::open(&path).unwrap();
    let error = execute(file.as_fd(), &["x"], &[], &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(8), "exec format error");
    let error = execute(file.as_fd(), &["a\0b"], &[], &[]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    drop(file);
    assert_eq!(fd::open_descriptors().unwrap(), before);
    assert_eq!(process::reap().unwrap(), None, "no process is left behind");
}

fn a_program_that_was_replaced_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    let write = |text: &str| {
        let new = folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&new, mode).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    write("#!/bin/sh\nexit 41\n");
    let old = File::open(&path).unwrap();
    write("#!/bin/sh\nexit 42\n");
    let new = File::open(&path).unwrap();
    for (file, code) in [(&old, 41), (&new, 42)] {
        let pid = execute(file.as_fd(), &["script"], &[], &[]).unwrap();
        assert_eq!(process::wait(pid).unwrap(), Exit::Code(code));
    }
}

fn a_program_starts_with_clean_signals() {
    let _blocked = SignalFd::new(&[signal::TERM, signal::CHLD, signal::USR1]).unwrap();
    signal::ignore(&[signal::HUP, signal::INT]).unwrap();
    let said = shell("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status", &[], &[]);
    for line in said.lines() {
        let (_, bits) = line.split_once(':').unwrap();
        assert_eq!(u64::from_str_radix(bits.trim(), 16).unwrap(), 0, "{said}");
    }
    assert_eq!(said.lines().count(), 3);
}

fn a_role_is_believed_by_its_inode() {
    let (a, _b) = shiftwork_sys::socket::Channel::pair().unwrap();
    let inode = fd::inode(a.as_fd()).unwrap();
    let raw = a.as_raw_fd();
    assert!(fd::take_inherited(raw, inode + 1).is_none());
    assert!(fd::take_inherited(9999, inode).is_none());
    assert!(fd::take_inherited(-1, inode).is_none());
    assert!(fd::take_inherited(0, fd::inode(std::io::stdin().as_fd()).unwrap()).is_none());
    fd::set_cloexec(a.as_fd(), false).unwrap();
    std::mem::forget(a);
    let taken = fd::take_inherited(raw, inode).unwrap();
    assert_eq!(taken.as_raw_fd(), raw);
    assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    shiftwork_sys::socket::Channel::from_fd(taken).unwrap();
}
