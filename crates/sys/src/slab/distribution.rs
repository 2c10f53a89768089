//! How durations are distributed: a histogram whose bounds writer and reader know beforehand.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets in microseconds, inclusive: three a decade, from a tenth of a
/// millisecond to half a minute. What lasts longer is in one more bucket.
///
/// They are part of the slab's layout: another set is another `VERSION`.
pub const BOUNDS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// One for each bound, and one for what is beyond all of them.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// A distribution as it lies in the slab: it only ever grows.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SharedDistribution {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl SharedDistribution {
    /// One more duration. From any thread.
    #[inline]
    pub fn record(&self, duration_us: u64) {
        // The first bound that is not below it; beyond the last one there is the last bucket.
        let bucket = BOUNDS_US.partition_point(|bound| *bound < duration_us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(duration_us, Relaxed);
    }

    /// How many durations it has counted so far.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|it| it.load(Relaxed)).sum()
    }

    /// What it has counted so far.
    #[must_use]
    pub fn read(&self) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|it| self.buckets[it].load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
        }
    }

    pub(super) fn add(&self, more: &Distribution) {
        for (bucket, count) in self.buckets.iter().zip(more.buckets) {
            bucket.fetch_add(count, Relaxed);
        }
        self.sum_us.fetch_add(more.sum_us, Relaxed);
    }

    pub(super) fn clear(&self) {
        self.buckets.iter().for_each(|it| it.store(0, Relaxed));
        self.sum_us.store(0, Relaxed);
    }
}

/// A distribution, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many durations fell between the bound of the same place in [`BOUNDS_US`] and the one
    /// before it; the last bucket has no bound.
    pub buckets: [u64; BUCKETS],
    /// The sum of all durations, in microseconds.
    pub sum_us: u64,
}

impl Distribution {
    /// How many durations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The mean in microseconds; 0 if there is none.
    #[must_use]
    pub fn mean_us(&self) -> u64 {
        self.sum_us.checked_div(self.count()).unwrap_or(0)
    }

    /// A bound in microseconds that at least the share `quantile` (0 to 1) of all durations keeps;
    /// `u64::MAX` if only the last bucket does, and 0 if there are none.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "a share of a count"
    )]
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        let wanted = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64;
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= wanted && below > 0 {
                return BOUNDS_US.get(bucket).copied().unwrap_or(u64::MAX);
            }
        }
        0
    }

    pub(super) fn merge(&mut self, more: &Distribution) {
        for (sum, count) in self.buckets.iter_mut().zip(more.buckets) {
            *sum = sum.wrapping_add(count);
        }
        self.sum_us = self.sum_us.wrapping_add(more.sum_us);
    }

    pub(super) fn since(&self, earlier: &Distribution) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|it| self.buckets[it].saturating_sub(earlier.buckets[it])),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_bucket_below_them() {
        let shared = SharedDistribution::default();
        for duration in [0, 100, 101, 250, 30_000_000, 30_000_001, u64::from(u32::MAX)] {
            shared.record(duration);
        }
        let read = shared.read();
        assert_eq!((read.buckets[0], read.buckets[1]), (2, 2));
        assert_eq!((read.buckets[BUCKETS - 2], read.buckets[BUCKETS - 1]), (1, 2));
        assert_eq!(read.count(), 7);
    }

    #[test]
    fn quantiles_are_bounds() {
        let shared = SharedDistribution::default();
        assert_eq!(shared.read().quantile_us(0.5), 0);
        (0..99).for_each(|_| shared.record(200));
        shared.record(700_000);
        let read = shared.read();
        assert_eq!((read.quantile_us(0.0), read.quantile_us(0.99)), (250, 250));
        assert_eq!((read.quantile_us(0.999), read.quantile_us(1.0)), (1_000_000, 1_000_000));
        shared.record(u64::from(u32::MAX));
        assert_eq!(shared.read().quantile_us(1.0), u64::MAX);
        assert_eq!(read.mean_us(), (99 * 200 + 700_000) / 100);
    }

    proptest::proptest! {
        #[test]
        fn whatever_lasted_is_counted_once(durations in proptest::collection::vec(0_u64..100_000_000, 0..200)) {
            let shared = SharedDistribution::default();
            durations.iter().for_each(|it| shared.record(*it));
            let read = shared.read();
            proptest::prop_assert_eq!(read.count(), durations.len() as u64);
            proptest::prop_assert_eq!(read.sum_us, durations.iter().sum::<u64>());
            let mut below = 0;
            for (bucket, bound) in BOUNDS_US.iter().enumerate() {
                below += read.buckets[bucket];
                let expected = durations.iter().filter(|it| *it <= bound).count() as u64;
                proptest::prop_assert_eq!(below, expected);
            }
        }
    }
}
