//! Things that go wrong on purpose, to see what the server makes of them.
//!
//! `app.fault` is read anew at every generation and acts in template and workers only: whatever
//! is set here, master and manager stay well.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftwork::BoxError;

/// One way of going wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Fault {
    /// All is well.
    #[default]
    None,
    /// The template exits with status 3 in `preload`.
    ExitAtStart,
    /// The template panics in `preload`.
    PanicInPreload,
    /// `preload` takes so long, then succeeds.
    SlowPreload(Duration),
    /// `preload` leaves a second thread behind, which makes every fork unsafe.
    ThreadInPreload,
    /// Workers panic in `on_worker_start`.
    PanicInWorkerStart,
    /// `on_worker_start` never returns, and takes its thread with it.
    HangInWorkerStart,
    /// `on_worker_start` takes so long, then succeeds.
    SlowStart(Duration),
    /// A worker aborts on receiving its Nth request.
    CrashAfter(u64),
    /// A worker aborts when it has been ready for so long.
    CrashAfterReady(Duration),
    /// The health check fails.
    Unhealthy,
    /// So many of a hundred requests are answered with 500.
    Errors(u64),
    /// Each request takes so much longer.
    Slow(Duration),
    /// Each request leaves so many megabytes behind for ever.
    Leak(u64),
}

impl Fault {
    /// Called in the template.
    pub(crate) fn in_preload(self) -> Result<(), BoxError> {
        match self {
            Fault::ExitAtStart => {
                eprintln!("fault: exit_at_start");
                std::process::exit(3)
            }
            Fault::PanicInPreload => panic!("fault: panic_in_preload"),
            Fault::SlowPreload(time) => thread::sleep(time),
            Fault::ThreadInPreload => {
                thread::spawn(|| {
                    loop {
                        thread::park();
                    }
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Called in every worker and task worker before it is ready.
    pub(crate) async fn in_worker_start(self) {
        match self {
            Fault::PanicInWorkerStart => panic!("fault: panic_in_worker_start"),
            Fault::HangInWorkerStart => loop {
                // Not a pending future: the whole thread hangs, as a lost lock would make it.
                thread::park();
            },
            Fault::SlowStart(time) => tokio::time::sleep(time).await,
            _ => {}
        }
    }

    /// Called in every worker that is about to be ready.
    pub(crate) fn when_ready(self) {
        if let Fault::CrashAfterReady(time) = self {
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                eprintln!("fault: {self}");
                std::process::abort();
            });
        }
    }

    /// Called when somebody asks for the worker's health.
    pub(crate) fn in_health(self) -> Result<(), String> {
        match self {
            Fault::Unhealthy => Err(format!("fault: {self}")),
            _ => Ok(()),
        }
    }

    /// Called with the number of requests that this worker has received, this one included. An error
    /// is the answer.
    pub(crate) async fn in_request(self, received: u64) -> Result<(), String> {
        match self {
            Fault::CrashAfter(limit) if received >= limit => {
                eprintln!("fault: {self}");
                std::process::abort();
            }
            Fault::Leak(megabytes) => {
                let size = usize::try_from(megabytes << 20).unwrap_or(0);
                // Written to: memory that nobody has touched takes no room.
                std::mem::forget(vec![1_u8; size]);
            }
            Fault::Slow(time) => tokio::time::sleep(time).await,
            // Evenly: 25 is every fourth one.
            Fault::Errors(percent) if received * percent / 100 > (received - 1) * percent / 100 => {
                return Err(format!("fault: {self}"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::None => out.write_str("none"),
            Fault::ExitAtStart => out.write_str("exit_at_start"),
            Fault::PanicInPreload => out.write_str("panic_in_preload"),
            Fault::SlowPreload(time) => write!(out, "slow_preload={}", time.as_millis()),
            Fault::ThreadInPreload => out.write_str("thread_in_preload"),
            Fault::PanicInWorkerStart => out.write_str("panic_in_worker_start"),
            Fault::HangInWorkerStart => out.write_str("hang_in_worker_start"),
            Fault::SlowStart(time) => write!(out, "slow_start={}", time.as_millis()),
            Fault::CrashAfter(requests) => write!(out, "crash_after={requests}"),
            Fault::CrashAfterReady(time) => write!(out, "crash_after_ready={}", time.as_millis()),
            Fault::Unhealthy => out.write_str("unhealthy"),
            Fault::Errors(percent) => write!(out, "errors={percent}"),
            Fault::Slow(time) => write!(out, "slow={}", time.as_millis()),
            Fault::Leak(megabytes) => write!(out, "leak={megabytes}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = match text.split_once('=') {
            Some((name, number)) => (name, number.parse::<u64>().ok()),
            None => (text, None),
        };
        match (name, number) {
            ("none", None) => Ok(Fault::None),
            ("exit_at_start", None) => Ok(Fault::ExitAtStart),
            ("panic_in_preload", None) => Ok(Fault::PanicInPreload),
            ("slow_preload", Some(ms)) => Ok(Fault::SlowPreload(Duration::from_millis(ms))),
            ("thread_in_preload", None) => Ok(Fault::ThreadInPreload),
            ("panic_in_worker_start", None) => Ok(Fault::PanicInWorkerStart),
            ("hang_in_worker_start", None) => Ok(Fault::HangInWorkerStart),
            ("slow_start", Some(ms)) => Ok(Fault::SlowStart(Duration::from_millis(ms))),
            ("crash_after", Some(requests)) => Ok(Fault::CrashAfter(requests)),
            ("crash_after_ready", Some(ms)) => {
                Ok(Fault::CrashAfterReady(Duration::from_millis(ms)))
            }
            ("unhealthy", None) => Ok(Fault::Unhealthy),
            ("errors", Some(percent @ 0..=100)) => Ok(Fault::Errors(percent)),
            ("slow", Some(ms)) => Ok(Fault::Slow(Duration::from_millis(ms))),
            ("leak", Some(megabytes)) => Ok(Fault::Leak(megabytes)),
            _ => Err(format!(
                "no fault is called {text:?}; there are none, exit_at_start, panic_in_preload, \
                 thread_in_preload, panic_in_worker_start, hang_in_worker_start, slow_preload=MS, \
                 slow_start=MS, crash_after=REQUESTS, crash_after_ready=MS, unhealthy, \
                 errors=PERCENT, slow=MS and leak=MB"
            )),
        }
    }
}

impl TryFrom<String> for Fault {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> String {
        fault.to_string()
    }
}
