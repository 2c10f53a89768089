//! Waiting for a condition, with a bound: nothing in these tests sleeps and hopes.

use std::time::{Duration, Instant};

/// Long enough for anything on a busy machine; a test that comes near it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Looks until there is something, and panics with `what` after `limit`.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// [`within`] for a plain condition.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(LONG, what, || holds().then_some(()));
}
