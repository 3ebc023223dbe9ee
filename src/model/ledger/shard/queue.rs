//! The queues from which room is made: entries that may go, linked through the slab, oldest first.
//!
//! An entry stands in one queue at most, so its links live in the entry, and nothing is ever searched for.

use super::Shard;
use crate::model::ledger::entry::Links;
use crate::model::ledger::room::Shelf;
use crate::model::ledger::slab::NIL;

/// The ends of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub head: u32,
    pub tail: u32,
}

impl Queue {
    pub const EMPTY: Queue = Queue { head: NIL, tail: NIL };
}

impl Shard {
    /// Behind all others of its shelf.
    pub(super) fn enqueue(&mut self, i: u32, shelf: Option<Shelf>) {
        let Some(shelf) = shelf else { return };
        let Some(queue) = self.queues.get_mut(shelf as usize) else { return };
        let tail = std::mem::replace(&mut queue.tail, i);
        if tail == NIL {
            queue.head = i;
        } else {
            self.slab.at_mut(tail).queue.next = i;
        }
        self.slab.at_mut(i).queue = Links { prev: tail, next: NIL };
        self.room.put_on(shelf);
    }

    /// From wherever it stands.
    pub(super) fn dequeue(&mut self, i: u32, shelf: Option<Shelf>) {
        let Some(shelf) = shelf else { return };
        let Some(queue) = self.queues.get_mut(shelf as usize) else { return };
        let Links { prev, next } = self.slab.at(i).queue;
        match prev {
            NIL => queue.head = next,
            prev => self.slab.at_mut(prev).queue.next = next,
        }
        match next {
            NIL => queue.tail = prev,
            next => self.slab.at_mut(next).queue.prev = prev,
        }
        self.room.take_off(shelf);
    }
}
