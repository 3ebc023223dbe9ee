//! What is to be expected of live sessions: when the last one ends at the latest, and when it probably will.
//!
//! One walk over the ledger answers both, a few nanoseconds per entry: to be asked once a second, not per request.

use std::ops::ControlFlow;

use crate::model::forecast::{Crowd, History, Prospect, TooFew};
use crate::model::time::Time;

use super::entry::Standing;
use super::survey::Slots;
use super::{Ledger, lock};

/// Between two harvests of what the shards have counted, in seconds: what grows old must be counted before.
const HARVEST_EVERY: u64 = 60;

/// What finished sessions have taught so far.
#[derive(Debug, Default)]
pub(super) struct Learned {
    history: History,
    at: Time,
}

/// What is to be expected of the sessions of some backends.
#[derive(Clone, Debug)]
pub struct Future {
    /// When the last of them ends at the latest, if none is touched again and open exchanges end now; `None` when there is none.
    /// Newborns count: they may be confirmed yet.
    pub last_end: Option<Time>,
    /// When the last newborn will have been confirmed or forgotten.
    pub newborns_until: Option<Time>,
    /// How the confirmed ones will probably go.
    pub prospect: Result<Prospect, TooFew>,
}

impl Ledger {
    /// The future of these backends' sessions, by what all sessions of the app have taught.
    pub fn future(&self, slots: &[u32], now: Time) -> Future {
        let history = self.learn(now).history.clone();
        let at = self.clock.now(now);
        let slots = Slots::new(slots);
        let rules = self.shards.first().map(|shard| lock(shard).spans);
        let idle = rules.map_or(1, |spans| spans.idle);
        let (mut here, mut going) = (Crowd::new(idle), Crowd::new(idle));
        let (mut last, mut newborns) = (None, None);
        self.each(|entry, spans| {
            if !entry.is_live() {
                return ControlFlow::Continue(());
            }
            let seen = if entry.exchanges() > 0 { entry.seen.max(at.stamp) } else { entry.seen };
            let wanted = slots.contain(entry.slot);
            if wanted {
                let end = seen.saturating_add(spans.idle);
                last = last.max(Some(spans.lifetime.map_or(end, |span| end.min(entry.born.saturating_add(span)))));
            }
            if entry.standing == (Standing::Live { confirmed: true }) {
                let (age, silence) = (at.stamp.saturating_sub(entry.start()), at.stamp.saturating_sub(seen));
                here.add(age, silence);
                if wanted {
                    going.add(age, silence);
                }
            } else if wanted {
                newborns = newborns.max(Some(entry.born.saturating_add(spans.confirm)));
            }
            ControlFlow::Continue(())
        });
        let time = |tick: u32| self.clock.time(tick);
        let lifetime = rules.and_then(|spans| spans.lifetime).map(|ticks| time(ticks).since(time(0)));
        let prospect = Prospect::new(&history, &here, &going, lifetime);
        Future { last_end: last.map(time), newborns_until: newborns.map(time), prospect }
    }

    /// What finished sessions have taught, and when that was last brought up to date: at most a minute ago.
    pub fn history(&self) -> (History, Time) {
        let learned = lock(&self.learned);
        (learned.history.clone(), learned.at)
    }

    /// Takes over what finished sessions taught a process before, up to `at`.
    pub fn recall_history(&self, rows: &[Vec<f64>], at: Time) {
        let mut learned = lock(&self.learned);
        learned.history.add_rows(rows);
        learned.at = learned.at.max(at);
    }

    /// Takes in what the shards have counted, if it is time to.
    pub(super) fn learn_in_time(&self, now: Time) {
        let at = lock(&self.learned).at;
        if now.since(at).as_secs() >= HARVEST_EVERY {
            drop(self.learn(now));
        }
    }

    fn learn(&self, now: Time) -> std::sync::MutexGuard<'_, Learned> {
        let mut learned = lock(&self.learned);
        let elapsed = now.since(learned.at);
        learned.history.fade(elapsed);
        learned.at = learned.at.max(now);
        for shard in &self.shards {
            learned.history.absorb(&mut lock(shard).harvest);
        }
        learned
    }
}
