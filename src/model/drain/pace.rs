//! How fast sessions may be evicted: at `drain.evict_per_second`, for all who would log in anew at once are a rush of their own.
//!
//! A pace is for one app and one cause, and is asked several times a second; it saves up a second's worth at most, also over a
//! pause of the timer.

use std::time::Duration;

use crate::model::time::Time;
use crate::model::view::App;

/// Between two walks over the ledger that find nobody to evict.
const REST: Duration = Duration::from_secs(1);

/// The pace of evictions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When it was last asked.
    at: Option<Time>,
    /// Evictions that the rate limit allows by now.
    credit: f64,
    /// Nobody was found; not before then again.
    rest_until: Time,
}

impl Pace {
    /// One that may begin with a second's worth.
    pub fn eager() -> Pace {
        Pace { credit: f64::INFINITY, ..Pace::default() }
    }

    /// How many may go by now; 0 while it rests, too.
    pub fn room(&mut self, app: &App, now: Time) -> usize {
        let elapsed = now.since(self.at.replace(now).unwrap_or(now));
        let rate = rate(app);
        self.credit = (self.credit + elapsed.as_secs_f64() * rate).min(rate);
        if now < self.rest_until { 0 } else { self.credit as usize }
    }

    /// So many of `room` were found and evicted.
    pub fn spent(&mut self, evicted: usize, room: usize, now: Time) {
        self.credit -= evicted as f64;
        if evicted == 0 && room > 0 {
            self.rest_until = now + REST;
        }
    }
}

/// How long so many sessions of an app take.
pub(super) fn span(app: &App, sessions: u64) -> Duration {
    Duration::from_secs_f64(sessions as f64 / rate(app))
}

fn rate(app: &App) -> f64 {
    f64::from(app.settings.drain.evict_per_second.max(1))
}
