//! One metric with its series, over prometheus-client's encoder.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use shiftwork_sys::slab::{BOUNDS_US, Distribution};

use crate::core::tally::Durations;

/// Labels with their values, safe to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(Vec<(&'static str, String)>);

impl Labels {
    /// One more. What could end a value is escaped: the encoder writes it as it is.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        let escaped = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        self.0.push((name, escaped));
        self
    }
}

/// A histogram's content.
pub(super) struct Timed {
    buckets: Vec<(f64, u64)>,
    sum_seconds: f64,
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn seconds(units: u64, per_second: f64) -> f64 {
    units as f64 / per_second
}

fn with_bounds(counts: &[u64]) -> Vec<(f64, u64)> {
    let bounds = BOUNDS_US.iter().map(|it| seconds(*it, 1e6)).chain([f64::MAX]);
    bounds.zip(counts.iter().copied().chain(std::iter::repeat(0))).collect()
}

impl From<&Distribution> for Timed {
    fn from(it: &Distribution) -> Self {
        Self { buckets: with_bounds(&it.buckets), sum_seconds: seconds(it.sum_us, 1e6) }
    }
}

impl From<&Durations> for Timed {
    fn from(it: &Durations) -> Self {
        Self { buckets: with_bounds(&it.buckets), sum_seconds: seconds(it.sum_ms, 1e3) }
    }
}

/// A metric whose head is written.
pub(super) struct Family<'a>(MetricEncoder<'a>);

impl<'a> Family<'a> {
    pub(super) fn counter(
        to: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, fmt::Error> {
        Ok(Self(to.encode_descriptor(name, help, None, MetricType::Counter)?))
    }

    pub(super) fn gauge(
        to: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, fmt::Error> {
        Ok(Self(to.encode_descriptor(name, help, None, MetricType::Gauge)?))
    }

    pub(super) fn histogram(
        to: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, fmt::Error> {
        Ok(Self(to.encode_descriptor(name, help, None, MetricType::Histogram)?))
    }

    /// A counter's series.
    pub(super) fn count(&mut self, labels: &Labels, value: u64) -> fmt::Result {
        self.series(labels, |it| it.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    /// A gauge's series.
    pub(super) fn set(&mut self, labels: &Labels, value: u64) -> fmt::Result {
        self.series(labels, |it| it.encode_gauge(&value))
    }

    /// A gauge's series, in seconds.
    pub(super) fn set_seconds(&mut self, labels: &Labels, milliseconds: u64) -> fmt::Result {
        self.series(labels, |it| it.encode_gauge(&seconds(milliseconds, 1e3)))
    }

    /// A histogram's series.
    pub(super) fn observe(&mut self, labels: &Labels, timed: &Timed) -> fmt::Result {
        let count = timed.buckets.iter().map(|(_, count)| count).sum();
        self.series(labels, |it| {
            let (sum, buckets) = (timed.sum_seconds, &timed.buckets);
            it.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
        })
    }

    /// Without labels there are no brackets either.
    fn series(
        &mut self,
        labels: &Labels,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        match labels.0.is_empty() {
            true => write(&mut self.0),
            false => write(&mut self.0.encode_family(&labels.0)?),
        }
    }
}
