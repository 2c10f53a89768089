//! How long things took, as the status tells it.

use serde::{Deserialize, Serialize};
use shiftwork_sys::slab::{BUCKETS, Distribution};

/// How long requests or tasks took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer than this, in microseconds: the bound of a bucket. None: longer
    /// than the last bound, half a minute.
    pub p50_us: Option<u64>,
    /// The same for 99 of 100.
    pub p99_us: Option<u64>,
    /// How many took no longer than each bound, and longer than the one before it: those of
    /// [`BOUNDS_US`](shiftwork_sys::slab::BOUNDS_US), and one more for what took longer than all of
    /// them. Zeros at the end are left out.
    pub buckets: Vec<u64>,
}

impl Latency {
    /// None: nothing was timed.
    pub fn of(distribution: &Distribution) -> Option<Self> {
        let last = distribution.buckets.iter().rposition(|it| *it > 0)?;
        let bound = |quantile| {
            let bound = distribution.quantile_us(quantile);
            (bound < u64::MAX).then_some(bound)
        };
        Some(Self {
            p50_us: bound(0.5),
            p99_us: bound(0.99),
            buckets: distribution.buckets[..=last].to_vec(),
        })
    }

    /// What was timed since an earlier look at the same. None: nothing, or the buckets are those of
    /// another version.
    pub fn since(&self, earlier: Option<&Self>) -> Option<Self> {
        let before = earlier.map_or(&[][..], |it| &it.buckets);
        if self.buckets.len().max(before.len()) > BUCKETS {
            return None;
        }
        let at = |buckets: &[u64], i: usize| buckets.get(i).copied().unwrap_or(0);
        let buckets = std::array::from_fn(|i| at(&self.buckets, i).saturating_sub(at(before, i)));
        Self::of(&Distribution { buckets, sum_us: 0 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use shiftwork_sys::slab::SharedDistribution;

    #[test]
    fn what_is_beyond_the_last_bound_has_none() {
        let shared = SharedDistribution::default();
        assert_eq!(Latency::of(&shared.read()), None);
        shared.record(200);
        let latency = Latency::of(&shared.read()).unwrap();
        assert_eq!((latency.p50_us, latency.p99_us), (Some(250), Some(250)));
        assert_eq!(latency.buckets, [0, 1]);
        shared.record(40_000_000);
        let latency = Latency::of(&shared.read()).unwrap();
        assert_eq!((latency.p50_us, latency.p99_us), (Some(250), None));
        assert_eq!(latency.buckets.len(), BUCKETS);
        let json = serde_json::to_string(&latency).unwrap();
        assert!(json.starts_with(r#"{"p50_us":250,"p99_us":null,"buckets":[0,1,"#), "{json}");
    }

    #[test]
    fn what_was_timed_since() {
        let shared = SharedDistribution::default();
        (0..1_000).for_each(|_| shared.record(200));
        let earlier = Latency::of(&shared.read()).unwrap();
        assert_eq!(earlier.since(Some(&earlier)), None);
        assert_eq!(earlier.since(None).as_ref(), Some(&earlier));
        (0..10).for_each(|_| shared.record(2_000));
        let later = Latency::of(&shared.read()).unwrap();
        assert_eq!(later.p50_us, Some(250));
        let between = later.since(Some(&earlier)).unwrap();
        assert_eq!((between.p50_us, between.buckets), (Some(2_500), vec![0, 0, 0, 0, 10]));
        let strange = Latency { buckets: vec![1; BUCKETS + 1], ..Latency::default() };
        assert_eq!(strange.since(None), None);
    }
}
