//! What the service manager hears (systemd's protocol, sd_notify(3)): that the server is ready,
//! reloads, stops, lives, and needs more time; and which listeners it shall keep.
//!
//! Without NOTIFY_SOCKET all of this does nothing. Nobody ever waits for the service manager: what
//! it does not take at once is sent again a moment later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use serde::{Deserialize, Serialize};
use shiftwork_sys::clock::{monotonic_ms, monotonic_us};
use shiftwork_sys::notify::{MOST_FDS, Notifier, Told};

use crate::core::event::Millis;

/// Between two attempts to send.
const AGAIN: Millis = 50;
/// Messages that wait; older ones are dropped.
const MOST_WAITING: usize = 256;
/// While something takes time, more of it is asked for so often,
const EXTEND_EVERY: Millis = 5_000;
/// and so much at a time, in microseconds.
const EXTENSION: u64 = 20_000_000;

/// Where the server is, as the service manager has been told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    #[default]
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// The way to the service manager, and what it knows.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<Notifier>,
    stage: Stage,
    /// A sign of life is sent so often.
    watchdog: Option<Millis>,
    watchdog_due: Millis,
    extend_due: Millis,
    /// How many sockets it keeps, by their name.
    stored: BTreeMap<String, usize>,
    waiting: VecDeque<(String, Vec<OwnedFd>)>,
    again: Millis,
}

/// The same, for the program that comes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct NotifyState {
    socket: Option<Vec<u8>>,
    stage: Stage,
    watchdog: Option<Millis>,
    stored: BTreeSet<String>,
    /// How many of each: a master that does not say has them given once more, which changes nothing.
    #[serde(default)]
    sockets: BTreeMap<String, usize>,
}

impl Notify {
    /// Goes by what the service manager has told this process.
    pub fn new(told: &Told) -> Self {
        let stage = Stage::Starting;
        let watchdog = told.watchdog_us.map(|us| (us / 2000).max(1));
        Self::to(told.socket.clone(), stage, watchdog, BTreeMap::new())
    }

    fn to(
        socket: Option<OsString>,
        stage: Stage,
        watchdog: Option<Millis>,
        stored: BTreeMap<String, usize>,
    ) -> Self {
        let to = socket.and_then(|socket| {
            let to = Notifier::new(socket);
            to.inspect_err(|error| tracing::warn!("NOTIFY_SOCKET is of no use: {error}")).ok()
        });
        Self { to, stage, watchdog, stored, ..Self::default() }
    }

    /// All of it, for the program that comes.
    pub fn describe(&self) -> NotifyState {
        NotifyState {
            socket: self.to.as_ref().map(Notifier::name),
            stage: self.stage,
            watchdog: self.watchdog,
            stored: self.stored.keys().cloned().collect(),
            sockets: self.stored.clone(),
        }
    }

    /// Goes on from there.
    pub fn restore(state: NotifyState) -> Self {
        let socket = state.socket.map(OsString::from_vec);
        let many = |name: String| {
            let many = state.sockets.get(&name).copied().unwrap_or(0);
            (name, many)
        };
        let stored = state.stored.into_iter().map(many).collect();
        Self::to(socket, state.stage, state.watchdog, stored)
    }

    /// The server serves, or serves again after a reload. `pid`: this process, if it is not the one
    /// that the service manager has started.
    pub fn ready(&mut self, status: &str, pid: Option<i32>) {
        if self.stage == Stage::Stopping {
            return;
        }
        self.stage = Stage::Ready;
        let pid = pid.map_or_else(String::new, |pid| format!("\nMAINPID={pid}"));
        self.say(format!("READY=1\nSTATUS={}{pid}", line(status)));
    }

    /// Whether there is a service manager.
    pub fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    /// A reload was asked for.
    pub fn reloading(&mut self) {
        if matches!(self.stage, Stage::Ready | Stage::Reloading) {
            self.stage = Stage::Reloading;
            self.extend_due = monotonic_ms() + EXTEND_EVERY;
            let now = monotonic_us();
            self.say(format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"));
        }
    }

    /// Whether a reload is under way, as far as the service manager knows.
    pub fn is_reloading(&self) -> bool {
        self.stage == Stage::Reloading
    }

    /// The server drains and leaves.
    pub fn stopping(&mut self) {
        if self.stage != Stage::Stopping {
            self.stage = Stage::Stopping;
            self.extend_due = 0;
            self.say("STOPPING=1\nSTATUS=stopping".to_owned());
        }
    }

    /// A word to whoever asks for the status of the service.
    pub fn status(&mut self, status: &str) {
        self.say(format!("STATUS={}", line(status)));
    }

    /// Gives sockets to be kept over the death of this process, each once: of a name that is known,
    /// those that have joined at the end. `name` must not hold a colon.
    ///
    /// # Errors
    /// If no descriptors are to be had.
    pub fn store(&mut self, name: &str, sockets: &[OwnedFd]) -> io::Result<()> {
        if self.to.is_none() {
            return Ok(());
        }
        let before = self.stored.get(name).copied().unwrap_or(0);
        let joined = sockets.get(before..).unwrap_or_default();
        let joined = joined.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        self.stored.insert(name.to_owned(), sockets.len());
        let mut sockets = joined.into_iter().peekable();
        while sockets.peek().is_some() {
            let some = sockets.by_ref().take(MOST_FDS).collect();
            // A socket that nobody listens on yet looks like one that was hung up: not to be polled.
            self.send(format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), some);
        }
        Ok(())
    }

    /// Has everything let go but what has these names.
    pub fn keep_stored(&mut self, names: &BTreeSet<String>) {
        let gone = self.stored.keys().filter(|it| !names.contains(*it));
        let gone: Vec<String> = gone.cloned().collect();
        for name in gone {
            self.forget_stored(&name);
        }
    }

    /// Has something let go.
    pub fn forget_stored(&mut self, name: &str) {
        self.stored.remove(name);
        self.say(format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// When [`pass`](Self::pass) has something to do.
    pub fn due(&self) -> Option<Millis> {
        self.to.as_ref()?;
        let watchdog = self.watchdog.map(|_| self.watchdog_due);
        let extend = (self.stage != Stage::Ready).then_some(self.extend_due);
        let again = (!self.waiting.is_empty()).then_some(self.again);
        watchdog.into_iter().chain(extend).chain(again).min()
    }

    /// Says that this process lives, and asks for more time for what is bounded by the settings of
    /// the server itself: a start, a reload, a drain.
    pub fn pass(&mut self) {
        if self.to.is_none() {
            return;
        }
        let now = monotonic_ms();
        if let Some(period) = self.watchdog
            && self.watchdog_due <= now
        {
            self.watchdog_due = now + period;
            self.say("WATCHDOG=1".to_owned());
        }
        if self.stage != Stage::Ready && self.extend_due <= now {
            self.extend_due = now + EXTEND_EVERY;
            self.say(format!("EXTEND_TIMEOUT_USEC={EXTENSION}"));
        }
        self.flush();
    }

    fn say(&mut self, text: String) {
        self.send(text, Vec::new());
    }

    fn send(&mut self, text: String, fds: Vec<OwnedFd>) {
        if self.to.is_none() {
            return;
        }
        if self.waiting.len() == MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((text, fds));
        self.flush();
    }

    fn flush(&mut self) {
        let Some(to) = &self.to else { return };
        while let Some((text, fds)) = self.waiting.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match to.send(text, &borrowed) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.again = monotonic_ms() + AGAIN;
                    return;
                }
                Err(error) => tracing::debug!("the service manager was not told {text:?}: {error}"),
                Ok(()) => {}
            }
            self.waiting.pop_front();
        }
    }
}

/// One line, whatever the text is.
fn line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shiftwork_sys::fd;
    use std::os::unix::net::UnixDatagram;

    fn pair() -> (Notify, UnixDatagram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let told = Told { socket: Some(path.into()), watchdog_us: Some(2_000_000), store: 8 };
        (Notify::new(&told), socket, folder)
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        std::iter::from_fn(|| {
            let read = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..read]).into_owned())
        })
        .collect()
    }

    #[test]
    fn a_reload_is_told_with_its_moment_in_one_datagram() {
        let (mut notify, socket, _folder) = pair();
        notify.reloading();
        assert_eq!(heard(&socket), [""; 0], "there is nothing to reload yet");
        notify.ready("generation 1\nserves", None);
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=generation 1 serves"]);
        let before = monotonic_us();
        notify.reloading();
        let said = heard(&socket);
        let moment = said[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let moment: u64 = moment.split('\n').next().unwrap().parse().unwrap();
        assert!((before..=monotonic_us()).contains(&moment));
        notify.ready("generation 2 serves", Some(7));
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=generation 2 serves\nMAINPID=7"]);
        notify.stopping();
        notify.stopping();
        notify.ready("no", None);
        notify.reloading();
        assert_eq!(heard(&socket), ["STOPPING=1\nSTATUS=stopping"]);
    }

    #[test]
    fn signs_of_life_and_more_time_are_due_when_they_are() {
        let (mut notify, socket, _folder) = pair();
        notify.pass();
        assert_eq!(heard(&socket), ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=20000000"]);
        let due = notify.due().unwrap();
        assert!((900..=1_000).contains(&(due - monotonic_ms())), "half of the watchdog's time");
        notify.pass();
        assert_eq!(heard(&socket), [""; 0]);
        notify.ready("", None);
        heard(&socket);
        notify.watchdog = None;
        assert_eq!(notify.due(), None);
    }

    #[test]
    fn what_is_not_taken_waits_and_what_was_known_is_known_again() {
        let (mut notify, socket, _folder) = pair();
        for number in 0..100 {
            notify.status(&number.to_string());
        }
        let mut all = heard(&socket);
        assert!(all.len() < 100 && notify.due().is_some());
        while notify.due().is_some_and(|_| !notify.waiting.is_empty()) {
            notify.flush();
            all.extend(heard(&socket));
        }
        assert_eq!(all.len(), 100);
        let written = serde_json::to_string(&notify.describe()).unwrap();
        let mut again = Notify::restore(serde_json::from_str(&written).unwrap());
        again.ready("", None);
        assert_eq!(heard(&socket).len(), 1);
        assert_eq!(again.watchdog, Some(1_000));
    }

    #[test]
    fn each_socket_is_given_once_and_those_that_join_are_given_too() {
        let (mut notify, socket, _folder) = pair();
        let open = || fd::pipe().unwrap().0;
        let given = "FDSTORE=1\nFDPOLL=0\nFDNAME=web".to_owned();
        let mut sockets = vec![open(), open()];
        for (more, told) in [(0, 1), (0, 0), (1, 1)] {
            sockets.extend(std::iter::repeat_with(open).take(more));
            notify.store("web", &sockets).unwrap();
            assert_eq!(heard(&socket), vec![given.clone(); told]);
        }
        let mut state = notify.describe();
        let mut again = Notify::restore(notify.describe());
        again.store("web", &sockets).unwrap();
        assert_eq!(heard(&socket), [""; 0], "the next program knows");
        // One that was told of the names alone.
        state.sockets.clear();
        let mut again = Notify::restore(state);
        again.store("web", &sockets).unwrap();
        assert_eq!(heard(&socket), [given]);
        again.keep_stored(&BTreeSet::new());
        assert_eq!(heard(&socket), ["FDSTOREREMOVE=1\nFDNAME=web"]);
    }

    #[test]
    fn without_a_service_manager_nothing_is_due() {
        let mut notify = Notify::new(&Told::default());
        notify.ready("", None);
        notify.stopping();
        notify.pass();
        assert_eq!((notify.due(), notify.waiting.len()), (None, 0));
    }
}
