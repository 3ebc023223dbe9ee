//! Whether a count of zero would be the truth.
//!
//! "Unknown is not zero": people may be older than the ledger. Either the ledger has watched for one idle timeout, so that whoever
//! is still alive has been seen and adopted; or the backend itself says how many sessions it has, and the ledger knows of all of
//! them. A backend that counts more than the ledger does is believed, however long the ledger has watched.

use std::fmt;
use std::time::Duration;

use crate::model::backend::Backend;
use crate::model::time::Time;
use crate::model::view::App;

/// A backend's own count is believed for so many probe intervals, and at least for [`FRESH`].
const FRESH_INTERVALS: u32 = 3;
const FRESH: Duration = Duration::from_secs(10);

/// Why a count of zero would not be proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A session found no room in the ledger and may still live.
    Full,
    /// Unknown ids are no longer adopted.
    AdoptionCapped,
    /// The backend itself counts more sessions than the ledger can explain.
    Contradicted {
        /// By the backend.
        counted: u64,
        /// Live, unconfirmed, out of sight for less than an idle timeout, and that of our own probe.
        known: u64,
    },
    /// Traffic was not seen for one idle timeout.
    Young {
        /// For so long it was.
        seen: Duration,
        /// Of this.
        idle_timeout: Duration,
        /// A count probe would settle it, but cannot be read.
        unreadable: bool,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Full => f.write_str("ledger full: sessions without a place may live (max_entries)"),
            Doubt::AdoptionCapped => f.write_str("adoption at its cap: unknown sessions may live (a tenth of max_entries)"),
            Doubt::Contradicted { counted, known } => write!(f, "count probe says {counted}, ledger knows {known}"),
            Doubt::Young { seen, idle_timeout, unreadable } => {
                write!(f, "seen for {} of {}", Span(*seen), Span(*idle_timeout))?;
                if *unreadable { f.write_str(", and the count probe cannot be read") } else { Ok(()) }
            }
        }
    }
}

/// A duration in its largest fitting unit, rounded down.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds}s"),
            seconds @ 120..7_200 => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        }
    }
}

/// Why the ledger may not know all sessions of a backend; `None` when it does.
pub fn doubt(app: &App, backend: &Backend, now: Time) -> Option<Doubt> {
    if app.ledger.overflowed() {
        return Some(Doubt::Full);
    }
    if app.ledger.adoption_capped() {
        return Some(Doubt::AdoptionCapped);
    }
    let idle_timeout = app.settings.session.idle_timeout;
    let fresh = FRESH.max(app.settings.health.interval * FRESH_INTERVALS);
    let reading = backend.live.count_reading().filter(|reading| now.since(reading.at) <= fresh);
    if let Some(reading) = reading {
        let counts = &backend.live.counts;
        let known = backend.sessions() + counts.out_of_sight(idle_timeout, now) + backend.live.own_sessions();
        return (reading.sessions > known).then_some(Doubt::Contradicted { counted: reading.sessions, known });
    }
    let seen = now.since(backend.live.since);
    let unreadable = app.settings.session.count_probe.is_some();
    (seen < idle_timeout).then_some(Doubt::Young { seen, idle_timeout, unreadable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::backend::CountReading;
    use crate::model::ledger::Attention;
    use crate::model::session_key::SessionKey;
    use crate::model::settings::{CountFormat, CountProbe};
    use crate::model::sketch::{self, World};

    /// One confirmed session and one newborn on `a1`, `after` the start; then the backend counts `probe`.
    fn check(after: u64, probe: Option<u64>, expected: &str) {
        let mut world = World::with("v1:a1 >v2:b1", |settings| {
            let url_path = "/count".to_owned();
            settings.session.count_probe = Some(CountProbe { url_path, user_file: None, format: CountFormat::Json("n".to_owned()) });
        });
        world.now = sketch::START + Duration::from_secs(after);
        let ledger = &world.shop().ledger;
        for id in [1, 2] {
            ledger.born(SessionKey([id; 16]), world.backend("a1").slot, 0, world.now);
        }
        ledger.enter(SessionKey([1; 16]), Attention::Foreground, world.now);
        world.backend("a1").live.count_read(probe.map(|sessions| CountReading { sessions, at: world.now }));
        let told = doubt(world.shop(), world.backend("a1"), world.now).map_or_else(String::new, |doubt| doubt.to_string());
        assert_eq!(told, expected, "after {after} s, {probe:?}");
    }

    #[test]
    fn a_ledger_is_believed_after_one_idle_timeout_or_when_the_backend_agrees() {
        check(240, None, "seen for 4m of 30m, and the count probe cannot be read");
        check(1_799, None, "seen for 29m of 30m, and the count probe cannot be read");
        check(1_800, None, "");
        check(240, Some(2), "");
        check(240, Some(0), "");
        check(240, Some(3), "count probe says 3, ledger knows 2");
        check(90_000, Some(3), "count probe says 3, ledger knows 2");
    }

    #[test]
    fn newborns_that_were_given_up_explain_a_count_for_one_idle_timeout() {
        let mut world = World::new("v1:a1 >v2:b1");
        let slot = world.backend("a1").slot;
        let sample = |world: &World| world.backend("a1").live.counts.sample(Duration::from_secs(1800), world.now);
        for id in 0..5 {
            world.shop().ledger.born(SessionKey([id; 16]), slot, 0, world.now);
        }
        let check = |world: &World, counted: u64, expected: bool| {
            world.backend("a1").live.count_read(Some(CountReading { sessions: counted, at: world.now }));
            assert_eq!(doubt(world.shop(), world.backend("a1"), world.now).is_none(), expected, "{counted}");
        };
        check(&world, 5, true);
        world.pass(Duration::from_secs(61));
        sample(&world);
        assert_eq!(world.backend("a1").sessions(), 0);
        check(&world, 5, true);
        check(&world, 6, false);
        world.pass(Duration::from_secs(1799));
        check(&world, 5, true);
        world.pass(Duration::from_secs(1));
        check(&world, 5, false);
        check(&world, 0, true);
        // The one that our own probe was given.
        check(&world, 1, false);
        world.backend("a1").live.probe_has_session(true);
        check(&world, 1, true);
    }

    #[test]
    fn an_old_reading_says_nothing() {
        let mut world = World::new("v1:a1 >v2:b1");
        world.backend("a1").live.count_read(Some(CountReading { sessions: 9, at: world.now }));
        world.pass(Duration::from_secs(10));
        assert!(doubt(world.shop(), world.backend("a1"), world.now).is_some());
        world.pass(Duration::from_secs(1));
        assert!(doubt(world.shop(), world.backend("a1"), world.now).is_none());
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h00m"), (90_061, "25h01m")] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), expected);
        }
    }
}
