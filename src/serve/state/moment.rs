//! How long nobody was here, and whether the clock jumped meanwhile.
//!
//! Stored times are wall times of the run that wrote them. The next run may have another clock: set right by an hour, a day, or
//! back to 1970. What passed in truth is told by the time since boot, as long as it is the same boot. After another boot only the
//! wall clock is left: a later present is believed (sessions grew silent while the machine was off, and expire; their pins stay),
//! an earlier one is not, and the time between counts as none.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

use crate::model::time::Time;

/// Smaller differences come from reading two clocks one after the other, and from a wall clock that is being slewed.
const MEANINGLESS_MS: i64 = 5000;

/// A moment by two clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// By the run's own clock.
    pub at: Time,
    /// Milliseconds since boot, time asleep included.
    pub since_boot: u64,
    /// Which boot; empty if unknown.
    pub boot: String,
}

impl Moment {
    /// `now` by the run's clock, at this very moment.
    pub fn of(now: Time) -> Moment {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Moment { boot: boot.trim().to_owned(), ..Moment::again(now) }
    }

    fn again(now: Time) -> Moment {
        let read = clock_gettime(ClockId::Boottime);
        let part = |n: i64| u64::try_from(n).unwrap_or(0);
        Moment { at: now, since_boot: part(read.tv_sec) * 1000 + part(read.tv_nsec) / 1_000_000, boot: String::new() }
    }

    /// The same boot, now.
    pub fn renew(&mut self, now: Time) {
        *self = Moment { boot: std::mem::take(&mut self.boot), ..Moment::again(now) };
    }

    /// What turns times of the run that wrote `last` into times of a run whose present is `self`.
    pub fn shift_since(&self, last: &Moment) -> Shift {
        let elapsed = self.at.0.cast_signed().saturating_sub(last.at.0.cast_signed());
        let same_boot = !self.boot.is_empty() && self.boot == last.boot && self.since_boot >= last.since_boot;
        let in_truth = if same_boot { (self.since_boot - last.since_boot).cast_signed() } else { elapsed.max(0) };
        let jump = elapsed.saturating_sub(in_truth);
        Shift(if jump.abs() < MEANINGLESS_MS { 0 } else { jump })
    }
}

/// By how much stored times are to be moved, because the clock was set in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift(i64);

impl Shift {
    /// A stored time as it is called today.
    pub fn apply(self, time: Time) -> Time {
        Time(time.0.saturating_add_signed(self.0))
    }

    /// Milliseconds.
    pub fn millis(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_moves_stored_times_with_it() {
        const HOUR: i64 = 3_600_000;
        let moment = |at: i64, since_boot: i64, boot: &str| Moment {
            at: Time((1000 * HOUR + at).cast_unsigned()),
            since_boot: (10 * HOUR + since_boot).cast_unsigned(),
            boot: boot.to_owned(),
        };
        let check = |what: &str, now: Moment, expected: i64| {
            assert_eq!(now.shift_since(&moment(0, 0, "a")), Shift(expected), "{what}");
        };
        check("ten seconds later", moment(10_000, 10_000, "a"), 0);
        check("slewed by a second", moment(11_000, 10_000, "a"), 0);
        check("an hour of rest", moment(HOUR, HOUR, "a"), 0);
        check("set forward by a day", moment(24 * HOUR + 1000, 1000, "a"), 24 * HOUR);
        check("set back by a day", moment(-24 * HOUR + 1000, 1000, "a"), -24 * HOUR);
        check("a new boot, an hour later", moment(HOUR, -9 * HOUR, "b"), 0);
        check("a new boot with an earlier clock", moment(-HOUR, -9 * HOUR, "b"), -HOUR);
        check("a boot without a name", Moment { boot: String::new(), ..moment(HOUR, 0, "") }, 0);
    }
}
