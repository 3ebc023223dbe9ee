//! What drains may expect, remembered for a second: the walk behind it takes milliseconds at a million sessions, and status page,
//! metrics and every waiting command ask for the same.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::drain::{Drain, Outlook};
use crate::model::time::Time;
use crate::model::view::View;

/// Shortest time between two walks.
const KEPT: Duration = Duration::from_secs(1);
/// And at least so many times as long as the walk took: a fiftieth of one core for each drain.
const SHARE: u32 = 50;

/// Outlooks by drain.
#[derive(Debug, Default)]
pub struct Forecasts(Mutex<HashMap<u64, Kept>>);

#[derive(Debug)]
struct Kept {
    until: Instant,
    outlook: Outlook,
}

impl Forecasts {
    /// The outlook of a drain that runs. It is computed under the lock: whoever asks at the same time waits for the same answer.
    pub fn of(&self, drain: &Drain, view: &View, now: Time) -> Outlook {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        if let Some(known) = kept.get(&drain.id).filter(|known| known.until > began) {
            return known.outlook;
        }
        let outlook = drain.outlook(view, now);
        let until = began + KEPT.max(began.elapsed() * SHARE);
        // Those of drains that are over are never asked for again.
        kept.retain(|_, known| known.until + KEPT * 60 > began);
        kept.insert(drain.id, Kept { until, outlook });
        outlook
    }
}
