//! One scrape: what it looks at, and the samples of each metric.
//!
//! All metrics of a scrape read the same snapshot and the same drains, so that its numbers belong together as far as atomics can.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, Quantile, Summary};

use super::Kind;
use crate::model::backend::Backend;
use crate::model::drain::{Drain, DrainState, Outlook};
use crate::model::tally::DURATION_BUCKETS_US;
use crate::model::time::Time;
use crate::model::view::{App, Release, View};
use crate::serve::control::Control;
use crate::serve::reload::ReloadResult;
use crate::serve::transport::ListenerHandle;
use crate::serve::webhook::ReportResult;

/// What one scrape looks at.
pub(super) struct Scrape {
    /// The snapshot.
    pub(super) view: Arc<View>,
    /// When.
    pub(super) now: Time,
    /// The latest of each target; cancelled and superseded ones are over in every respect.
    pub(super) drains: Vec<Drain>,
    /// Of each of them; none of one that is over.
    pub(super) outlooks: Vec<Option<Outlook>>,
    /// Drains that are over, by verdict.
    pub(super) finished: [(DrainState, u64); 3],
    /// Attempts to report a verdict.
    pub(super) reports: [(ReportResult, u64); ReportResult::ALL.len()],
    /// Attempts to write the state that failed.
    pub(super) write_failures: u64,
    /// Reloads, by result.
    pub(super) reloads: [(ReloadResult, u64); ReloadResult::ALL.len()],
    /// Whether the latest of them changed nothing because it could not.
    pub(super) reload_failed: bool,
    /// When the file was applied last.
    pub(super) applied_at: Time,
    /// Of each name that a certificate is for: when the first of them ends, in seconds since 1970.
    pub(super) certificates: BTreeMap<String, i64>,
}

impl Scrape {
    pub(super) fn new(control: &Control) -> Scrape {
        let view = control.view();
        let mut seen = HashSet::new();
        let mut drains = control.drains();
        drains.reverse();
        drains.retain(|d| {
            let shown = d.state.runs() || (d.state == DrainState::Drained && !d.target.backends(&view).is_empty());
            seen.insert(d.target.clone()) && shown
        });
        drains.reverse();
        let outlooks = drains.iter().map(|d| d.state.runs().then(|| control.outlook(d))).collect();
        let mut certificates = BTreeMap::new();
        for facts in control.reloads.listeners().iter().flat_map(ListenerHandle::certificates) {
            for name in facts.names {
                let ends = certificates.entry(name).or_insert(facts.not_after);
                *ends = facts.not_after.min(*ends);
            }
        }
        Scrape {
            view,
            now: control.now(),
            drains,
            outlooks,
            finished: control.finished(),
            reports: control.reports.so_far(),
            write_failures: control.write_failures.total(),
            reloads: control.reloads.results(),
            reload_failed: control.reloads.fault().is_some(),
            applied_at: control.reloads.applied().at,
            certificates,
        }
    }

    pub(super) fn releases(&self) -> impl Iterator<Item = (&App, &Release)> {
        self.view.apps.iter().flat_map(|app| app.releases.iter().map(move |release| (&**app, &**release)))
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = ([&str; 3], &Backend)> {
        self.releases()
            .flat_map(|(app, release)| release.backends.iter().map(move |b| ([&*app.name, &*release.name, b.spec.name.as_str()], &**b)))
    }
}

/// The samples of one metric.
pub(super) struct Samples {
    kind: Kind,
    labels: &'static [&'static str],
    metrics: Vec<Metric>,
}

impl Samples {
    pub(super) fn new(kind: Kind, labels: &'static [&'static str]) -> Samples {
        Samples { kind, labels, metrics: Vec::new() }
    }

    /// All of them, in the order in which they were put.
    pub(super) fn done(self) -> Vec<Metric> {
        self.metrics
    }

    pub(super) fn put(&mut self, values: &[&str], value: f64) {
        let mut metric = self.labelled(values);
        if self.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    pub(super) fn put_with(&mut self, [app, release, backend]: &[&str; 3], last: &str, value: u64) {
        self.put(&[app, release, backend, last], value as f64);
    }

    pub(super) fn each(&mut self, scrape: &Scrape, value: fn(&Backend) -> u64) {
        for (names, backend) in scrape.backends() {
            self.put(&names, value(backend) as f64);
        }
    }

    pub(super) fn drains(&mut self, scrape: &Scrape, value: fn(&Drain, &Scrape) -> f64) {
        for drain in &scrape.drains {
            self.put(&[&drain.target.to_string()], value(drain, scrape));
        }
    }

    pub(super) fn put_histogram(&mut self, values: &[&str], counts: &[u64], sum: f64) {
        let mut cumulative = 0;
        let mut buckets = Vec::new();
        // Without the last one: the encoder adds `+Inf` itself, and would write ours as `inf`.
        for (bound, count) in DURATION_BUCKETS_US.into_iter().zip(counts) {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e6);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = self.labelled(values);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    pub(super) fn put_summary(&mut self, values: &[&str], sum: Duration, count: u64) {
        let mut summary = Summary::default();
        summary.set_sample_sum(sum.as_secs_f64());
        summary.set_sample_count(count);
        let mut metric = self.labelled(values);
        metric.set_summary(summary);
        self.metrics.push(metric);
    }

    pub(super) fn put_quantiles(&mut self, values: &[&str], spans: &[(f64, Duration)]) {
        let quantile = |&(certainty, span): &(f64, Duration)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(certainty);
            quantile.set_value(span.as_secs_f64());
            quantile
        };
        let mut summary = Summary::default();
        summary.set_quantile(spans.iter().map(quantile).collect());
        let mut metric = self.labelled(values);
        metric.set_summary(summary);
        self.metrics.push(metric);
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(self.labels.len(), values.len(), "one value for each of {:?}", self.labels);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        Metric::from_label(self.labels.iter().zip(values).map(pair).collect())
    }
}
