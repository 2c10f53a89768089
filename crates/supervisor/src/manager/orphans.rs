//! Processes that this manager has taken up from another one are the master's children: it tells when
//! they end. When the master dies, nobody does any more, and they are watched from here.

use shiftwork_sys::process::pidfd_open;

use crate::core::event::Ended;

use super::Manager;
use super::take_up::parent_of;

impl Manager {
    /// The master is gone: watches what is not this process's own child.
    pub(super) fn watch_orphans(&mut self) {
        let templates = self.processes.templates.values().map(|it| it.pid);
        let children = self.processes.children.values().filter_map(|it| it.pid);
        let own = Some(self.pids.manager);
        let orphans: Vec<i32> =
            templates.chain(children).filter(|pid| parent_of(*pid) != own).collect();
        for pid in orphans {
            match pidfd_open(pid) {
                Ok(watched) => drop(self.orphans.insert(pid, watched)),
                Err(_) => self.reaped(pid, Ended::Unseen),
            }
        }
    }

    /// One of them is gone.
    pub(super) fn orphan_ended(&mut self, pid: i32) {
        if self.orphans.remove(&pid).is_some() {
            self.reaped(pid, Ended::Unseen);
        }
    }
}
