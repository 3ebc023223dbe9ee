//! Since when people have come by this proxy: where several proxies serve the same app, a ledger knows only whom its own proxy has met.
//!
//! Nothing here tells who: one visitor is enough, because a proxy that gets one visitor gets them all (its address has moved to it), and
//! from then on whoever is alive comes by within one idle timeout.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::time::Time;

/// A proxy to which nobody came for this long may be the standby of a pair already: with several proxies an app has more visitors.
const LATELY: Duration = Duration::from_secs(60);

/// Of an app at this proxy. Looked at once a second, so that a request's way has nothing to write here.
#[derive(Debug, Default)]
pub struct Attendance(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    visits: u64,
    /// Of the present stretch without a pause in which everybody could have gone elsewhere; `None` before the first visit.
    stretch: Option<Stretch>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Time,
    last: Time,
}

impl Attendance {
    /// So many visits there were until now. After a pause of one `idle_timeout` nobody who is known is alive, and the watch begins anew.
    pub fn observe(&self, visits: u64, idle_timeout: Duration, now: Time) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if visits == seen.visits {
            return;
        }
        seen.visits = visits;
        let going_on = seen.stretch.filter(|stretch| now.since(stretch.last) < idle_timeout);
        seen.stretch = Some(Stretch { since: going_on.map_or(now, |stretch| stretch.since), last: now });
    }

    /// Since when people have come by without a pause, if they still do.
    pub fn since(&self, now: Time) -> Option<Time> {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.stretch.filter(|stretch| now.since(stretch.last) <= LATELY).map(|stretch| stretch.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits in these seconds, with an idle timeout of 100 s; since when the proxy is attended at `at`.
    fn check(visits: &[u64], at: u64, expected: Option<u64>) {
        let attendance = Attendance::default();
        for second in 0..=at {
            let so_far = visits.iter().filter(|visit| **visit <= second).count() as u64;
            attendance.observe(so_far, Duration::from_secs(100), Time::from_secs(second));
        }
        assert_eq!(attendance.since(Time::from_secs(at)), expected.map(Time::from_secs), "{visits:?} at {at}");
    }

    #[test]
    fn a_proxy_is_attended_since_the_last_pause_in_which_everybody_could_have_gone_elsewhere() {
        check(&[], 500, None);
        check(&[10], 10, Some(10));
        check(&[10], 70, Some(10));
        check(&[10], 71, None);
        check(&[10, 109], 109, Some(10));
        check(&[10, 110], 110, Some(110));
        check(&[10, 60, 150, 160, 161], 170, Some(10));
    }
}
