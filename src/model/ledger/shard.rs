//! A part of the ledger behind one lock: its entries, and how they change.
//!
//! Every transition goes through [`Shard::change`], which keeps gauges, shelves, cap and timer true. Deadlines are
//! evaluated whenever an entry is looked up, so an answer never depends on when the sweep came by.

#[cfg(test)]
pub(super) mod audit;
mod passage;
mod shelves;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::forecast::{Harvest, Mark, SHORT_SILENCE};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;

use super::counts::{Counts, EndReason, Gauge, LossCause};
use super::entry::{Entry, Event, Standing};
use super::journal::{Journal, Waits};
use super::room::{Room, Shelf};
use super::rules::{Clock, Now, Spans};
use super::tables::{Part, Place, Tables};
use super::{Adopted, Adoption, Attention, Born};

#[derive(Debug)]
pub(super) struct Shard {
    pub tables: Tables,
    /// By slot.
    counts: Vec<Option<Arc<Counts>>>,
    /// For slots that nobody registered.
    spare: Arc<Counts>,
    /// What forecasts learn from.
    pub harvest: Harvest,
    pub journal: Journal,
    pub spans: Spans,
    pub clock: Clock,
    pub room: Arc<Room>,
}

impl Shard {
    pub fn new(spans: Spans, clock: Clock, room: Arc<Room>, spare: Arc<Counts>) -> Shard {
        Shard {
            tables: Tables::new(),
            counts: Vec::new(),
            spare,
            harvest: Harvest::default(),
            journal: Journal::default(),
            spans,
            clock,
            room,
        }
    }

    pub fn register(&mut self, slot: u32, counts: Arc<Counts>) {
        let place = slot as usize;
        if self.counts.len() <= place {
            self.counts.resize(place + 1, None);
        }
        if let Some(known) = self.counts.get_mut(place) {
            known.get_or_insert(counts);
        }
    }

    pub fn set_spans(&mut self, spans: Spans) {
        self.spans = spans;
        if self.journal.is_kept() {
            self.journal.keep(&spans);
        }
    }

    /// The entry named `key`, after whatever time has done to it.
    pub fn lookup(&mut self, key: &SessionKey, now: Now) -> Option<Place> {
        let i = self.tables.find_known(key)?;
        self.settle(i, now).then_some(i)
    }

    /// The same where there is probably none.
    pub fn lookup_new(&mut self, key: &SessionKey, now: Now) -> Option<Place> {
        let i = self.tables.find(key)?;
        self.settle(i, now).then_some(i)
    }

    /// An exchange that carries the id, or an alias of it, begins.
    pub fn enter(&mut self, i: Place, attention: Attention, by_alias: bool, now: Now) -> bool {
        let engaged_for = self.spans.engaged;
        let open = |entry: &mut Entry| {
            let count = if by_alias { &mut entry.borrowed } else { &mut entry.open };
            *count = count.saturating_add(1);
            entry.touch(now.stamp);
            if attention == Attention::Foreground {
                entry.foreground = entry.foreground.max(now.stamp);
            }
            entry.engaged = entry.foreground.saturating_add(engaged_for) > now.tick;
            entry.standing = Standing::Live { confirmed: true };
        };
        let entry = self.tables.at_mut(i);
        if now.stamp.saturating_sub(entry.seen) > SHORT_SILENCE && entry.is_silent() {
            self.harvest.count(Mark::Return, now.stamp - entry.seen);
        }
        // The short way is the usual one: nothing changes but times and the number of exchanges.
        match entry.gauge() {
            Gauge::Nowhere | Gauge::Candidate => return false,
            Gauge::Engaged if attention == Attention::Foreground && engaged_for > 0 => self.briefly(i, open),
            _ => self.change(i, now, open),
        }
        true
    }

    /// That exchange ended.
    pub fn leave(&mut self, i: Place, by_alias: bool, now: Now) {
        let close = |entry: &mut Entry| {
            if entry.is_live() {
                entry.touch(now.stamp);
            }
            entry.close(by_alias);
        };
        let entry = self.tables.at_mut(i);
        if entry.standing == (Standing::Live { confirmed: true }) {
            self.briefly(i, close);
            // Only if a sweep with a later clock came between our reading of the clock and the lock.
            let entry = self.tables.at(i);
            if entry.exchanges() == 0 && entry.seen.saturating_add(self.spans.idle) < entry.due {
                self.arm(i, now);
            }
        } else {
            // The last one out puts the entry on its shelf.
            self.change(i, now, close);
        }
    }

    /// Exchanges that were counted by an alias are no longer.
    pub fn give_back(&mut self, i: Place, open: u32, now: Now) {
        self.change(i, now, |entry| entry.borrowed = entry.borrowed.saturating_sub(open));
    }

    /// A response set the id of entry `i`.
    pub fn born_again(&mut self, i: Place, slot: u32, scope: u32, now: Now) -> Born {
        let entry = self.tables.at_mut(i);
        let born = match entry.is_live() {
            true if entry.slot == slot => {
                self.briefly(i, |entry| {
                    entry.touch(now.stamp);
                    if entry.scope == 0 {
                        entry.scope = scope;
                    }
                });
                return Born::Known;
            }
            true => {
                let from = entry.slot;
                self.finish(i, EndReason::Lost, Some(LossCause::Failover), now.stamp, now);
                Born::Moved { from }
            }
            false => Born::New,
        };
        self.counts(slot).count_born();
        self.change(i, now, |entry| entry.reborn(slot, scope, now.stamp));
        born
    }

    /// A newborn of a name that has no entry; the room is reserved.
    pub fn insert_newborn(&mut self, key: SessionKey, slot: u32, scope: u32, open: u32, now: Now) {
        self.counts(slot).count_born();
        self.insert(Entry { open, ..Entry::newborn(key, slot, scope, now.stamp) }, now);
    }

    /// An id that a backend honoured and that has no entry; the room, and if unsigned the place under the cap, are
    /// reserved.
    pub fn insert_adopted(&mut self, key: SessionKey, slot: u32, proof: Adoption, open: u32, now: Now) -> Adopted {
        let newborn = Entry { open, ..Entry::newborn(key, slot, 0, now.stamp) };
        match proof {
            Adoption::SignedPin { issued } => {
                self.counts(slot).count_adopted();
                let pinned = self.clock.now(issued).stamp;
                self.harvest.count(Mark::Joined, now.stamp.saturating_sub(pinned));
                self.insert(Entry { pinned, engaged: true, standing: Standing::Live { confirmed: true }, ..newborn }, now);
                Adopted::Live
            }
            Adoption::Unsigned => {
                self.insert(Entry { standing: Standing::Candidate, unsigned: true, ..newborn }, now);
                Adopted::Candidate
            }
        }
    }

    /// A backend honoured the id of entry `i`.
    pub fn adopt(&mut self, i: Place, slot: u32, proof: Adoption, decided_at: Time, now: Now) -> Adopted {
        let entry = *self.tables.at(i);
        match entry.standing {
            Standing::Live { .. } => {
                if entry.slot == slot {
                    self.change(i, now, |entry| {
                        entry.touch(now.stamp);
                        if entry.gauge() == Gauge::Unconfirmed {
                            entry.standing = Standing::Live { confirmed: true };
                            entry.foreground = entry.foreground.max(now.stamp);
                            entry.engaged = true;
                        }
                    });
                }
                return Adopted::Known;
            }
            Standing::Candidate if proof == Adoption::Unsigned && entry.slot != slot => {
                self.change(i, now, |entry| {
                    entry.slot = slot;
                    entry.touch(now.stamp);
                });
                return Adopted::Candidate;
            }
            Standing::Ended(EndReason::Logout | EndReason::Evicted | EndReason::Moved | EndReason::Lost)
                if decided_at <= self.clock.time(entry.ended) =>
            {
                return Adopted::Ghost;
            }
            Standing::Candidate | Standing::Ended(_) => {}
        }
        let pinned = match proof {
            Adoption::SignedPin { issued } => self.clock.now(issued).stamp,
            Adoption::Unsigned if entry.slot == slot && entry.standing != Standing::Candidate => entry.pinned,
            Adoption::Unsigned => now.stamp,
        };
        self.counts(slot).count_adopted();
        self.change(i, now, |entry| {
            if entry.standing == Standing::Ended(EndReason::Lifetime) {
                // The application does not share that limit: with its old birth the session would end again at once.
                entry.born = now.stamp;
            }
            entry.standing = Standing::Live { confirmed: true };
            entry.engaged = true;
            entry.slot = slot;
            entry.pinned = pinned;
            entry.touch(now.stamp);
            entry.foreground = entry.foreground.max(now.stamp);
            entry.unsigned &= proof == Adoption::Unsigned;
        });
        let entry = self.tables.at(i);
        self.harvest.count(Mark::Joined, now.stamp.saturating_sub(entry.start()));
        Adopted::Live
    }

    /// The session goes on elsewhere.
    pub fn relocate(&mut self, i: Place, to_slot: u32, now: Now) -> bool {
        let entry = self.tables.at(i);
        if !entry.is_live() || entry.slot == to_slot {
            return false;
        }
        self.counts(entry.slot).count_ended(EndReason::Moved);
        self.counts(to_slot).count_arrived();
        self.change(i, now, |entry| {
            entry.slot = to_slot;
            entry.pinned = now.stamp;
        });
        true
    }

    /// The session is over, by a deletion of this scope or otherwise. True if it was live.
    pub fn end(&mut self, i: Place, reason: EndReason, cause: Option<LossCause>, scope: u32, now: Now) -> bool {
        let entry = self.tables.at_mut(i);
        if scope != 0 && entry.scope != 0 && scope != entry.scope {
            return false;
        }
        match entry.standing {
            Standing::Live { .. } => {
                self.finish(i, reason, cause, now.stamp, now);
                return true;
            }
            // Expired for us, alive for the application until now.
            Standing::Ended(_) if reason == EndReason::Logout => self.change(i, now, |entry| {
                entry.standing = Standing::Ended(reason);
                entry.ended = now.stamp;
            }),
            Standing::Candidate if reason == EndReason::Logout => self.remove(i),
            Standing::Candidate | Standing::Ended(_) => {}
        }
        false
    }

    /// The client of an evicted session is being told.
    pub fn tell_evicted(&mut self, i: Place, now: Now) {
        let entry = self.tables.at(i);
        if entry.standing == Standing::Ended(EndReason::Evicted) && !entry.told {
            self.change(i, now, |entry| {
                entry.told = true;
                entry.ended = now.stamp;
            });
        }
    }

    /// The backend of entry `i` knows it.
    pub fn vouch(&mut self, i: Place) {
        let doubts = self.doubts(self.tables.at(i).slot);
        let entry = self.tables.at_mut(i);
        if entry.doubts != doubts {
            entry.doubts = doubts;
            self.journal.changed(self.tables.at_mut(i));
        }
    }

    /// Whether its backend may have forgotten entry `i`.
    pub fn in_doubt(&self, i: Place) -> bool {
        let entry = self.tables.at(i);
        entry.doubts != self.doubts(entry.slot)
    }

    fn doubts(&self, slot: u32) -> u8 {
        self.counts(slot).doubts().to_le_bytes()[0]
    }

    /// Ends a live session. A loss of an unconfirmed one is none: nobody ever came back with it.
    /// True when a confirmed session ended.
    pub fn finish(&mut self, i: Place, reason: EndReason, cause: Option<LossCause>, at: u32, now: Now) -> bool {
        let entry = self.tables.at(i);
        let confirmed = entry.standing == Standing::Live { confirmed: true };
        let reason = if !confirmed && cause.is_some() { EndReason::Unconfirmed } else { reason };
        // Totals before gauges: who sees the last session gone also sees why.
        if confirmed {
            let (mark, last) = match reason {
                EndReason::Logout => (Mark::Logout, at),
                EndReason::Idle => (Mark::Idle, entry.seen),
                _ => (Mark::Cut, entry.seen),
            };
            let stay = last.saturating_sub(entry.start());
            self.harvest.count(mark, stay);
        }
        let counts = self.counts(self.tables.at(i).slot);
        counts.count_ended(reason);
        if let (true, Some(cause)) = (confirmed, cause) {
            counts.count_lost(cause);
        }
        self.change(i, now, |entry| {
            entry.standing = Standing::Ended(reason);
            entry.engaged = false;
            entry.told = false;
            entry.ended = at;
        });
        confirmed
    }

    /// Lets time act on what is due, table by table until `budget` entries were looked at. True when more is due.
    pub fn advance(&mut self, now: Now, mut budget: usize) -> bool {
        let mut from = 0;
        while let Some(first) = self.tables.next_due(from, now.tick) {
            for table in self.tables.fetch_due(first, now.tick) {
                if budget == 0 {
                    return true;
                }
                let mut quarter = 0;
                while let Some(next) = self.tables.next_due_quarter(table, quarter, now.tick) {
                    for i in self.tables.disarm(table, next, now.tick) {
                        if self.settle_due(i, now) {
                            self.arm(i, now);
                        }
                        budget = budget.saturating_sub(1);
                    }
                    quarter = next + 1;
                }
                self.tables.looked_at(table);
                from = table + 1;
            }
        }
        false
    }

    /// Arms entry `i` anew: the rules changed, so its deadlines may be nearer than its timer.
    pub fn rearm(&mut self, i: Place, now: Now) {
        if self.settle_due(i, now) {
            self.arm(i, now);
        }
    }

    pub fn counts(&self, slot: u32) -> &Counts {
        match self.counts.get(slot as usize) {
            Some(Some(counts)) => counts,
            _ => &self.spare,
        }
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.tables.bytes() + self.counts.capacity() * size_of::<usize>()
    }

    /// Runs `act` on the entries of one part.
    pub fn each_in(&mut self, part: Part, mut act: impl FnMut(&mut Shard, Place) -> ControlFlow<()>) -> ControlFlow<()> {
        for table in self.tables.tables_of(part) {
            for group in 0..self.tables.groups(table) {
                for i in self.tables.taken(table, group) {
                    act(self, i)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    pub fn insert(&mut self, entry: Entry, now: Now) {
        let entry = Entry { doubts: self.doubts(entry.slot), ..entry };
        self.counts(entry.slot).shift(Gauge::Nowhere, entry.gauge());
        self.place(entry, now);
    }

    pub fn place(&mut self, entry: Entry, now: Now) {
        if let Some(shelf) = entry.shelf() {
            self.room.put_on(shelf);
        }
        let i = self.tables.insert(entry);
        self.arm(i, now);
        self.journal.changed(self.tables.at_mut(i));
    }

    /// Drops an entry that is not live.
    pub fn remove(&mut self, i: Place) {
        let entry = self.take(i);
        debug_assert!(!entry.is_live(), "what is dropped was counted out");
        self.counts(entry.slot).shift(entry.gauge(), Gauge::Nowhere);
        if entry.unsigned {
            self.room.release_unsigned();
        }
        self.room.release();
    }

    /// Lets time act on entry `i`; false when it is gone. Its deadlines are evaluated only when the sweep would look at it, for none
    /// is nearer.
    #[inline]
    pub fn settle(&mut self, i: Place, now: Now) -> bool {
        self.tables.at(i).due > now.tick || self.settle_due(i, now)
    }

    /// The same for one that is to be looked at.
    fn settle_due(&mut self, i: Place, now: Now) -> bool {
        while let Some((at, event)) = self.tables.at(i).next_event(&self.spans)
            && at <= now.tick
        {
            match event {
                Event::End(reason) => {
                    self.finish(i, reason, None, at, now);
                }
                Event::Disengage => self.change(i, now, |entry| entry.engaged = false),
                Event::Forget => {
                    self.remove(i);
                    return false;
                }
            }
        }
        true
    }

    /// The one way in which an entry changes what it is counted as.
    pub fn change(&mut self, i: Place, now: Now, alter: impl FnOnce(&mut Entry)) {
        let entry = self.tables.at_mut(i);
        let (slot, gauge, shelf, unsigned, live) = (entry.slot, entry.gauge(), entry.shelf(), entry.unsigned, entry.is_live());
        alter(entry);
        let (new_slot, new_gauge, new_shelf) = (entry.slot, entry.gauge(), entry.shelf());
        if entry.is_live() && (!live || slot != new_slot) {
            self.vouch(i);
        }
        let entry = self.tables.at(i);
        if unsigned && !entry.unsigned {
            self.room.release_unsigned();
        }
        if slot == new_slot {
            self.counts(slot).shift(gauge, new_gauge);
        } else {
            self.counts(new_slot).shift(Gauge::Nowhere, new_gauge);
            self.counts(slot).shift(gauge, Gauge::Nowhere);
        }
        if shelf != new_shelf {
            self.tables.reshelve(i, shelf, new_shelf);
            shelf.into_iter().for_each(|shelf| self.room.take_off(shelf));
            new_shelf.into_iter().for_each(|shelf| self.room.put_on(shelf));
        }
        self.arm(i, now);
        self.journal.changed(self.tables.at_mut(i));
    }

    /// The short way: only times and the number of exchanges change, and nothing is counted otherwise.
    #[inline]
    fn briefly(&mut self, i: Place, alter: impl FnOnce(&mut Entry)) {
        let entry = self.tables.at_mut(i);
        let (seen, foreground) = (entry.seen, entry.foreground);
        alter(entry);
        let parts = self.journal.parts(seen, entry.seen) | self.journal.parts(foreground, entry.foreground);
        if parts {
            self.journal.changed(self.tables.at_mut(i));
        }
    }

    /// Makes sure that the sweep looks at entry `i` no later than its next deadline.
    fn arm(&mut self, i: Place, now: Now) {
        let entry = self.tables.at(i);
        let event_at = entry.next_event(&self.spans).map_or(u32::MAX - 1, |(at, _)| at);
        // An open exchange may end without arming anything, because the idle deadline that it then leaves lies beyond
        // this look.
        let look_at = if entry.exchanges() > 0 { now.tick.saturating_add(self.spans.idle) } else { u32::MAX };
        let due = event_at.min(look_at);
        if due < entry.due {
            self.tables.advance(i, due);
        }
    }
}
