//! A session's way from one name to another, perhaps in another shard.
//!
//! In between it is in no table, and counted all the same: nobody may see one session less.

use super::*;

impl Shard {
    /// Takes a session out under its old name. It stays counted, and so does its room: [`Shard::put`] must follow.
    pub fn take(&mut self, i: Place) -> Entry {
        let entry = self.tables.remove(i);
        if let Some(shelf) = entry.shelf() {
            self.room.take_off(shelf);
        }
        self.journal.removed(entry.key);
        entry
    }

    /// Puts a session that was taken in under its new name, in place of the entry `i` that is not live.
    pub fn put(&mut self, session: Entry, i: Option<Place>, now: Now) {
        let mut session = Entry { due: super::super::entry::UNARMED, waits: Waits::No, ..session };
        if let Some(i) = i {
            let former = self.tables.at(i);
            session.open = session.open.saturating_add(former.open);
            session.borrowed = session.borrowed.saturating_add(former.borrowed);
            self.remove(i);
        }
        self.place(session, now);
    }

    /// A session that was taken ends, because its user goes on in live session `i`, which inherits its exchanges.
    pub fn merge(&mut self, session: &Entry, i: Place, now: Now) {
        let counts = self.counts(session.slot);
        counts.count_ended(EndReason::Moved);
        counts.shift(session.gauge(), Gauge::Nowhere);
        self.room.release();
        if session.unsigned {
            self.room.release_unsigned();
        }
        self.change(i, now, |entry| {
            entry.borrowed = entry.borrowed.saturating_add(session.exchanges());
            entry.touch(now.stamp);
        });
    }
}
