//! The shelves: entries that may be dropped when room is needed, roughly the oldest first.
//!
//! No list keeps their order: it would cost every entry two links, and every change two more lines of memory. Instead the oldest of
//! a sample goes, and the samples go round: see [`super::super::tables::Tables::oldest`].
//!
//! A candidate that is dropped is no more forgotten than one that found no place: somebody may be behind it.

use super::*;

impl Shard {
    /// Drops an old entry of a shelf to make room; false if it has none.
    pub fn drop_old(&mut self, shelf: Shelf, now: Now) -> bool {
        let Some(i) = self.tables.oldest(shelf) else { return false };
        match shelf {
            Shelf::Unconfirmed => {
                self.finish(i, EndReason::Unconfirmed, None, now.stamp, now);
            }
            // Somebody may be behind it all the same, as behind one that found no place.
            Shelf::Candidates => self.room.refuse_unsigned(now, &self.spans),
            Shelf::Tombstones => {}
        }
        self.remove(i);
        true
    }
}
