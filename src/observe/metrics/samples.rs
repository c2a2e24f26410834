//! What a scrape gathers: values by metric and labels, turned into the exposition's own types.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use prometheus::proto;

use super::cells::Distribution;
use super::table::{self, Def, Kind};

/// Where the figures of one scrape are put.
#[derive(Debug, Default)]
pub struct Samples {
    /// By the metric's name, then by the values of its labels. A map, since the same series twice would make the
    /// whole exposition invalid.
    families: BTreeMap<&'static str, BTreeMap<Vec<String>, Value>>,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Durations(Distribution),
}

/// A part of the edge that knows figures which only matter when somebody asks.
pub trait Sample: Send + Sync {
    /// Called at each scrape, on the thread that renders it: must not wait for traffic.
    fn sample(&self, out: &mut Samples);
}

impl<F: Fn(&mut Samples) + Send + Sync> Sample for F {
    fn sample(&self, out: &mut Samples) {
        self(out);
    }
}

impl Samples {
    /// The value of one series of a counter or gauge. `labels` are the values of `def.labels`, in that order.
    ///
    /// Told twice, a counter counts both and a gauge keeps the later value.
    pub fn set(&mut self, def: &'static Def, labels: &[&str], value: f64) {
        debug_assert_ne!(def.kind, Kind::Histogram, "{} is a histogram", def.name);
        if let Some(series) = self.series(def, labels) {
            match series.entry(owned(labels)).or_insert(Value::Number(0.0)) {
                Value::Number(old) if def.kind == Kind::Counter => *old += value,
                other => *other = Value::Number(value),
            }
        }
    }

    /// The value of one series of a histogram.
    ///
    /// Told twice, both count.
    pub fn durations(&mut self, def: &'static Def, labels: &[&str], value: Distribution) {
        debug_assert_eq!(def.kind, Kind::Histogram, "{} is no histogram", def.name);
        if let Some(series) = self.series(def, labels) {
            match series.entry(owned(labels)) {
                Entry::Occupied(mut there) => match there.get_mut() {
                    Value::Durations(sum) => sum.merge(&value),
                    other => *other = Value::Durations(value),
                },
                Entry::Vacant(place) => _ = place.insert(Value::Durations(value)),
            }
        }
    }

    /// The families that have at least one series, in the order of the table.
    pub(super) fn into_families(mut self) -> Vec<proto::MetricFamily> {
        table::ALL.iter().filter_map(|def| self.families.remove(def.name).map(|series| family(def, series))).collect()
    }

    /// `None` where labels and metric do not fit together: a mistake in the program, which a scrape survives.
    fn series(&mut self, def: &'static Def, labels: &[&str]) -> Option<&mut BTreeMap<Vec<String>, Value>> {
        debug_assert_eq!(labels.len(), def.labels.len(), "labels of {}", def.name);
        (labels.len() == def.labels.len()).then(|| self.families.entry(def.name).or_default())
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

fn family(def: &Def, series: BTreeMap<Vec<String>, Value>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(def.name.to_owned());
    family.set_help(def.help.to_owned());
    family.set_field_type(match def.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(series.into_iter().map(|(labels, value)| metric(def, labels, &value)).collect());
    family
}

fn metric(def: &Def, labels: Vec<String>, value: &Value) -> proto::Metric {
    let pairs = def.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = proto::Metric::from_label(pairs.collect());
    match value {
        Value::Number(number) if def.kind == Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(*number);
            metric.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*number);
            metric.set_gauge(gauge);
        }
        Value::Durations(distribution) => metric.set_histogram(histogram(distribution)),
    }
    metric
}

fn histogram(distribution: &Distribution) -> proto::Histogram {
    let buckets = distribution.bounds.iter().zip(&distribution.cumulative).map(|(bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count);
    histogram.set_sample_sum(distribution.seconds);
    histogram
}
