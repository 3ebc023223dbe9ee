//! How full the ledger is, shared by its shards: entries against the bound, unsigned adoptions against their cap.
//!
//! Counts here are reservations: taken before an entry is made, given back when it is dropped. So the bound holds however
//! many threads insert at once.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use super::rules::{Now, Rules, Spans};

/// Entries that may be dropped to make room, first to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    Tombstones,
    Candidates,
    Unconfirmed,
}

impl Shelf {
    pub const ALL: [Shelf; 3] = [Shelf::Tombstones, Shelf::Candidates, Shelf::Unconfirmed];
}

#[derive(Debug)]
pub(super) struct Room {
    entries: AtomicUsize,
    max_entries: AtomicUsize,
    unsigned: AtomicUsize,
    max_unsigned: AtomicUsize,
    shelved: [AtomicUsize; Shelf::ALL.len()],
    /// Aliases live outside the shards. Raised before a session leaves its old name, so whoever misses the name in its
    /// shard knows that it must ask the aliases.
    aliases: AtomicUsize,
    untracked: AtomicU64,
    /// Until this tick a session may live that nobody counts: one that lives longer comes again, and is counted or found
    /// no room for once more.
    untracked_until: AtomicU32,
    /// Until this tick the cap counts as reached: whoever was refused may be a real user.
    refused_until: AtomicU32,
    /// The latest tick that the ledger was told.
    swept: AtomicU32,
}

impl Room {
    pub fn new(rules: &Rules) -> Room {
        let room = Room {
            entries: AtomicUsize::new(0),
            max_entries: AtomicUsize::new(0),
            unsigned: AtomicUsize::new(0),
            max_unsigned: AtomicUsize::new(0),
            shelved: Default::default(),
            aliases: AtomicUsize::new(0),
            untracked: AtomicU64::new(0),
            untracked_until: AtomicU32::new(0),
            refused_until: AtomicU32::new(0),
            swept: AtomicU32::new(0),
        };
        room.set_rules(rules);
        room
    }

    pub fn set_rules(&self, rules: &Rules) {
        self.max_entries.store(rules.max_entries, SeqCst);
        self.max_unsigned.store(rules.unsigned_limit(), SeqCst);
    }

    /// Entries of every kind, aliases included.
    pub fn entries(&self) -> usize {
        self.entries.load(SeqCst) + self.aliases()
    }

    pub fn capacity(&self) -> usize {
        self.max_entries.load(SeqCst)
    }

    /// Takes one place while there is one.
    pub fn reserve(&self) -> bool {
        let bound = self.capacity().saturating_sub(self.aliases());
        self.entries.fetch_update(SeqCst, SeqCst, |n| (n < bound).then_some(n + 1)).is_ok()
    }

    /// Takes the place of an entry that was just dropped.
    pub fn reserve_dropped(&self) {
        self.entries.fetch_add(1, SeqCst);
    }

    /// Takes one place whether there is one or not: nobody loses a session because the bound was lowered between two runs.
    pub fn reserve_beyond(&self) {
        self.entries.fetch_add(1, SeqCst);
    }

    /// The same under the cap on unsigned adoption.
    pub fn reserve_unsigned_beyond(&self) {
        self.unsigned.fetch_add(1, SeqCst);
    }

    pub fn release(&self) {
        self.entries.fetch_sub(1, SeqCst);
    }

    pub fn reserve_unsigned(&self) -> bool {
        let bound = self.max_unsigned.load(SeqCst);
        self.unsigned.fetch_update(SeqCst, SeqCst, |n| (n < bound).then_some(n + 1)).is_ok()
    }

    pub fn release_unsigned(&self) {
        self.unsigned.fetch_sub(1, SeqCst);
    }

    /// An unknown id found no place under the cap.
    pub fn refuse_unsigned(&self, now: Now, spans: &Spans) {
        self.refused_until.fetch_max(now.stamp.saturating_add(spans.idle), SeqCst);
    }

    #[cfg(test)]
    pub fn unsigned(&self) -> usize {
        self.unsigned.load(SeqCst)
    }

    pub fn unsigned_capped(&self) -> bool {
        self.unsigned.load(SeqCst) >= self.max_unsigned.load(SeqCst) || self.refused_until.load(SeqCst) > self.swept.load(SeqCst)
    }

    /// Until when there may be somebody who found no room, and somebody whom the cap refused.
    pub fn uncounted_until(&self) -> [u32; 2] {
        [self.untracked_until.load(SeqCst), self.refused_until.load(SeqCst)]
    }

    /// The same, as an earlier run knew it.
    pub fn recall_uncounted(&self, [untracked, refused]: [u32; 2]) {
        self.untracked_until.fetch_max(untracked, SeqCst);
        self.refused_until.fetch_max(refused, SeqCst);
    }

    pub fn swept(&self, now: Now) {
        self.swept.fetch_max(now.tick, SeqCst);
    }

    pub fn shelved(&self, shelf: Shelf) -> usize {
        self.shelved.get(shelf as usize).map_or(0, |n| n.load(SeqCst))
    }

    pub fn put_on(&self, shelf: Shelf) {
        if let Some(n) = self.shelved.get(shelf as usize) {
            n.fetch_add(1, SeqCst);
        }
    }

    pub fn take_off(&self, shelf: Shelf) {
        if let Some(n) = self.shelved.get(shelf as usize) {
            n.fetch_sub(1, SeqCst);
        }
    }

    pub fn aliases(&self) -> usize {
        self.aliases.load(SeqCst)
    }

    pub fn set_aliases(&self, n: usize) {
        self.aliases.store(n, SeqCst);
    }

    pub fn untracked(&self) -> u64 {
        self.untracked.load(SeqCst)
    }

    pub fn count_untracked(&self, now: Now, spans: &Spans) {
        self.untracked.fetch_add(1, SeqCst);
        self.untracked_until.fetch_max(now.stamp.saturating_add(spans.idle), SeqCst);
    }

    pub fn overflowed(&self) -> bool {
        self.untracked_until.load(SeqCst) > self.swept.load(SeqCst)
    }
}
