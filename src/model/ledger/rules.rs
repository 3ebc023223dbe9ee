//! The settings a ledger goes by, and its clock: 32-bit ticks of 100 ms, so that an entry's seven points in time cost 28 bytes.
//!
//! "Now" is rounded down and what is written into an entry is rounded up. So nothing ends early; it ends at most one tick late.

use std::time::Duration;

use crate::model::settings::SessionSettings;
use crate::model::time::Time;

/// The part of an app's settings that concerns its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The application's own session timeout.
    pub idle_timeout: Duration,
    /// Sessions end at this age, however busy.
    pub max_lifetime: Option<Duration>,
    /// A newborn leaves the count when its client has not sent the id back within this time.
    pub confirm_within: Duration,
    /// A new id after a longer silence is a new session, not a renamed one.
    pub rotation_within: Option<Duration>,
    /// A session is engaged when a foreground path touched it within this time.
    pub engaged_within: Duration,
    /// Bound on entries of every kind.
    pub max_entries: usize,
}

impl From<&SessionSettings> for Rules {
    fn from(settings: &SessionSettings) -> Rules {
        Rules {
            idle_timeout: settings.idle_timeout,
            max_lifetime: settings.max_lifetime,
            confirm_within: settings.confirm_within,
            rotation_within: settings.rotation_within,
            engaged_within: settings.engaged_within,
            max_entries: settings.max_entries,
        }
    }
}

impl Rules {
    /// Most candidates and unsigned adoptions together: a tenth, so that invented ids cannot fill the ledger.
    pub(super) fn unsigned_limit(&self) -> usize {
        self.max_entries.div_ceil(10)
    }
}

/// A tombstone is remembered at least this long, so that a user with a short idle timeout who returns from lunch is
/// still known to have expired.
const SHORTEST_MEMORY: Duration = Duration::from_secs(3600);

/// The old id stays valid this long after a rotation, for requests under way.
pub(super) const ALIAS_TICKS: u32 = 300;

const TICK_MS: u64 = 100;

/// [`Rules`] in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    pub idle: u32,
    pub lifetime: Option<u32>,
    pub confirm: u32,
    pub engaged: u32,
    pub memory: u32,
    pub rotation: Option<Duration>,
}

impl From<&Rules> for Spans {
    fn from(rules: &Rules) -> Spans {
        Spans {
            idle: ticks(rules.idle_timeout),
            lifetime: rules.max_lifetime.map(ticks),
            confirm: ticks(rules.confirm_within),
            engaged: ticks(rules.engaged_within),
            memory: ticks(rules.idle_timeout.max(SHORTEST_MEMORY)),
            rotation: rules.rotation_within,
        }
    }
}

impl Spans {
    /// Stamps that differ in higher bits only matter to whoever keeps a copy: the largest power of two within a sixteenth of
    /// the idle timeout.
    pub fn bucket_bits(&self) -> u32 {
        (self.idle / 16).max(1).ilog2()
    }
}

/// A span in ticks, rounded up.
fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(u128::from(TICK_MS))).unwrap_or(u32::MAX)
}

/// Between `Time` and ticks since the ledger's epoch; 32 bits last 13 years.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub epoch: Time,
}

/// One moment, rounded both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    /// Rounded down: what is due.
    pub tick: u32,
    /// Rounded up: what is written into entries.
    pub stamp: u32,
}

impl Clock {
    /// Sessions of an earlier run are older than this one. In steps of 39 days, so that two runs, or two processes, have the
    /// same ticks and buckets: what is handed from one to the other and back creeps neither up nor down.
    pub fn reaching_back_from(now: Time) -> Clock {
        const STEP: u64 = TICK_MS << 25;
        let year = Duration::from_secs(365 * 24 * 3600);
        Clock { epoch: Time((now - year).0 / STEP * STEP) }
    }

    pub fn now(self, now: Time) -> Now {
        let ms = now.0.saturating_sub(self.epoch.0);
        let narrow = |ticks: u64| u32::try_from(ticks).unwrap_or(u32::MAX - 1);
        Now { tick: narrow(ms / TICK_MS), stamp: narrow(ms.div_ceil(TICK_MS)) }
    }

    pub fn time(self, tick: u32) -> Time {
        Time(self.epoch.0.saturating_add(u64::from(tick) * TICK_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_rounds_down_and_stamps_round_up() {
        let clock = Clock { epoch: Time(1000) };
        for (ms, tick, stamp) in [(0, 0, 0), (1000, 0, 0), (1001, 0, 1), (1099, 0, 1), (1100, 1, 1), (1101, 1, 2)] {
            assert_eq!(clock.now(Time(ms)), Now { tick, stamp }, "{ms} ms");
        }
        assert_eq!(clock.time(3), Time(1300));
    }
}
