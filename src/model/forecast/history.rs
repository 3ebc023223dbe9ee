//! What is remembered of finished sessions: counts in bins of duration, four to an octave, whatever their number.
//!
//! Durations are in ticks of 100 ms, the ledger's unit. A session's *stay* is from its birth to its last touch: the silence after it
//! is no part of it, for it is the same for everybody.

use std::time::Duration;

/// Enough for a stay of 155 days; longer ones share the last bin.
pub const BINS: usize = 4 * (27 - FIRST_OCTAVE) + 1;
/// Below 2⁴ ticks (1.6 s) all is one bin.
const FIRST_OCTAVE: usize = 4;
const TICK_SECONDS: f64 = 0.1;

/// Silences up to this are not counted when they end: ten seconds, in ticks. A busy user then costs the request path nothing, and
/// nobody is thought to have left who was silent for less.
pub const SHORT_SILENCE: u32 = 100;

/// After this time what was counted weighs half: yesterday's sessions an eighth, last week's nothing.
const HALF_LIFE: Duration = Duration::from_secs(8 * 3600);

/// What is counted, each by duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A stay ended by logout.
    Logout,
    /// A stay was followed by silence until the idle timeout.
    Idle,
    /// A stay was cut short by something that says nothing of its user: evicted, lost, too old.
    Cut,
    /// A stay was first seen at this age: adopted.
    Joined,
    /// A silence ended by the user's return.
    Return,
}

impl Mark {
    const COUNT: usize = 5;
}

/// The bin of a duration.
pub fn bin(ticks: u32) -> usize {
    let octave = ticks.checked_ilog2().map_or(0, |octave| octave as usize);
    if octave < FIRST_OCTAVE {
        return 0;
    }
    let quarter = (ticks >> (octave - 2)) & 3;
    (4 * (octave - FIRST_OCTAVE) + quarter as usize + 1).min(BINS - 1)
}

/// Where a bin begins, in seconds; it ends where the next one begins.
pub fn begin(bin: usize) -> f64 {
    match bin.checked_sub(1) {
        None => 0.0,
        Some(n) => ((4 + (n as u64 & 3)) << (n / 4 + FIRST_OCTAVE - 2)) as f64 * TICK_SECONDS,
    }
}

/// Ticks in seconds.
pub fn seconds(ticks: u32) -> f64 {
    f64::from(ticks) * TICK_SECONDS
}

type Bins<N> = [[N; BINS]; Mark::COUNT];

/// What one shard has counted since it was last asked; 1.9 KiB.
#[derive(Debug)]
pub struct Harvest {
    bins: Box<Bins<u32>>,
    is_empty: bool,
}

impl Default for Harvest {
    fn default() -> Harvest {
        Harvest { bins: Box::new([[0; BINS]; Mark::COUNT]), is_empty: true }
    }
}

impl Harvest {
    /// Counts a duration.
    pub fn count(&mut self, mark: Mark, ticks: u32) {
        if let Some(n) = self.bins.get_mut(mark as usize).and_then(|bins| bins.get_mut(bin(ticks))) {
            *n = n.saturating_add(1);
            self.is_empty = false;
        }
    }
}

/// What an app has counted; the older, the lighter.
#[derive(Clone, Debug)]
pub struct History {
    bins: Box<Bins<f64>>,
}

impl Default for History {
    fn default() -> History {
        History { bins: Box::new([[0.0; BINS]; Mark::COUNT]) }
    }
}

impl History {
    /// Takes over what a shard has counted.
    pub fn absorb(&mut self, harvest: &mut Harvest) {
        if harvest.is_empty {
            return;
        }
        for (total, fresh) in self.bins.iter_mut().flatten().zip(harvest.bins.iter_mut().flatten()) {
            *total += f64::from(std::mem::take(fresh));
        }
        harvest.is_empty = true;
    }

    /// Lets it grow older.
    pub fn fade(&mut self, elapsed: Duration) {
        let factor = 0.5f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        for total in self.bins.iter_mut().flatten() {
            *total *= factor;
        }
    }

    /// All counts, to be written down.
    pub fn rows(&self) -> Vec<Vec<f64>> {
        self.bins.iter().map(|row| row.to_vec()).collect()
    }

    /// Takes over counts that were written down; those of another shape count nothing.
    pub fn add_rows(&mut self, rows: &[Vec<f64>]) {
        if rows.len() != Mark::COUNT || rows.iter().any(|row| row.len() != BINS) {
            return;
        }
        for (total, written) in self.bins.iter_mut().flatten().zip(rows.iter().flatten()) {
            if written.is_finite() && *written >= 0.0 {
                *total += written;
            }
        }
    }

    /// Sessions whose own end was seen.
    pub fn ended(&self) -> f64 {
        self.of(Mark::Logout).iter().chain(self.of(Mark::Idle)).sum()
    }

    pub(super) fn of(&self, mark: Mark) -> &[f64; BINS] {
        let [logout, idle, cut, joined, returned] = &*self.bins;
        match mark {
            Mark::Logout => logout,
            Mark::Idle => idle,
            Mark::Cut => cut,
            Mark::Joined => joined,
            Mark::Return => returned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_bin() {
        for ticks in (0..5_000).chain((0..24).map(|n| 5_000 << (n / 2) | n)).chain([u32::MAX]) {
            let bin = bin(ticks);
            assert!(begin(bin) <= seconds(ticks), "{ticks}");
            assert!(bin == BINS - 1 || seconds(ticks) < begin(bin + 1), "{ticks}");
        }
        assert_eq!((begin(1), begin(2), begin(5)), (1.6, 2.0, 3.2));
    }

    #[test]
    fn yesterday_weighs_an_eighth() {
        let (mut history, mut harvest) = (History::default(), Harvest::default());
        for _ in 0..80 {
            harvest.count(Mark::Idle, 6000);
        }
        history.absorb(&mut harvest);
        history.fade(Duration::from_secs(24 * 3600));
        assert!((history.ended() - 10.0).abs() < 1e-9);
        harvest.count(Mark::Logout, 6000);
        harvest.count(Mark::Cut, 6000);
        history.absorb(&mut harvest);
        history.absorb(&mut harvest);
        assert!((history.ended() - 11.0).abs() < 1e-9, "each is absorbed once, and a cut is no end of its own");
    }
}
