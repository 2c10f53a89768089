//! Versions of what manager and master write down for the programs that they become.
//!
//! A field that a reader may miss, or leave out, is no new version: it has a default. A change that
//! an older reader would misunderstand is; then [`OLDEST`] stays for at least one version more, and
//! what the older one wrote is kept in `fixtures/` and read by the tests.

/// The oldest that this program can go on from.
pub const OLDEST: u32 = 1;
/// What this program writes.
pub const NEWEST: u32 = 1;

/// Whether this program can go on from what was written.
///
/// # Errors
/// A sentence about why not.
pub fn check(found: u32) -> Result<(), String> {
    if (OLDEST..=NEWEST).contains(&found) {
        return Ok(());
    }
    Err(format!("it is of version {found}; this program reads {OLDEST} to {NEWEST}"))
}
