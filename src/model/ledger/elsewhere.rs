//! What is known elsewhere of this app's sessions: by an earlier run, in its state file, or by another process that serves the
//! same app meanwhile.
//!
//! Nothing of it happened here, so no birth is counted: what arrives is counted as restored. Exchanges under way are those of
//! this process alone, and stay whatever is told.

use super::counts::{EndReason, Gauge, LossCause};
use super::entry::{Entry, Record, Standing};
use super::journal::Origin;
use super::room::Shelf;
use super::rules::{Clock, Now};
use super::shard::Shard;
use super::tables::Place;
use super::{Ledger, lock};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;

impl Ledger {
    /// At the start: an entry as an earlier run left it. False if its name is known already, or if there is no room; a
    /// confirmed session always finds room.
    ///
    /// Deadlines that passed meanwhile act as soon as somebody looks: who was silent for too long ends as idle.
    pub fn restore(&self, record: &Record, now: Time) -> bool {
        let now = self.clock.now(now);
        if self.shard(&record.key).lookup(&record.key, now).is_some() || !self.make_room(record, now) {
            return false;
        }
        let mut shard = self.shard(&record.key);
        let entry = Entry::known(record, self.clock, shard.spans.engaged, now);
        shard.insert_known(entry, now);
        true
    }

    /// Until when somebody may live who is not counted: for want of room, and for the cap on unsigned adoption. For another run.
    pub fn uncounted_until(&self) -> [Time; 2] {
        self.room.uncounted_until().map(|tick| self.clock.time(tick))
    }

    /// What [`Ledger::uncounted_until`] said in an earlier run.
    pub fn recall_uncounted(&self, until: [Time; 2]) {
        self.room.recall_uncounted(until.map(|time| self.clock.now(time).stamp));
    }

    /// What another process knows of a name, to be reconciled with what is known here. It does not matter in which order two
    /// processes tell each other what they know: both end with the same.
    pub fn absorb(&self, record: &Record, now: Time) {
        let (key, now) = (record.key, self.clock.now(now));
        let told = Entry::known(record, self.clock, self.shard(&key).spans.engaged, now);
        {
            let mut shard = self.shard(&key);
            if let Some(i) = shard.lookup(&key, now) {
                return shard.as_told(|shard| shard.reconcile(i, &told, now));
            }
        }
        let mut aliases = lock(&self.aliases);
        if let Some(name) = aliases.find(&key, now) {
            // It does not know of the renaming yet; what it saw of the session counts all the same.
            let mut shard = self.shard(&name);
            if let Some(i) = shard.lookup(&name, now).filter(|_| told.is_live()) {
                shard.as_told(|shard| shard.touch_as_told(i, &told, now));
            }
            return;
        }
        if !self.make_room(record, now) {
            return;
        }
        let mut shard = self.shard(&key);
        match shard.lookup(&key, now) {
            Some(i) => {
                self.give_room_back(record);
                shard.as_told(|shard| shard.reconcile(i, &told, now));
            }
            None => shard.as_told(|shard| shard.insert_known(told, now)),
        }
    }

    /// Another process knows nothing of this name any more. A session that lives here stays: it was renamed, which was told
    /// before, or it was dropped there for want of room.
    pub fn absorb_gone(&self, key: SessionKey, now: Time) {
        let now = self.clock.now(now);
        let mut shard = self.shard(&key);
        if let Some(i) = shard.lookup(&key, now)
            && !shard.tables.at(i).is_live()
            && shard.tables.at(i).exchanges() == 0
        {
            shard.as_told(|shard| shard.remove(i));
        }
    }

    /// Former names that still lead to a session, each with the present one: for another process, as [`Ledger::absorb_renamed`]
    /// takes them.
    pub fn former_names(&self) -> Vec<(SessionKey, SessionKey)> {
        lock(&self.aliases).pairs().collect()
    }

    /// Another process renamed a session. Exchanges under way here by the former name find it.
    ///
    /// Two processes that rename one session at once, each to a name of its own, agree on the greater one.
    pub fn absorb_renamed(&self, old: SessionKey, new: SessionKey, now: Time) {
        let now = self.clock.now(now);
        let mut aliases = lock(&self.aliases);
        let alias = aliases.find(&old, now);
        let (from, to) = match alias {
            Some(name) if name == new => return,
            Some(name) if new < name => (new, name),
            Some(name) => (name, new),
            None => (old, new),
        };
        let mut shard = self.shard(&from);
        match shard.lookup(&from, now) {
            Some(i) if shard.tables.at(i).is_live() => {
                self.room.set_aliases(aliases.len() + 1);
                let session = shard.as_told(|shard| shard.take(i));
                drop(shard);
                self.rename(&mut aliases, session, to, 0, Origin::There, now);
            }
            Some(_) => {}
            None => {
                drop(shard);
                // Its new name may be known before the old one: then the old one leads there.
                let lives = |shard: &mut Shard| shard.lookup(&to, now).is_some_and(|i| shard.tables.at(i).is_live());
                if aliases.find(&from, now).is_none() && lives(&mut self.shard(&to)) {
                    aliases.rename(from, to, 0, now);
                    self.room.set_aliases(aliases.len());
                }
            }
        }
    }

    fn make_room(&self, record: &Record, now: Now) -> bool {
        let confirmed = record.found.standing == Standing::Live { confirmed: true };
        let live = matches!(record.found.standing, Standing::Live { .. });
        let shelves: &[Shelf] = if live { &Shelf::ALL } else { &[Shelf::Tombstones] };
        if !self.reserve(shelves, &record.key, now) {
            if !confirmed {
                return false;
            }
            self.room.reserve_beyond();
        }
        if record.unsigned {
            self.room.reserve_unsigned_beyond();
        }
        true
    }

    fn give_room_back(&self, record: &Record) {
        self.room.release();
        if record.unsigned {
            self.room.release_unsigned();
        }
    }
}

impl Shard {
    fn insert_known(&mut self, entry: Entry, now: Now) {
        if entry.is_live() {
            self.counts(entry.slot).count_restored();
        }
        // In as much doubt as it was.
        self.counts(entry.slot).shift(Gauge::Nowhere, entry.gauge());
        self.place(entry, now);
    }

    fn touch_as_told(&mut self, i: Place, told: &Entry, now: Now) {
        self.change(i, now, |entry| {
            entry.touch(told.seen);
            entry.foreground = entry.foreground.max(told.foreground);
            entry.engaged |= told.engaged;
        });
    }

    fn reconcile(&mut self, i: Place, told: &Entry, now: Now) {
        let here = *self.tables.at(i);
        let known = reconciled(&here, told);
        let known = Entry { engaged: self.is_engaged(&known, now), ..here.content(&known) };
        // Totals before gauges, as everywhere.
        match (here.is_live(), known.standing) {
            (true, Standing::Ended(reason)) => {
                let counts = self.counts(here.slot);
                counts.count_ended(reason);
                match reason {
                    EndReason::Evicted => counts.count_lost(LossCause::Evicted),
                    // The cause is not told; a restart loses most sessions at once.
                    EndReason::Lost => counts.count_lost(LossCause::Restart),
                    _ => {}
                }
            }
            (true, Standing::Live { .. }) if here.slot != known.slot => {
                self.counts(here.slot).count_ended(EndReason::Moved);
                self.counts(known.slot).count_arrived();
            }
            (false, Standing::Live { .. }) => self.counts(known.slot).count_restored(),
            _ => {}
        }
        if known.unsigned && !here.unsigned {
            self.room.reserve_unsigned_beyond();
        }
        self.change(i, now, |entry| *entry = known);
        if known.is_live() && !told.is_live() {
            // Touches in the same bucket were not told: who believes in that end must hear of them.
            self.journal.origin = Origin::Here;
            self.journal.changed(self.tables.at_mut(i));
        }
    }

    fn is_engaged(&self, entry: &Entry, now: Now) -> bool {
        entry.standing == (Standing::Live { confirmed: true }) && entry.foreground.saturating_add(self.spans.engaged) > now.tick
    }
}

impl Entry {
    fn known(record: &Record, clock: Clock, engaged_for: u32, now: Now) -> Entry {
        let (found, tick) = (&record.found, |time: Time| clock.now(time).stamp);
        let foreground = tick(record.foreground);
        let confirmed = found.standing == Standing::Live { confirmed: true };
        Entry {
            seen: tick(found.seen),
            born: tick(found.born),
            pinned: tick(found.pinned),
            foreground,
            ended: found.ended_at.map_or(0, tick),
            standing: found.standing,
            engaged: confirmed && foreground.saturating_add(engaged_for) > now.tick,
            unsigned: record.unsigned,
            doubts: record.doubts,
            told: found.told_at.is_some(),
            ..Entry::newborn(record.key, found.slot, found.birth_scope, 0)
        }
    }
}

/// What is true of a name of which two processes know `a` and `b`. Where their times differ it is the same from either side.
fn reconciled(a: &Entry, b: &Entry) -> Entry {
    match (a.standing, b.standing) {
        (Standing::Candidate, Standing::Candidate) | (Standing::Live { .. }, Standing::Live { .. }) => {
            let later = if b.pinned > a.pinned { b } else { a };
            let both = Entry { seen: a.seen.max(b.seen), foreground: a.foreground.max(b.foreground), ..*later };
            if a.slot != b.slot {
                return both;
            }
            let confirmed = [a, b].iter().any(|entry| entry.standing == Standing::Live { confirmed: true });
            let standing = if a.is_live() { Standing::Live { confirmed } } else { Standing::Candidate };
            Entry { standing, born: a.born.min(b.born), scope: a.scope.max(b.scope), unsigned: a.unsigned && b.unsigned, ..both }
        }
        (Standing::Candidate, _) => *b,
        (_, Standing::Candidate) => *a,
        (Standing::Ended(_), Standing::Ended(_)) => *if b.ended > a.ended { b } else { a },
        (Standing::Live { .. }, Standing::Ended(reason)) => *if outlives(a, b, reason) { a } else { b },
        (Standing::Ended(reason), Standing::Live { .. }) => *if outlives(b, a, reason) { b } else { a },
    }
}

/// Whether a session goes on although another process saw its end. What ended there for want of a touch did so because the
/// touches here were not known there.
fn outlives(live: &Entry, end: &Entry, reason: EndReason) -> bool {
    let knew_less = match reason {
        EndReason::Idle => live.seen > end.seen,
        EndReason::Unconfirmed => live.standing == Standing::Live { confirmed: true },
        _ => false,
    };
    live.seen > end.ended || (knew_less && live.slot == end.slot)
}
