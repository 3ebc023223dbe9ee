//! The shelves of a shard: intrusive queues of entries that may be dropped when room is needed, oldest first.
//!
//! A candidate that is dropped is no more forgotten than one that found no place: somebody may be behind it.

use super::*;

#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub head: u32,
    pub tail: u32,
}

impl Queue {
    pub const EMPTY: Queue = Queue { head: NIL, tail: NIL };
}

impl Shard {
    /// Takes the oldest entry off a shelf to make room.
    pub fn drop_oldest(&mut self, shelf: Shelf, now: Now) -> bool {
        let Some(i) = self.queues.get(shelf as usize).map(|queue| queue.head).filter(|&i| i != NIL) else { return false };
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
