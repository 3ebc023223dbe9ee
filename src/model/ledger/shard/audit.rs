//! Recounts a shard from its entries and compares with everything that is kept beside them; for tests.

use std::collections::HashMap;

use super::super::entry::UNARMED;
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
    /// Adds this shard to `audit` after checking that its tables are true, and that each entry is looked at in time.
    pub fn audit(&self, audit: &mut Audit, aliases: &super::super::alias::Aliases) {
        for entry in self.tables.audited() {
            assert!(entry.next_event(&self.spans).is_none_or(|(at, _)| entry.due <= at), "{entry:?}");
            assert_ne!(entry.due, UNARMED, "{entry:?}");
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
