//! Recounts a shard from its entries and compares with everything that is kept beside them; for tests.

use std::collections::{HashMap, HashSet};

use super::*;

/// What a shard's entries add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Audit {
    pub entries: usize,
    pub unsigned: usize,
    pub shelved: [usize; Shelf::ALL.len()],
    /// Engaged, kept alive, unconfirmed, candidates by slot.
    pub gauges: HashMap<u32, [u64; 4]>,
}

impl Shard {
    /// Adds this shard to `audit` after checking that its lists hold each entry exactly once and in time.
    pub fn audit(&self, audit: &mut Audit, aliases: &super::super::alias::Aliases) {
        let present: HashSet<u32> = (0..self.slab.end()).filter(|&i| !self.slab.at(i).vacant).collect();
        assert_eq!(self.index.iter().copied().collect::<HashSet<_>>(), present, "table and slab");
        let mut queued = HashMap::new();
        for shelf in Shelf::ALL {
            let (mut i, mut last) = (self.queues[shelf as usize].head, NIL);
            while i != NIL {
                assert_eq!(self.slab.at(i).queue.prev, last);
                assert_eq!(queued.insert(i, shelf), None, "on one shelf only");
                (last, i) = (i, self.slab.at(i).queue.next);
            }
            assert_eq!(self.queues[shelf as usize].tail, last);
        }
        for &i in &present {
            let entry = self.slab.at(i);
            assert!(self.wheel.holds(&self.slab, i), "in the slot of its due tick: {entry:?}");
            // What is due within a tick or two of the past may wait for its sweep; nothing waits beyond its deadline.
            assert!(entry.next_event(&self.spans).is_none_or(|(at, _)| entry.due <= at.max(self.wheel.soonest())), "{entry:?}");
            assert_eq!(queued.get(&i), entry.shelf().as_ref());
            assert_eq!(entry.borrowed, aliases.borrowed(&entry.key), "borrowed exchanges of {entry:?}");
            audit.entries += 1;
            audit.unsigned += usize::from(entry.unsigned);
            if let Some(shelf) = entry.shelf() {
                audit.shelved[shelf as usize] += 1;
            }
            let gauges = audit.gauges.entry(entry.slot).or_default();
            match entry.gauge() {
                Gauge::Engaged => gauges[0] += 1,
                Gauge::KeptAlive => gauges[1] += 1,
                Gauge::Unconfirmed => gauges[2] += 1,
                Gauge::Candidate => gauges[3] += 1,
                Gauge::Nowhere => {}
            }
        }
    }
}
