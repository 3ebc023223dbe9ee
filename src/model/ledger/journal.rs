//! The journal: what has changed since somebody last asked, for those who keep a copy of the ledger (the state file, another
//! process).
//!
//! A note says *that* an entry changed, never how: it is resolved when it is taken, to the entry as it is then. So an entry may
//! come twice, and one that is noted may be a later state than its note; whoever applies them in order has the truth.
//!
//! Off until [`Ledger::keep_journal`]. Then a touch is noted only when it falls into another *bucket* of time, a sixteenth of
//! the idle timeout or less; a hundred requests a second cost one note in a minute or two.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use super::alias::Aliases;
use super::entry::{Entry, Record, Standing};
use super::rules::{Clock, Now, Spans};
use super::shard::Shard;
use super::tables::Part;
use super::{BATCH, Ledger, lock};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;

/// Notes per shard that wait to be taken; two million in all, some 40 MiB. Beyond, the copy is to be made anew.
const MOST_NOTES: usize = 1 << 16;

/// Ticks between two looks for exchanges under way: they touch nothing while they last.
const SHORTEST_LOOK: u32 = 10;

/// Where something became known first. What another process told is no news to that process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Another process said so.
    There,
    /// It happened here.
    #[default]
    Here,
}

/// What to do to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// The session goes by another name. Before everything else of its batch; both names follow as entries.
    Renamed {
        /// Formerly.
        old: SessionKey,
        /// From now on.
        new: SessionKey,
    },
    /// Store this, in place of what there may be of that name.
    Entry(Record),
    /// Nothing is known by that name any more.
    Gone(SessionKey),
}

/// All that changed since the last time.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// To be applied in order.
    pub notes: Vec<(Noted, Origin)>,
    /// Some were dropped: the copy is to be made anew, from [`Ledger::page`].
    pub overflowed: bool,
}

/// Where a reading of the whole ledger stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    shard: usize,
    /// `None`: at its first.
    part: Option<Part>,
}

#[derive(Clone, Copy, Debug)]
enum Note {
    Changed(SessionKey, Origin),
    Removed(SessionKey, Origin),
}

/// Whether an entry waits in the journal, and as whose news. The name of an entry that is gone may be used again: a clear flag
/// is no reason to pass over a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waits {
    No,
    There,
    Here,
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    notes: Vec<Note>,
    /// The bits of a stamp that tell one bucket from another; 0 while no journal is kept, so that the request path has one
    /// test for both.
    mask: u32,
    /// Whose news the next changes are.
    pub origin: Origin,
    overflowed: bool,
}

impl Journal {
    /// Whether two stamps fall into different buckets.
    #[inline]
    pub fn parts(&self, before: u32, after: u32) -> bool {
        (before ^ after) & self.mask != 0
    }

    pub fn is_kept(&self) -> bool {
        self.mask != 0
    }

    pub fn keep(&mut self, spans: &Spans) {
        self.mask = !0 << spans.bucket_bits();
    }

    pub fn changed(&mut self, entry: &mut Entry) {
        if !self.is_kept() {
            return;
        }
        let waits = match self.origin {
            Origin::There => Waits::There,
            Origin::Here => Waits::Here,
        };
        if entry.waits < waits {
            entry.waits = waits;
            self.push(Note::Changed(entry.key, self.origin));
        }
    }

    pub fn removed(&mut self, key: SessionKey) {
        if self.is_kept() {
            self.push(Note::Removed(key, self.origin));
        }
    }

    /// The flags of entries whose notes are dropped here stay set; [`Ledger::page`] clears them.
    fn push(&mut self, note: Note) {
        if self.notes.len() >= MOST_NOTES {
            self.notes = Vec::new();
            self.overflowed = true;
        }
        self.notes.push(note);
    }
}

impl Shard {
    /// Runs `act`, whose changes another process told of.
    pub fn as_told<R>(&mut self, act: impl FnOnce(&mut Shard) -> R) -> R {
        self.journal.origin = Origin::There;
        let result = act(self);
        self.journal.origin = Origin::Here;
        result
    }

    fn resolve(&mut self, notes: Vec<Note>, into: &mut Vec<(Noted, Origin)>) {
        for note in notes {
            match note {
                Note::Removed(key, origin) => into.push((Noted::Gone(key), origin)),
                Note::Changed(key, origin) => {
                    let clock = self.clock;
                    // By name: places change. Not settled: a note is no occasion for time to act.
                    if let Some(i) = self.tables.find(&key) {
                        let entry = self.tables.at_mut(i);
                        entry.waits = Waits::No;
                        into.push((Noted::Entry(entry.record(clock)), origin));
                    }
                }
            }
        }
    }
}

/// Renamings, kept beside the aliases and under their lock.
#[derive(Debug, Default)]
pub(super) struct Renamings {
    kept: bool,
    list: Vec<(SessionKey, SessionKey)>,
    overflowed: bool,
}

impl Renamings {
    pub fn note(&mut self, old: SessionKey, new: SessionKey) {
        if !self.kept {
            return;
        }
        if self.list.len() >= MOST_NOTES {
            self.list = Vec::new();
            self.overflowed = true;
        }
        self.list.push((old, new));
    }

    fn take(aliases: &mut Aliases, into: &mut Notes) {
        let renamings = &mut aliases.renamings;
        into.overflowed |= std::mem::take(&mut renamings.overflowed);
        let list = std::mem::take(&mut renamings.list);
        into.notes.extend(list.into_iter().map(|(old, new)| (Noted::Renamed { old, new }, Origin::Here)));
    }
}

impl Ledger {
    /// From now on changes are noted. What is there already is not: see [`Ledger::page`]. Answers whether it was so before.
    pub fn keep_journal(&self) -> bool {
        if std::mem::replace(&mut lock(&self.aliases).renamings.kept, true) {
            return true;
        }
        for shard in &self.shards {
            let mut shard = lock(shard);
            let spans = shard.spans;
            shard.journal.keep(&spans);
        }
        false
    }

    /// What changed since the last call. To be called several times a second while a journal is kept.
    ///
    /// A renaming is wholly in one batch or wholly in a later one: all notes are taken under the aliases' lock, which a renaming
    /// holds throughout. They are resolved without it.
    pub fn take_notes(&self, now: Time) -> Notes {
        self.note_exchanges_under_way(self.clock.now(now));
        let mut taken = Notes::default();
        let mut by_shard = Vec::with_capacity(self.shards.len());
        {
            let mut aliases = lock(&self.aliases);
            Renamings::take(&mut aliases, &mut taken);
            for shard in &self.shards {
                let mut shard = lock(shard);
                taken.overflowed |= std::mem::take(&mut shard.journal.overflowed);
                by_shard.push(std::mem::take(&mut shard.journal.notes));
            }
        }
        taken.notes.reserve(by_shard.iter().map(Vec::len).sum());
        for (shard, notes) in self.shards.iter().zip(by_shard).filter(|(_, notes)| !notes.is_empty()) {
            lock(shard).resolve(notes, &mut taken.notes);
        }
        taken
    }

    /// Some thousand entries from `page` on, whatever the journal says of them; `None` after the last. Take the notes before
    /// the first page and apply those that come later after the last one: then nothing is missed.
    pub fn page(&self, mut page: Page, into: &mut Vec<Record>) -> Option<Page> {
        let most = into.len() + 8 * BATCH;
        while let Some(shard) = self.shards.get(page.shard) {
            let mut shard = lock(shard);
            let clock = shard.clock;
            let part = page.part.unwrap_or_else(|| shard.tables.begin());
            let read = shard.each_in(part, |shard, i| {
                let entry = shard.tables.at_mut(i);
                entry.waits = Waits::No;
                into.push(entry.record(clock));
                ControlFlow::Continue(())
            });
            debug_assert!(read.is_continue(), "a part is read as a whole");
            page = match part.next() {
                None => Page { shard: page.shard + 1, part: None },
                next => Page { part: next, ..page },
            };
            if into.len() >= most {
                break;
            }
        }
        (page.shard < self.shards.len()).then_some(page)
    }

    /// The record as it is to be stored for another run: its last touch is rounded up to the end of its bucket, for those that
    /// followed in the same one were not noted; an exchange under way touches it until now.
    pub fn lasting(&self, record: &Record, now: Time) -> Record {
        let mut record = *record;
        let seen = if record.found.open > 0 { record.found.seen.max(now) } else { record.found.seen };
        let bits = self.shards.first().map_or(0, |shard| lock(shard).spans.bucket_bits());
        record.found.seen = self.clock.time(self.clock.now(seen).stamp | !(!0 << bits));
        record
    }

    /// A WebSocket that is open for hours touches nothing meanwhile; without this its session would be stored as long silent.
    fn note_exchanges_under_way(&self, now: Now) {
        let bucket = self.shards.first().map_or(0, |shard| 1 << lock(shard).spans.bucket_bits());
        let turn = now.tick / SHORTEST_LOOK.max(bucket);
        if self.looked.swap(turn, Relaxed) == turn {
            return;
        }
        self.visit(|shard, i| {
            let entry = shard.tables.at_mut(i);
            if entry.is_live() && entry.exchanges() > 0 {
                shard.journal.changed(entry);
            }
        });
    }
}

impl Entry {
    /// As another run or process needs it.
    pub(super) fn record(&self, clock: Clock) -> Record {
        let found = self.found(clock);
        debug_assert!(!matches!(self.standing, Standing::Ended(_)) || found.ended_at.is_some(), "an end has its time");
        Record { key: self.key, found, foreground: clock.time(self.foreground), unsigned: self.unsigned, doubts: self.doubts }
    }
}
