//! Forks: what a new process has to do before it is a worker or runs a hook.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shiftwork_supervisor::identity;
use shiftwork_supervisor::protocol::template::{FromTemplate, HookCall};
use shiftwork_sys::{fd, process, signal};

use crate::server::{Boot, Server};
use crate::settings::Settings;
use crate::worker::{self, Birth};

/// What the processes of a generation are made from.
pub(super) struct Births<P: 'static, S: 'static> {
    pub(super) server: &'static Server<P, S>,
    pub(super) settings: Settings,
    pub(super) boot: Boot,
    pub(super) preloaded: Arc<P>,
}

impl<P, S> Births<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Forks a worker or task worker; which of both the manager tells it itself.
    pub(super) fn fork(&self, child: u64, mut fds: Vec<OwnedFd>) -> FromTemplate {
        let (Some(output), Some(control)) = (fds.pop(), fds.pop()) else {
            return not_forked(child, "its descriptors did not arrive");
        };
        let forked = process::fork_orphan(|| {
            become_child(&[control.as_raw_fd(), output.as_raw_fd()], &output);
            let Ok(control) = control.try_clone() else { return 1 };
            worker::run(Birth {
                server: self.server,
                settings: self.settings.clone(),
                release: self.boot.release.clone(),
                app: Arc::clone(&self.boot.app),
                preloaded: Arc::clone(&self.preloaded),
                control,
            })
        });
        answer(child, forked)
    }

    /// Forks a process for a hook.
    pub(super) fn hook(&self, child: u64, call: HookCall, mut fds: Vec<OwnedFd>) -> FromTemplate {
        let Some(output) = fds.pop() else {
            return not_forked(child, "its descriptors did not arrive");
        };
        let forked = process::fork_orphan(|| {
            become_child(&[output.as_raw_fd()], &output);
            identity::become_role(&self.server.name, "hook", None, Some(self.boot.generation));
            process::set_title(&format!("{}: hook", self.server.name));
            let Some((_, hook)) = self.server.hooks.get(&(call.name as u8)) else { return 1 };
            match catch_unwind(AssertUnwindSafe(|| hook(&call))) {
                Ok(Ok(())) => 0,
                Ok(Err(error)) => {
                    tracing::error!("{:?}: {error}", call.name);
                    1
                }
                Err(_) => 101,
            }
        });
        answer(child, forked)
    }
}

/// Signals that ask the master for something. One that comes to a process below it by mistake changes
/// nothing; TERM alone has a meaning to some.
pub(super) fn requests() -> [i32; 8] {
    [
        signal::INT,
        signal::HUP,
        signal::USR1,
        signal::USR2,
        signal::QUIT,
        signal::TTIN,
        signal::TTOU,
        signal::rtmin(),
    ]
}

/// First of all in the child: nothing of the template's or of a sibling's stays open, else an end
/// of file would never come.
fn become_child(keep: &[i32], output: &OwnedFd) {
    fd::close_foreign(keep);
    signal::reset_for_child();
    signal::ignore(&requests());
    let _ = fd::redirect_output(output.as_fd());
}

fn answer(child: u64, forked: std::io::Result<i32>) -> FromTemplate {
    match forked {
        Ok(pid) => FromTemplate::Forked { child, pid },
        Err(error) => not_forked(child, &error.to_string()),
    }
}

fn not_forked(child: u64, reason: &str) -> FromTemplate {
    FromTemplate::NotForked { child, reason: reason.to_owned() }
}
