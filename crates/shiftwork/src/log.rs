//! One tracing subscriber for all roles: a line says when, how grave, who, and what.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use shiftwork_supervisor::{identity, log_level};
use shiftwork_sys::fd;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::field::Visit;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

/// Installs the subscriber, unless the application has one of its own, and a panic hook that logs
/// panics, with a backtrace, as lines of the same form.
pub(crate) fn install() {
    look();
    let subscriber = registry().with(Lines);
    // An error means that the application has set its own, which is kept.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no text)");
        let backtrace = crate::backtrace::captured();
        tracing::error!("panicked at {place}: {text}\n{}", backtrace.trim_end());
    }));
}

/// Everything that this process writes goes there from here on.
pub(crate) fn write_to(log: BorrowedFd<'_>) -> io::Result<()> {
    fd::redirect_output(log)?;
    look();
    Ok(())
}

/// Whether lines are coloured: they go to a terminal, and nobody has asked for plain ones.
static COLOUR: AtomicBool = AtomicBool::new(false);

fn look() {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    COLOUR.store(!plain && io::stderr().is_terminal(), Ordering::Relaxed);
}

/// Lines that could not be written, and are made up for by one that says so.
static LOST: AtomicU64 = AtomicU64::new(0);

/// A log that takes nothing (its disk is full) costs its lines and nothing else: nobody waits for
/// it, and it goes on when there is room again.
fn write(line: &str) {
    let lost = LOST.swap(0, Ordering::Relaxed);
    let note = match lost {
        0 => String::new(),
        _ => format!("({lost} lines of pid {} could not be logged)\n", std::process::id()),
    };
    // One write, so that lines of several processes do not mix.
    if io::stderr().write_all(format!("{note}{line}").as_bytes()).is_err() {
        LOST.fetch_add(lost + 1, Ordering::Relaxed);
    }
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // What libraries below have to say in their own detail is theirs to look into.
        log_level::writes(*metadata.level())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::with_capacity(160);
        self.write_head(&mut line, *event.metadata().level());
        let mut text = Text { line: &mut line, rest: String::new() };
        event.record(&mut text);
        let rest = text.rest;
        line.push_str(&rest);
        line.push('\n');
        write(&line);
    }
}

impl Lines {
    fn write_head(&self, line: &mut String, level: Level) {
        use fmt::Write;
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let (colour, name) = match level {
            Level::ERROR => ("\x1b[31m", "ERROR"),
            Level::WARN => ("\x1b[33m", "WARN "),
            Level::INFO => ("\x1b[32m", "INFO "),
            Level::DEBUG => ("\x1b[34m", "DEBUG"),
            Level::TRACE => ("\x1b[35m", "TRACE"),
        };
        let _ = match COLOUR.load(Ordering::Relaxed) {
            true => write!(line, "\x1b[2m{now}\x1b[0m {colour}{name}\x1b[0m "),
            false => write!(line, "{now} {name} "),
        };
        let Some(who) = identity::current() else { return };
        let _ = write!(line, "{}", who.role);
        if let Some(id) = who.worker_id {
            let _ = write!(line, " {id}");
        }
        let _ = write!(line, " pid={}", who.pid);
        if let Some(generation) = who.generation {
            let _ = write!(line, " gen={generation}");
        }
        line.push_str(": ");
    }
}

/// The message first, then the fields.
struct Text<'a> {
    line: &'a mut String,
    rest: String,
}

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        let _ = match field.name() {
            "message" => write!(self.line, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        use fmt::Write;
        match field.name() {
            "message" => self.line.push_str(value),
            name => {
                let _ = write!(self.rest, " {name}={value:?}");
            }
        }
    }
}
