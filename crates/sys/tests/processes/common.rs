//! What the cases have in common.

use std::os::fd::AsFd;
use std::time::Duration;

use shiftwork_sys::process::{self, Exit, Forked};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, Poller};

/// Waits until there is something to read, which must come soon.
pub(crate) fn await_readable(fd: impl AsFd) {
    let mut poller = Poller::new();
    poller.add((), fd.as_fd(), Interest::Read);
    assert_eq!(poller.wait(Some(Duration::from_secs(10))).unwrap().len(), 1);
}

/// Runs `body` in a forked child and returns how it ended; a panic ends it with 101.
pub(crate) fn in_child(body: impl FnOnce()) -> Exit {
    match process::fork().unwrap() {
        Forked::Parent(pid) => process::wait_for(pid).unwrap(),
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
    await_readable(channel);
    let len = channel.recv_bytes(&mut buf).unwrap();
    String::from_utf8_lossy(&buf[..len]).into_owned()
}

/// The descriptors that are open, in order.
pub(crate) fn open_descriptors() -> Vec<i32> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<i32> = names.map(|name| name.parse().unwrap()).collect();
    // The list's own descriptor is gone by now.
    all.retain(|number| std::path::Path::new(&format!("/proc/self/fd/{number}")).exists());
    all.sort_unstable();
    all
}
