//! What a drain's deadline does: empty *by* then, not from then on.

use std::time::Duration;

use super::Drain;
use crate::model::settings::DrainThen;
use crate::model::time::Time;
use crate::model::view::View;

/// The last one is to go so much before the deadline: answers under way end, and the fence takes two turns of the controller.
const MARGIN: Duration = Duration::from_secs(1);
/// Between two walks over the ledger that find nobody to move.
const REST: Duration = Duration::from_secs(1);

/// The pace of evictions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When evictions were last considered.
    at: Option<Time>,
    /// Evictions that the rate limit allows by now.
    credit: f64,
    /// Nobody was found to be moved; not before then again.
    rest_until: Time,
}

impl Drain {
    /// Evicts as many sessions as its deadline asks for by now; returns how many.
    ///
    /// It begins early enough that the last one goes before the deadline at `evict_per_second`, and goes on after it for as
    /// long as sessions are left. `move_idle` spares whom somebody is engaged in or has an exchange under way, at any time.
    /// Newborns are confirmed or leave the count by themselves; only those that are left at the deadline are evicted too.
    pub fn meet_deadline(&mut self, view: &View, now: Time) -> usize {
        let Some(deadline) = self.deadline.filter(|_| self.state.runs()) else { return 0 };
        let elapsed = now.since(self.pace.at.unwrap_or(now));
        self.pace.at = Some(now);
        let backends = self.target.backends(view);
        let live: u64 = backends.iter().map(|(_, b)| b.live.counts.live()).sum();
        let newborns: u64 = backends.iter().map(|(_, b)| b.live.counts.unconfirmed()).sum();
        let Some((app, _)) = backends.first() else { return 0 };
        let rate = f64::from(app.settings.drain.evict_per_second.max(1));
        let needed = Duration::from_secs_f64((live + newborns) as f64 / rate) + MARGIN;
        if self.then == DrainThen::Keep || live + newborns == 0 || now + needed < deadline {
            return 0;
        }
        // At most a second's worth at a time, also after a pause of the timer.
        self.pace.credit = (self.pace.credit + elapsed.as_secs_f64() * rate).min(rate);
        if now < self.pace.rest_until {
            return 0;
        }
        let over = now + MARGIN >= deadline && self.then == DrainThen::Evict;
        let mut room = self.pace.credit as usize;
        let mut evicted = 0;
        for (app, slots) in self.target.slots(view) {
            let idle = (self.then == DrainThen::MoveIdle).then_some(app.settings.session.engaged_within);
            let gone = app.ledger.evict(&slots, idle, room, now);
            (room, evicted) = (room - gone, evicted + gone);
            if over {
                let gone = app.ledger.evict_newborns(&slots, room, now);
                (room, evicted) = (room - gone, evicted + gone);
            }
        }
        self.pace.credit -= evicted as f64;
        if evicted == 0 && room > 0 {
            self.pace.rest_until = now + REST;
        }
        evicted
    }
}
