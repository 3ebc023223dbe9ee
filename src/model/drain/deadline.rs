//! What a drain's deadline does: empty *by* then, not from then on.

use std::sync::Arc;
use std::time::Duration;

use super::{Drain, Pace, pace};
use crate::model::settings::DrainThen;
use crate::model::time::Time;
use crate::model::view::{App, View};

/// The last one is to go so much before the deadline: answers under way end, and the fence takes two turns of the controller.
const MARGIN: Duration = Duration::from_secs(1);

impl Drain {
    /// An order's own end: empty after `deadline`, and what happens then; what is not said stays.
    ///
    /// Whoever orders that sessions move, and neither says nor has configured by when, means now: the deadline is as soon as
    /// `evict_per_second` allows. (None at all would wait for ever; the present moment would be missed before the first one went.)
    pub fn ends_by(&mut self, deadline: Option<Duration>, then: Option<DrainThen>, view: &View, now: Time) {
        self.deadline = deadline.map(|after| now + after).or(self.deadline);
        self.then = then.unwrap_or(self.then);
        if self.deadline.is_none() && then.is_some_and(|then| then != DrainThen::Keep) {
            self.deadline = Some(now + self.eviction_span(view) + MARGIN);
        }
    }

    /// How long the evictions of all who are left would take; apps evict side by side, each at its own rate.
    pub(super) fn eviction_span(&self, view: &View) -> Duration {
        let spans = self.target.slots(view).into_iter().map(|(app, slots)| pace::span(&app, sessions(&app, &slots)));
        spans.max().unwrap_or_default()
    }

    /// Evicts as many sessions as its deadline asks for by now; returns how many.
    ///
    /// It begins early enough that the last one goes before the deadline at `evict_per_second`, and goes on after it for as
    /// long as sessions are left. `move_idle` spares whom somebody is engaged in, at any time; a poller or an open tunnel
    /// engages nobody. Newborns are confirmed or leave the count by themselves; only those that are left at the deadline are
    /// evicted too.
    pub fn meet_deadline(&mut self, view: &View, now: Time) -> usize {
        let Some(deadline) = self.deadline.filter(|_| self.state.runs() && self.then != DrainThen::Keep) else { return 0 };
        self.target.slots(view).into_iter().map(|(app, slots)| self.evict_from(&app, &slots, deadline, now)).sum()
    }

    fn evict_from(&mut self, app: &Arc<App>, slots: &[u32], deadline: Time, now: Time) -> usize {
        let left = sessions(app, slots);
        if left == 0 || now + pace::span(app, left) + MARGIN < deadline {
            return 0;
        }
        let then = self.then;
        let pace = self.pace(app);
        let room = pace.room(app, now);
        if room == 0 {
            return 0;
        }
        let ledger = &app.ledger;
        let mut evicted = match then {
            DrainThen::Keep => 0,
            DrainThen::MoveIdle => ledger.evict_unengaged(slots, room, now),
            DrainThen::Evict => ledger.evict(slots, None, room, now),
        };
        if then == DrainThen::Evict && now + MARGIN >= deadline {
            evicted += ledger.evict_newborns(slots, room - evicted, now);
        }
        pace.spent(evicted, room, now);
        evicted
    }

    /// Takes over how far `met`, an earlier copy of this drain, has come with its evictions.
    pub fn keep_pace(&mut self, met: Drain) {
        self.paces = met.paces;
    }

    fn pace(&mut self, app: &App) -> &mut Pace {
        let index = self.paces.iter().position(|(name, _)| *name == app.name).unwrap_or_else(|| {
            self.paces.push((Arc::clone(&app.name), Pace::default()));
            self.paces.len() - 1
        });
        &mut self.paces.get_mut(index).unwrap_or_else(|| unreachable!("found or just added")).1
    }
}

/// Of these backends, newborns too.
fn sessions(app: &App, slots: &[u32]) -> u64 {
    slots.iter().filter_map(|slot| app.backend(*slot)).map(|b| b.sessions()).sum()
}
