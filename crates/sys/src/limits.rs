//! Resource limits.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the number of descriptors this process may hold to `wanted`, or, without a wish, to the
/// hard limit; root may go beyond that. Gives the limit that holds now.
///
/// # Errors
/// If `wanted` is beyond what this process may have.
pub fn raise_open_files(wanted: Option<u64>) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let target = wanted.unwrap_or(hard);
    if wanted.is_none() && soft >= target {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, target, hard.max(target))?;
    Ok(target)
}

/// How many descriptors this process may hold.
#[must_use]
pub fn open_files() -> u64 {
    // Cannot fail for a resource that exists.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}
