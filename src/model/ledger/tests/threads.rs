//! Eight threads on the same thousand ids: whatever the interleaving, the counts agree with the entries afterwards, and
//! nothing is left once everything ended.

use std::sync::atomic::{AtomicU64, Ordering};

use super::simulation::Dice;
use super::*;

#[test]
fn counts_agree_after_eight_threads_and_nothing_is_left_at_the_end() {
    let (ledger, counts) = ledger_of(8, Rules { confirm_within: Duration::from_secs(2), ..rules() }, 4);
    let clock = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (ledger, clock) = (&ledger, &clock);
            scope.spawn(move || {
                let mut dice = Dice(thread * 77 + 1);
                let mut open = Vec::new();
                for _ in 0..10_000 {
                    let now = EPOCH + Duration::from_millis(clock.fetch_add(3, Ordering::Relaxed));
                    let (id, slot) = (key(dice.below(1000)), dice.below(4) as u32);
                    match dice.below(12) {
                        0 | 1 => drop(ledger.born(id, slot, 0, now)),
                        2..=5 => {
                            if ledger.enter(id, Attention::Foreground, now) == Entered::Live {
                                open.push(id);
                            }
                        }
                        6 | 7 => {
                            if let Some(id) = open.pop() {
                                ledger.leave(id, now);
                            }
                        }
                        8 => drop(ledger.rotate(id, key(dice.below(1000)), slot, 0, Some(Duration::ZERO), now)),
                        9 => drop(ledger.adopt(id, slot, Adoption::SignedPin { issued: now }, now, now)),
                        10 => drop(ledger.end(id, EndReason::Logout, 0, now)),
                        _ => ledger.sweep(now),
                    }
                }
                let now = EPOCH + Duration::from_millis(clock.load(Ordering::Relaxed));
                for id in open {
                    ledger.leave(id, now);
                }
            });
        }
    });
    audit(&ledger, &counts);
    let now = EPOCH + Duration::from_millis(clock.load(Ordering::Relaxed));
    let mut open = 0;
    ledger.for_each(|record| open += record.found.open);
    assert_eq!(open, 0, "every exchange that began has ended");
    let live: u64 = counts.iter().map(|counts| counts.live()).sum();
    assert!(live > 0, "the test did something");
    let mut lost = 0;
    for slot in 0..4 {
        lost += ledger.lose(slot, LossCause::Restart, now) as u64;
    }
    assert_eq!(lost, live);
    assert_eq!(counts.iter().map(|counts| counts.live() + counts.unconfirmed()).sum::<u64>(), 0);
    ledger.sweep(now + Duration::from_secs(100));
    ledger.sweep(now + Duration::from_secs(7200));
    assert_eq!(ledger.entries(), 0);
    audit(&ledger, &counts);
}
