//! How long stays last, from those that ended and those that have not.

use super::crowd::{Crowd, Group};
use super::history::{BINS, History, Mark, SHORT_SILENCE, begin, bin, seconds};

/// Of the stays that ended, the longest twentieth is too few to draw a curve bin by bin: from there on the tail is fitted.
const TAIL_SHARE: f64 = 0.05;
/// And of few stays, so many.
const TAIL_AT_LEAST: f64 = 10.0;
/// What the tail is fitted to: the longer ones, two of five.
const FIT_SHARE: f64 = 0.4;
/// How far the tail's exponent may be expected to lie from zero, that is from a constant hazard.
const EXPONENT_SPREAD: f64 = 0.5;
/// Bounds of the exponent: hazards that fall faster would have users who never leave, on the word of a few.
const EXPONENTS: (f64, f64) = (-0.2, 0.0);

/// Hazards constant within a bin, and beyond the last of them a power of the duration.
#[derive(Clone, Debug, Default)]
struct Hazards {
    /// Per second, by bin.
    rates: Vec<f64>,
    /// Integrated up to the begin of each of these bins, and to the end of the last one.
    upto: Vec<f64>,
    /// Per second, where the bins end.
    tail: f64,
    /// How it goes on: 0 is constant, -0.5 falls with the root of the duration.
    exponent: f64,
}

impl Hazards {
    /// From events and time at risk by bin, as far as there are enough events to tell.
    fn new(events: &[f64; BINS], exposure: &[f64; BINS]) -> Hazards {
        let total: f64 = events.iter().sum();
        let horizon = last(events, (total * TAIL_SHARE).max(TAIL_AT_LEAST));
        let from = last(events, (total * FIT_SHARE).max(TAIL_AT_LEAST));
        let (tail, exponent) = fit(events, exposure, from, begin(horizon).max(1.0));
        let rate = |k: usize| if at(exposure, k) > 0.0 { at(events, k) / at(exposure, k) } else { 0.0 };
        Hazards::of_rates((0..horizon).map(rate).collect(), tail, exponent)
    }

    fn of_rates(rates: Vec<f64>, tail: f64, exponent: f64) -> Hazards {
        let mut upto = vec![0.0];
        for (k, rate) in rates.iter().enumerate() {
            upto.push(at(&upto, k) + rate * (begin(k + 1) - begin(k)));
        }
        Hazards { rates, upto, tail, exponent }
    }

    /// Integrated from zero to `t` seconds.
    fn integrated(&self, t: f64) -> f64 {
        let end = self.rates.len();
        let k = bin((t.max(0.0) * 10.0) as u32).min(end);
        if let Some(rate) = self.rates.get(k) {
            return at(&self.upto, k) + rate * (t - begin(k)).max(0.0);
        }
        let (from, power) = (begin(end).max(1.0), self.exponent + 1.0);
        at(&self.upto, end) + self.tail * from / power * ((t.max(from) / from).powf(power) - 1.0)
    }
}

/// The first of the last bins that hold so many events together.
fn last(events: &[f64; BINS], wanted: f64) -> usize {
    let (mut seen, mut first) = (0.0, BINS);
    while seen < wanted && first > 0 {
        first -= 1;
        seen += at(events, first);
    }
    first
}

/// The hazard at duration `unit` and its exponent, by Poisson regression of the events from bin `from` on against the logarithm of
/// the duration, with a normal prior on the exponent: of few events it learns the level only.
fn fit(events: &[f64; BINS], exposure: &[f64; BINS], from: usize, unit: f64) -> (f64, f64) {
    let point = |k: usize| ((begin(k).max(1.0) * begin(k + 1)).sqrt() / unit).ln();
    let bins: Vec<(f64, f64, f64)> =
        (from..BINS).map(|k| (point(k), at(events, k), at(exposure, k))).filter(|(_, _, time)| *time > 0.0).collect();
    let (count, time) = bins.iter().fold((0.0, 0.0), |(n, t), (_, events, time)| (n + events, t + time));
    if count <= 0.0 {
        return (0.0, 0.0);
    }
    let mut exponent = 0.0f64;
    let level = |exponent: f64| count / bins.iter().map(|(x, _, time)| time * (exponent * x).exp()).sum::<f64>();
    // The level that fits an exponent best is known in closed form; Newton's steps find the exponent.
    for _ in 0..20 {
        let rate = level(exponent);
        let (mut slope, mut curve, mut mean) = (-exponent / EXPONENT_SPREAD.powi(2), 1.0 / EXPONENT_SPREAD.powi(2), 0.0);
        for (x, n, time) in &bins {
            let expected = rate * time * (exponent * x).exp();
            slope += x * (n - expected);
            curve += x * x * expected;
            mean += x * expected;
        }
        curve -= mean * mean / count;
        exponent = (exponent + (slope / curve.max(1e-9)).clamp(-0.5, 0.5)).clamp(-0.95, 0.95);
    }
    let exponent = exponent.clamp(EXPONENTS.0, EXPONENTS.1);
    debug_assert!(time > 0.0, "events take time");
    (level(exponent), exponent)
}

/// So unlikely a return changes no forecast, not even for a million users.
const NEVER: f64 = 1e-12;

/// Live sessions of about the same age and silence, made ready for the question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub count: f64,
    /// Seconds since birth.
    pub age: f64,
    /// Seconds until the idle timeout, if they are not touched again.
    waits: f64,
    /// The probability that they are.
    comes_back: f64,
    /// The hazard behind them.
    lived: f64,
}

/// What is known of an app's users: how long they stay, and whether the silent ones come back.
#[derive(Clone, Debug)]
pub struct Survival {
    stays: Hazards,
    /// Hazard of coming back, by silence.
    returns: Hazards,
    /// Share of stays that end in silence, not by logout.
    silent_share: f64,
    idle: f64,
    error: f64,
}

impl Survival {
    /// From what ended and who is here, all of the app.
    pub fn new(history: &History, here: &Crowd) -> Survival {
        let returns = returns(history, here);
        let mut survival = Survival { stays: Hazards::default(), returns, silent_share: 1.0, idle: here.idle(), error: 0.0 };
        let (mut logout, mut idle) = (*history.of(Mark::Logout), *history.of(Mark::Idle));
        let mut cut = *history.of(Mark::Cut);
        let joined = history.of(Mark::Joined);
        for group in here.groups() {
            let comes_back = survival.comes_back(group.silence);
            // Who will not come back has ended already, only it has not been seen yet.
            put(&mut idle, group.age - group.silence, group.count * (1.0 - comes_back));
            put(&mut cut, group.age, group.count * comes_back);
        }
        let ends: [f64; BINS] = std::array::from_fn(|k| at(&logout, k) + at(&idle, k));
        let mut exposure = [0.0; BINS];
        let mut at_risk = 0.0;
        for k in (0..BINS).rev() {
            let (left, came) = (at(&ends, k) + at(&cut, k), at(joined, k));
            let width = begin(k + 1) - begin(k);
            // Those who leave or join within the bin were there for half of it.
            let present: f64 = at_risk + (left - came) / 2.0;
            at_risk += left - came;
            if let Some(time) = exposure.get_mut(k) {
                *time = present.max(0.0) * width;
            }
        }
        let (silent, out): (f64, f64) = (idle.iter().sum(), logout.iter_mut().map(|n| *n).sum());
        survival.silent_share = if silent + out > 0.0 { silent / (silent + out) } else { 1.0 };
        survival.error = (history.ended() * TAIL_SHARE).max(TAIL_AT_LEAST).sqrt().recip();
        survival.stays = Hazards::new(&ends, &exposure);
        survival
    }

    /// How likely it is that a user who has been silent for so long comes back before the idle timeout.
    fn comes_back(&self, silence: f64) -> f64 {
        if silence <= seconds(SHORT_SILENCE) {
            return 1.0;
        }
        let to_come = self.returns.integrated(self.idle) - self.returns.integrated(silence.min(self.idle));
        1.0 - (-to_come).exp()
    }

    /// The standard error of the logarithm of the tail's hazard.
    pub(super) fn error(&self) -> f64 {
        self.error
    }

    /// What a group is to expect, as far as it does not depend on the moment asked for.
    pub(super) fn member(&self, group: &Group) -> Member {
        Member {
            count: group.count,
            age: group.age,
            waits: self.idle - group.silence,
            comes_back: self.comes_back(group.silence),
            lived: self.stays.integrated(group.age),
        }
    }

    /// How likely it is that one of this group has not ended `t` seconds from now.
    ///
    /// `pace` is how much faster or slower than estimated people leave, for an estimate is not the truth.
    pub(super) fn remains(&self, member: &Member, t: f64, pace: f64) -> f64 {
        let waits = if t < member.waits { 1.0 - member.comes_back } else { 0.0 };
        if member.comes_back < NEVER {
            return waits;
        }
        let stays = |until: f64| (pace * (member.lived - self.stays.integrated(until))).exp();
        let until = member.age + t;
        let still = stays(until);
        // Who left in silence is counted for one idle timeout more.
        let before = if t > self.idle { stays(until - self.idle) } else { 1.0 };
        waits + member.comes_back * (still + self.silent_share * (before - still))
    }
}

/// The hazard of coming back by silence: those who never do are censored at the idle timeout, those here at their silence.
fn returns(history: &History, here: &Crowd) -> Hazards {
    let events = history.of(Mark::Return);
    let mut left = *events;
    put(&mut left, here.idle(), history.of(Mark::Idle).iter().sum());
    for group in here.groups().filter(|group| group.silence > seconds(SHORT_SILENCE)) {
        put(&mut left, group.silence, group.count);
    }
    let mut exposure = [0.0; BINS];
    let mut at_risk = 0.0;
    for k in (0..BINS).rev() {
        let left = at(&left, k);
        let from = begin(k).max(seconds(SHORT_SILENCE));
        let width = (begin(k + 1).min(here.idle()) - from).max(0.0);
        if let Some(time) = exposure.get_mut(k) {
            *time = (at_risk + left / 2.0) * width;
        }
        at_risk += left;
    }
    let end = bin((here.idle() * 10.0) as u32) + 1;
    let mut hazards = Hazards { upto: vec![0.0], ..Hazards::default() };
    for k in 0..end.min(BINS) {
        let (n, time) = (at(events, k), at(&exposure, k));
        let rate = if time > 0.0 { n / time } else { 0.0 };
        hazards.upto.push(at(&hazards.upto, k) + rate * (begin(k + 1) - begin(k).max(seconds(SHORT_SILENCE))).max(0.0));
        hazards.rates.push(rate);
    }
    hazards
}

fn at(values: &[f64], k: usize) -> f64 {
    values.get(k).copied().unwrap_or(0.0)
}

fn put(values: &mut [f64; BINS], seconds: f64, count: f64) {
    if let Some(n) = values.get_mut(bin((seconds.max(0.0) * 10.0) as u32)) {
        *n += count;
    }
}
