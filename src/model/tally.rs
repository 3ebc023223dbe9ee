//! Counters of what happened, as plain atomics next to the things they count.
//!
//! The metrics endpoint reads them when it is asked: no label is looked up and nothing is registered on a request's
//! way, and page, CLI, API and `/metrics` show the same figures because there is only one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::attendance::Attendance;
use super::reason::{PinResult, Reason};
use super::replay::ReplayCause;
use super::retry::RetryBudget;
use super::time::Time;

/// Of an app.
#[derive(Debug)]
pub struct AppTally {
    decisions: [AtomicU64; Reason::ALL.len()],
    pins: [AtomicU64; PinResult::ALL.len()],
    replays: [AtomicU64; ReplayCause::ALL.len()],
    ignored: AtomicU64,
    attendance: Attendance,
    /// Further tries of its requests.
    pub retries: RetryBudget,
    /// Turns taken by round robin; shared by all pools of the app.
    pub turns: AtomicU64,
}

impl Default for AppTally {
    fn default() -> Self {
        AppTally {
            decisions: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            pins: [const { AtomicU64::new(0) }; PinResult::ALL.len()],
            replays: [const { AtomicU64::new(0) }; ReplayCause::ALL.len()],
            ignored: AtomicU64::new(0),
            attendance: Attendance::default(),
            retries: RetryBudget::default(),
            turns: AtomicU64::new(0),
        }
    }
}

impl AppTally {
    /// Counts a decision by its reason.
    pub fn decided(&self, reason: Reason) {
        if let Some(counter) = self.decisions.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what became of the pin that a request carried.
    pub fn pinned(&self, result: PinResult) {
        if let Some(counter) = self.pins.get(result as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that is sent once more.
    pub fn replayed(&self, cause: ReplayCause) {
        if let Some(counter) = self.replays.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Replays so far for this cause.
    pub fn replays(&self, cause: ReplayCause) -> u64 {
        self.replays.get(cause as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Decisions so far with this reason.
    pub fn decisions(&self, reason: Reason) -> u64 {
        self.decisions.get(reason as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Decisions so far.
    pub fn requests(&self) -> u64 {
        self.decisions.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// Counts a request of an ignored client (`session.ignore`), before its decision is counted.
    pub fn ignored(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far of people: a check of this proxy by its own watchdog is ignored, or it would look like one.
    pub fn visits(&self) -> u64 {
        self.requests().saturating_sub(self.ignored.load(Ordering::Relaxed))
    }

    /// Looks who has come by; once a second.
    pub fn observe_visits(&self, idle_timeout: Duration, now: Time) {
        self.attendance.observe(self.visits(), idle_timeout, now);
    }

    /// Since when people have come by this proxy without a pause, if they still do.
    pub fn attended_since(&self, now: Time) -> Option<Time> {
        self.attendance.since(now)
    }

    /// Pins so far with this result.
    pub fn pins(&self, result: PinResult) -> u64 {
        self.pins.get(result as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}

/// Status classes as labels of `requests_total`; `0xx` is an exchange without an answer.
pub const CODE_CLASSES: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Of a backend.
#[derive(Debug, Default)]
pub struct BackendTally {
    codes: [AtomicU64; CODE_CLASSES.len()],
    took_us: AtomicU64,
    tunnels_closed: AtomicU64,
}

impl BackendTally {
    /// Counts an exchange by the status the client saw, 0 when it saw none, and adds how long it took.
    ///
    /// No buckets as of a release: a backend is compared with its neighbours, and their means tell who is slow.
    pub fn answered(&self, status: u16, duration: Duration) {
        let class = usize::from(status / 100);
        if let Some(counter) = self.codes.get(class).or(self.codes.last()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.took_us.fetch_add(microseconds(duration), Ordering::Relaxed);
    }

    /// How long all exchanges so far took together, and how many they are.
    pub fn took(&self) -> (Duration, u64) {
        (Duration::from_micros(self.took_us.load(Ordering::Relaxed)), self.codes().iter().sum())
    }

    /// A tunnel was closed because it outlived its session.
    pub fn tunnel_closed(&self) {
        self.tunnels_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Such tunnels so far.
    pub fn tunnels_closed(&self) -> u64 {
        self.tunnels_closed.load(Ordering::Relaxed)
    }

    /// Exchanges so far by class, in the order of [`CODE_CLASSES`].
    pub fn codes(&self) -> [u64; CODE_CLASSES.len()] {
        std::array::from_fn(|class| self.codes.get(class).map_or(0, |c| c.load(Ordering::Relaxed)))
    }
}

/// Upper bounds of the buckets of `request_duration_seconds`, in microseconds: a factor of about 2.5 from 1 ms to 60 s,
/// the span between a cached page and the default read timeout.
pub const DURATION_BUCKETS_US: [u64; 13] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 60_000_000];

/// Of a release: a histogram of how long exchanges took.
#[derive(Debug, Default)]
pub struct ReleaseTally {
    buckets: [AtomicU64; DURATION_BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl ReleaseTally {
    /// Adds the duration of an exchange, from its head to its last byte.
    pub fn took(&self, duration: Duration) {
        let us = microseconds(duration);
        let bucket = DURATION_BUCKETS_US.partition_point(|&bound| bound < us);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Counts per bucket (not cumulative; the last one is beyond all bounds) and the sum in seconds.
    pub fn histogram(&self) -> ([u64; DURATION_BUCKETS_US.len() + 1], f64) {
        let buckets = std::array::from_fn(|i| self.buckets.get(i).map_or(0, |c| c.load(Ordering::Relaxed)));
        (buckets, Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64())
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_fall_into_their_class() {
        let tally = BackendTally::default();
        for status in [0, 101, 200, 204, 302, 404, 502, 503, 599, 999] {
            tally.answered(status, Duration::from_millis(300));
        }
        assert_eq!(tally.codes(), [1, 1, 2, 1, 1, 4]);
        assert_eq!(tally.took(), (Duration::from_secs(3), 10));
    }

    #[test]
    fn a_duration_on_a_bound_belongs_to_its_bucket() {
        let tally = ReleaseTally::default();
        for us in [999, 1_000, 1_001, 61_000_000] {
            tally.took(Duration::from_micros(us));
        }
        let (buckets, sum) = tally.histogram();
        assert_eq!((buckets[0], buckets[1], buckets[13]), (2, 1, 1));
        assert!((sum - 61.003).abs() < 1e-6);
    }
}
