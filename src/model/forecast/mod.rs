//! When a drain will be empty, from the survival of the app's own sessions.
//!
//! Method. A session's *stay* lasts from its birth to its last touch; if it ended in silence, it is counted for one idle timeout
//! more. The survival of stays is the product-limit estimate of Kaplan and Meier ("Nonparametric estimation from incomplete
//! observations", JASA 53, 1958), in its life-table form for grouped durations with delayed entry: live sessions are right-censored
//! at their age, adopted ones join at the age at which they were first seen. A silent session either has left already, and then its
//! end is known to the second, or will be touched again: how likely that is comes from a second such estimate, of silences that
//! ended by a return. Beyond the longest stays the hazard is constant. Brown, Hollander and Korwar ("Nonparametric tests of
//! independence for censored data", 1974) complete the curve so with the mean hazard of all durations; that is too much for users
//! who stay the longer the longer they have stayed, so here it is the hazard of the longest tenth.
//!
//! The drain is empty by `t` with the probability that every live session has ended by then, given what each has lived and how
//! long it has been silent: their product, for the users do not know each other. The forecast is where that product reaches one
//! half, nine tenths and 99 hundredths.
//!
//! What a reader would get wrong: sessions of the *app* teach, sessions of the *drain's target* are predicted. Draining does not
//! change how long people stay, but the target alone would have too little history.

mod crowd;
mod history;
mod survival;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::crowd::Crowd;
pub use self::history::{Harvest, History, Mark, SHORT_SILENCE};
use self::survival::{Member, Survival};

/// With fewer finished sessions than this nothing can be said: half of them say where the median is, to a third of itself.
pub const ENDED_AT_LEAST: u64 = 20;

/// No drain is forecast beyond this; who stays longer stays for ever.
const LONGEST: f64 = 30.0 * 86_400.0;

/// Three points and weights that stand for a normal distribution (Gauss and Hermite): what is predicted allows for the error of what
/// was learnt.
const ERRORS: [(f64, f64); 3] = [(-1.732_050_807_568_877_2, 1.0 / 6.0), (0.0, 2.0 / 3.0), (1.732_050_807_568_877_2, 1.0 / 6.0)];

/// Until a drain is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eta {
    /// As likely as not.
    pub p50: Duration,
    /// Nine times of ten.
    pub p90: Duration,
    /// Nearly always.
    pub p99: Duration,
}

/// Too few sessions of the app have ended for a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// So many have.
    pub ended: u64,
}

impl std::fmt::Display for TooFew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sessions of this app have ended so far, a forecast takes {ENDED_AT_LEAST}", self.ended)
    }
}

/// The sessions of one app that have to go, and what is known of how long such sessions stay.
#[derive(Clone, Debug)]
pub struct Prospect {
    going: Vec<Member>,
    /// If all have been silent for half of the idle timeout, seconds until the last of them ends.
    bound: Option<f64>,
    survival: Survival,
    /// Sessions end at this age, however busy.
    lifetime: Option<Duration>,
}

impl Prospect {
    /// From what has ended in the app, who is `here` of all the app, and who of them is `going`.
    ///
    /// # Errors
    /// [`TooFew`] have ended to learn from.
    pub fn new(history: &History, here: &Crowd, going: &Crowd, lifetime: Option<Duration>) -> Result<Prospect, TooFew> {
        let ended = history.ended() as u64;
        if ended < ENDED_AT_LEAST && !going.is_empty() {
            return Err(TooFew { ended });
        }
        let survival = Survival::new(history, here);
        let (idle, silent) = (going.idle(), going.least_silent());
        let bound = silent.filter(|silent| *silent >= idle / 2.0).map(|silent| (idle - silent).max(0.0));
        Ok(Prospect { going: going.groups().map(|group| survival.member(&group)).collect(), bound, survival, lifetime })
    }

    /// The logarithm of the probability that all have gone `t` seconds from now, if the estimate is off by so many standard errors.
    fn ln_gone(&self, t: f64, errors: f64) -> f64 {
        let pace = (errors * self.survival.error()).exp();
        let over = |age: f64| self.lifetime.is_some_and(|span| age + t >= span.as_secs_f64());
        let left = self.going.iter().filter(|member| !over(member.age));
        left.map(|member| member.count * (-self.survival.remains(member, t, pace).clamp(0.0, 1.0)).ln_1p()).sum()
    }
}

/// When all of these have gone. Empty when nobody is left: zero.
pub fn eta(prospects: &[Prospect]) -> Eta {
    let present: Vec<&Prospect> = prospects.iter().filter(|prospect| !prospect.going.is_empty()).collect();
    // What is as good as certain must not be exceeded by a forecast.
    let bound = present.iter().map(|prospect| prospect.bound).try_fold(0.0, |most: f64, bound| bound.map(|bound| most.max(bound)));
    let quantile = |q: f64| {
        let gone = |t: f64, errors: f64| present.iter().map(|prospect| prospect.ln_gone(t, errors)).sum::<f64>().exp();
        let reached = |t: f64| ERRORS.iter().map(|(errors, weight)| weight * gone(t, *errors)).sum::<f64>() >= q;
        let (mut before, mut after) = (0.0, LONGEST);
        if reached(before) {
            return 0.0;
        }
        // To a second near the end, to a thousandth far from it.
        while after - before > 0.5f64.max(before / 1000.0) {
            let middle = if before < 60.0 { (before + after).min(120.0 + before) / 2.0 } else { (before * after).sqrt() };
            if reached(middle) { after = middle } else { before = middle }
        }
        bound.map_or(after, |bound| after.min(bound))
    };
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| Duration::from_secs_f64(quantile(q)));
    Eta { p50, p90, p99 }
}
