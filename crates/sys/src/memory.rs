//! How much memory this process has for itself.

use std::fs;

/// The bytes of this process's private pages, if they are more than `limit`: what would be free if
/// it went. What it shares with the process that it was forked from, or with others, does not count.
///
/// Cheap as long as all that is resident, shared or not, is within the limit; beyond that the
/// kernel walks through the page tables (a millisecond for some 100 MB). None as well if the kernel
/// does not tell.
#[must_use]
pub fn own_beyond(limit: u64) -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    if pages.saturating_mul(rustix::param::page_size() as u64) <= limit {
        return None;
    }
    let own = private(&fs::read_to_string("/proc/self/smaps_rollup").ok()?);
    (own > limit).then_some(own)
}

fn private(rollup: &str) -> u64 {
    let kib = |line: &str| {
        let value = line.strip_prefix("Private_Clean:").or(line.strip_prefix("Private_Dirty:"))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    rollup.lines().filter_map(kib).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_pages_are_summed() {
        let text = "Rss:   99 kB\nPrivate_Clean:        12 kB\nPrivate_Dirty:     30 kB\n";
        assert_eq!(private(text), 42 * 1024);
        assert_eq!(private("nonsense"), 0);
    }

    #[test]
    fn what_was_written_to_counts() {
        assert_eq!(own_beyond(1 << 40), None);
        let block = std::hint::black_box(vec![7_u8; 32 << 20]);
        assert!(own_beyond(24 << 20).is_some_and(|own| own >= 32 << 20));
        drop(block);
    }
}
