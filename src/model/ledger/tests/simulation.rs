//! Random steps on the ledger and on the naive model: every answer, gauge and total must agree after each. The seed is
//! the bug report.

use std::collections::HashMap;

use super::model::{Model, Totals};
use super::*;

/// Xorshift; a seed other than 0 tells the whole story.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

const SLOTS: u64 = 3;

fn totals(counts: &Counts) -> Totals {
    let not_zero = |name: &'static str, n: u64| (n > 0).then_some((name, n));
    Totals {
        born: counts.born(),
        adopted: counts.adopted(),
        arrived: counts.arrived(),
        rotated: counts.rotated(),
        ended: EndReason::ALL.iter().filter_map(|&r| not_zero(r.as_str(), counts.ended(r))).collect::<HashMap<_, _>>(),
        lost: LossCause::ALL.iter().filter_map(|&c| not_zero(c.as_str(), counts.lost(c))).collect::<HashMap<_, _>>(),
    }
}

struct Run {
    ledger: Ledger,
    counts: Vec<Arc<Counts>>,
    model: Model,
    dice: Dice,
    ms: u64,
    open: Vec<u64>,
    ids: u64,
}

impl Run {
    /// One random step; what it was, for the report.
    fn step(&mut self) -> String {
        let dice = &mut self.dice;
        // Mostly bursts, now and then a pause that lets something expire.
        self.ms += match dice.below(40) {
            0 => dice.below(4_000_000),
            1..=3 => dice.below(400_000),
            4..=12 => dice.below(20_000),
            _ => dice.below(150),
        };
        let (ms, now) = (self.ms, EPOCH + Duration::from_millis(self.ms));
        let (a, b, slot, scope) = (dice.below(self.ids), dice.below(self.ids), dice.below(SLOTS), dice.below(3) as u32);
        let (s32, su) = (slot as u32, slot as usize);
        let decided = ms.saturating_sub(dice.below(3000));
        let proof = if dice.below(2) == 0 { Adoption::Unsigned } else { Adoption::SignedPin { issued: now } };
        let what = dice.below(40);
        let (ledger, model) = (&self.ledger, &mut self.model);
        let (did, given, expected) = match what {
            0..=6 => {
                let given = format!("{:?}", ledger.born(key(a), s32, scope, now));
                (format!("born {a} {slot}"), given, format!("{:?}", model.born(a, su, scope, ms)))
            }
            7..=17 => {
                let attention = if what < 15 { Attention::Foreground } else { Attention::Background };
                let given = ledger.enter(key(a), attention, now);
                if given == Entered::Live {
                    self.open.push(a);
                }
                (format!("enter {a}"), format!("{given:?}"), format!("{:?}", model.enter(a, attention, ms)))
            }
            18..=26 if !self.open.is_empty() => {
                let a = self.open.swap_remove(dice.below(self.open.len() as u64) as usize);
                ledger.leave(key(a), now);
                model.leave(a, ms);
                (format!("leave {a}"), String::new(), String::new())
            }
            27..=30 => {
                let silent = (dice.below(5) > 0).then(|| Duration::from_secs(dice.below(700)));
                let given = format!("{:?}", ledger.rotate(key(a), key(b), s32, scope, silent, now));
                (format!("rotate {a} {b} {slot} {silent:?}"), given, format!("{:?}", model.rotate(a, b, su, scope, silent, ms)))
            }
            31..=33 => {
                let given = ledger.adopt(key(a), s32, proof, EPOCH + Duration::from_millis(decided), now);
                (format!("adopt {a} {slot} {proof:?}"), format!("{given:?}"), format!("{:?}", model.adopt(a, su, proof, decided, ms)))
            }
            34 => {
                let given = ledger.end(key(a), EndReason::Logout, scope, now);
                (format!("logout {a}"), given.to_string(), model.logout(a, scope, ms).to_string())
            }
            35 => (format!("relocate {a} {slot}"), ledger.relocate(key(a), s32, now).to_string(), model.relocate(a, su, ms).to_string()),
            36 if dice.below(8) == 0 => {
                ("lose".to_owned(), ledger.lose(s32, LossCause::Restart, now).to_string(), model.lose(su, ms).to_string())
            }
            37 if dice.below(8) == 0 => {
                let idle = Duration::from_secs(dice.below(600));
                let given = ledger.evict(&[s32], Some(idle), usize::MAX, now).to_string();
                ("evict".to_owned(), given, model.evict_all(su, idle, ms).to_string())
            }
            38 | 39 => {
                ledger.sweep(now);
                model.sweep(ms);
                ("sweep".to_owned(), ledger.entries().to_string(), model.entries().to_string())
            }
            _ => {
                let given = ledger.find(key(a), now).map(|f| (f.slot as usize, f.standing, f.open as usize, f.alias, f.seen, f.born));
                let expected = model.find(a, ms).map(|(id, alias)| {
                    let (s, time) = (&model.sessions[&id], |tick| EPOCH + Duration::from_millis(tick * 100));
                    (s.slot, s.standing, model.open(id), alias, time(s.seen), time(s.born))
                });
                (format!("find {a}"), format!("{given:?}"), format!("{expected:?}"))
            }
        };
        assert_eq!(given, expected, "answer to {did}");
        did
    }

    fn compare(&self) {
        audit(&self.ledger, &self.counts);
        for (slot, counts) in self.counts.iter().enumerate() {
            let gauges = [counts.engaged(), counts.kept_alive(), counts.unconfirmed(), counts.candidates()];
            assert_eq!(gauges, self.model.gauges(slot), "gauges of slot {slot}");
            assert_eq!(totals(counts), self.model.totals[slot], "totals of slot {slot}");
        }
    }
}

fn simulate(seed: u64, rules: Rules, ids: u64, shards: usize, steps: usize) {
    let (ledger, counts) = ledger_of(shards, rules, SLOTS as u32);
    let model = Model::new(rules, SLOTS as usize);
    let mut run = Run { ledger, counts, model, dice: Dice(seed), ms: 0, open: Vec::new(), ids };
    let mut told = Vec::new();
    for step in 0..steps {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let did = run.step();
            run.compare();
            did
        }));
        match outcome {
            Ok(did) => told.push(did),
            Err(_) => panic!(
                "seed {seed}, {ids} ids, {shards} shards, step {step} at {} ms, after {:?}",
                run.ms,
                &told[told.len().saturating_sub(12)..]
            ),
        }
    }
}

#[test]
fn the_ledger_agrees_with_the_naive_model() {
    let plain = rules();
    let strict = Rules {
        idle_timeout: Duration::from_secs(600),
        max_lifetime: Some(Duration::from_secs(3000)),
        confirm_within: Duration::from_millis(20_050),
        rotation_within: Some(Duration::from_secs(300)),
        engaged_within: Duration::from_secs(45),
        ..plain
    };
    // Few unsigned adoptions, but room for all: the model has no bound.
    let capped = Rules { max_entries: 60, idle_timeout: Duration::from_secs(60), ..plain };
    for seed in 1..=6 {
        simulate(seed, plain, 12, 4, 3000);
        simulate(seed + 100, strict, 12, 1, 3000);
        simulate(seed + 200, plain, 60, 8, 2000);
        simulate(seed + 300, capped, 20, 2, 2000);
        // So many in one shard that its tables pass through all stages of growth.
        simulate(seed + 400, plain, 200, 1, 1500);
    }
}

#[test]
fn a_full_ledger_keeps_its_bound_and_its_counts() {
    for seed in 1..=4 {
        let rules = Rules { max_entries: 30, idle_timeout: Duration::from_secs(600), ..rules() };
        let (ledger, counts) = ledger_of(4, rules, 2);
        let mut dice = Dice(seed);
        let (mut ms, mut open) = (0, Vec::new());
        for _ in 0..10_000 {
            ms += dice.below(400);
            let now = EPOCH + Duration::from_millis(ms);
            let (a, slot) = (key(dice.below(80)), u32::from(dice.below(10) == 0));
            match dice.below(10) {
                0..=2 => drop(ledger.born(a, slot, 0, now)),
                3..=5 => {
                    if ledger.enter(a, Attention::Foreground, now) == Entered::Live {
                        open.push(a);
                    }
                }
                6 => {
                    if let Some(a) = open.pop() {
                        ledger.leave(a, now);
                    }
                }
                7 => drop(ledger.adopt(a, slot, Adoption::Unsigned, now, now)),
                8 => drop(ledger.rotate(a, key(dice.below(80)), slot, 0, Some(Duration::ZERO), now)),
                _ => ledger.sweep(now),
            }
            audit(&ledger, &counts);
            assert!(ledger.entries() <= 30 + lock(&ledger.aliases).len() + 1, "{} entries", ledger.entries());
        }
        assert!(ledger.untracked_total() > 0, "seed {seed} filled the ledger");
    }
}
