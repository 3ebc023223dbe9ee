//! What is kept comes back: after a stop, after a crash, on another day.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::model::ledger::{Attention, EndReason};

const DRAWN: &str = ">v1:a1,a2 v2:b1";

/// A world with forty sessions in three backends, one of them over, and a file that has them.
fn kept(scratch: &Scratch) -> (World, Arc<Source>, Keeper) {
    let (world, file, remains, restored) = scratch.again(DRAWN, World::new(DRAWN).now).expect("nothing is there");
    assert!(remains.documents.is_empty() && remains.written.is_none() && restored == Restored::default());
    let source = Source::of(&world);
    source.put("drains", b"d1");
    let keeper = Keeper::start(file, Arc::clone(&source) as Arc<dyn StateSource>, WriteFailures::default(), false).expect("a thread");
    for n in 0..40 {
        session(&world.shop().ledger, n, (n % 3) as u32, world.now);
    }
    world.shop().ledger.end(key(7), EndReason::Logout, 0, world.now);
    (world, source, keeper)
}

#[test]
fn sessions_and_documents_come_back_after_a_stop() {
    let scratch = Scratch::new("stop");
    let (world, _, keeper) = kept(&scratch);
    let (lock, outcome) = keeper.stop();
    assert_eq!(outcome, Ok(()));
    drop(lock);
    assert!(!scratch.path().join("state.db-wal").exists(), "all of it is in one file");
    // Slots of another order: names count.
    let later = world.now + Duration::from_secs(60);
    let (again, _, remains, restored) = scratch.again("v2:b1 >v1:a2,a1", later).expect("a good file");
    assert_eq!(restored, Restored { entries: 40, strangers: 0 });
    assert_eq!(whereabouts(&again, 40, later), whereabouts(&world, 40, later));
    assert_eq!(remains.documents.get("drains").map(Vec::as_slice), Some(b"d1".as_slice()));
    assert_eq!(again.backend("a1").live.counts.live(), world.backend("a1").live.counts.live());
}

#[test]
fn what_was_flushed_survives_a_crash_and_what_follows_it_too() {
    let scratch = Scratch::new("crash");
    let (world, source, keeper) = kept(&scratch);
    keeper.flush().expect("a good disk");
    let ledger = &world.shop().ledger;
    ledger.enter(key(1), Attention::Foreground, world.now);
    ledger.rotate(key(1), key(50), 1, 0, Some(Duration::ZERO), world.now);
    ledger.relocate(key(2), 0, world.now);
    source.put("drains", b"d2");
    keeper.flush().expect("a good disk");
    // As a crash leaves it: the log is not worked off.
    let copy = Scratch::new("crashed");
    for name in ["state.db", "state.db-wal"] {
        fs::copy(scratch.path().join(name), copy.path().join(name)).expect("it is there while the process runs");
    }
    let (again, _, remains, _) = copy.again(DRAWN, world.now).expect("a crash damages nothing");
    assert_eq!(whereabouts(&again, 51, world.now)[2..], whereabouts(&world, 51, world.now)[2..]);
    assert!(whereabouts(&again, 2, world.now)[1].is_none(), "the former name is gone");
    assert_eq!(remains.documents.get("drains").map(Vec::as_slice), Some(b"d2".as_slice()));
}

#[test]
fn an_app_that_is_removed_leaves_nothing_and_one_that_appears_is_stored_whole() {
    let scratch = Scratch::new("apps");
    let (world, source, keeper) = kept(&scratch);
    keeper.flush().expect("a good disk");
    *source.view.lock().unwrap() = Arc::new(View::default());
    keeper.flush().expect("a good disk");
    let copy = Scratch::new("removed");
    for name in ["state.db", "state.db-wal"] {
        fs::copy(scratch.path().join(name), copy.path().join(name)).expect("it is there while the process runs");
    }
    assert_eq!(copy.again(DRAWN, world.now).expect("a good file").3, Restored::default());
    *source.view.lock().unwrap() = Arc::new(world.view.clone());
    assert_eq!(keeper.stop().1, Ok(()));
    assert_eq!(scratch.again(DRAWN, world.now).expect("a good file").3, Restored { entries: 40, strangers: 0 });
}

#[test]
fn a_clock_that_jumps_there_and_back_drops_nobody_although_nothing_else_was_written_in_between() {
    for days in [1, -1] {
        for drawn in [DRAWN, ">w1:c1"] {
            let scratch = Scratch::new("back");
            let (world, _, keeper) = kept(&scratch);
            assert_eq!(keeper.stop().1, Ok(()));
            let elsewhen = Time(world.now.0.saturating_add_signed(days * 86_400_000));
            let (_, mut file, ..) = scratch.again(drawn, elsewhen).expect("a good file");
            file.begin(&BTreeMap::new(), elsewhen).expect("a good disk");
            drop(file);
            for now in [world.now, elsewhen] {
                let (again, mut file, ..) = scratch.again(DRAWN, now).expect("a good file");
                file.begin(&BTreeMap::new(), now).expect("a good disk");
                again.shop().ledger.sweep(now);
                let live: u64 = again.shop().backends.iter().flatten().map(|b| b.live.counts.live()).sum();
                assert_eq!(live, 39, "{days} days, in between {drawn}");
            }
        }
    }
}

#[test]
fn a_start_with_another_configuration_forgets_nobody_for_a_week() {
    let scratch = Scratch::new("strangers");
    let (world, _, keeper) = kept(&scratch);
    assert_eq!(keeper.stop().1, Ok(()));
    let start = |drawn: &str, now: Time| {
        let (world, file, _, restored) = scratch.again(drawn, now).expect("a good file");
        let keeper = Keeper::start(file, Source::of(&world), WriteFailures::default(), false).expect("a thread");
        assert_eq!(keeper.stop().1, Ok(()));
        restored
    };
    assert_eq!(start(">w1:c1", world.now), Restored { entries: 0, strangers: 40 });
    assert_eq!(start(DRAWN, world.now), Restored { entries: 40, strangers: 0 });
}

#[test]
fn a_ledger_that_was_too_small_is_not_believed_after_a_restart_either() {
    let scratch = Scratch::new("uncounted");
    let world = World::with(DRAWN, |settings| settings.session.max_entries = 10);
    let (file, _) = scratch.open(world.now).expect("nothing is there");
    let keeper = Keeper::start(file, Source::of(&world), WriteFailures::default(), false).expect("a thread");
    for n in 0..11 {
        session(&world.shop().ledger, n, 0, world.now);
    }
    world.shop().ledger.adopt(key(99), 0, Adoption::Unsigned, world.now, world.now);
    assert_eq!(keeper.stop().1, Ok(()));
    let (again, ..) = scratch.again(DRAWN, world.now).expect("a good file");
    let ledger = &again.shop().ledger;
    for (seconds, expected) in [(0, true), (1799, true), (1801, false)] {
        ledger.sweep(world.now + Duration::from_secs(seconds));
        assert_eq!((ledger.overflowed(), ledger.adoption_capped()), (expected, expected), "after {seconds} s");
    }
}

#[test]
fn a_full_disk_stops_nobody_and_everything_is_written_when_there_is_room() {
    let scratch = Scratch::new("full");
    let (file, _) = scratch.open(World::new(DRAWN).now).expect("nothing is there");
    file.limit_pages(8);
    let world = World::new(DRAWN);
    let source = Source::of(&world);
    source.put("release", b"v1");
    let failures = WriteFailures::default();
    let keeper = Keeper::start(file, Arc::clone(&source) as Arc<dyn StateSource>, failures.clone(), false).expect("a thread");
    for n in 0..2000 {
        session(&world.shop().ledger, n, (n % 3) as u32, world.now);
    }
    let why = keeper.flush().expect_err("no room");
    assert!(why.contains("full") && why.contains("state.db"), "{why}");
    assert!(failures.total() > 0 && source.told.lock().unwrap().last().unwrap().is_some());
    // Most of them leave, and what is left has room.
    for n in 20..2000 {
        world.shop().ledger.end(key(n), EndReason::Logout, 0, world.now);
    }
    world.shop().ledger.sweep(world.now + Duration::from_secs(3601));
    for n in 0..20 {
        session(&world.shop().ledger, n, (n % 3) as u32, world.now + Duration::from_secs(3601));
    }
    *source.now.lock().unwrap() = world.now + Duration::from_secs(3601);
    keeper.flush().expect("room");
    assert_eq!(source.told.lock().unwrap().last(), Some(&None), "said so");
    assert_eq!(keeper.stop().1, Ok(()));
    let (_, _, remains, restored) = scratch.again(DRAWN, world.now).expect("a good file");
    assert_eq!((restored.entries, remains.documents.len()), (20, 1));
}

#[test]
fn a_clock_that_jumped_between_two_runs_ends_no_session() {
    let check = |days: i64| {
        let scratch = Scratch::new("jump");
        let (world, _, keeper) = kept(&scratch);
        assert_eq!(keeper.stop().1, Ok(()));
        let today = Time(world.now.0.saturating_add_signed(days * 86_400_000));
        let (again, _, remains, _) = scratch.again(DRAWN, today).expect("a good file");
        assert!(today.since(remains.written.unwrap()) < Duration::from_secs(60), "written just now, by whatever clock");
        again.shop().ledger.sweep(today);
        let live: u64 = again.shop().backends.iter().flatten().map(|b| b.live.counts.live()).sum();
        assert_eq!(live, 39, "{days} days");
        again.shop().ledger.sweep(today + Duration::from_secs(3700));
        let live: u64 = again.shop().backends.iter().flatten().map(|b| b.live.counts.live()).sum();
        assert_eq!(live, 0, "and makes nobody immortal, {days} days");
    };
    check(0);
    check(1);
    check(-1);
}
