//! How a new client's backend is chosen. The cost does not grow with the number of backends.
//!
//! `least_sessions` is the better of two weighted draws and not the minimum: the minimum would send every new session to a
//! server that has just come back, which is the login rush that kills it. With two draws such a server gets at most twice
//! its share, and the counts stay even to within a few sessions ("power of two choices", Mitzenmacher 2001).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::admission::Admission;
use super::backend::Backend;
use super::gate::{Gate, GateReading};
use super::settings::Balance;
use super::time::Time;

mod ring;
#[cfg(test)]
mod tables;

use self::ring::Ring;

/// Draws that may hit a closed backend before all are looked at one by one. With three quarters closed, eight draws miss
/// one time in ten; the look at all of them is then the right price.
const DRAWS: u64 = 8;
/// Open backends that `least_connections` compares; up to this many it is exact. Among so many there is nearly always one from the
/// least busy tenth of all, and looking at more costs every new client more than it gains.
const COMPARED: usize = 16;
/// Backends that it looks at to find those; with three quarters closed it still finds them all.
const LOOKED_AT: usize = 4 * COMPARED;

/// The backends among which new clients are spread, prepared when a snapshot is made.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    backends: Vec<Arc<Backend>>,
    /// Beside each backend what a choice asks first, so that it need not be fetched from there.
    seats: Vec<Seat>,
    /// `cumulative[i]` is the sum of the weights of backends 0..=i.
    cumulative: Vec<u64>,
    /// Where in `cumulative` to begin for each equal share of the total, one share per backend: about one step from there finds a
    /// unit of weight, however many backends there are (Chen and Asau's guide table).
    guide: Vec<u32>,
    /// The greatest weight.
    heaviest: u32,
    /// As `stride`, for the number of backends: those of one release or one host, which may be closed together, are neighbours.
    step: usize,
    /// Coprime to the total weight, about its golden section: walking by it visits each unit of weight once per round,
    /// well mixed, which is a weighted round robin without a schedule.
    stride: u64,
    /// Empty unless the app balances consistently.
    ring: Ring,
}

#[derive(Clone, Debug)]
struct Seat {
    gate: Arc<Gate>,
    slot: u32,
    weight: u32,
}

/// Chance and place of one choice; arguments, so that a choice can be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// Random bits.
    pub dice: u64,
    /// Stable hash of the client.
    pub client: u64,
    /// Turn counter of the app.
    pub turns: &'a AtomicU64,
    /// Now, for slow start.
    pub now: Time,
    /// Slots that failed for this request.
    pub tried: &'a [u32],
    /// Ramp of recovered backends.
    pub slow_start: Duration,
}

impl Pool {
    /// A pool of those backends whose weight is not zero.
    pub fn new(backends: impl IntoIterator<Item = Arc<Backend>>, balance: Balance) -> Pool {
        let backends: Vec<_> = backends.into_iter().filter(|b| b.spec.weight > 0).collect();
        let mut total = 0;
        let cumulative: Vec<u64> = backends
            .iter()
            .map(|b| {
                total += u64::from(b.spec.weight);
                total
            })
            .collect();
        let ring = if balance == Balance::Consistent { Ring::new(&backends) } else { Ring::default() };
        let seat = |b: &Arc<Backend>| Seat { gate: Arc::clone(&b.live.gate), slot: b.slot, weight: b.spec.weight };
        let seats = backends.iter().map(seat).collect();
        let heaviest = backends.iter().map(|b| b.spec.weight).max().unwrap_or(0);
        let step = stride(backends.len() as u64) as usize;
        Pool { stride: stride(total), step, guide: guide(&cumulative, total), heaviest, seats, backends, cumulative, ring }
    }

    /// All backends of the pool.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    fn total(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or(0)
    }

    /// Chooses a backend that admits everyone, by the app's `balance`; `None` when no backend does.
    pub fn choose(&self, balance: Balance, draw: &Draw<'_>) -> Option<&Arc<Backend>> {
        if self.backends.is_empty() {
            return None;
        }
        match balance {
            Balance::LeastSessions => {
                let first = self.in_turn(draw)?;
                let second = self.at_random(draw, 0)?;
                let load = |b: &Backend| (b.sessions() as f64, f64::from(b.live.gate.in_flight()));
                Some(lighter(first, second, load))
            }
            Balance::RandomTwo => {
                let load = |b: &Backend| (f64::from(b.live.gate.in_flight()), b.sessions() as f64);
                Some(lighter(self.at_random(draw, 1)?, self.at_random(draw, 0)?, load))
            }
            Balance::RoundRobin => self.in_turn(draw),
            Balance::LeastConnections => self.least_connections(draw),
            Balance::Consistent => self.consistent(draw),
        }
    }

    /// The first backend after a random place that admits `need`: the last resort, where every one is looked at.
    pub fn any(&self, need: Admission, draw: &Draw<'_>, suits: impl Fn(&Backend) -> bool) -> Option<&Arc<Backend>> {
        let start = usize::try_from(draw.dice % (self.backends.len().max(1) as u64)).unwrap_or_default();
        let (before, after) = self.backends.split_at_checked(start)?;
        after.iter().chain(before).find(|b| b.admission() >= need && !draw.tried.contains(&b.slot) && suits(b))
    }

    /// The index of the backend to which a unit of weight belongs.
    fn at(&self, unit: u64) -> Option<usize> {
        let share = unit * self.guide.len() as u64 / self.total().max(1);
        let from = *self.guide.get(share as usize)? as usize;
        let steps = self.cumulative.get(from..)?.iter().position(|&sum| sum > unit)?;
        Some(from + steps)
    }

    /// The backend of this index, if it takes a new client.
    fn open(&self, index: usize, draw: &Draw<'_>, dice: u64) -> Option<&Arc<Backend>> {
        self.reading(index, draw, dice).and_then(|_| self.backends.get(index))
    }

    /// Its seat, its gate at this moment and the share of its weight that it takes, if it takes a new client.
    fn reading(&self, index: usize, draw: &Draw<'_>, dice: u64) -> Option<(&Seat, GateReading, f64)> {
        let seat = self.seats.get(index)?;
        let reading = seat.gate.read();
        if reading.admission() < Admission::Everyone || draw.tried.contains(&seat.slot) {
            return None;
        }
        let warmth = self.warmth(index, draw);
        is_warm(warmth, dice).then_some((seat, reading, warmth))
    }

    fn warmth(&self, index: usize, draw: &Draw<'_>) -> f64 {
        if draw.slow_start.is_zero() {
            return 1.0;
        }
        self.backends.get(index).map_or(1.0, |backend| backend.live.warmth(draw.slow_start, draw.now))
    }

    fn in_turn(&self, draw: &Draw<'_>) -> Option<&Arc<Backend>> {
        // Weights are small: the product of two sums of them fits.
        let total = self.total().max(1);
        for round in 0..DRAWS {
            let turn = draw.turns.fetch_add(1, Ordering::Relaxed);
            let unit = turn % total * self.stride % total;
            let open = self.at(unit).and_then(|index| self.open(index, draw, mix(draw.dice.wrapping_add(round))));
            if open.is_some() {
                return open;
            }
        }
        self.any(Admission::Everyone, draw, |_| true)
    }

    fn at_random(&self, draw: &Draw<'_>, salt: u64) -> Option<&Arc<Backend>> {
        let total = self.total().max(1);
        for round in 0..DRAWS {
            let dice = mix(draw.dice ^ (salt << 32) ^ (round + 1));
            let open = self.at(dice % total).and_then(|index| self.open(index, draw, dice));
            if open.is_some() {
                return open;
            }
        }
        self.any(Admission::Everyone, draw, |_| true)
    }

    fn least_connections(&self, draw: &Draw<'_>) -> Option<&Arc<Backend>> {
        let count = self.backends.len();
        let mut next = usize::try_from(mix(draw.dice) % (count as u64)).unwrap_or_default();
        let (mut best, mut compared) = (None, 0);
        for _ in 0..count.min(LOOKED_AT) {
            let index = next;
            next = (next + self.step) % count;
            let Some((seat, reading, warmth)) = self.reading(index, draw, mix(draw.dice ^ index as u64)) else { continue };
            if reading.in_flight == 0 && warmth >= 1.0 && seat.weight == self.heaviest {
                // Nobody can be less busy.
                return self.backends.get(index);
            }
            let score = (f64::from(reading.in_flight) + 1.0) / (f64::from(seat.weight) * warmth);
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, index));
            }
            compared += 1;
            if compared == COMPARED {
                break;
            }
        }
        best.and_then(|(_, index)| self.backends.get(index)).or_else(|| self.any(Admission::Everyone, draw, |_| true))
    }

    fn consistent(&self, draw: &Draw<'_>) -> Option<&Arc<Backend>> {
        // A closed backend's clients go to wherever the next hash points: each to the same place every time, and nobody
        // else moves.
        let mut hash = mix(draw.client);
        for _ in 0..DRAWS {
            let Some(backend) = self.ring.owner(hash).and_then(|i| self.backends.get(i)) else { break };
            if backend.admission() >= Admission::Everyone && !draw.tried.contains(&backend.slot) {
                return Some(backend);
            }
            hash = mix(hash);
        }
        let place = Draw { dice: draw.client, ..*draw };
        self.any(Admission::Everyone, &place, |_| true)
    }
}

/// Whether a backend that takes this share of its weight takes this one.
fn is_warm(warmth: f64, dice: u64) -> bool {
    warmth >= 1.0 || ((mix(dice ^ 0x5157) >> 11) as f64) < warmth * (1u64 << 53) as f64
}

/// For each equal share of the total the first backend that reaches into it.
fn guide(cumulative: &[u64], total: u64) -> Vec<u32> {
    let shares = cumulative.len() as u64;
    let mut first = 0;
    (0..shares)
        .map(|share| {
            while cumulative.get(first).is_some_and(|&sum| sum <= share * total / shares) {
                first += 1;
            }
            first as u32
        })
        .collect()
}

/// The one with less load per weight; the first when equal.
fn lighter<'a>(a: &'a Arc<Backend>, b: &'a Arc<Backend>, load: impl Fn(&Backend) -> (f64, f64)) -> &'a Arc<Backend> {
    if a.slot == b.slot {
        return a;
    }
    let per_weight = |backend: &Backend| {
        let (main, tie) = load(backend);
        let weight = f64::from(backend.spec.weight);
        (main / weight, tie / weight)
    };
    let (x, y) = (per_weight(a), per_weight(b));
    if y.0.total_cmp(&x.0).then(y.1.total_cmp(&x.1)).is_lt() { b } else { a }
}

/// Near the golden section of `total` and coprime to it.
fn stride(total: u64) -> u64 {
    if total < 3 {
        return 1;
    }
    let mut stride = (total as f64 * 0.618_033_988_749_895) as u64;
    while gcd(stride.max(1), total) != 1 {
        stride += 1;
    }
    stride.max(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Scrambles all bits (the finisher of SplitMix64).
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
