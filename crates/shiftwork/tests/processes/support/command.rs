//! Running a command as a shell would, with a bound on its time.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::wait::LONG;

/// What came of a command.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Exit status; -1 if a signal ended it.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Both outputs.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks the exit status, and shows everything if it is another.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// Runs it to its end. The end of its *output* is waited for too, so a daemon that keeps a
/// descriptor of the terminal that launched it does not pass.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(LONG), stderr.recv_timeout(LONG)) else {
        let state = child.try_wait();
        let _ = child.kill();
        panic!("{command:?}: its output did not end within {LONG:?}; the command: {state:?}");
    };
    let status = child.wait().expect("wait for the command");
    Ended { code: status.code().unwrap_or(-1), stdout, stderr }
}

fn drain(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (done, all) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = done.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    all
}
