//! How full the ledger is, and what it could not do: figures for metrics, and doubts for drains.

use std::sync::atomic::Ordering;

use super::{Ledger, lock};

impl Ledger {
    /// Entries of every kind, aliases included.
    pub fn entries(&self) -> usize {
        self.room.entries()
    }

    /// Most entries. Only aliases may exceed it: a session is renamed even when there is no room.
    pub fn capacity(&self) -> usize {
        self.room.capacity()
    }

    /// Births and adoptions that found no room.
    pub fn untracked_total(&self) -> u64 {
        self.room.untracked()
    }

    /// Whether a session that found no room may still live: for one idle timeout after the last such birth or adoption.
    pub fn overflowed(&self) -> bool {
        self.room.overflowed()
    }

    /// Whether unknown ids are, or within one idle timeout were, refused because of the cap: then drains are not
    /// confident.
    pub fn adoption_capped(&self) -> bool {
        self.room.unsigned_capped()
    }

    /// Whether what happens here can at present not be written down, so that a process after this one would not know of it.
    pub fn unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Acquire)
    }

    /// What whoever writes it down says of that.
    pub fn set_unsaved(&self, unsaved: bool) {
        self.unsaved.store(unsaved, Ordering::Release);
    }

    /// Bytes allocated for entries and for what is kept beside them.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).bytes()).sum()
    }
}
