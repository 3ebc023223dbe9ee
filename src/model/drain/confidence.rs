//! Whether a count of zero would be the truth.
//!
//! "Unknown is not zero": people may be older than the ledger. Either the ledger has watched for one idle timeout, so that whoever
//! is still alive has been met; or the backend itself says how many sessions it has, and the ledger knows of all of them.
//!
//! Once the ledger is that old, a backend that counts more is no doubt but drift, a metric: it counts sessions that are nobody's (of
//! our probes, of ignored clients, of answers that were discarded and replayed), and a drain must not wait for those for ever.
//!
//! A proxy watches only while people come by it: that of a pair which stands by sees nobody, and proves nothing.

use std::fmt;
use std::time::Duration;

use crate::model::backend::{Backend, CountReading};
use crate::model::time::Time;
use crate::model::view::App;

/// A backend's own count is believed for so long: it is asked every second while it empties, and has five to answer.
const FRESH: Duration = Duration::from_secs(10);

/// Why a count of zero would not be proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A session found no room in the ledger and may still live.
    Full,
    /// Unknown ids are no longer adopted.
    AdoptionCapped,
    /// The state cannot be written: a restart would forget sessions that were born since.
    Unsaved,
    /// Traffic was not seen for one idle timeout, and the backend itself counts more sessions than the ledger can explain.
    Contradicted {
        /// By the backend.
        counted: u64,
        /// Live, unconfirmed, and out of sight for less than an idle timeout.
        known: u64,
    },
    /// Other proxies serve the app too, and to this one nobody has come since the drain began.
    Unvisited,
    /// Traffic was not seen for one idle timeout.
    Young {
        /// For so long it was.
        seen: Duration,
        /// Of this.
        idle_timeout: Duration,
        /// A count probe would settle it, but cannot be read.
        unreadable: bool,
    },
    /// Without a signed pin only a second click adopts somebody, and these may still have the first one behind them.
    Strangers {
        /// So many.
        candidates: u64,
        /// For so long at most; who came later than one idle timeout is not older than the ledger.
        left: Duration,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Full => f.write_str("ledger full: sessions without a place may live (max_entries)"),
            Doubt::AdoptionCapped => f.write_str("adoption at its cap: unknown sessions may live (a tenth of max_entries)"),
            Doubt::Unsaved => f.write_str("the state cannot be written: a restart would forget sessions (see the log)"),
            Doubt::Unvisited => f.write_str("nobody has come by since the drain began: this proxy may be a standby"),
            Doubt::Contradicted { counted, known } => write!(f, "count probe says {counted}, ledger knows {known}"),
            Doubt::Strangers { candidates: 1, .. } => f.write_str("1 unknown session was seen once"),
            Doubt::Strangers { candidates, .. } => write!(f, "{candidates} unknown sessions were seen once"),
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

/// Since when a proxy has watched for a drain, as far as that is a matter of who comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// It is the only one: for as long as its ledger is old.
    Always,
    /// Then people came by, and they have come since the drain began.
    Since(Time),
    /// Nobody came since the drain began.
    Never,
}

/// Why the ledger may not know all sessions of a backend; `None` when it does.
pub fn doubt(app: &App, backend: &Backend, watched: Watched, now: Time) -> Option<Doubt> {
    if app.ledger.overflowed() {
        return Some(Doubt::Full);
    }
    if app.ledger.adoption_capped() {
        return Some(Doubt::AdoptionCapped);
    }
    if app.ledger.unsaved() {
        return Some(Doubt::Unsaved);
    }
    let reading = backend.live.count_reading().filter(|reading| now.since(reading.at) <= FRESH);
    if reading.is_some_and(|reading| reading.agrees()) {
        return None;
    }
    let idle_timeout = app.settings.session.idle_timeout;
    let seen = match watched {
        Watched::Since(since) => now.since(since.max(backend.live.since)),
        Watched::Always | Watched::Never => now.since(backend.live.since),
    };
    if seen < idle_timeout {
        let unreadable = app.settings.session.count_probe.is_some();
        let young = Doubt::Young { seen, idle_timeout, unreadable };
        return Some(reading.map_or(young, |CountReading { sessions: counted, known, .. }| Doubt::Contradicted { counted, known }));
    }
    if watched == Watched::Never {
        return Some(Doubt::Unvisited);
    }
    // Whoever is older than the ledger clicked within the first idle timeout, or is gone; and with that click only, lives for one
    // more. Later candidates are outsiders: they cannot hold a drain longer than this.
    let left = idle_timeout.saturating_mul(2).saturating_sub(seen);
    let candidates = backend.live.counts.candidates();
    (candidates > 0 && !left.is_zero()).then_some(Doubt::Strangers { candidates, left })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ledger::{Adoption, Attention};
    use crate::model::session_key::SessionKey;
    use crate::model::settings::{CountFormat, CountProbe};
    use crate::model::sketch::{self, World};

    const IDLE: Duration = Duration::from_secs(1800);

    /// `a1` says that it has so many sessions.
    fn counted(world: &World, sessions: u64) -> CountReading {
        let live = &world.backend("a1").live;
        let reading = CountReading { sessions, known: live.counts.known(IDLE, world.now), at: world.now };
        live.count_read(Some(reading));
        reading
    }

    fn told(world: &World, backend: &str) -> String {
        doubt(world.shop(), world.backend(backend), Watched::Always, world.now).map_or_else(String::new, |doubt| doubt.to_string())
    }

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
        if let Some(sessions) = probe {
            counted(&world, sessions);
        }
        assert_eq!(told(&world, "a1"), expected, "after {after} s, {probe:?}");
    }

    #[test]
    fn a_ledger_is_believed_after_one_idle_timeout_or_when_the_backend_agrees() {
        check(240, None, "seen for 4m of 30m, and the count probe cannot be read");
        check(1_799, None, "seen for 29m of 30m, and the count probe cannot be read");
        check(1_800, None, "");
        check(240, Some(2), "");
        check(240, Some(0), "");
    }

    #[test]
    fn a_backend_that_counts_more_is_a_doubt_in_a_young_ledger_and_drift_in_an_old_one() {
        check(240, Some(3), "count probe says 3, ledger knows 2");
        check(1_799, Some(3), "count probe says 3, ledger knows 2");
        check(1_800, Some(3), "");
        check(90_000, Some(3), "");
    }

    /// Somebody without a signed pin clicks at these seconds; two clicks within the same thousand seconds are the same person's. What is told at `at`.
    fn clicks(clicks: &[u64], at: u64, expected: &str) {
        let mut world = World::new("v1:a1,a2 >v2:b1");
        world.now = sketch::START;
        let go_to = |second: u64, world: &mut World| world.pass((sketch::START + Duration::from_secs(second)).since(world.now));
        for (n, &second) in clicks.iter().enumerate() {
            go_to(second, &mut world);
            let (slot, id) = (world.backend("a1").slot, SessionKey([u8::try_from(second / 1_000).expect("small"); 16]));
            world.shop().ledger.adopt(id, slot, Adoption::Unsigned, world.now, world.now);
            assert!(world.backend("a1").live.counts.candidates() > 0 || n > 0);
        }
        go_to(at, &mut world);
        assert_eq!(told(&world, "a1"), expected, "{clicks:?}, {at} s");
        assert_eq!(told(&world, "a2"), "", "somewhere else nobody was seen");
    }

    #[test]
    fn somebody_who_clicked_once_within_the_first_idle_timeout_is_a_doubt_for_one_more() {
        let once = "1 unknown session was seen once";
        clicks(&[], 1_800, "");
        clicks(&[900], 1_800, once);
        clicks(&[900], 2_699, once);
        clicks(&[900], 2_700, "");
        clicks(&[1_799], 1_800, once);
        clicks(&[1_799], 3_598, once);
        clicks(&[1_799], 3_600, "");
        // Counted as a session from now on.
        clicks(&[900, 950], 1_800, "");
        // Outsiders cannot go on for ever.
        clicks(&[1_799, 3_500], 3_599, once);
        clicks(&[1_799, 3_500], 3_600, "");
        clicks(&[20_000], 20_000, "");
    }

    #[test]
    fn strangers_are_counted_and_no_doubt_where_the_backend_agrees() {
        let world = World::new("v1:a1 >v2:b1");
        for id in 0..3 {
            let slot = world.backend("a1").slot;
            world.shop().ledger.adopt(SessionKey([id; 16]), slot, Adoption::Unsigned, world.now, world.now);
        }
        assert_eq!(told(&world, "a1"), "3 unknown sessions were seen once");
        counted(&world, 1);
        assert_eq!(told(&world, "a1"), "3 unknown sessions were seen once");
        counted(&world, 0);
        assert_eq!(told(&world, "a1"), "");
    }

    #[test]
    fn newborns_that_were_given_up_explain_a_count_for_one_idle_timeout() {
        let mut world = World::new("v1:a1 >v2:b1");
        let slot = world.backend("a1").slot;
        for id in 0..5 {
            world.shop().ledger.born(SessionKey([id; 16]), slot, 0, world.now);
        }
        let check = |world: &World, sessions: u64, expected: bool| assert_eq!(counted(world, sessions).agrees(), expected, "{sessions}");
        check(&world, 5, true);
        world.pass(Duration::from_secs(61));
        world.backend("a1").live.counts.sample(IDLE, world.now);
        assert_eq!(world.backend("a1").sessions(), 0);
        check(&world, 5, true);
        check(&world, 6, false);
        world.pass(Duration::from_secs(1799));
        check(&world, 5, true);
        world.pass(Duration::from_secs(1));
        check(&world, 5, false);
        check(&world, 0, true);
    }

    #[test]
    fn an_old_reading_says_nothing() {
        let mut world = World::new("v1:a1 >v2:b1");
        world.now = sketch::START;
        counted(&world, 0);
        world.pass(Duration::from_secs(10));
        assert_eq!(told(&world, "a1"), "");
        world.pass(Duration::from_secs(1));
        assert_eq!(told(&world, "a1"), "seen for 11s of 30m");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h00m"), (90_061, "25h01m")] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), expected);
        }
    }
}
