//! Entries in fixed chunks: growth adds a chunk and copies nothing, so no request waits while a table of a million moves.
//!
//! An index stays valid until its entry is removed; afterwards the place is used again. Only the shard's own lists and
//! table hold indexes.

use super::entry::{Entry, Links};

/// The index that means "none".
pub(super) const NIL: u32 = u32::MAX;

/// 256 entries are 20 KiB: little waste per shard, and few allocations on the way to millions.
const CHUNK_BITS: u32 = 8;
const CHUNK: usize = 1 << CHUNK_BITS;

#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Vec<Entry>>,
    /// First of the free places, linked by `timer.next`.
    free: u32,
}

impl Slab {
    pub fn new() -> Slab {
        Slab { chunks: Vec::new(), free: NIL }
    }

    /// Indexes are below this.
    pub fn end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() as u32 - 1) << CHUNK_BITS) + last.len() as u32,
            None => 0,
        }
    }

    pub fn insert(&mut self, entry: Entry) -> u32 {
        if self.free != NIL {
            let i = self.free;
            self.free = self.at(i).timer.next;
            *self.at_mut(i) = entry;
            return i;
        }
        let i = self.end();
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(entry),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(entry);
                self.chunks.push(chunk);
            }
        }
        i
    }

    pub fn remove(&mut self, i: u32) {
        let free = self.free;
        let place = self.at_mut(i);
        debug_assert!(!place.vacant, "an entry is removed once");
        place.vacant = true;
        place.timer = Links { prev: NIL, next: free };
        self.free = i;
    }

    #[expect(clippy::indexing_slicing, reason = "indexes come from `insert`; a wrong one is a bug that must not corrupt counts silently")]
    pub fn at(&self, i: u32) -> &Entry {
        &self.chunks[(i >> CHUNK_BITS) as usize][i as usize & (CHUNK - 1)]
    }

    #[expect(clippy::indexing_slicing, reason = "indexes come from `insert`; a wrong one is a bug that must not corrupt counts silently")]
    pub fn at_mut(&mut self, i: u32) -> &mut Entry {
        &mut self.chunks[(i >> CHUNK_BITS) as usize][i as usize & (CHUNK - 1)]
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry>() + self.chunks.capacity() * size_of::<Vec<Entry>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::session_key::SessionKey;

    #[test]
    fn freed_places_are_used_again_before_the_slab_grows() {
        let mut slab = Slab::new();
        let entry = |n: u32| Entry::newborn(SessionKey([0; 16]), n, 0, 0);
        for n in 0..600 {
            assert_eq!(slab.insert(entry(n)), n);
        }
        slab.remove(3);
        slab.remove(299);
        assert_eq!((slab.insert(entry(7)), slab.insert(entry(8))), (299, 3));
        assert_eq!(slab.insert(entry(600)), 600);
        assert_eq!((slab.at(3).slot, slab.at(299).slot, slab.at(511).slot, slab.end()), (8, 7, 511, 601));
    }
}
