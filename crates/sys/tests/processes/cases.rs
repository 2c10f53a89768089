//! Forks, orphans, titles, the daemon, signals, privileges.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::time::Duration;

use shiftwork_sys::daemon::{Detached, detach};
use shiftwork_sys::process::{self, Exit, Forked};
use shiftwork_sys::signal::{self, SignalFd};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, wait_for};
use shiftwork_sys::{fd, limits, user};

/// Every case of this file.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("fork_and_reap", fork_and_reap),
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
    ("output_goes_where_it_is_told", output_goes_where_it_is_told),
];

/// Runs `body` in a forked child and returns how it ended; a panic ends it with 101.
fn in_child(body: impl FnOnce()) -> Exit {
    match process::fork().unwrap() {
        Forked::Parent(pid) => process::wait(pid).unwrap(),
        Forked::Child => run_and_exit(body),
    }
}

/// Ends the process with 0, or with 101 after a panic.
pub(crate) fn run_and_exit(body: impl FnOnce()) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    process::exit_now(if result.is_ok() { 0 } else { 101 })
}

/// The next message, waiting for it.
pub(crate) fn next(channel: &Channel) -> String {
    let mut buf = [0; 4096];
    assert!(wait_for(channel.as_fd(), Interest::Read, Some(Duration::from_secs(10))).unwrap());
    let len = channel.recv_bytes(&mut buf).unwrap();
    String::from_utf8_lossy(&buf[..len]).into_owned()
}

fn fork_and_reap() {
    assert_eq!(process::reap().unwrap(), None);
    assert_eq!(in_child(|| process::exit_now(7)), Exit::Code(7));
    let killed = in_child(|| signal::kill(std::process::id() as i32, signal::KILL).unwrap());
    assert_eq!(killed, Exit::Signal { signo: signal::KILL, core: false });
    assert_eq!(killed.to_string(), "signal 9 (SIGKILL)");
    let Forked::Parent(pid) = process::fork().unwrap() else { process::exit_now(3) };
    let ended = process::pidfd_open(pid).unwrap();
    assert!(wait_for(ended.as_fd(), Interest::Read, Some(Duration::from_secs(10))).unwrap());
    assert_eq!(process::reap().unwrap(), Some((pid, Exit::Code(3))));
    assert_eq!(process::reap().unwrap(), None);
    assert!(!process::is_alive(pid));
}

fn a_second_thread_refuses_the_fork() {
    let (end, wait) = mpsc::channel::<()>();
    let named = std::thread::Builder::new().name("busybody".into());
    let thread = named.spawn(move || wait.recv()).unwrap();
    for error in [process::fork().unwrap_err(), process::fork_orphan().unwrap_err()] {
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
            match process::fork_orphan().unwrap() {
                Forked::Child => run_and_exit(|| {
                    there.send_bytes(format!("parent {}", process::parent()).as_bytes()).unwrap();
                }),
                Forked::Parent(pid) => {
                    there.send_bytes(format!("made {pid}").as_bytes()).unwrap();
                    assert_eq!(children.read().unwrap(), None, "the middle is nobody's news");
                    assert_eq!(process::reap().unwrap(), None, "and leaves no zombie");
                }
            }
        })
    };
    drop(there);
    let (mut made, mut said) = (0, (0, 0));
    for _ in 0..2 {
        assert!(wait_for(here.as_fd(), Interest::Read, Some(Duration::from_secs(10))).unwrap());
        let mut buf = [0; 64];
        let received = here.recv(&mut buf).unwrap();
        let text = std::str::from_utf8(&buf[..received.len]).unwrap();
        match text.split_once(' ').unwrap() {
            ("made", pid) => made = pid.parse().unwrap(),
            (_, parent) => said = (received.pid.unwrap(), parent.parse().unwrap()),
        }
    }
    assert_eq!(said, (made, manager));
    for pid in [template, made] {
        assert_eq!(process::wait(pid).unwrap(), Exit::Code(0));
    }
}

/// Memory, threads, standard output, children: all as after a plain fork.
fn orphans_are_whole_processes() {
    process::become_subreaper().unwrap();
    let local = String::from("kept on the stack of the caller");
    let mut pids = Vec::new();
    for number in 0..200 {
        match process::fork_orphan().unwrap() {
            Forked::Child => run_and_exit(|| {
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
            }),
            Forked::Parent(pid) => pids.push(pid),
        }
        if pids.len() >= 8 {
            assert_eq!(process::wait(pids.remove(0)).unwrap(), Exit::Code(0));
        }
    }
    for pid in pids {
        assert_eq!(process::wait(pid).unwrap(), Exit::Code(0));
    }
    assert_eq!(process::reap().unwrap(), None);
}

/// Needs more stack than the helper stacks of a crossing have.
fn deep(depth: u64) -> u64 {
    let page = std::hint::black_box([1_u8; 1024]);
    if depth == 0 { 0 } else { deep(depth - 1) + u64::from(page[depth as usize % 1024]) }
}

fn a_failed_orphan_leaves_nothing() {
    // Root is not bound by the limit of processes, so be somebody else.
    if rustix::process::geteuid().is_root() {
        user::drop_to(&user::resolve(Some("54321"), Some("54321")).unwrap().unwrap()).unwrap();
    }
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Nproc, none).unwrap();
    let before = fd::open_descriptors().unwrap();
    assert_eq!(process::fork_orphan().unwrap_err().raw_os_error(), Some(11));
    assert_eq!(fd::open_descriptors().unwrap(), before);
    assert_eq!(process::reap().unwrap(), None);
}

fn titles_show_and_nothing_is_lost() {
    let arguments: Vec<String> = std::env::args().collect();
    let shown = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let me = std::process::id();
    process::set_title("shop: worker 0 (gen 7)");
    assert_eq!(trimmed(&shown(me)), b"shop: worker 0 (gen 7)");
    assert_eq!(process::thread_names(), ["shop: worker 0"]);
    assert_eq!(std::env::args().collect::<Vec<_>>(), arguments);
    assert_eq!(std::env::var("SYS_TEST").unwrap(), "kept");
    // SAFETY: one thread.
    unsafe { std::env::set_var("SYS_TEST", "changed") };
    assert_eq!(std::env::var("SYS_TEST").unwrap(), "changed");
    process::set_title("s");
    assert_eq!(trimmed(&shown(me)), b"s");
    let long = "x".repeat(100_000);
    process::set_title(&long);
    assert!(trimmed(&shown(me)).iter().all(|&byte| byte == b'x'));
    assert_eq!(std::env::var("SYS_TEST").unwrap(), "changed");
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

fn a_daemon_has_a_session_of_its_own() {
    process::become_subreaper().unwrap();
    match detach().unwrap() {
        Detached::Daemon(channel) => run_and_exit(|| {
            let me = std::process::id() as i32;
            let session = rustix::process::getsid(None).unwrap().as_raw_pid();
            assert_ne!(session, me, "the leader of a session could get a terminal");
            channel.send_bytes(format!("{me} {session}").as_bytes()).unwrap();
        }),
        Detached::Launcher(channel, pid) => {
            let session = rustix::process::getsid(None).unwrap().as_raw_pid();
            let said = next(&channel);
            let (daemon, theirs) = said.split_once(' ').unwrap();
            assert_eq!(daemon, pid.to_string());
            assert_ne!(theirs, session.to_string());
            assert_eq!(next(&channel), "", "end of file when it is gone");
            assert_eq!(process::wait(pid).unwrap(), Exit::Code(0));
            assert_eq!(process::reap().unwrap(), None);
        }
    }
}

fn a_child_starts_with_clean_signals() {
    let signals = [signal::TERM, signal::USR1, signal::rtmin()];
    let fd = SignalFd::new(&signals).unwrap();
    signal::ignore(&[signal::HUP]).unwrap();
    let me = std::process::id() as i32;
    signal::kill(me, signal::rtmin()).unwrap();
    let received = fd.read().unwrap().unwrap();
    assert_eq!((received.signo, received.pid), (signal::rtmin(), me));
    assert_eq!(fd.read().unwrap(), None);
    for (signo, dies) in [(signal::TERM, true), (signal::HUP, true), (signal::PIPE, false)] {
        let exit = in_child(|| {
            signal::reset_for_child().unwrap();
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
        fd::close_foreign(&kept).unwrap();
        let mut all = vec![0, 1, 2, a.as_raw_fd(), write.as_raw_fd()];
        all.sort_unstable();
        assert_eq!(fd::open_descriptors().unwrap(), all);
    });
    assert_eq!(exit, Exit::Code(0));
    let exit = in_child(|| {
        fd::set_cloexec(b.as_fd(), false).unwrap();
        fd::set_cloexec(read.as_fd(), false).unwrap();
        fd::close_inherited_noncloexec(&[read.as_raw_fd()]).unwrap();
        let open = fd::open_descriptors().unwrap();
        assert!(!open.contains(&b.as_raw_fd()));
        assert!([&read, &write].iter().all(|fd| open.contains(&fd.as_raw_fd())));
    });
    assert_eq!(exit, Exit::Code(0));
}

fn dropped_privileges_stay_dropped() {
    if !rustix::process::geteuid().is_root() {
        let identity = user::resolve(Some("0"), None).unwrap().unwrap();
        assert!(user::drop_to(&identity).is_err());
        return;
    }
    let exit = in_child(|| {
        let identity = user::resolve(Some("nobody"), None).unwrap().unwrap();
        user::drop_to(&identity).unwrap();
        assert_eq!(rustix::process::geteuid().as_raw(), identity.uid);
        assert_eq!(rustix::process::getegid().as_raw(), identity.gid);
        assert!(std::fs::read_dir("/root").is_err());
        fd::open_descriptors().unwrap();
        user::drop_to(&identity).unwrap();
        assert!(user::drop_to(&user::resolve(Some("root"), None).unwrap().unwrap()).is_err());
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
    assert_eq!(limits::umask(Some(0o027)) & !0o777, 0);
    assert_eq!(limits::umask(None), 0o027);
    assert_eq!(limits::umask(None), 0o027);
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
