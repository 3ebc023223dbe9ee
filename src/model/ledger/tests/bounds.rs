//! What outsiders can do to the ledger: invented ids, floods of newborns, more sessions than room.

use super::*;

fn small(max_entries: usize) -> Rules {
    Rules { max_entries, ..rules() }
}

fn live(ledger: &Ledger, n: u64, now: Time) {
    assert_eq!(ledger.adopt(key(n), 0, Adoption::SignedPin { issued: now }, now, now), Adopted::Live);
}

#[test]
fn a_million_invented_ids_grow_the_ledger_by_the_cap_and_evict_nobody() {
    let (ledger, counts) = ledger_of(8, small(20_000), 1);
    for n in 0..1000 {
        live(&ledger, n, at(0));
    }
    let before = (ledger.entries(), ledger.bytes());
    assert!(!ledger.adoption_capped());
    for n in 0..1_000_000 {
        for _ in 0..2 {
            ledger.adopt(key(1_000_000 + n), 0, Adoption::Unsigned, at(1), at(1));
        }
    }
    assert!(ledger.adoption_capped());
    assert_eq!(ledger.entries() - before.0, 2000);
    assert!(ledger.bytes() < before.1 + 2000 * 200, "{} after {} bytes", ledger.bytes(), before.1);
    assert_eq!(counts[0].live(), 3000, "those under the cap became live");
    for n in 0..1000 {
        assert!(ledger.find(key(n), at(1)).is_some_and(|found| found.standing == Standing::Live { confirmed: true }));
    }
    // Their tombstones count towards the cap too.
    ledger.sweep(at(2000));
    assert_eq!((counts[0].live(), ledger.adopt(key(5_000_000), 0, Adoption::Unsigned, at(2000), at(2000))), (0, Adopted::Capped));
    ledger.sweep(at(2000 + 3600));
    assert_eq!(ledger.entries(), 0);
    assert!(!ledger.adoption_capped());
    audit(&ledger, &counts);
}

#[test]
fn a_refusal_at_the_cap_is_remembered_for_an_idle_timeout() {
    let (ledger, _counts) = ledger_of(1, small(10), 1);
    let adopt = |n, now| ledger.adopt(key(n), 0, Adoption::Unsigned, now, now);
    assert_eq!((adopt(1, at(0)), adopt(2, at(1000))), (Adopted::Candidate, Adopted::Capped));
    for (now, capped) in [(1799, true), (1800, true), (2799, true), (2800, false)] {
        ledger.sweep(at(now));
        assert_eq!(ledger.adoption_capped(), capped, "{now}");
    }
}

#[test]
fn room_is_made_from_tombstones_then_candidates_then_newborns_oldest_first() {
    let (ledger, counts) = ledger_of(1, small(6), 1);
    live(&ledger, 1, at(0));
    ledger.born(key(2), 0, 0, at(1));
    ledger.born(key(3), 0, 0, at(2));
    ledger.adopt(key(4), 0, Adoption::Unsigned, at(3), at(3));
    for n in [5, 6] {
        live(&ledger, n, at(4));
        ledger.end(key(n), EndReason::Logout, 0, at(n));
    }
    let known = || (1..=6).filter(|&n| ledger.find(key(n), at(9)).is_some()).collect::<Vec<_>>();
    assert_eq!(known(), [1, 2, 3, 4, 5, 6]);
    for (newborn, left) in [(11, vec![1, 2, 3, 4, 6]), (12, vec![1, 2, 3, 4]), (13, vec![1, 2, 3]), (14, vec![1, 3]), (15, vec![1])] {
        assert_eq!(ledger.born(key(newborn), 0, 0, at(9)), Born::New);
        assert_eq!(known(), left, "after newborn {newborn}");
        audit(&ledger, &counts);
    }
    assert_eq!((ledger.entries(), counts[0].ended(EndReason::Unconfirmed)), (6, 2));
}

#[test]
fn a_candidate_that_makes_room_is_remembered_as_one_that_was_refused() {
    let (ledger, counts) = ledger_of(1, small(20), 1);
    ledger.adopt(key(100), 0, Adoption::Unsigned, at(0), at(0));
    for n in 0..19 {
        live(&ledger, n, at(0));
    }
    assert!(!ledger.adoption_capped());
    assert_eq!(ledger.born(key(101), 0, 0, at(9)), Born::New);
    assert_eq!((ledger.find(key(100), at(9)), counts[0].candidates()), (None, 0));
    for (now, capped) in [(10, true), (1808, true), (1809, false)] {
        ledger.sweep(at(now));
        assert_eq!(ledger.adoption_capped(), capped, "{now}");
    }
}

#[test]
fn live_sessions_are_never_dropped_and_the_newborn_goes_untracked() {
    for shards in [1, 8] {
        let (ledger, counts) = ledger_of(shards, small(10), 1);
        for n in 0..10 {
            live(&ledger, n, at(0));
        }
        assert_eq!(ledger.born(key(100), 0, 0, at(1)), Born::Untracked);
        assert_eq!(ledger.adopt(key(101), 0, Adoption::SignedPin { issued: at(1) }, at(1), at(1)), Adopted::Untracked);
        assert_eq!(ledger.adopt(key(102), 0, Adoption::Unsigned, at(1), at(1)), Adopted::Capped);
        assert_eq!((ledger.untracked_total(), ledger.entries(), counts[0].live()), (2, 10, 10));
        // A login is renamed even so.
        ledger.enter(key(3), Attention::Foreground, at(2));
        assert_eq!(ledger.rotate(key(3), key(103), 0, 0, Some(Duration::ZERO), at(2)), Rotated::Renamed);
        assert_eq!((ledger.entries(), counts[0].live()), (11, 10));
        // A place that is free in another shard is found.
        ledger.end(key(5), EndReason::Logout, 0, at(3));
        ledger.end(key(6), EndReason::Logout, 0, at(3));
        assert_eq!(ledger.born(key(104), 0, 0, at(3)), Born::New);
        audit(&ledger, &counts);
    }
}

#[test]
fn an_invented_id_never_pushes_out_a_newborn() {
    let (ledger, _counts) = ledger_of(1, small(2), 1);
    ledger.born(key(1), 0, 0, at(0));
    ledger.born(key(2), 0, 0, at(0));
    assert_eq!(ledger.adopt(key(3), 0, Adoption::Unsigned, at(1), at(1)), Adopted::Capped);
    assert!(ledger.adoption_capped());
}

#[test]
fn an_application_that_renames_at_every_request_leaves_few_aliases() {
    let (ledger, counts) = ledger_of(4, rules(), 1);
    live(&ledger, 0, at(0));
    // One WebSocket opened under the first id.
    ledger.enter(key(0), Attention::Foreground, at(0));
    for n in 0..10_000 {
        let now = at(n / 100);
        assert_eq!(ledger.enter(key(n), Attention::Foreground, now), Entered::Live);
        assert_eq!(ledger.rotate(key(n), key(n + 1), 0, 0, Some(Duration::ZERO), now), Rotated::Renamed);
        ledger.leave(key(n), now);
    }
    assert!(ledger.entries() <= 34, "{}", ledger.entries());
    assert_eq!(ledger.find(key(10_000), at(100)).map(|found| found.open), Some(1));
    ledger.leave(key(0), at(100));
    assert_eq!(ledger.find(key(10_000), at(100)).map(|found| found.open), Some(0));
    audit(&ledger, &counts);
}
