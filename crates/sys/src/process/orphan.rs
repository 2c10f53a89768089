//! A fork whose child belongs to the next subreaper above, not to this process.
//!
//! A middle process that shares this one's memory (as vfork(2) does) calls fork() and exits at
//! once, so that the new process is an orphan from its first moment. A raw clone with CLONE_PARENT
//! would be shorter and unsound: glibc's cached ids and its fork handlers would not follow.

#![allow(unsafe_code)]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use super::fork::{exit, flush, require_one_thread};
use crate::signal;

/// The new process lives on this stack; pages are only taken as they are touched.
const STACK: usize = 8 * 1024 * 1024;
/// An overflow ends here instead of in somebody's data.
const GUARD: usize = 64 * 1024;

/// What the middle process and this one share.
struct Shared<F> {
    run: Option<F>,
    pid: i32,
    errno: i32,
    mask: signal::Mask,
}

/// Forks a process that runs `run` and exits with what that returns (101 after a panic). Gives its
/// pid; its parent is the nearest subreaper above this process, and is so already when `run`
/// begins. This process has nothing to reap, and gets no SIGCHLD.
///
/// # Errors
/// If this process has a second thread, or there is no room for another process.
pub fn fork_orphan<F: FnOnce() -> i32>(run: F) -> io::Result<i32> {
    require_one_thread()?;
    flush();
    let stack = Stack::new()?;
    // A signal that ended the middle process, or ran a handler in it, would do so in our memory.
    let mask = signal::block_all();
    let mut shared = Shared { run: Some(run), pid: -1, errno: libc::EAGAIN, mask };
    // No exit signal: the end of the middle process is news for this call alone.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    // SAFETY: the stack is mapped, aligned and long enough; `shared` outlives the call, because
    // CLONE_VFORK lets this thread go on only when the middle process is gone.
    let middle = unsafe {
        libc::clone(middle::<F>, stack.top(), flags, (&raw mut shared).cast::<libc::c_void>())
    };
    if middle < 0 {
        let error = io::Error::last_os_error();
        mask.restore();
        return Err(error);
    }
    let mut status = 0;
    loop {
        // SAFETY: status is a place of this frame.
        let reaped = unsafe { libc::waitpid(middle, &raw mut status, libc::__WALL) };
        if reaped == middle || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
    mask.restore();
    if shared.pid < 0 {
        return Err(io::Error::from_raw_os_error(shared.errno));
    }
    // The new process has its own copy of what `run` owns. This one's is dropped here, and with it
    // the descriptors that were meant for the new process.
    Ok(shared.pid)
}

extern "C" fn middle<F: FnOnce() -> i32>(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the argument is the `Shared<F>` of fork_orphan, which nobody else touches meanwhile.
    let shared = unsafe { &mut *argument.cast::<Shared<F>>() };
    let middle = std::process::id().cast_signed();
    // SAFETY: one thread, and the memory is in a sound state.
    match unsafe { libc::fork() } {
        0 => {
            await_new_parent(middle);
            shared.mask.restore();
            let code = shared
                .run
                .take()
                .map_or(101, |run| catch_unwind(AssertUnwindSafe(run)).unwrap_or(101));
            use std::io::Write;
            let _ = io::stdout().flush();
            exit(code)
        }
        pid => {
            shared.pid = pid;
            if pid < 0 {
                shared.errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
            }
            exit(0)
        }
    }
}

/// Waits until the middle process, which is about to exit, is gone. A child is not told of that,
/// and it is a matter of microseconds.
fn await_new_parent(middle: i32) {
    let mut turns = 0_u32;
    while super::parent() == middle {
        turns += 1;
        if turns < 100 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
}

struct Stack {
    base: *mut libc::c_void,
}

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), STACK + GUARD, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the lowest part of the mapping that was just made.
        if unsafe { libc::mprotect(base, GUARD, libc::PROT_NONE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Stacks grow downwards on all machines that Shiftwork runs on.
    fn top(&self) -> *mut libc::c_void {
        self.base.wrapping_byte_add(STACK + GUARD)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own. The new process never comes here: it exits
        // while it still stands on its copy.
        unsafe {
            libc::munmap(self.base, STACK + GUARD);
        }
    }
}
