//! The present, for everybody: wall time at process start plus monotonic time since, so that a clock jump ends no session.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::Time;

/// A clock that never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Time,
    start: Instant,
}

impl Clock {
    /// Takes the wall time once.
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { wall: Time(0) + wall, start: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.wall + self.start.elapsed()
    }

    /// How long the process has run.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
