//! Live sessions, grouped by age and silence: a million of them become some thousand groups.

use super::history::{BINS, bin, seconds};

/// Classes of silence within one idle timeout. The groups keep their means, so this is finer than it looks.
const SILENCES: usize = 32;

/// Live sessions by age and silence.
#[derive(Clone, Debug)]
pub struct Crowd {
    groups: Vec<Sums>,
    idle_ticks: u32,
    /// The shortest silence of all, in ticks.
    least_silent: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: u32,
    age: u64,
    silence: u64,
}

/// Sessions of about the same age and silence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub count: f64,
    /// Seconds since birth.
    pub age: f64,
    /// Seconds since the last touch; zero while an exchange is open.
    pub silence: f64,
}

impl Crowd {
    /// Nobody, in an app with this idle timeout.
    pub fn new(idle_ticks: u32) -> Crowd {
        Crowd { groups: vec![Sums::default(); BINS * (SILENCES + 1)], idle_ticks: idle_ticks.max(1), least_silent: u32::MAX }
    }

    /// One more.
    pub fn add(&mut self, age: u32, silence: u32) {
        let class = match silence {
            0 => 0,
            _ => 1 + (u64::from(silence) * SILENCES as u64 / u64::from(self.idle_ticks)) as usize,
        };
        self.least_silent = self.least_silent.min(silence);
        if let Some(sums) = self.groups.get_mut(bin(age) * (SILENCES + 1) + class.min(SILENCES)) {
            sums.count += 1;
            sums.age += u64::from(age);
            sums.silence += u64::from(silence);
        }
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.groups.iter().map(|sums| u64::from(sums.count)).sum()
    }

    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.least_silent == u32::MAX
    }

    /// Seconds of the app's idle timeout.
    pub(super) fn idle(&self) -> f64 {
        seconds(self.idle_ticks)
    }

    /// Seconds since anybody was touched; `None` when nobody is here.
    pub(super) fn least_silent(&self) -> Option<f64> {
        (!self.is_empty()).then(|| seconds(self.least_silent))
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.groups.iter().filter(|sums| sums.count > 0).map(|sums| {
            let count = f64::from(sums.count);
            Group { count, age: sums.age as f64 * 0.1 / count, silence: sums.silence as f64 * 0.1 / count }
        })
    }
}
