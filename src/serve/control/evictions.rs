//! Sessions that an operator ordered away: worked off at each app's rate.
//!
//! The walks over the ledgers run without the controller's lock: evictions under way are taken out of it and put back.

use std::sync::Arc;
use std::time::Duration;

use super::memory::EvictionMemory;
use super::{Control, Inner};
use crate::model::change::Refused;
use crate::model::drain::Pace;
use crate::model::event::Owner;
use crate::model::target::Target;
use crate::model::view::{App, View};

/// Sessions of one app that are still to go.
pub(super) struct Eviction {
    target: Target,
    app: Arc<App>,
    slots: Vec<u32>,
    idle: Option<Duration>,
    pace: Pace,
}

impl Eviction {
    /// What is to be remembered of it.
    pub(super) fn remember(&self) -> EvictionMemory {
        EvictionMemory { target: self.target.to_string(), app: self.app.name.to_string(), idle: self.idle }
    }

    /// Goes on where a process before left it; a target that is gone has nobody left.
    pub(super) fn recall(memory: &EvictionMemory, view: &View) -> Option<Eviction> {
        let target = Target::parse(&memory.target).ok()?;
        let (app, slots) = target.slots(view).into_iter().find(|(app, _)| *app.name == *memory.app)?;
        Some(Eviction { target, app, slots, idle: memory.idle, pace: Pace::default() })
    }
}

impl Inner {
    /// What is under way, for whoever looks while the evictions are worked off.
    pub(super) fn note_evictions(&mut self) {
        self.evicting = self.evictions.iter().map(Eviction::remember).collect();
    }
}

impl Control {
    /// Ends live sessions of a target, no faster than `drain.evict_per_second`; returns how many there are. With `idle` it walks
    /// over whole ledgers: not on a worker of the runtime.
    ///
    /// # Errors
    /// [`Refused`] when the target does not exist.
    pub fn evict(&self, target: &Target, idle: Option<Duration>) -> Result<usize, Refused> {
        self.thawed()?;
        let (view, now) = (self.view(), self.now());
        let apps = target.slots(&view);
        if apps.is_empty() {
            return Err(Refused::no_target(target, &view));
        }
        let chosen = |app: &App, slots: &[u32]| match idle {
            None => slots.iter().filter_map(|slot| app.backend(*slot)).map(|b| b.live.counts.live() as usize).sum(),
            Some(idle) => app.ledger.silent(slots, idle, now),
        };
        let count: usize = apps.iter().map(|(app, slots)| chosen(app, slots)).sum();
        self.note(Owner::Operator, &target.to_string(), format!("{count} sessions are evicted"));
        // All at once would be a login rush: the timer takes them at the app's rate, the first second's worth now.
        let evictions = apps.into_iter().map(|(app, slots)| Eviction { target: target.clone(), app, slots, idle, pace: Pace::eager() });
        let begun = self.evict_some(evictions.collect());
        let mut inner = self.lock();
        inner.evictions.extend(begun);
        inner.note_evictions();
        drop(inner);
        self.changed();
        Ok(count)
    }

    /// The timer's turn.
    pub(super) fn work_off_evictions(&self) {
        let evictions = std::mem::take(&mut self.lock().evictions);
        if !evictions.is_empty() {
            let left = self.evict_some(evictions);
            let mut inner = self.lock();
            inner.evictions.extend(left);
            let before = inner.evicting.len();
            inner.note_evictions();
            if inner.evicting.len() != before {
                self.changed();
            }
        }
    }

    /// Evicts as many as may go by now; answers those that are not done.
    fn evict_some(&self, mut evictions: Vec<Eviction>) -> Vec<Eviction> {
        let now = self.now();
        evictions.retain_mut(|eviction| {
            let room = eviction.pace.room(&eviction.app, now);
            let evicted = eviction.app.ledger.evict(&eviction.slots, eviction.idle, room, now);
            eviction.pace.spent(evicted, room, now);
            // Room left over means that nobody is left.
            evicted == room
        });
        evictions
    }
}
