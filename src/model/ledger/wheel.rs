//! A hashed timing wheel: each entry waits in the slot of the tick at which somebody must look at it. A slot is walked
//! once per revolution; entries with a later `due` stay for the next one.
//!
//! It knows no deadlines. Touching a session does not move its entry: the shard recomputes the real deadline when the
//! wheel fires and puts the entry back (so a busy session costs one visit per timeout, not one per request).

use super::entry::UNARMED;
use super::slab::{NIL, Slab};

/// 4096 slots of 100 ms are a revolution of seven minutes: a million sessions then cost 2,500 visits a second in all,
/// and the heads of a shard take 16 KiB.
const SLOTS: u32 = 4096;

#[derive(Debug)]
pub(super) struct Wheel {
    heads: Vec<u32>,
    /// The last tick whose slot was walked to its end.
    tick: u32,
    /// Next entry in the slot of `tick + 1` when a walk was interrupted there.
    resume: Option<u32>,
}

impl Wheel {
    pub fn new() -> Wheel {
        Wheel { heads: vec![NIL; SLOTS as usize], tick: 0, resume: None }
    }

    /// Puts entry `i`, which is in no slot, where it is looked at no later than `due` allows.
    pub fn link(&mut self, slab: &mut Slab, i: u32, due: u32) {
        let due = due.clamp(self.soonest(), UNARMED - 1);
        let Some(head) = self.heads.get_mut((due % SLOTS) as usize) else { return };
        let next = std::mem::replace(head, i);
        let entry = slab.at_mut(i);
        entry.due = due;
        entry.timer.prev = NIL;
        entry.timer.next = next;
        if next != NIL {
            slab.at_mut(next).timer.prev = i;
        }
    }

    /// The first tick whose slot is yet to be walked: one that was, or is being walked, comes round only after a whole
    /// revolution.
    pub fn soonest(&self) -> u32 {
        self.tick + if self.resume.is_some() { 2 } else { 1 }
    }

    /// Takes entry `i` out of its slot, if it is in one.
    pub fn unlink(&mut self, slab: &mut Slab, i: u32) {
        let entry = slab.at_mut(i);
        if entry.due == UNARMED {
            return;
        }
        let (links, due) = (entry.timer, entry.due);
        entry.due = UNARMED;
        if self.resume == Some(i) {
            self.resume = Some(links.next);
        }
        if links.next != NIL {
            slab.at_mut(links.next).timer.prev = links.prev;
        }
        if links.prev != NIL {
            slab.at_mut(links.prev).timer.next = links.next;
        } else if let Some(head) = self.heads.get_mut((due % SLOTS) as usize) {
            *head = links.next;
        }
    }

    /// The next entry that is due by `tick`, taken out of its slot; looks at no more than `budget` entries.
    pub fn fire(&mut self, slab: &mut Slab, tick: u32, budget: &mut usize) -> Fired {
        if tick.saturating_sub(self.tick) > SLOTS {
            // After a long pause one look at every slot finds all that is due.
            self.tick = tick - SLOTS;
            self.resume = None;
        }
        while self.tick < tick {
            let slot = (self.tick + 1) % SLOTS;
            let mut i = self.resume.take().unwrap_or_else(|| self.heads.get(slot as usize).copied().unwrap_or(NIL));
            while i != NIL {
                if *budget == 0 {
                    self.resume = Some(i);
                    return Fired::Paused;
                }
                *budget -= 1;
                let entry = slab.at(i);
                let (due, next) = (entry.due, entry.timer.next);
                if due <= tick {
                    self.unlink(slab, i);
                    self.resume = Some(next);
                    return Fired::Entry(i);
                }
                i = next;
            }
            self.tick += 1;
        }
        Fired::Nothing
    }

    /// Whether entry `i` is in the slot of its `due`, and its neighbours know it.
    #[cfg(test)]
    pub fn holds(&self, slab: &Slab, i: u32) -> bool {
        let entry = slab.at(i);
        let before = match entry.timer.prev {
            NIL => self.heads[(entry.due % SLOTS) as usize],
            prev => slab.at(prev).timer.next,
        };
        let after = match entry.timer.next {
            NIL => i,
            next => slab.at(next).timer.prev,
        };
        entry.due != UNARMED && before == i && after == i
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.heads.len() * size_of::<u32>()
    }
}

/// What [`Wheel::fire`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fired {
    Entry(u32),
    /// The budget is used up; call again.
    Paused,
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::*;
    use crate::model::session_key::SessionKey;

    fn wheel_of(dues: &[u32]) -> (Wheel, Slab) {
        let (mut wheel, mut slab) = (Wheel::new(), Slab::new());
        for &due in dues {
            let i = slab.insert(Entry::newborn(SessionKey([0; 16]), 0, 0, 0));
            wheel.link(&mut slab, i, due);
        }
        (wheel, slab)
    }

    fn fired(wheel: &mut Wheel, slab: &mut Slab, tick: u32, budget: usize) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let mut budget = budget;
            loop {
                match wheel.fire(slab, tick, &mut budget) {
                    Fired::Entry(i) => all.push(i),
                    Fired::Paused => break,
                    Fired::Nothing => {
                        all.sort_unstable();
                        return all;
                    }
                }
            }
        }
    }

    #[test]
    fn entries_fire_at_their_tick_also_after_revolutions_and_pauses() {
        let dues = [1, 5, 5, SLOTS + 5, 3 * SLOTS + 5, 100_000];
        for budget in [1, 2, 1000] {
            let (mut wheel, mut slab) = wheel_of(&dues);
            let mut check = |tick, expected: &[u32]| assert_eq!(fired(&mut wheel, &mut slab, tick, budget), expected, "tick {tick}");
            check(0, &[]);
            check(4, &[0]);
            check(5, &[1, 2]);
            check(SLOTS + 4, &[]);
            check(SLOTS + 5, &[3]);
            check(3 * SLOTS + 4, &[]);
            check(90_000, &[4]);
            check(100_000, &[5]);
        }
    }

    #[test]
    fn an_interrupted_walk_survives_removal_of_the_entry_it_stopped_at() {
        let (mut wheel, mut slab) = wheel_of(&[5, 5, 5, 5]);
        let mut budget = 1;
        assert_eq!(wheel.fire(&mut slab, 5, &mut budget), Fired::Entry(3));
        assert_eq!(wheel.fire(&mut slab, 5, &mut budget), Fired::Paused);
        wheel.unlink(&mut slab, 2);
        // Linked into the walked slot meanwhile: must not wait for a revolution.
        wheel.link(&mut slab, 2, 5);
        assert_eq!(fired(&mut wheel, &mut slab, 5, 1), [0, 1]);
        assert_eq!(fired(&mut wheel, &mut slab, 6, 1), [2]);
    }
}
