//! Catching the panics of handlers, with where and how they happened.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// What a handler that panicked has said, where it did so, and how it came there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// The panic's text.
    pub message: String,
    /// File, line and column, if the hook of [`install`] was in place.
    pub location: Option<String>,
    /// The backtrace, if there is one.
    pub backtrace: Option<String>,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        match &self.backtrace {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

/// Installs a panic hook that notes a caught panic for the log line of its catcher, and leaves every
/// other panic to the hook that was there before. Call it once, at the start of a worker.
pub fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !CATCHING.get() {
            return before(info);
        }
        let backtrace = Backtrace::force_capture();
        let panicked = Panicked {
            message: text_of(info.payload()),
            location: info.location().map(ToString::to_string),
            backtrace: (backtrace.status() == BacktraceStatus::Captured)
                .then(|| backtrace.to_string()),
        };
        LAST.with_borrow_mut(|last| *last = Some(panicked));
    }));
}

/// Runs `code`; a panic in it becomes an error and reaches nobody else.
///
/// # Errors
/// What the panic said.
#[inline]
pub fn catch<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = CATCHING.replace(true);
    // What the code leaves half changed belongs to it, and its owner drops it after a panic.
    let result = catch_unwind(AssertUnwindSafe(code));
    CATCHING.set(before);
    result.map_err(|payload| {
        LAST.take().unwrap_or_else(|| Panicked {
            message: text_of(payload.as_ref()),
            location: None,
            backtrace: None,
        })
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}
