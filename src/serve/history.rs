//! How many sessions each release held over the last hour: the memory behind the curve of the status page.
//!
//! It lives in this process only and survives nothing, neither a restart nor an upgrade: whoever wants last week's curve asks
//! Prometheus. Samples carry their time, so that a pause of the process shows as a gap and not as a straight line.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::time::Time;
use crate::model::view::View;

/// Between two samples. A drain of minutes has a shape, and an hour of a hundred releases takes 3 MiB at most.
pub const EVERY: Duration = Duration::from_secs(5);
/// Samples kept: an hour.
const KEPT: usize = 720;

/// The samples of the last hour.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Arc<Sample>>>);

/// One look at everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// Releases that had a session; any other had none.
    pub points: Vec<Point>,
}

/// What one release held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its app.
    pub app: Arc<str>,
    /// Its name.
    pub release: Arc<str>,
    /// Confirmed live sessions.
    pub live: u64,
    /// Newborns.
    pub unconfirmed: u64,
}

impl History {
    /// Takes a sample if the last one is old enough; to be called more often than that.
    pub fn observe(&self, view: &View, now: Time) {
        if self.lock().back().is_some_and(|last| now.since(last.at) < EVERY) {
            return;
        }
        self.push(Sample { at: now, points: points(view) });
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(Arc::new(sample));
    }

    /// All of them, oldest first.
    pub fn samples(&self) -> Vec<Arc<Sample>> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Sample>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn points(view: &View) -> Vec<Point> {
    let all = view.apps.iter().flat_map(|app| app.releases.iter().map(move |release| (app, release)));
    let point = all.map(|(app, release)| Point {
        app: Arc::clone(&app.name),
        release: Arc::clone(&release.name),
        live: release.live(),
        unconfirmed: release.unconfirmed(),
    });
    point.filter(|point| point.live + point.unconfirmed > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_at_one_sample_every_five_seconds() {
        let (history, view) = (History::default(), View::default());
        let start = Time::from_secs(1_000_000);
        for tenth in 0..80_000 {
            history.observe(&view, start + Duration::from_millis(100) * tenth);
        }
        let samples = history.samples();
        assert_eq!(samples.len(), KEPT);
        assert!(samples.windows(2).all(|pair| pair[1].at.since(pair[0].at) == EVERY));
        let (first, last) = (samples.first().unwrap().at, samples.last().unwrap().at);
        assert_eq!(last.since(first), EVERY * (KEPT as u32 - 1));
        assert!((start + Duration::from_secs(8_000)).since(last) <= EVERY);
    }

    #[test]
    fn a_pause_leaves_a_gap() {
        let (history, view) = (History::default(), View::default());
        for second in [0, 5, 10, 300, 305] {
            history.observe(&view, Time::from_secs(second));
        }
        let times: Vec<u64> = history.samples().iter().map(|sample| sample.at.as_secs()).collect();
        assert_eq!(times, [0, 5, 10, 300, 305]);
    }
}
