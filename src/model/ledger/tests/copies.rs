//! Copies of a ledger: made from its journal, restored after a restart, and kept by another process.

use std::collections::BTreeMap;

use super::simulation::Dice;
use super::*;
use crate::model::ledger::journal::{Noted, Origin, Page};

/// A copy as the state file keeps one.
type Copy = BTreeMap<SessionKey, Record>;

fn follow(copy: &mut Copy, ledger: &Ledger, now: Time) -> usize {
    let taken = ledger.take_notes(now);
    assert!(!taken.overflowed);
    for (noted, _) in &taken.notes {
        match *noted {
            Noted::Entry(record) => drop(copy.insert(record.key, record)),
            Noted::Gone(key) => drop(copy.remove(&key)),
            Noted::Renamed { .. } => {}
        }
    }
    taken.notes.len()
}

/// Everything but exchanges and what a bucket hides.
fn content(record: &Record, bucket: u64) -> (SessionKey, u32, Standing, u64, [Time; 3], Option<Time>, bool) {
    let found = &record.found;
    let [seen, foreground] = [found.seen, record.foreground].map(|time| time.since(EPOCH).as_millis() as u64 / 100 / bucket);
    let times = [found.born, found.pinned, Time(foreground)];
    (record.key, found.slot, found.standing, seen, times, found.ended_at, record.unsigned)
}

fn read(ledger: &Ledger) -> Vec<Record> {
    let (mut all, mut page) = (Vec::new(), Some(Page::default()));
    while let Some(from) = page {
        page = ledger.page(from, &mut all);
    }
    all.sort_by_key(|record| record.key);
    all
}

/// One thing that happens to one of `ids` sessions.
fn happen(ledger: &Ledger, dice: &mut Dice, open: &mut Vec<SessionKey>, ids: u64, now: Time) {
    let (a, b, slot) = (key(dice.below(ids)), key(dice.below(ids)), dice.below(2) as u32);
    match dice.below(20) {
        0..=4 => drop(ledger.born(a, slot, 1, now)),
        5..=9 => {
            if ledger.enter(a, Attention::Foreground, now) == Entered::Live {
                open.push(a);
            }
        }
        10..=13 => {
            if let Some(a) = open.pop() {
                ledger.leave(a, now);
            }
        }
        14 => drop(ledger.adopt(a, slot, Adoption::Unsigned, now, now)),
        15 => drop(ledger.adopt(a, slot, Adoption::SignedPin { issued: now }, now, now)),
        16 => drop(ledger.end(a, EndReason::Logout, 0, now)),
        17 => drop(ledger.relocate(a, slot, now)),
        18 if ids == 50 => drop(ledger.rotate(a, b, slot, 1, Some(Duration::ZERO), now)),
        _ => ledger.sweep(now),
    }
}

#[test]
fn a_copy_made_of_notes_is_the_ledger() {
    for seed in 1..=8 {
        let rules = Rules { idle_timeout: Duration::from_secs(600), max_entries: 40, ..rules() };
        let (ledger, _counts) = ledger_of(4, rules, 2);
        ledger.keep_journal();
        let (mut dice, mut open, mut copy, mut ms) = (Dice(seed), Vec::new(), Copy::new(), 0);
        for step in 0..4000 {
            ms += dice.below(6000);
            let now = EPOCH + Duration::from_millis(ms);
            happen(&ledger, &mut dice, &mut open, 50, now);
            if dice.below(10) == 0 {
                follow(&mut copy, &ledger, now);
                let kept: Vec<_> = copy.values().map(|record| content(record, 256)).collect();
                let truth: Vec<_> = read(&ledger).iter().map(|record| content(record, 256)).collect();
                assert_eq!(kept, truth, "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn a_restored_ledger_is_counted_as_the_former_one_was() {
    for seed in 1..=8 {
        let rules = Rules { idle_timeout: Duration::from_secs(600), max_entries: 60, ..rules() };
        let (ledger, counts) = ledger_of(4, rules, 2);
        let (mut dice, mut open, mut now) = (Dice(seed), Vec::new(), EPOCH);
        for _ in 0..3000 {
            now = now + Duration::from_millis(dice.below(6000));
            happen(&ledger, &mut dice, &mut open, 80, now);
        }
        ledger.sweep(now);
        for key in open.drain(..) {
            ledger.leave(key, now);
        }
        let (again, counts_again) = ledger_of(2, rules, 2);
        for record in read(&ledger) {
            assert!(again.restore(&record, now), "{record:?}");
            assert!(!again.restore(&record, now), "once");
        }
        audit(&again, &counts_again);
        assert_eq!(read(&again), read(&ledger), "seed {seed}");
        let gauges = |counts: &[Arc<Counts>]| {
            counts.iter().map(|c| (c.engaged(), c.kept_alive(), c.unconfirmed(), c.candidates())).collect::<Vec<_>>()
        };
        assert_eq!(gauges(&counts_again), gauges(&counts), "seed {seed}");
        assert!(counts_again.iter().all(|c| c.born() == 0 && EndReason::ALL.iter().all(|&reason| c.ended(reason) == 0)));
        // What was to end ends, although nobody looked while it was down.
        again.sweep(now + Duration::from_secs(601));
        assert_eq!(counts_again.iter().map(|c| c.live() + c.unconfirmed()).sum::<u64>(), 0);
        audit(&again, &counts_again);
    }
}

#[test]
fn touches_are_noted_once_in_a_bucket() {
    let (ledger, _counts) = ledger_of(1, rules(), 1);
    ledger.keep_journal();
    let mut copy = Copy::new();
    ledger.born(key(1), 0, 0, at(0));
    let mut request = |now: Time| {
        ledger.enter(key(1), Attention::Foreground, now);
        ledger.leave(key(1), now);
        (follow(&mut copy, &ledger, now), ledger.lasting(&copy[&key(1)], now).found.seen)
    };
    // 1800 s / 16 holds 1024 ticks of a tenth of a second.
    let end = |n: u64| at(0) + Duration::from_millis(n * 102_400 - 100);
    assert_eq!(request(at(1)), (1, end(1)));
    assert_eq!(request(at(2)), (0, end(1)));
    assert_eq!(request(at(102)), (0, end(1)));
    assert_eq!(request(at(103)), (1, end(2)));
    assert_eq!(request(at(500)), (1, end(5)));
    assert_eq!(ledger.lasting(&copy[&key(1)], at(900)).found.seen, end(5), "time alone rounds nothing");
}

#[test]
fn a_session_with_an_open_tunnel_is_stored_as_seen_now() {
    let (ledger, _counts) = ledger_of(1, rules(), 1);
    ledger.keep_journal();
    let mut copy = Copy::new();
    ledger.born(key(1), 0, 0, at(0));
    ledger.enter(key(1), Attention::Foreground, at(0));
    for hour in 1..5 {
        let now = at(hour * 3600);
        follow(&mut copy, &ledger, now);
        assert!(ledger.lasting(&copy[&key(1)], now).found.seen >= now, "after {hour} hours");
    }
}

#[test]
fn nobody_who_takes_no_notes_fills_the_memory() {
    let (ledger, _counts) = ledger_of(1, rules(), 1);
    ledger.keep_journal();
    for n in 0..100_000 {
        ledger.born(key(n), 0, 0, at(1));
    }
    let taken = ledger.take_notes(at(1));
    assert!(taken.overflowed && taken.notes.len() < 66_000, "{}", taken.notes.len());
    assert_eq!(read(&ledger).len(), 100_000);
    // Those whose notes were dropped are noted again.
    for n in 0..1000 {
        ledger.end(key(n), EndReason::Logout, 0, at(2));
    }
    let taken = ledger.take_notes(at(2));
    assert_eq!((taken.notes.len(), taken.overflowed), (1000, false));
}

#[test]
fn what_another_process_told_is_stored_but_not_told_back() {
    let (ledger, _counts) = ledger_of(1, rules(), 1);
    let (other, _) = ledger_of(1, rules(), 1);
    ledger.keep_journal();
    other.keep_journal();
    other.born(key(1), 0, 0, at(0));
    tell(&other, &ledger, at(0));
    let noted = |ledger: &Ledger| ledger.take_notes(at(1)).notes.iter().map(|&(_, origin)| origin).collect::<Vec<_>>();
    assert_eq!(noted(&ledger), [Origin::There]);
    other.born(key(2), 0, 0, at(0));
    tell(&other, &ledger, at(0));
    ledger.enter(key(2), Attention::Foreground, at(1));
    assert_eq!(noted(&ledger), [Origin::There, Origin::Here], "news of our own about the same session");
}

/// `to` hears what happened at `from`.
fn tell(from: &Ledger, to: &Ledger, now: Time) {
    for (noted, origin) in from.take_notes(now).notes {
        match (noted, origin) {
            (_, Origin::There) => {}
            (Noted::Renamed { old, new }, _) => to.absorb_renamed(old, new, now),
            (Noted::Entry(record), _) => to.absorb(&record, now),
            (Noted::Gone(key), _) => to.absorb_gone(key, now),
        }
    }
}

#[test]
fn a_session_that_is_renamed_here_is_found_there_by_both_names() {
    let (here, _) = ledger_of(4, rules(), 1);
    let (there, counts) = ledger_of(4, rules(), 1);
    here.keep_journal();
    here.born(key(1), 0, 0, at(0));
    tell(&here, &there, at(0));
    assert_eq!(there.enter(key(1), Attention::Foreground, at(1)), Entered::Live);
    here.enter(key(1), Attention::Foreground, at(1));
    here.rotate(key(1), key(2), 0, 0, Some(Duration::ZERO), at(2));
    tell(&here, &there, at(2));
    let found = |n| there.find(key(n), at(3)).map(|found| (found.alias, found.open));
    assert_eq!((found(1), found(2)), (Some((true, 1)), Some((false, 1))), "the exchange under way there goes on");
    there.leave(key(1), at(3));
    assert_eq!((found(2), counts[0].live(), counts[0].restored()), (Some((false, 0)), 1, 1));
    audit(&there, &counts);
}

#[test]
fn two_processes_that_rename_one_session_at_once_agree_on_a_name() {
    for (first, second) in [(2, 3), (3, 2)] {
        let (a, counts_a) = ledger_of(4, rules(), 1);
        let (b, counts_b) = ledger_of(4, rules(), 1);
        a.keep_journal();
        b.keep_journal();
        a.born(key(1), 0, 0, at(0));
        tell(&a, &b, at(0));
        for (ledger, new) in [(&a, first), (&b, second)] {
            ledger.enter(key(1), Attention::Foreground, at(1));
            ledger.rotate(key(1), key(new), 0, 0, Some(Duration::ZERO), at(2));
            ledger.leave(key(1), at(2));
        }
        for _ in 0..2 {
            tell(&a, &b, at(3));
            tell(&b, &a, at(3));
        }
        for (ledger, counts) in [(&a, &counts_a), (&b, &counts_b)] {
            assert_eq!(counts[0].live(), 1, "one user");
            let names = read(ledger).iter().map(|record| record.key).collect::<Vec<_>>();
            assert_eq!(names, [key(2).max(key(3))]);
            let known = |n| ledger.find(key(n), at(4)).map(|found| found.standing);
            assert_eq!([known(1), known(2), known(3)], [Some(Standing::Live { confirmed: true }); 3], "by any of its names");
            audit(ledger, counts);
        }
    }
}

#[test]
fn the_later_word_on_a_session_is_believed() {
    let check = |what: &str, here: &dyn Fn(&Ledger), there: &dyn Fn(&Ledger), expected: Standing| {
        let told = |first: &dyn Fn(&Ledger), second: &dyn Fn(&Ledger)| {
            let (a, counts) = ledger_of(1, rules(), 2);
            let (b, _) = ledger_of(1, rules(), 2);
            b.keep_journal();
            first(&a);
            second(&b);
            tell(&b, &a, at(50));
            audit(&a, &counts);
            a.find(key(1), at(50)).map(|found| found.standing)
        };
        assert_eq!((told(here, there), told(there, here)), (Some(expected), Some(expected)), "{what}");
    };
    let live = Standing::Live { confirmed: true };
    let session = |ledger: &Ledger, seen: u64| {
        ledger.adopt(key(1), 0, Adoption::SignedPin { issued: at(0) }, at(0), at(seen));
    };
    let logout = |ledger: &Ledger, when: u64| {
        session(ledger, 1);
        ledger.end(key(1), EndReason::Logout, 0, at(when));
    };
    check("a logout after the last request", &|l| session(l, 5), &|l| logout(l, 6), Standing::Ended(EndReason::Logout));
    check("a request after the logout", &|l| session(l, 7), &|l| logout(l, 6), live);
    check(
        "two ends",
        &|l| logout(l, 6),
        &|l| {
            session(l, 1);
            l.evict(&[0], None, 1, at(9));
        },
        Standing::Ended(EndReason::Evicted),
    );
    check(
        "a stranger who is known elsewhere",
        &|l| {
            l.adopt(key(1), 0, Adoption::Unsigned, at(9), at(9));
        },
        &|l| session(l, 5),
        live,
    );
    check(
        "a newborn whose client came back elsewhere",
        &|l| {
            l.born(key(1), 0, 0, at(1));
        },
        &|l| session(l, 2),
        live,
    );
}

#[test]
fn two_processes_that_tell_each_other_know_the_same() {
    for seed in 1..=30 {
        let rules = Rules { idle_timeout: Duration::from_secs(900), ..rules() };
        let (a, counts_a) = ledger_of(4, rules, 2);
        let (b, counts_b) = ledger_of(2, rules, 2);
        a.keep_journal();
        b.keep_journal();
        let (mut dice, mut now) = (Dice(seed), EPOCH);
        let mut open = [Vec::new(), Vec::new()];
        for _ in 0..400 {
            now = now + Duration::from_millis(200 + dice.below(3000));
            let turn = dice.below(2) as usize;
            let ledger = [&a, &b][turn];
            happen(ledger, &mut dice, &mut open[turn], 30, now);
            match dice.below(8) {
                0 => tell(&a, &b, now),
                1 => tell(&b, &a, now),
                _ => {}
            }
            audit(&a, &counts_a);
            audit(&b, &counts_b);
        }
        for (ledger, open) in [&a, &b].into_iter().zip(&mut open) {
            for key in open.drain(..) {
                ledger.leave(key, now);
            }
        }
        for _ in 0..3 {
            // What is due counts as known.
            a.sweep(now);
            b.sweep(now);
            tell(&a, &b, now);
            tell(&b, &a, now);
        }
        let known = |ledger: &Ledger| {
            let live = |record: &&Record| matches!(record.found.standing, Standing::Live { .. });
            read(ledger).into_iter().filter(|record| live(&record)).map(|record| (record.key, record)).collect::<BTreeMap<_, _>>()
        };
        let (known_a, known_b) = (known(&a), known(&b));
        for key in known_a.keys().chain(known_b.keys()) {
            let slot = |known: &BTreeMap<_, Record>| known.get(key).map(|record| record.found.slot);
            assert_eq!(slot(&known_a), slot(&known_b), "seed {seed}: {:?} and {:?} at {now:?}", a.find(*key, now), b.find(*key, now));
        }
    }
}
