//! Where entries lie: nothing is lost or met twice while tables grow, and tables whose entries come and go stay as they are.

use std::collections::BTreeMap;

use super::simulation::Dice;
use super::*;
use crate::model::ledger::entry::Entry;
use crate::model::ledger::journal::Page;
use crate::model::ledger::tables::Tables;

fn entry(key: SessionKey) -> Entry {
    Entry { due: 7, ..Entry::newborn(key, 0, 0, 0) }
}

fn tables_of(keys: impl IntoIterator<Item = SessionKey>) -> Tables {
    let mut tables = Tables::new();
    for key in keys {
        tables.insert(entry(key));
    }
    tables
}

/// How often each key is met.
fn met(tables: &Tables, mut between: impl FnMut() -> Vec<SessionKey>) -> (Tables, BTreeMap<SessionKey, usize>) {
    let (mut tables, mut met) = (tables_of(tables.audited().iter().map(|entry| entry.key)), BTreeMap::new());
    let mut rest = Some(tables.begin());
    while let Some(part) = rest {
        for table in tables.tables_of(part) {
            for group in 0..tables.groups(table) {
                for i in tables.taken(table, group) {
                    *met.entry(tables.at(i).key).or_default() += 1;
                }
            }
        }
        for key in between() {
            tables.insert(entry(key));
        }
        rest = part.next();
    }
    (tables, met)
}

#[test]
fn growth_loses_no_entry() {
    let mut tables = Tables::new();
    for n in 0..3000 {
        tables.insert(entry(key(n)));
        // More often while it is small: then each insertion is another stage of growth.
        if n % (1 + n / 16) == 0 {
            assert_eq!(tables.audited().len() as u64, n + 1);
        }
    }
    assert!(tables.count() > 4 * 64, "all stages of growth, more than once: {} tables", tables.count());
    for n in 0..3000 {
        let i = tables.find(&key(n)).unwrap();
        assert_eq!(tables.remove(i).key, key(n));
        assert_eq!(tables.find(&key(n)), None);
    }
    assert!(tables.audited().is_empty());
}

#[test]
fn a_reading_meets_each_entry_once_while_tables_grow() {
    for sessions in [1, 20, 70, 100, 400, 1000] {
        for births in [0, 1, 10, 300] {
            let mut newcomers = 1_000_000..;
            let (grown, met) = met(&tables_of((0..sessions).map(key)), || newcomers.by_ref().take(births).map(key).collect());
            let expected: Vec<_> = (0..sessions).map(|n| (n, Some(&1))).collect();
            let found: Vec<_> = (0..sessions).map(|n| (n, met.get(&key(n)))).collect();
            assert_eq!(found, expected, "{births} births between two parts of {sessions}, {} tables", grown.count());
            assert!(met.values().all(|&times| times == 1), "newcomers once or not at all");
        }
    }
}

#[test]
fn pages_show_each_session_once_while_others_are_born() {
    let (ledger, _counts) = ledger_of(1, Rules { max_entries: usize::MAX, ..rules() }, 1);
    let born = |range: std::ops::Range<u64>| range.for_each(|n| assert_eq!(ledger.born(key(n), 0, 0, at(n / 100_000)), Born::New));
    born(0..30_000);
    let (mut read, mut page, mut pages) = (Vec::new(), Some(Page::default()), 0);
    while let Some(from) = page {
        page = ledger.page(from, &mut read);
        pages += 1;
        born(pages * 100_000..pages * 100_000 + 7000);
    }
    assert!(pages > 3, "{pages} pages");
    let mut keys: Vec<_> = read.iter().map(|record| record.key).collect();
    keys.sort_unstable();
    assert!(keys.is_sorted_by(|a, b| a < b), "nobody twice");
    assert!((0..30_000).all(|n| keys.binary_search(&key(n)).is_ok()), "nobody missed");
}

#[test]
fn keys_that_differ_in_the_last_bytes_alone_are_told_apart() {
    let alike = |n: u64| {
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&(n as u32).to_le_bytes());
        SessionKey(bytes)
    };
    // More than a group holds, and more than it can count that went past it.
    let mut tables = tables_of((0..400).map(alike));
    assert_eq!(tables.audited().len(), 400);
    assert_eq!(tables.find(&alike(400)), None);
    let mut dice = Dice(1);
    for left in (0..400).rev() {
        let mut there: Vec<_> = tables.audited().iter().map(|entry| entry.key).collect();
        let gone = there.swap_remove(dice.below(left + 1) as usize);
        let i = tables.find(&gone).unwrap();
        tables.remove(i);
        assert!(there.iter().all(|key| tables.find(key).is_some()));
    }
    assert_eq!(tables.find(&alike(0)), None);
}

#[test]
fn a_constant_coming_and_going_neither_slows_a_ledger_nor_makes_it_larger() {
    let mut tables = tables_of((0..1000).map(key));
    let (mut dice, mut here) = (Dice(5), (0..1000).collect::<Vec<_>>());
    let mut turn_over = |tables: &mut Tables, births: std::ops::Range<u64>| {
        for n in births {
            let gone = here.swap_remove(dice.below(1000) as usize);
            let i = tables.find(&key(gone)).unwrap();
            tables.remove(i);
            tables.insert(entry(key(n)));
            here.push(n);
        }
        tables.audited();
    };
    turn_over(&mut tables, 1000..50_000);
    let (tables_then, bytes_then) = (tables.count(), tables.bytes());
    turn_over(&mut tables, 50_000..300_000);
    assert_eq!(tables.count(), tables_then);
    assert!(tables.bytes() < bytes_then + bytes_then / 10, "{} after {bytes_then} bytes", tables.bytes());
    // An entry that lies further on costs every search for it a group more.
    let fresh = tables_of(tables.audited().iter().map(|entry| entry.key));
    assert!(tables.further_on() <= fresh.further_on() + 50, "{} and {}", tables.further_on(), fresh.further_on());
}

#[test]
fn the_oldest_of_a_shelf_makes_room_roughly() {
    let rules = Rules { max_entries: 1000, ..rules() };
    let (ledger, counts) = ledger_of(1, rules, 1);
    (0..1500).for_each(|n| assert_eq!(ledger.born(key(n), 0, 0, at((n / 40).min(30))), Born::New));
    let kept = |range: std::ops::Range<u64>| range.filter(|&n| ledger.find(key(n), at(30)).is_some()).count();
    let (old, new) = (kept(0..300), kept(700..1500));
    assert_eq!((old + new + kept(300..700), counts[0].unconfirmed()), (1000, 1000));
    assert!(old < 60 && new > 700, "of the oldest {old} are left, of the newest {new}");
    audit(&ledger, &counts);
}

/// Nearly all are confirmed, as in a ledger that is full in earnest.
#[test]
fn the_newest_of_a_sparse_shelf_stays() {
    let rules = Rules { max_entries: 2000, ..rules() };
    let (ledger, counts) = ledger_of(1, rules, 1);
    for n in 0..1800 {
        ledger.born(key(n), 0, 0, at(0));
        ledger.enter(key(n), Attention::Foreground, at(0));
        ledger.leave(key(n), at(0));
    }
    // One or two per table: the newer half stays, however many come.
    for n in 2000..5000_u64 {
        assert_eq!(ledger.born(key(n), 0, 0, at((n - 2000) / 100)), Born::New);
    }
    let kept = (4900..5000).filter(|&n| ledger.find(key(n), at(30)).is_some()).count();
    assert_eq!(ledger.entries(), 2000);
    assert!(kept >= 95, "{kept} of the newest hundred");
    assert_eq!(counts[0].live(), 1800);
    audit(&ledger, &counts);
}
