//! The way back to the terminal on which the start was typed: whether the server is ready, or why not.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftwork_sys::socket::Channel;
use shiftwork_sys::wait::{Interest, Poller};

use crate::protocol::wire;

/// Beyond start_timeout, how long a daemon may take to say that it has passed.
const SILENCE: Duration = Duration::from_secs(30);

/// How long the end of a daemon that has failed is waited for.
const LAST: Duration = Duration::from_secs(5);

/// What the master tells the process that the user waits for.
#[derive(Debug, Serialize, Deserialize)]
enum News {
    Ready { pid: i32, addresses: Vec<String> },
    Failed { reason: String, output: String, code: u8 },
}

/// The way back to the terminal on which the command was typed.
#[derive(Debug)]
pub(super) struct Launcher {
    name: String,
    channel: Option<Channel>,
    foreground: bool,
    told: bool,
}

impl Launcher {
    /// One that tells whoever reads the log; the terminal as well, if the log is `foreground`.
    pub(super) fn new(name: &str, foreground: bool) -> Self {
        Self { name: name.to_owned(), channel: None, foreground, told: false }
    }

    /// From now on a process waits at the other end of `channel`.
    pub(super) fn tell_by(&mut self, channel: Channel) {
        self.channel = Some(channel);
    }

    /// The way to the process that waits, if one does.
    pub(super) fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// One that tells nobody.
    pub(super) fn silent() -> Self {
        Self { name: String::new(), channel: None, foreground: false, told: true }
    }

    /// The server is ready.
    pub(super) fn ready(&mut self, addresses: &BTreeSet<String>) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let pid = std::process::id().cast_signed();
        let addresses: Vec<String> = addresses.iter().cloned().collect();
        tracing::info!("{} is ready: pid {pid}, {}", self.name, addresses.join(", "));
        self.tell(&News::Ready { pid, addresses });
        self.channel = None;
    }

    /// The server has failed to start. Whoever waits goes on to wait for the end of this process, which
    /// keeps the way to it open until then.
    pub(super) fn failed(&mut self, reason: &str, output: &str, code: u8) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if self.foreground {
            // What the new code wrote stands on this terminal already.
            eprintln!("{} has not started: {reason}", self.name);
        } else {
            tracing::error!("{} has not started: {reason}", self.name);
        }
        self.tell(&News::Failed { reason: reason.to_owned(), output: output.to_owned(), code });
    }

    fn tell(&mut self, news: &News) {
        if let Some(channel) = &self.channel
            && let Ok(bytes) = wire::encode(news)
        {
            let _ = channel.set_blocking(true);
            let _ = channel.send(&bytes, &[]);
        }
    }
}

/// In the process that the user waits for: waits too, and prints what came of it; if that is nothing,
/// the daemon has gone when this returns. Gives the exit status.
pub(super) fn report(
    channel: &Channel,
    start_timeout: Duration,
    name: &str,
    log_file: &Path,
    json: bool,
) -> u8 {
    let _ = channel.set_blocking(true);
    // The daemon keeps start_timeout itself; this is for one that cannot keep anything any more.
    let spoke = speaks_or_ends(channel, start_timeout.saturating_add(SILENCE));
    let news = Some(channel)
        .filter(|_| spoke)
        .and_then(|channel| channel.receive(wire::MAX_PACKET).ok())
        .and_then(|(bytes, _)| wire::decode::<News>(&bytes).ok())
        .unwrap_or_else(|| News::Failed {
            reason: format!("its process has said nothing; its log is {}", log_file.display()),
            output: String::new(),
            code: 1,
        });
    match news {
        News::Ready { pid, addresses } => {
            let log = log_file.display().to_string();
            if json {
                let line = serde_json::json!({
                    "outcome": "ready", "pid": pid, "addresses": addresses, "log_file": log,
                });
                println!("{line}");
            } else {
                println!("{name} is ready: pid {pid}");
                for address in addresses {
                    println!("  {address}");
                }
                println!("  log {log}");
            }
            0
        }
        News::Failed { reason, output, code } => {
            if json {
                println!("{}", failure(&reason, &output));
            } else {
                let mut stderr = io::stderr().lock();
                let _ = stderr.write_all(output.as_bytes());
                if !output.is_empty() && !output.ends_with('\n') {
                    let _ = stderr.write_all(b"\n");
                }
                let _ = writeln!(stderr, "{name} has not started: {reason}");
            }
            // Else a start that is typed next could find this server, which is still going. Nothing
            // more is said: what can be read is the end.
            speaks_or_ends(channel, LAST);
            code
        }
    }
}

/// Waits for the other side, but no longer than this; false: in vain.
fn speaks_or_ends(channel: &Channel, patience: Duration) -> bool {
    let mut poller = Poller::new();
    poller.add((), channel.as_fd(), Interest::READ);
    poller.wait(Some(patience)).is_ok_and(|ready| !ready.is_empty())
}

/// A failed start in JSON.
pub(super) fn failure(reason: &str, output: &str) -> serde_json::Value {
    serde_json::json!({ "outcome": "failed", "reason": reason, "output": output })
}
