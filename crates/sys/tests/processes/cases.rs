//! Forks, orphans, titles, the daemon, signals, privileges.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;

use shiftwork_sys::daemon::{Detached, detach};
use shiftwork_sys::process::{self, Exit, Forked};
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::{fd, limits, umask, user};

use crate::common::{await_readable, in_child, next, open_descriptors, run_and_exit};

/// Every case of this file.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("fork_and_reap", fork_and_reap),
    ("all_children_are_killed", all_children_are_killed),
    ("what_is_buffered_is_printed_once", what_is_buffered_is_printed_once),
    ("a_second_thread_refuses_the_fork", a_second_thread_refuses_the_fork),
    ("a_joined_thread_does_not", a_joined_thread_does_not),
    ("an_orphan_belongs_to_the_subreaper", an_orphan_belongs_to_the_subreaper),
    ("orphans_are_whole_processes", orphans_are_whole_processes),
    ("a_failed_orphan_leaves_nothing", a_failed_orphan_leaves_nothing),
    ("titles_show_and_nothing_is_lost", titles_show_and_nothing_is_lost),
    ("a_daemon_has_a_session_of_its_own", a_daemon_has_a_session_of_its_own),
    ("a_child_starts_with_a_clean_slate_of_signals", a_child_starts_with_clean_signals),
    ("foreign_descriptors_are_closed", foreign_descriptors_are_closed),
    ("dropped_privileges_stay_dropped", dropped_privileges_stay_dropped),
    ("open_files_are_raised", open_files_are_raised),
    ("the_mask_of_new_files", the_mask_of_new_files),
    ("output_goes_where_it_is_told", output_goes_where_it_is_told),
];

fn fork_and_reap() {
    assert_eq!(process::reap().unwrap(), None);
    assert_eq!(in_child(|| process::exit_now(7)), Exit::Code(7));
    let killed = in_child(|| signal::kill(std::process::id() as i32, signal::KILL).unwrap());
    assert_eq!(killed, Exit::Signal { signo: signal::KILL, core: false });
    // A number that libraries have no name for ends a process like any other.
    let Forked::Parent(pid) = process::fork().unwrap() else {
        signal::kill(std::process::id() as i32, signal::rtmin()).unwrap();
        process::exit_now(1)
    };
    await_readable(process::pidfd_open(pid).unwrap());
    assert!(process::has_children());
    let by_real_time = Exit::Signal { signo: signal::rtmin(), core: false };
    assert_eq!(process::reap().unwrap(), Some((pid, by_real_time)));
    assert!(!process::has_children());
    let Forked::Parent(pid) = process::fork().unwrap() else { process::exit_now(3) };
    await_readable(process::pidfd_open(pid).unwrap());
    assert_eq!(process::reap().unwrap(), Some((pid, Exit::Code(3))));
    assert_eq!(process::reap().unwrap(), None);
    assert_eq!(process::wait_for(pid), None);
    assert!(process::pidfd_open(pid).is_err());
}

fn all_children_are_killed() {
    process::become_subreaper().unwrap();
    let mut pids = Vec::new();
    for _ in 0..3 {
        match process::fork().unwrap() {
            Forked::Parent(pid) => pids.push(pid),
            Forked::Child => loop {
                std::thread::park();
            },
        }
    }
    process::kill_children().unwrap();
    for pid in pids {
        let killed = Exit::Signal { signo: signal::KILL, core: false };
        assert_eq!(process::wait_for(pid), Some(killed));
    }
    assert!(!process::has_children());
}

fn a_second_thread_refuses_the_fork() {
    let (end, wait) = mpsc::channel::<()>();
    let named = std::thread::Builder::new().name("busybody".into());
    let thread = named.spawn(move || wait.recv()).unwrap();
    for error in [process::fork().unwrap_err(), process::fork_orphan(|| 0).unwrap_err()] {
        assert!(error.to_string().contains("2 threads"), "{error}");
        assert!(error.to_string().contains("busybody"), "{error}");
    }
    drop(end);
    let _ = thread.join();
}

fn a_joined_thread_does_not() {
    for _ in 0..200 {
        std::thread::spawn(|| ()).join().unwrap();
        assert_eq!(in_child(|| ()), Exit::Code(0));
    }
}

fn an_orphan_belongs_to_the_subreaper() {
    process::become_subreaper().unwrap();
    let (here, there) = Channel::pair().unwrap();
    here.pass_credentials(true).unwrap();
    let manager = std::process::id() as i32;
    let Forked::Parent(template) = process::fork().unwrap() else {
        run_and_exit(|| {
            let children = SignalFd::new(&[signal::CHLD]).unwrap();
            let pid = process::fork_orphan(|| {
                there.send_bytes(format!("parent {}", process::parent()).as_bytes()).unwrap();
                // What was blocked before is blocked still, and nothing else.
                signal::kill(std::process::id() as i32, signal::CHLD).unwrap();
                0
            })
            .unwrap();
            there.send_bytes(format!("made {pid}").as_bytes()).unwrap();
            assert_eq!(children.read().unwrap(), None, "the middle is nobody's news");
            assert_eq!(process::reap().unwrap(), None, "and leaves no zombie");
            // Signals are let through again: this ends the process.
            signal::kill(std::process::id() as i32, signal::TERM).unwrap();
        })
    };
    drop(there);
    let (mut made, mut said) = (0, (0, 0));
    for _ in 0..2 {
        await_readable(&here);
        let mut buf = [0; 64];
        let received = here.recv(&mut buf).unwrap();
        let text = std::str::from_utf8(&buf[..received.len]).unwrap();
        match text.split_once(' ').unwrap() {
            ("made", pid) => made = pid.parse().unwrap(),
            (_, parent) => said = (received.pid.unwrap(), parent.parse().unwrap()),
        }
    }
    assert_eq!(said, (made, manager));
    assert_eq!(process::wait_for(made), Some(Exit::Code(0)));
    let ended = Exit::Signal { signo: signal::TERM, core: false };
    assert_eq!(process::wait_for(template), Some(ended));
}

/// Memory, threads, standard output, children: all as after a plain fork.
fn orphans_are_whole_processes() {
    process::become_subreaper().unwrap();
    let local = String::from("kept on the stack of the caller");
    let mut pids = Vec::new();
    for number in 0..200 {
        pids.push(
            process::fork_orphan(|| {
                assert_eq!(local, "kept on the stack of the caller");
                let big = vec![number as u8; 1 << 20];
                let thread = std::thread::spawn(move || big.iter().map(|&b| u64::from(b)).sum());
                let sum: u64 = thread.join().unwrap();
                assert_eq!(sum, (number as u64) << 20);
                let deep = deep(2000);
                assert_eq!(deep, 2000);
                let status = std::process::Command::new("true").status().unwrap();
                assert!(status.success());
                assert_eq!(in_child(|| ()), Exit::Code(0));
                5
            })
            .unwrap(),
        );
        if pids.len() >= 8 {
            assert_eq!(process::wait_for(pids.remove(0)), Some(Exit::Code(5)));
        }
    }
    for pid in pids {
        assert_eq!(process::wait_for(pid), Some(Exit::Code(5)));
    }
    let panics = process::fork_orphan(|| panic!("told on stderr")).unwrap();
    assert_eq!(process::wait_for(panics), Some(Exit::Code(101)));
    assert_eq!(process::reap().unwrap(), None);
}

/// Needs more stack than the helper stacks of a crossing have.
fn deep(depth: u64) -> u64 {
    let page = std::hint::black_box([1_u8; 1024]);
    if depth == 0 { 0 } else { deep(depth - 1) + u64::from(page[depth as usize % 1024]) }
}

fn what_is_buffered_is_printed_once() {
    let (read, write) = fd::pipe().unwrap();
    let exit = in_child(|| {
        process::become_subreaper().unwrap();
        fd::redirect_output(write.as_fd()).unwrap();
        print!("begun, ");
        assert_eq!(in_child(|| process::exit_now(0)), Exit::Code(0));
        let orphan = process::fork_orphan(|| {
            print!("said, ");
            0
        });
        assert_eq!(process::wait_for(orphan.unwrap()), Some(Exit::Code(0)));
        println!("done");
    });
    assert_eq!(exit, Exit::Code(0));
    drop(write);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
    assert_eq!(text, "begun, said, done\n");
}

fn a_failed_orphan_leaves_nothing() {
    // Root is not bound by the limit of processes, so be somebody else.
    if rustix::process::geteuid().is_root() {
        user::drop_to(&user::resolve(Some("54321"), Some("54321")).unwrap().unwrap()).unwrap();
    }
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Nproc, none).unwrap();
    let before = open_descriptors();
    assert_eq!(process::fork_orphan(|| 0).unwrap_err().raw_os_error(), Some(11));
    assert_eq!(open_descriptors(), before);
    assert_eq!(process::reap().unwrap(), None);
}

fn titles_show_and_nothing_is_lost() {
    let arguments: Vec<String> = std::env::args().collect();
    let shown = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let me = std::process::id();
    process::set_title("before there is room, only the short name");
    assert!(shown(me).ends_with(b"titles_show_and_nothing_is_lost\0"));
    process::prepare_title();
    process::set_title("shop: worker 0 (gen 7)");
    assert_eq!(trimmed(&shown(me)), b"shop: worker 0 (gen 7)");
    assert_eq!(process::thread_names(), ["shop: worker 0"]);
    assert_eq!(std::env::args().collect::<Vec<_>>(), arguments);
    assert_eq!(std::env::var("SYS_TEST").unwrap(), "kept");
    process::set_title("s");
    assert_eq!(trimmed(&shown(me)), b"s");
    let long = "x".repeat(100_000);
    process::set_title(&long);
    assert!(trimmed(&shown(me)).iter().all(|&byte| byte == b'x'));
    assert_eq!(std::env::var("SYS_TEST").unwrap(), "kept");
    process::set_title("shop: template (gen 7)");
    let child = in_child(|| {
        process::set_title("shop: worker 12 (gen 123)");
        assert_eq!(trimmed(&shown(std::process::id())), b"shop: worker 12 (gen 123)");
        assert_eq!(trimmed(&shown(me)), b"shop: template (gen 7)");
        assert_eq!(std::env::args().collect::<Vec<_>>(), arguments);
    });
    assert_eq!(child, Exit::Code(0));
}

fn trimmed(shown: &[u8]) -> &[u8] {
    let end = shown.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &shown[..end]
}

/// The session of this process as /proc tells it: 0 where its leader lives outside the container's
/// PID namespace, which is no pid and so nothing that a typed `getsid` could return.
fn session() -> i32 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    after_name.split_whitespace().nth(3).unwrap().parse().unwrap()
}

fn a_daemon_has_a_session_of_its_own() {
    process::become_subreaper().unwrap();
    let launcher = std::process::id() as i32;
    match detach().unwrap() {
        Detached::Daemon { channel } => run_and_exit(|| {
            let me = std::process::id() as i32;
            let session = session();
            assert_ne!(session, me, "the leader of a session could get a terminal");
            channel.send_bytes(format!("{me} {session}").as_bytes()).unwrap();
        }),
        Detached::Launcher { channel } => {
            assert_eq!(std::process::id() as i32, launcher);
            let session = session();
            let said = next(&channel);
            let (daemon, theirs) = said.split_once(' ').unwrap();
            assert_ne!(daemon, launcher.to_string());
            assert_ne!(theirs, session.to_string());
            assert_eq!(next(&channel), "", "end of file when it is gone");
            let exit = process::wait_for(daemon.parse().unwrap());
            assert_eq!(exit, Some(Exit::Code(0)));
            assert!(!process::has_children());
        }
    }
}

fn a_child_starts_with_clean_signals() {
    let signals = [signal::TERM, signal::USR1, signal::rtmin()];
    let fd = SignalFd::new(&signals).unwrap();
    signal::ignore(&[signal::HUP]);
    let me = std::process::id() as i32;
    signal::kill(me, signal::rtmin()).unwrap();
    let received = fd.read().unwrap().unwrap();
    assert_eq!((received.signo, received.pid), (signal::rtmin(), me));
    assert_eq!(fd.read().unwrap(), None);
    for (signo, dies) in [(signal::TERM, true), (signal::HUP, true), (signal::PIPE, false)] {
        let exit = in_child(|| {
            signal::reset_for_child();
            signal::kill(std::process::id() as i32, signo).unwrap();
        });
        let expected = if dies { Exit::Signal { signo, core: false } } else { Exit::Code(0) };
        assert_eq!(exit, expected);
    }
    assert!(signal::kill(0, signal::TERM).is_err());
    assert!(signal::kill(-1, signal::TERM).is_err());
}

fn foreign_descriptors_are_closed() {
    let (a, b) = Channel::pair().unwrap();
    let (read, write) = fd::pipe().unwrap();
    let kept = [write.as_raw_fd(), a.as_raw_fd()];
    let exit = in_child(|| {
        fd::close_foreign(&kept);
        let mut all = vec![0, 1, 2, a.as_raw_fd(), write.as_raw_fd()];
        all.sort_unstable();
        assert_eq!(open_descriptors(), all);
    });
    assert_eq!(exit, Exit::Code(0));
    let exit = in_child(|| {
        fd::set_cloexec(b.as_fd(), false).unwrap();
        fd::set_cloexec(read.as_fd(), false).unwrap();
        fd::close_inherited(&[read.as_fd()]).unwrap();
        let open = open_descriptors();
        assert!(!open.contains(&b.as_raw_fd()));
        assert!([&read, &write].iter().all(|fd| open.contains(&fd.as_raw_fd())));
    });
    assert_eq!(exit, Exit::Code(0));
}

fn dropped_privileges_stay_dropped() {
    if !rustix::process::geteuid().is_root() {
        assert!(user::resolve(Some("0"), None).is_err());
        return;
    }
    let exit = in_child(|| {
        let identity = user::resolve(Some("nobody"), None).unwrap().unwrap();
        user::drop_to(&identity).unwrap();
        assert_eq!(rustix::process::geteuid().as_raw(), identity.uid);
        assert_eq!(rustix::process::getegid().as_raw(), identity.gid);
        assert!(std::fs::read_dir("/root").is_err());
        assert!(!open_descriptors().is_empty(), "/proc/self/fd can be read");
        assert!(process::memory_bytes(std::process::id() as i32).unwrap() > 0);
        user::drop_to(&identity).unwrap();
        assert!(user::resolve(Some("root"), None).is_err());
        assert_eq!(in_child(|| ()), Exit::Code(0));
    });
    assert_eq!(exit, Exit::Code(0));
    let exit = in_child(|| {
        let identity = user::resolve(None, Some("54321")).unwrap().unwrap();
        user::drop_to(&identity).unwrap();
        assert_eq!(rustix::process::getegid().as_raw(), 54321);
        assert!(rustix::process::geteuid().is_root());
    });
    assert_eq!(exit, Exit::Code(0));
}

fn open_files_are_raised() {
    let lower = rustix::process::Rlimit { current: Some(64), maximum: Some(512) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, lower).unwrap();
    assert_eq!(limits::raise_open_files(Some(128)).unwrap(), 128);
    assert_eq!(limits::raise_open_files(None).unwrap(), 512);
    // Lower again is possible, and beyond the hard limit is for those who may.
    assert_eq!(limits::raise_open_files(Some(100)).unwrap(), 100);
    match limits::raise_open_files(Some(1024)) {
        Ok(limit) => assert_eq!(limit, 1024),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

fn the_mask_of_new_files() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o777
    };
    umask::set(Some(0o027));
    umask::set(None);
    assert_eq!(mode("a"), 0o640);
    let narrowed = umask::Changed::to(0o177);
    assert_eq!(mode("b"), 0o600);
    drop(narrowed);
    assert_eq!(mode("c"), 0o640);
}

fn output_goes_where_it_is_told() {
    let (read, write) = fd::pipe().unwrap();
    let exit = in_child(|| {
        fd::stdin_from_null().unwrap();
        fd::redirect_output(write.as_fd()).unwrap();
        println!("to the log");
        eprintln!("and this");
        assert_eq!(std::io::stdin().lines().count(), 0);
    });
    assert_eq!(exit, Exit::Code(0));
    drop(write);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
    assert_eq!(text, "to the log\nand this\n");
}
