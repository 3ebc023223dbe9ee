//! How much a total has grown within a span of time, from samples of it: some dozens, however often it is asked.
//!
//! The growth is never told too small: the span is stretched to the sample before its begin.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::time::Time;

/// Samples within one span: the span is stretched by a thirty-second at most.
const SAMPLES: u32 = 32;

/// Former values of a total that only grows.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(Time, u64)>>);

impl Recent {
    /// Notes the total of this moment, if it has grown and the last note is old enough.
    pub fn sample(&self, total: u64, span: Duration, now: Time) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match samples.back() {
            Some((at, last)) if *last == total || now.since(*at) < span / SAMPLES => return,
            None if total == 0 => return,
            _ => samples.push_back((now, total)),
        }
        // The last one before the span stays: the growth is told from it.
        while samples.get(1).is_some_and(|(at, _)| now.since(*at) >= span) {
            samples.pop_front();
        }
    }

    /// How much it has grown within `span`.
    pub fn within(&self, total: u64, span: Duration, now: Time) -> u64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = samples.iter().rev().find(|(at, _)| now.since(*at) >= span).map_or(0, |(_, total)| *total);
        total.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_forgotten_after_the_span_and_never_before() {
        let span = Duration::from_secs(320);
        let recent = Recent::default();
        let check = |total: u64, second: u64, expected: u64| {
            let now = Time::from_secs(1_000 + second);
            recent.sample(total, span, now);
            assert_eq!(recent.within(total, span, now), expected, "{total} at {second}");
        };
        check(0, 0, 0);
        check(5, 1, 5);
        check(5, 300, 5);
        check(5, 320, 5);
        check(5, 321, 0);
        check(8, 322, 3);
        // Too soon for a sample of its own: told with the next one.
        check(9, 323, 4);
        check(9, 333, 4);
        check(9, 642, 1);
        check(9, 653, 0);
        check(9, 9_000, 0);
        for second in 9_000..19_000 {
            recent.sample(second, span, Time::from_secs(1_000 + second));
        }
        assert!(recent.0.lock().unwrap().len() <= SAMPLES as usize + 2);
    }
}
