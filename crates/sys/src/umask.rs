//! The file mode mask.

use rustix::fs::Mode;

/// The mask that an octal number says, as `0027`.
pub fn parse(octal: &str) -> Option<u32> {
    u32::from_str_radix(octal, 8).ok()
}

/// Sets the mask; None leaves it as it was inherited.
pub fn set(mask: Option<u32>) {
    if let Some(mask) = mask {
        rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
    }
}

/// Another mask for as long as this value lives. Single-threaded processes only: the mask
/// belongs to the whole process.
#[derive(Debug)]
pub struct Changed {
    before: Mode,
}

impl Changed {
    /// Sets the mask until the value is dropped.
    #[must_use]
    pub fn to(mask: u32) -> Self {
        Self { before: rustix::process::umask(Mode::from_raw_mode(mask & 0o777)) }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        rustix::process::umask(self.before);
    }
}
