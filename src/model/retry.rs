//! How often requests may be tried again, so that a failure of many backends does not multiply the load of those that are left.
//!
//! The first further try of a request is always free: it is what hides one dead backend from everybody, and at most doubles what
//! is attempted. Only what goes beyond it is counted, so the budget is felt when several backends fail one request after another.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::time::Time;

/// As long as one budget lasts. Long enough for a burst of connects that are refused at once, short enough to end a storm.
const WINDOW: Duration = Duration::from_secs(10);

/// `limits.retry_budget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// Further tries per hundred requests.
    pub percent: u32,
    /// Further tries in any case.
    pub least_per_second: u32,
}

impl Default for RetryRules {
    fn default() -> Self {
        RetryRules { percent: 20, least_per_second: 10 }
    }
}

/// What an app has spent. It is asked for second and later retries only: other requests never come here.
#[derive(Debug, Default)]
pub struct RetryBudget(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    since: Time,
    /// The app's requests by then.
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// Whether a request that was tried again `retries` times may be tried once more; counted if so. `requests`: the app's, so far.
    pub fn allows(&self, rules: &RetryRules, retries: u32, requests: u64, now: Time) -> bool {
        if retries == 0 {
            return true;
        }
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(spent.since) >= WINDOW {
            *spent = Spent { since: now, requests, retries: 0 };
        }
        let share = requests.saturating_sub(spent.requests).saturating_mul(u64::from(rules.percent)) / 100;
        let allowed = spent.retries < share + WINDOW.as_secs() * u64::from(rules.least_per_second);
        spent.retries += u64::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `tries` second retries, spread over `seconds` in which the app had `requests`, how many are allowed.
    fn allowed(rules: RetryRules, tries: u64, requests: u64, seconds: u64) -> u64 {
        let budget = RetryBudget::default();
        let start = Time::from_secs(1000);
        let at = |n: u64| start + Duration::from_millis(seconds * 1000 * n / tries);
        (0..tries).filter(|&n| budget.allows(&rules, 1, requests * n / tries, at(n))).count() as u64
    }

    #[test]
    fn a_storm_gets_a_share_of_the_requests_and_a_little_in_any_case() {
        let check = |percent, least_per_second, tries, requests, expected| {
            let found = allowed(RetryRules { percent, least_per_second }, tries, requests, 9);
            assert_eq!(found, expected, "{percent} %, {least_per_second}/s, {tries} retries of {requests} requests");
        };
        check(20, 10, 50, 50, 50);
        check(20, 10, 1000, 0, 100);
        check(20, 10, 1000, 1000, 299); // the last request is not counted yet
        check(0, 10, 1000, 100_000, 100);
        check(20, 0, 10_000, 10_000, 1999);
        check(100, 0, 1000, 1000, 999);
    }

    #[test]
    fn the_first_retry_of_a_request_is_free_and_nothing_else_without_a_budget() {
        let none = RetryRules { percent: 0, least_per_second: 0 };
        let budget = RetryBudget::default();
        for n in 0..10_000 {
            assert!(budget.allows(&none, 0, n, Time::from_secs(1)));
        }
        assert!(!budget.allows(&none, 1, 10_000, Time::from_secs(1)));
    }

    #[test]
    fn a_storm_that_is_over_is_forgotten() {
        let (rules, budget) = (RetryRules { percent: 0, least_per_second: 1 }, RetryBudget::default());
        let ask = |second: u64| budget.allows(&rules, 1, 0, Time::from_secs(second));
        assert_eq!((0..20).filter(|_| ask(100)).count(), 10);
        assert!(!ask(109));
        assert!(ask(110));
    }
}
