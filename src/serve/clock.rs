//! The present, for everybody: wall time at process start plus monotonic time since, so that a clock jump ends no session.
//!
//! The coarse clock is read: it is a few milliseconds behind and costs a tenth. Nothing here is counted in less than 100 ms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::time::Time;

/// A clock that never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Wall time when the monotonic clock said zero.
    origin: Time,
}

impl Clock {
    /// Takes the wall time once.
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { origin: Time(0) + wall.saturating_sub(monotonic()) }
    }

    /// Tells the same time as another process on this machine does.
    pub fn with_origin(origin: Time) -> Clock {
        Clock { origin }
    }

    /// Wall time when the machine's monotonic clock said zero.
    pub fn origin(&self) -> Time {
        self.origin
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.origin + monotonic()
    }
}

/// Time since some moment in the past, a few milliseconds behind.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_wall_time_and_never_goes_back() {
        let clock = Clock::start();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let first = clock.now();
        assert!((Time(0) + wall).since(first) < Duration::from_secs(1) && first.since(Time(0) + wall) < Duration::from_secs(1));
        assert!((0..1000).map(|_| clock.now()).is_sorted());
    }
}
