//! What looks at many sessions at once: losses, evictions, lists.
//!
//! A survey goes shard by shard and holds a lock for one to three thousand entries at a time, so it is no snapshot: a session that is
//! born or renamed meanwhile may be missed. One that keeps its name throughout is met exactly once, however the tables grow
//! meanwhile. Counts never miss anybody; see [`super::Counts`].

use std::ops::ControlFlow;
use std::time::Duration;

use crate::model::time::Time;

use super::counts::{EndReason, Gauge, LossCause};
use super::entry::{Entry, Found, Listed, Record, Standing};
use super::rules::{Clock, Spans};
use super::shard::Shard;
use super::tables::Place;
use super::{Ledger, lock};

/// How many live sessions are how old, and how long silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Confirmed sessions.
    pub live: u64,
    /// By age: up to each of [`Summary::BOUNDS`], the last one beyond them all.
    pub age: [u64; Summary::BOUNDS.len() + 1],
    /// By time since the last touch, likewise; a session with an open exchange is not silent.
    pub idle: [u64; Summary::BOUNDS.len() + 1],
}

impl Summary {
    /// Upper bounds in seconds, inclusive: 1, 5, 15, 30 minutes, 1, 4, 12 hours, 1 day.
    pub const BOUNDS: [u64; 8] = [60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600];

    fn add(histogram: &mut [u64], span: Duration) {
        let place = Summary::BOUNDS.iter().position(|&bound| span <= Duration::from_secs(bound)).unwrap_or(Summary::BOUNDS.len());
        if let Some(n) = histogram.get_mut(place) {
            *n += 1;
        }
    }
}

impl Ledger {
    /// All sessions of a backend are lost at once, as by a proven restart. Answers how many confirmed ones; newborns end
    /// as unconfirmed, for nobody has come back with them.
    pub fn lose(&self, slot: u32, cause: LossCause, now: Time) -> usize {
        self.lose_older(slot, cause, Time(u64::MAX), now)
    }

    /// The same for those only whose id is from before `since`, or of that moment.
    pub fn lose_older(&self, slot: u32, cause: LossCause, since: Time, now: Time) -> usize {
        let now = self.clock.now(now);
        let mut lost = 0;
        self.visit(|shard, i| {
            if shard.tables.at(i).slot == slot
                && shard.settle(i, now)
                && shard.tables.at(i).is_live()
                && self.clock.time(shard.tables.at(i).pinned) <= since
            {
                lost += usize::from(shard.finish(i, EndReason::Lost, Some(cause), now.stamp, now));
            }
        });
        lost
    }

    /// Ends up to `limit` confirmed sessions of these backends as evicted, those nobody is engaged in first. With
    /// `idle_at_least` only those that have been silent for so long and have no exchange under way.
    pub fn evict(&self, slots: &[u32], idle_at_least: Option<Duration>, limit: usize, now: Time) -> usize {
        self.evict_from(&[Gauge::KeptAlive, Gauge::Engaged], slots, idle_at_least, limit, now)
    }

    /// The same for those only that nobody is engaged in, whatever keeps them alive: an open tunnel or a poller may do so for ever.
    pub fn evict_unengaged(&self, slots: &[u32], limit: usize, now: Time) -> usize {
        self.evict_from(&[Gauge::KeptAlive], slots, None, limit, now)
    }

    /// How many confirmed sessions of these backends have been silent for so long and have no exchange under way: those that
    /// [`Ledger::evict`] would end.
    pub fn silent(&self, slots: &[u32], idle_at_least: Duration, now: Time) -> usize {
        let slots = Slots::new(slots);
        let mut count = 0;
        self.each(|entry, _| {
            count += usize::from(slots.contain(entry.slot) && entry.is_silent() && entry.silence(self.clock, now) >= idle_at_least);
            ControlFlow::Continue(())
        });
        count
    }

    /// Ends up to `limit` newborns of these backends: they end as unconfirmed.
    pub fn evict_newborns(&self, slots: &[u32], limit: usize, now: Time) -> usize {
        self.evict_from(&[Gauge::Unconfirmed], slots, None, limit, now)
    }

    fn evict_from(&self, gauges: &[Gauge], slots: &[u32], idle_at_least: Option<Duration>, limit: usize, now: Time) -> usize {
        let (at, now) = (now, self.clock.now(now));
        let slots = Slots::new(slots);
        let mut evicted = 0;
        for &gauge in gauges {
            self.walk(|shard, i| {
                if evicted >= limit {
                    return ControlFlow::Break(());
                }
                // Time first: what has expired on its own is not evicted.
                if !slots.contain(shard.tables.at(i).slot) || !shard.settle(i, now) || shard.tables.at(i).gauge() != gauge {
                    return ControlFlow::Continue(());
                }
                let entry = shard.tables.at(i);
                let is_silent = |least| entry.exchanges() == 0 && at.since(self.clock.time(entry.seen)) >= least;
                if idle_at_least.is_none_or(is_silent) && shard.end(i, EndReason::Evicted, Some(LossCause::Evicted), 0, now) {
                    evicted += 1;
                }
                ControlFlow::Continue(())
            });
        }
        evicted
    }

    /// Ages and silences of the confirmed sessions of these backends.
    pub fn summary(&self, slots: &[u32], now: Time) -> Summary {
        let slots = Slots::new(slots);
        let mut summary = Summary::default();
        self.each(|entry, _| {
            if slots.contain(entry.slot) && entry.standing == (Standing::Live { confirmed: true }) {
                summary.live += 1;
                Summary::add(&mut summary.age, now.since(self.clock.time(entry.born)));
                Summary::add(&mut summary.idle, entry.silence(self.clock, now));
            }
            ControlFlow::Continue(())
        });
        summary
    }

    /// Up to `limit` sessions of these backends, newborns too, in no order.
    pub fn list(&self, slots: &[u32], limit: usize, now: Time) -> Vec<Listed> {
        let slots = Slots::new(slots);
        let mut list = Vec::new();
        self.each(|entry, _| {
            if list.len() >= limit {
                return ControlFlow::Break(());
            }
            if slots.contain(entry.slot) && entry.is_live() {
                list.push(Listed {
                    handle: entry.handle(),
                    slot: entry.slot,
                    age: now.since(self.clock.time(entry.born)),
                    idle: entry.silence(self.clock, now),
                    engaged: entry.gauge() == Gauge::Engaged,
                    confirmed: entry.gauge() != Gauge::Unconfirmed,
                    open: entry.exchanges(),
                });
            }
            ControlFlow::Continue(())
        });
        list
    }

    /// Every entry, for persistence. `look` runs under a shard's lock: it must not call the ledger.
    pub fn for_each(&self, mut look: impl FnMut(&Record)) {
        self.each(|entry, _| {
            look(&entry.record(self.clock));
            ControlFlow::Continue(())
        });
    }

    /// Runs `act` on every entry.
    pub(super) fn visit(&self, mut act: impl FnMut(&mut Shard, Place)) {
        self.walk(|shard, i| {
            act(shard, i);
            ControlFlow::Continue(())
        });
    }

    pub(super) fn each(&self, mut look: impl FnMut(&Entry, &Spans) -> ControlFlow<()>) {
        self.walk(|shard, i| look(shard.tables.at(i), &shard.spans));
    }

    /// Goes through all entries until `act` breaks off.
    fn walk(&self, mut act: impl FnMut(&mut Shard, Place) -> ControlFlow<()>) {
        for shard in &self.shards {
            let mut rest = Some(lock(shard).tables.begin());
            while let Some(part) = rest {
                // In a statement of its own: the lock is free between two parts.
                if lock(shard).each_in(part, &mut act).is_break() {
                    return;
                }
                rest = part.next();
            }
        }
    }
}

impl Entry {
    /// What the world may know of it, under its present name.
    pub(super) fn found(&self, clock: Clock) -> Found {
        Found {
            slot: self.slot,
            standing: self.standing,
            seen: clock.time(self.seen),
            born: clock.time(self.born),
            pinned: clock.time(self.pinned),
            open: self.exchanges(),
            alias: false,
            ended_at: matches!(self.standing, Standing::Ended(_)).then(|| clock.time(self.ended)),
            told_at: (self.told && matches!(self.standing, Standing::Ended(_))).then(|| clock.time(self.ended)),
            birth_scope: self.scope,
        }
    }

    fn silence(&self, clock: Clock, now: Time) -> Duration {
        if self.exchanges() > 0 { Duration::ZERO } else { now.since(clock.time(self.seen)) }
    }
}

/// A set of slots with a cheap test: a release may have ten thousand backends.
pub(super) struct Slots(Vec<bool>);

impl Slots {
    pub fn new(slots: &[u32]) -> Slots {
        let mut set = vec![false; slots.iter().max().map_or(0, |&most| most as usize + 1)];
        for &slot in slots {
            if let Some(place) = set.get_mut(slot as usize) {
                *place = true;
            }
        }
        Slots(set)
    }

    pub fn contain(&self, slot: u32) -> bool {
        self.0.get(slot as usize).copied().unwrap_or(false)
    }
}
