//! How fast the demo is played: every duration in one place.
//!
//! A drain is only confident once its ledger has seen one idle timeout of traffic. So `warm_up` is longer than `idle_timeout`;
//! were it shorter, the drain would reach zero and then wait without anybody seeing why.

use std::time::Duration;

/// Durations of the demo.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// After how much silence the sample app forgets a session; tidegate is told the same.
    pub idle_timeout: Duration,
    /// A session whose client never came back (a crawler's) leaves the count after this time.
    pub confirm_within: Duration,
    /// A session is shown as clicking when it was touched within this time.
    pub engaged_within: Duration,
    /// Between two probes of a backend.
    pub probe_interval: Duration,
    /// From the first visitor to the deploy.
    pub warm_up: Duration,
    /// How long the new release is shown as staged before it is promoted.
    pub staged: Duration,
    /// Between two people who arrive.
    pub arrival: Duration,
    /// Shortest and longest pause between two clicks of a person.
    pub think: (Duration, Duration),
    /// Fewest and most clicks of a visit.
    pub clicks: (u64, u64),
    /// The same for people who stay long.
    pub many_clicks: (u64, u64),
    /// Between two visits of a crawler.
    pub crawl: Duration,
    /// How long the old release has been switched off when the verdict on disturbed people is read.
    pub aftermath: Duration,
    /// A drain that takes longer than this has failed, even if somebody's browser keeps it open.
    pub longest_drain: Duration,
    /// Between two frames of the screen.
    pub frame: Duration,
}

impl Pace {
    /// For people: about a minute.
    pub fn minute() -> Pace {
        Pace {
            idle_timeout: Duration::from_secs(15),
            confirm_within: Duration::from_secs(5),
            engaged_within: Duration::from_secs(4),
            probe_interval: Duration::from_millis(500),
            warm_up: Duration::from_secs(19),
            staged: Duration::from_secs(3),
            arrival: Duration::from_millis(350),
            think: (Duration::from_millis(300), Duration::from_millis(1500)),
            clicks: (3, 12),
            many_clicks: (14, 22),
            crawl: Duration::from_millis(1300),
            aftermath: Duration::from_secs(4),
            longest_drain: Duration::from_secs(300),
            frame: Duration::from_millis(200),
        }
    }

    /// For tests: a few seconds.
    #[cfg(test)]
    pub fn hurried() -> Pace {
        Pace {
            idle_timeout: Duration::from_millis(1500),
            confirm_within: Duration::from_millis(500),
            engaged_within: Duration::from_millis(500),
            probe_interval: Duration::from_millis(100),
            warm_up: Duration::from_millis(2000),
            staged: Duration::ZERO,
            arrival: Duration::from_millis(40),
            think: (Duration::from_millis(20), Duration::from_millis(120)),
            clicks: (3, 8),
            many_clicks: (10, 15),
            crawl: Duration::from_millis(150),
            aftermath: Duration::from_millis(500),
            longest_drain: Duration::from_secs(30),
            frame: Duration::from_millis(50),
        }
    }
}
