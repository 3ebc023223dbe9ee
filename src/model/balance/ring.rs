//! Consistent hashing: every backend owns the arcs that end at its points, and the points follow from its route alone. So an
//! address change moves no client, and a backend that comes or goes moves only those that it takes or leaves.
//!
//! Not a Maglev table: its size depends on how many backends there are, and a new size moves everybody.

use std::sync::Arc;

use super::mix;
use crate::model::backend::Backend;

/// Points per unit of weight: shares come out even to within a tenth.
const POINTS: u64 = 128;
/// Bound on all points together: 3 MiB. Beyond it every backend has proportionally fewer, taken from the end of its own.
const POINTS_MAX: u64 = 1 << 18;

/// Who owns which hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    /// Hash and position of the backend, sorted.
    points: Vec<(u32, u32)>,
    /// Where in `points` the hashes with these leading bits begin: about one point each, so a look-up costs the same however many
    /// there are.
    starts: Vec<u32>,
    shift: u32,
}

impl Ring {
    /// Of backends whose weight is not zero.
    pub(super) fn new(backends: &[Arc<Backend>]) -> Ring {
        let total: u64 = backends.iter().map(|b| u64::from(b.spec.weight)).sum();
        let each = (POINTS_MAX / total.max(1)).clamp(1, POINTS);
        let mut points = Vec::new();
        for (index, backend) in (0u32..).zip(backends) {
            // The route, not the name: it is unique in the app, two releases may both have an `a1`.
            let name = backend.spec.route.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, byte| mix(h ^ u64::from(byte)));
            points.extend((0..each * u64::from(backend.spec.weight)).map(|nth| ((mix(name ^ mix(nth)) >> 32) as u32, index)));
        }
        points.sort_unstable();
        let bits = (usize::BITS - points.len().leading_zeros()).clamp(1, 31);
        let shift = u32::BITS - bits;
        let mut starts = Vec::with_capacity(1 << bits);
        let mut next = 0u32;
        for bucket in 0..1u32 << bits {
            while points.get(next as usize).is_some_and(|&(hash, _)| hash >> shift < bucket) {
                next += 1;
            }
            starts.push(next);
        }
        Ring { points, starts, shift }
    }

    /// The position of the backend that owns `hash`: the first point at or after it, round the ring.
    pub(super) fn owner(&self, hash: u64) -> Option<usize> {
        let hash = (hash >> 32) as u32;
        let start = *self.starts.get((hash >> self.shift) as usize)?;
        let after = self.points.get(start as usize..)?.iter().find(|(point, _)| *point >= hash);
        after.or(self.points.first()).map(|&(_, index)| index as usize)
    }
}
