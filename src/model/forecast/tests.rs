//! Forecasts against simulated populations whose future is known.
//!
//! Each seed is an app in its steady state: users come at random, click about once a minute for as long as they stay, and then log
//! out (three of ten) or fall silent. tidegate has watched for one hour when the drain begins; who was there before it is adopted
//! at the next click.

use super::*;
use crate::model::xorshift::Xorshift;

const HOUR: f64 = 3600.0;
const IDLE: f64 = 1800.0;
const SEEDS: u64 = 60;

impl Xorshift {
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// How long users stay, in seconds, and how many come per minute.
#[derive(Clone, Copy, Debug)]
enum People {
    /// Ten minutes in the mean.
    Exponential,
    /// Ten minutes in the mean, the logarithm spread by this.
    Lognormal(f64),
    /// One of ten stays for a working day, the others ten minutes.
    AllDay,
}

impl People {
    fn stay(self, dice: &mut Xorshift) -> f64 {
        match self {
            People::Exponential => dice.exponential(600.0),
            People::Lognormal(spread) => 600.0 * (spread * dice.normal() - spread * spread / 2.0).exp(),
            People::AllDay if dice.below(10) == 0 => (6.0 + 3.0 * dice.uniform()) * HOUR,
            People::AllDay => dice.exponential(600.0),
        }
    }

    fn per_minute(self) -> f64 {
        // About 200 live at a time; of the all-day users alone there are then 120.
        if let People::AllDay = self { 2.7 } else { 6.5 }
    }
}

fn ticks(seconds: f64) -> u32 {
    (seconds * 10.0) as u32
}

/// A drain that begins at zero, and how it ended.
struct Scene {
    history: History,
    here: Crowd,
    /// Seconds until the last session had ended.
    truth: f64,
}

fn scene(people: People, seed: u64) -> Scene {
    let mut dice = Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut harvest, mut here, mut truth) = (Harvest::default(), Crowd::new(ticks(IDLE)), 0.0f64);
    let mut birth = -12.0 * HOUR;
    loop {
        birth += dice.exponential(60.0 / people.per_minute());
        if birth >= 0.0 {
            break;
        }
        let last = birth + people.stay(&mut dice);
        let logs_out = dice.below(10) < 3;
        let end = if logs_out { last } else { last + IDLE };
        // From the first touch that tidegate sees.
        let (mut touch, mut seen) = (birth, None);
        while touch < last && touch < 0.0 {
            if touch >= -HOUR {
                match seen {
                    None if birth < -HOUR => harvest.count(Mark::Joined, ticks(touch - birth)),
                    Some(before) if touch - before > 10.0 => harvest.count(Mark::Return, ticks(touch - before)),
                    _ => {}
                }
                seen = Some(touch);
            }
            touch = (touch + dice.exponential(60.0)).min(if touch < last { last } else { f64::MAX });
        }
        if (-HOUR..0.0).contains(&last) {
            if seen.is_none() && birth < -HOUR {
                harvest.count(Mark::Joined, ticks(last - birth));
            }
            if let Some(before) = seen.filter(|before| last - before > 10.0) {
                harvest.count(Mark::Return, ticks(last - before));
            }
            seen = Some(last);
        }
        let Some(seen) = seen else { continue };
        if end > 0.0 {
            here.add(ticks(-birth), ticks(-seen));
            truth = truth.max(end);
        } else {
            harvest.count(if logs_out { Mark::Logout } else { Mark::Idle }, ticks(last - birth));
        }
    }
    let mut history = History::default();
    history.absorb(&mut harvest);
    Scene { history, here, truth }
}

/// The median of the relative error of the median forecast, and how often each forecast held.
fn judge(people: People) -> (f64, [f64; 3]) {
    let (mut errors, mut held) = (Vec::new(), [0.0; 3]);
    for seed in 1..=SEEDS {
        let Scene { history, here, truth } = scene(people, seed);
        assert!((100..400).contains(&here.len()), "{people:?}: {} live", here.len());
        let eta = eta(&[Prospect::new(&history, &here, &here, None).expect("an hour is enough")]);
        errors.push((eta.p50.as_secs_f64() / truth - 1.0).abs());
        for (held, forecast) in held.iter_mut().zip([eta.p50, eta.p90, eta.p99]) {
            *held += f64::from(u8::from(truth <= forecast.as_secs_f64())) / SEEDS as f64;
        }
        if std::env::var("SHOW").is_ok() {
            println!("{people:?} {seed}: {} live, {} ended, truth {truth:.0}, {eta:?}", here.len(), history.ended());
        }
    }
    errors.sort_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    println!("{people:?}: median error {:.1} %, p50, p90, p99 held in {:.0?} %", median * 100.0, held.map(|h| h * 100.0));
    (median, held)
}

#[test]
fn after_one_hour_the_forecast_is_near_the_truth() {
    let check = |people: People, error_below: f64, p90_at_least: f64| {
        let (error, [p50, p90, p99]) = judge(people);
        assert!(error < error_below, "{people:?}: {error}");
        assert!(p90 >= p90_at_least && p99 >= p90 && p90 >= p50, "{people:?}: {p50} {p90} {p99}");
    };
    check(People::Exponential, 0.2, 0.8);
    check(People::Lognormal(0.7), 0.2, 0.8);
    // So wide a spread is hard for whoever knows the distribution: the true median of all seeds errs by 25 %.
    check(People::Lognormal(1.0), 0.45, 0.4);
    // None of the all-day users of an hour has been seen to leave. The forecast is too long by three quarters, and so on the safe side.
    check(People::AllDay, 0.9, 0.9);
}

#[test]
fn when_all_are_silent_the_forecast_does_not_exceed_the_bound() {
    let Scene { history, .. } = scene(People::Exponential, 7);
    let check = |silences: &[f64], expected: f64| {
        let mut crowd = Crowd::new(ticks(IDLE));
        for silence in silences {
            crowd.add(ticks(4000.0), ticks(*silence));
        }
        let eta = eta(&[Prospect::new(&history, &crowd, &crowd, None).expect("enough history")]);
        assert!(eta.p50 <= eta.p90 && eta.p90 <= eta.p99, "{eta:?}");
        let [p50, p99] = [eta.p50, eta.p99].map(|span| span.as_secs_f64());
        assert!(p99 <= expected + 1.0 && p50 >= expected - 1.0, "{silences:?}: {eta:?}, expected {expected}");
    };
    check(&[900.0], 900.0);
    check(&[1000.0, 1500.0, 1799.0], 800.0);
    check(&vec![1200.0; 5000], 600.0);
    check(&[1799.9], 0.1);
}

#[test]
fn with_too_little_history_there_is_no_forecast() {
    let check = |ended: u64, live: u32, expected: Result<(), TooFew>| {
        let mut harvest = Harvest::default();
        for n in 0..ended {
            harvest.count(if n % 3 == 0 { Mark::Logout } else { Mark::Idle }, 6000 + n as u32 * 100);
            // What was cut short teaches nothing about leaving.
            harvest.count(Mark::Cut, 3000);
        }
        let (mut history, mut crowd) = (History::default(), Crowd::new(ticks(IDLE)));
        history.absorb(&mut harvest);
        for _ in 0..live {
            crowd.add(600, 0);
        }
        let prospect = Prospect::new(&history, &crowd, &crowd, None);
        assert_eq!(prospect.as_ref().map(|_| ()).map_err(|few| *few), expected, "{ended} ended, {live} live");
        if live == 0 {
            assert_eq!(eta(&[prospect.expect("nobody is left")]), Eta::default());
        }
    };
    check(19, 1, Err(TooFew { ended: 19 }));
    check(20, 1, Ok(()));
    check(0, 0, Ok(()));
}

#[test]
fn nobody_outlives_the_lifetime() {
    let Scene { history, here, .. } = scene(People::AllDay, 3);
    let lifetime = Duration::from_secs(12 * 3600 + 60);
    let bounded = eta(&[Prospect::new(&history, &here, &here, Some(lifetime)).expect("enough history")]);
    let free = eta(&[Prospect::new(&history, &here, &here, None).expect("enough history")]);
    assert!(bounded.p99 <= lifetime && bounded.p99 < free.p99, "{bounded:?} {free:?}");
}

#[test]
fn a_million_sessions_are_forecast_from_some_thousand_groups() {
    let Scene { history, .. } = scene(People::Exponential, 1);
    let (mut dice, mut crowd) = (Xorshift(5), Crowd::new(ticks(IDLE)));
    for _ in 0..1_000_000 {
        let age = dice.exponential(3000.0).min(86_400.0);
        crowd.add(ticks(age), ticks(dice.uniform() * age.min(IDLE)));
    }
    assert_eq!(crowd.len(), 1_000_000);
    assert!(crowd.groups().count() < 3_100, "{}", crowd.groups().count());
    let eta = eta(&[Prospect::new(&history, &crowd, &crowd, None).expect("enough history")]);
    assert!(eta.p50 > Duration::from_secs(3600) && eta.p99 < Duration::from_secs(24 * 3600), "{eta:?}");
}
