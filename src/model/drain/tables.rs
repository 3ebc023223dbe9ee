//! Drains, step by step.

use std::time::Duration;

use super::*;
use crate::model::admission::{Admission, Health};
use crate::model::gate::InFlight;
use crate::model::ledger::{Adoption, Attention};
use crate::model::session_key::SessionKey;
use crate::model::sketch::{self, World};

pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);

fn key(id: u8) -> SessionKey {
    SessionKey([id; 16])
}

/// A newborn on `backend`, confirmed if its client comes back.
pub(super) fn session(world: &World, id: u8, backend: &str, comes_back: bool) {
    let ledger = &world.shop().ledger;
    ledger.born(key(id), world.backend(backend).slot, 0, world.now);
    if comes_back {
        ledger.enter(key(id), Attention::Foreground, world.now);
        ledger.leave(key(id), world.now);
    }
}

pub(super) fn exchange(world: &World, backend: &str) -> InFlight {
    let inside = world.backend(backend).live.gate.claim(Admission::KnownSessions, None).expect("it admits known sessions");
    assert_eq!(world.backend(backend).live.gate.in_flight(), 1, "it is in flight");
    inside
}

pub(super) fn begin(world: &World, target: &str) -> Drain {
    Drain::new(7, Target::parse(target).expect("a target"), Owner::Operator, &world.view, world.now)
}

/// Steps once and lets the controller settle the release.
fn step(world: &mut World, drain: &mut Drain) -> Step {
    let step = drain.step(&world.view, world.now);
    if let (Target::Release(app, release), Some(state)) = (&drain.target, drain.release_state())
        && step != Step::Same
    {
        let change = crate::model::change::Change::Settle { app: app.clone(), release: release.clone(), state };
        world.change(&change, Owner::Controller).expect("it drains");
    }
    step
}

pub(super) fn steps(world: &mut World, drain: &mut Drain, expected: &[Step]) {
    for (nth, expected) in expected.iter().enumerate() {
        assert_eq!(step(world, drain), *expected, "step {nth}, {:?}", drain.progress(&world.view, world.now));
    }
}

/// v1 drains since v2 was promoted.
pub(super) fn deployed() -> World {
    World::new("v1:a1,a2 >v2:b1")
}

#[test]
fn a_release_without_sessions_is_fenced_and_drained() {
    let mut world = deployed();
    let mut drain = begin(&world, "shop/v1");
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained, Step::Same]);
    assert_eq!((drain.state, drain.finished), (DrainState::Drained, Some(world.now)));
    for name in ["a1", "a2"] {
        assert_eq!(world.backend(name).admission(), Admission::Nobody);
        assert!(world.backend(name).live.gate.claim(Admission::KnownSessions, None).is_err(), "nothing enters");
    }
    assert_eq!(world.shop().release("v1").expect("kept").state, ReleaseState::Drained);
}

#[test]
fn sessions_hold_a_drain_until_the_last_one_has_ended() {
    let mut world = deployed();
    session(&world, 1, "a1", true);
    session(&world, 2, "a2", true);
    session(&world, 3, "a2", false);
    session(&world, 4, "b1", true);
    let mut drain = begin(&world, "shop/v1");
    assert_eq!(drain.initial, 2);
    steps(&mut world, &mut drain, &[Step::Same]);
    let progress = drain.progress(&world.view, world.now);
    assert_eq!((progress.engaged, progress.kept_alive, progress.unconfirmed, progress.remaining()), (2, 0, 1, 2));
    assert_eq!(drain.outlook(&world.view, world.now).upper_bound, Some(IDLE));
    world.shop().ledger.end(key(1), EndReason::Logout, 0, world.now);
    steps(&mut world, &mut drain, &[Step::Same]);
    // The newborn whose client never came leaves the count, the silent one becomes idle.
    world.pass(Duration::from_secs(61));
    let progress = drain.progress(&world.view, world.now);
    assert_eq!((progress.remaining(), progress.unconfirmed), (1, 0));
    steps(&mut world, &mut drain, &[Step::Same]);
    world.pass(IDLE);
    let ended = drain.progress(&world.view, world.now).ended;
    let counted = |reason: EndReason| ended[reason as usize];
    assert_eq!((counted(EndReason::Logout), counted(EndReason::Idle), counted(EndReason::Unconfirmed)), (1, 1, 1));
    assert_eq!(drain.outlook(&world.view, world.now).upper_bound, None);
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn an_unconfirmed_session_holds_a_drain() {
    let mut world = deployed();
    session(&world, 1, "a1", false);
    let mut drain = begin(&world, "shop/v1");
    steps(&mut world, &mut drain, &[Step::Same]);
    world.shop().ledger.enter(key(1), Attention::Foreground, world.now);
    steps(&mut world, &mut drain, &[Step::Same]);
    world.shop().ledger.leave(key(1), world.now);
    world.pass(IDLE + Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn unknown_is_not_zero() {
    // A process that has just started has not seen who has a session.
    let mut world = deployed();
    world.now = sketch::START;
    let mut drain = begin(&world, "shop/v1");
    assert!(!drain.progress(&world.view, world.now).confident);
    steps(&mut world, &mut drain, &[Step::Same]);
    world.pass(IDLE - Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Same]);
    world.pass(Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
    // Nor has one whose ledger was too small for all.
    let mut small = World::with("v1:a1 >v2:b1", |settings| settings.session.max_entries = 1);
    for id in 1..4 {
        session(&small, id, "b1", true);
    }
    assert!(small.shop().ledger.untracked_total() > 0);
    let mut drain = begin(&small, "shop/v1");
    steps(&mut small, &mut drain, &[Step::Same, Step::Same]);
}

#[test]
fn a_fence_waits_for_the_exchange_in_flight() {
    let mut world = deployed();
    let inside = exchange(&world, "a2");
    let mut drain = begin(&world, "shop/v1");
    assert_eq!(drain.progress(&world.view, world.now).in_flight, 1, "it is in flight when the drain begins");
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Same, Step::Same]);
    assert_eq!(world.backend("a1").admission(), Admission::KnownSessions, "no half of a release is fenced");
    assert_eq!(world.shop().release("v1").expect("kept").state, ReleaseState::Fencing);
    drop(inside);
    steps(&mut world, &mut drain, &[Step::Drained]);
}

#[test]
fn a_session_that_is_born_while_fencing_opens_the_drain_again() {
    let mut world = deployed();
    let inside = exchange(&world, "a1");
    let mut drain = begin(&world, "shop/v1");
    steps(&mut world, &mut drain, &[Step::Fencing]);
    session(&world, 1, "a1", true);
    drop(inside);
    steps(&mut world, &mut drain, &[Step::Reopened, Step::Same]);
    assert_eq!(world.shop().release("v1").expect("kept").state, ReleaseState::Draining);
    assert_eq!(world.backend("a1").admission(), Admission::KnownSessions);
    world.pass(IDLE + Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn several_drains_run_at_once_and_no_one_opens_anothers_fence() {
    let mut world = World::new("v0:o1 v1:a1,a2 >v2:b1,b2");
    session(&world, 1, "o1", true);
    world.command("drain shop/v1/a1").expect("it drains already");
    let (mut one, mut whole, mut other) = (begin(&world, "shop/v1/a1"), begin(&world, "shop/v1"), begin(&world, "shop/v0"));
    let inside = exchange(&world, "a2");
    steps(&mut world, &mut other, &[Step::Same]);
    steps(&mut world, &mut one, &[Step::Fencing, Step::Drained]);
    steps(&mut world, &mut whole, &[Step::Fencing, Step::Same, Step::Same]);
    assert_eq!(world.backend("a1").admission(), Admission::Nobody, "its own drain has proved it");
    drop(inside);
    steps(&mut world, &mut whole, &[Step::Drained]);
    world.pass(IDLE + Duration::from_secs(1));
    steps(&mut world, &mut other, &[Step::Fencing, Step::Drained]);
    // A rollback opens the release; the backend that was drained by order stays out.
    world.command("rollback v1").expect("up");
    assert_eq!((world.backend("a1").admission(), world.backend("a2").admission()), (Admission::Nobody, Admission::Everyone));
    world.command("serve shop/v1/a1").expect("a backend");
    assert_eq!(world.backend("a1").admission(), Admission::Everyone);
}

#[test]
fn a_fence_that_does_not_hold_everywhere_is_lifted_where_it_was_closed() {
    let mut world = World::new("v0:o1,o2 >v1:a1");
    let mut drain = begin(&world, "shop/v0");
    steps(&mut world, &mut drain, &[Step::Fencing]);
    // An open gate cannot be fenced: as if o2 had been taken back into service between two readings.
    world.backend("o2").live.gate.set_state(ReleaseState::Current);
    assert_eq!(drain.step(&world.view, world.now), Step::Same);
    assert_eq!(world.backend("o1").admission(), Admission::KnownSessions);
}

#[test]
fn a_host_drains_across_releases() {
    let mut world = World::new("v1:a1,a2 >v2:b1,b2");
    session(&world, 1, "b1", true);
    world.command("drain host:10.0.0.1").expect("b2 is left");
    let mut drain = begin(&world, "host:10.0.0.1");
    assert_eq!(drain.initial, 1);
    assert_eq!((world.backend("a1").admission(), world.backend("b1").admission()), (Admission::KnownSessions, Admission::KnownSessions));
    steps(&mut world, &mut drain, &[Step::Same]);
    world.pass(IDLE + Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
    let admissions = ["a1", "b1", "a2", "b2"].map(|name| world.backend(name).admission());
    assert_eq!(admissions, [Admission::Nobody, Admission::Nobody, Admission::KnownSessions, Admission::Everyone]);
    assert_eq!(world.shop().release("v2").expect("current").state, ReleaseState::Current);
}

#[test]
fn a_drain_that_was_ended_by_order_stays_ended() {
    for state in [DrainState::Cancelled, DrainState::Superseded] {
        let mut world = deployed();
        let mut drain = begin(&world, "shop/v1");
        drain.finish(state, &world.view, world.now);
        steps(&mut world, &mut drain, &[Step::Same, Step::Same]);
        assert_eq!((drain.state, drain.finished), (state, Some(world.now)));
        assert_eq!(world.backend("a1").admission(), Admission::KnownSessions);
    }
}

#[test]
fn health_neither_ends_a_drain_nor_hides_in_it() {
    let mut world = deployed();
    session(&world, 1, "a1", true);
    let mut drain = begin(&world, "shop/v1");
    for health in [Health::Down, Health::Up, Health::Stalled, Health::Up] {
        world.observe("a1", health);
        steps(&mut world, &mut drain, &[Step::Same]);
        assert!(world.backend("a1").admission() < Admission::Everyone, "{health:?}");
    }
    // A dead backend's sessions are counted until they end: their users come back if it does.
    world.observe("a1", Health::Down);
    world.pass(IDLE + Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn a_deadline_moves_sessions_early_enough_and_no_faster_than_allowed() {
    let check = |then: DrainThen, after_8s: u64, at_the_deadline: u64| {
        let mut world = World::with("v1:a1 >v2:b1", |settings| settings.drain.evict_per_second = 4);
        for id in 0..8 {
            session(&world, id, "a1", true);
        }
        world.pass(Duration::from_secs(600));
        session(&world, 8, "a1", true);
        let mut drain = begin(&world, "shop/v1");
        drain.deadline = Some(world.now + Duration::from_secs(10));
        drain.then = then;
        let mut left = Vec::new();
        for _ in 0..120 {
            let before = world.backend("a1").live.counts.live();
            drain.meet_deadline(&world.view, world.now);
            let now = world.backend("a1").live.counts.live();
            assert!(before - now <= 4, "never more than a second's worth at once");
            world.pass(Duration::from_millis(100));
            left.push(now);
        }
        assert_eq!(left[65], 9, "{then:?}: nothing is moved before it must be");
        assert_eq!((left[80], left[99]), (after_8s, at_the_deadline), "{then:?}: {left:?}");
    };
    check(DrainThen::Keep, 9, 9);
    // Nine sessions at four a second need a little more than two seconds, and the fence some time.
    check(DrainThen::Evict, 5, 0);
    check(DrainThen::MoveIdle, 5, 1);
}

#[test]
fn a_deadline_leaves_nobody_behind_whom_it_may_move() {
    // Who is left at the deadline, and one second after it, of: one silent, one with an exchange open, one clicking, one newborn.
    let check = |then: DrainThen, expected: &[u8]| {
        let mut world = deployed();
        for id in 0..3 {
            session(&world, id, "a1", true);
        }
        world.pass(Duration::from_secs(600));
        let ledger = Arc::clone(&world.shop().ledger);
        ledger.enter(key(1), Attention::Background, world.now);
        let mut drain = begin(&world, "shop/v1");
        drain.deadline = Some(world.now + Duration::from_secs(10));
        drain.then = then;
        session(&world, 3, "a1", false);
        for _ in 0..100 {
            ledger.enter(key(2), Attention::Foreground, world.now);
            ledger.leave(key(2), world.now);
            drain.meet_deadline(&world.view, world.now);
            world.pass(Duration::from_millis(100));
        }
        let lives =
            |id: &u8| ledger.find(key(*id), world.now).is_some_and(|f| matches!(f.standing, crate::model::ledger::Standing::Live { .. }));
        assert_eq!((0..4).filter(lives).collect::<Vec<u8>>(), expected, "{then:?}");
    };
    check(DrainThen::Keep, &[0, 1, 2, 3]);
    // Nobody has looked at the tab that keeps an exchange open, or polls.
    check(DrainThen::MoveIdle, &[2, 3]);
    check(DrainThen::Evict, &[]);
}

#[test]
fn moving_the_idle_is_not_held_up_by_pollers() {
    let mut world = deployed();
    session(&world, 1, "a1", true);
    let ledger = Arc::clone(&world.shop().ledger);
    let mut drain = begin(&world, "shop/v1");
    drain.ends_by(Some(Duration::from_secs(600)), Some(DrainThen::MoveIdle), &world.view, world.now);
    for second in 0..601 {
        ledger.enter(key(1), Attention::Background, world.now);
        ledger.leave(key(1), world.now);
        drain.meet_deadline(&world.view, world.now);
        assert_eq!(world.backend("a1").live.counts.live(), u64::from(second < 600), "{second}");
        world.pass(Duration::from_secs(1));
    }
}

#[test]
fn an_order_to_move_without_a_deadline_means_now() {
    // The deadline that follows, in milliseconds, for 100 sessions at 50 a second; and who is left a second later.
    let check = |own: Option<u64>, configured: Option<u64>, then: Option<DrainThen>, deadline: Option<u64>, left: u64| {
        let mut world = World::with("v1:a1 >v2:b1", |settings| settings.drain.deadline = configured.map(Duration::from_secs));
        for id in 0..100 {
            session(&world, id, "a1", true);
        }
        world.pass(Duration::from_secs(600));
        let mut drain = begin(&world, "shop/v1");
        drain.ends_by(own.map(Duration::from_secs), then, &world.view, world.now);
        let told = drain.deadline.map(|at| at.since(world.now).as_millis() as u64);
        for _ in 0..11 {
            drain.meet_deadline(&world.view, world.now);
            world.pass(Duration::from_millis(100));
        }
        assert_eq!((told, world.backend("a1").live.counts.live()), (deadline, left), "{own:?} {configured:?} {then:?}");
    };
    check(None, None, None, None, 100);
    check(None, None, Some(DrainThen::Keep), None, 100);
    check(None, None, Some(DrainThen::Evict), Some(3_000), 50);
    check(None, None, Some(DrainThen::MoveIdle), Some(3_000), 50);
    check(None, Some(60), Some(DrainThen::Evict), Some(60_000), 100);
    check(Some(30), None, Some(DrainThen::Evict), Some(30_000), 100);
    check(Some(30), Some(60), Some(DrainThen::Evict), Some(30_000), 100);
    check(Some(1), None, Some(DrainThen::Evict), Some(1_000), 50);
}

#[test]
fn each_app_on_a_host_is_evicted_at_its_own_rate() {
    let app = |name: &str, rate: u32| {
        let mut settings = crate::model::settings::Settings::default();
        settings.drain.evict_per_second = rate;
        sketch::app(name, "v1:a1 >v2:b1", settings)
    };
    let mut world = World::of(vec![app("shop", 1), app("wiki", 10)]);
    for app in &world.view.apps {
        for id in 0..20 {
            app.ledger.born(key(id), 0, 0, world.now);
            app.ledger.enter(key(id), Attention::Foreground, world.now);
            app.ledger.leave(key(id), world.now);
        }
    }
    let mut drain = begin(&world, "host:10.0.0.1");
    drain.ends_by(None, Some(DrainThen::Evict), &world.view, world.now);
    assert_eq!(drain.deadline, Some(world.now + Duration::from_secs(21)), "the slower one counts");
    for _ in 0..12 {
        drain.meet_deadline(&world.view, world.now);
        world.pass(Duration::from_millis(100));
    }
    let left: Vec<u64> = world.view.apps.iter().map(|app| app.release("v1").expect("it drains").live()).collect();
    // The faster one waits until it must begin.
    assert_eq!(left, [19, 20]);
}

#[test]
fn a_verdict_is_kept_whatever_happens_there_afterwards() {
    for by_proof in [true, false] {
        let mut world = deployed();
        session(&world, 1, "a1", true);
        let mut drain = begin(&world, "shop/v1");
        if by_proof {
            world.shop().ledger.end(key(1), EndReason::Logout, 0, world.now);
            steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
        } else {
            drain.finish(DrainState::Cancelled, &world.view, world.now);
        }
        let verdict = drain.progress(&world.view, world.now);
        assert_eq!((verdict.remaining(), verdict.confident), (u64::from(!by_proof), true));
        // It serves again, and its backend dies with somebody's session.
        world.command("rollback v1").expect("up");
        session(&world, 2, "a1", true);
        world.shop().ledger.lose(world.backend("a1").slot, crate::model::ledger::LossCause::Restart, world.now);
        session(&world, 3, "a1", true);
        world.observe("a1", Health::Down);
        assert_eq!(drain.progress(&world.view, world.now), verdict);
        assert_ne!(drain.measure(&world.view, world.now), verdict);
    }
}

#[test]
fn what_has_gone_proves_nothing() {
    let mut world = deployed();
    world.command("stage v3:c3").expect("a new one");
    let mut drain = begin(&world, "shop/v3/c3");
    world.command("remove v3").expect("never promoted");
    steps(&mut world, &mut drain, &[Step::Same, Step::Same]);
    assert_eq!(drain.state, DrainState::Draining);
}

#[test]
fn a_forecast_waits_for_confidence_and_keeps_within_an_evicting_deadline() {
    let mut world = deployed();
    for id in 0..30 {
        session(&world, id, "b1", true);
    }
    world.pass(Duration::from_secs(300));
    for id in 0..30 {
        world.shop().ledger.end(key(id), EndReason::Logout, 0, world.now);
    }
    session(&world, 99, "a1", true);
    let mut drain = begin(&world, "shop/v1");
    let outlook = drain.outlook(&world.view, world.now);
    let eta = outlook.eta.expect("thirty have ended");
    assert!(eta.p50 >= Duration::from_secs(60) && eta.p99 <= IDLE * 3, "{eta:?}");
    assert_eq!(outlook.upper_bound, Some(IDLE));
    drain.deadline = Some(world.now + Duration::from_secs(60));
    drain.then = DrainThen::Evict;
    assert_eq!(drain.outlook(&world.view, world.now).eta.expect("as before").p99, Duration::from_secs(60));
    // Evictions take as long as their rate says, whatever was ordered.
    for id in 0..100 {
        session(&world, id, "a1", true);
    }
    for deadline in [world.now + Duration::from_secs(1), sketch::START] {
        drain.deadline = Some(deadline);
        assert_eq!(drain.outlook(&world.view, world.now).eta.expect("as before").p99, Duration::from_secs(2));
    }
    // The same users, seen by a process that has just started.
    world.now = sketch::START + Duration::from_secs(60);
    let eta = begin(&world, "shop/v1").outlook(&world.view, world.now).eta.expect("as before");
    assert!(eta.p50 >= IDLE - Duration::from_secs(60), "{eta:?}");
    let told = begin(&world, "shop/v1").doubt(&world.view, world.now);
    assert_eq!(told.as_deref(), Some("a1: seen for 60s of 30m"));
}

#[test]
fn without_history_there_is_a_bound_and_no_forecast() {
    let world = deployed();
    session(&world, 1, "a1", true);
    let outlook = begin(&world, "shop/v1").outlook(&world.view, world.now);
    assert_eq!(outlook.eta.map_err(|few| few.to_string()), Err("0 sessions of this app have ended so far, a forecast takes 20".to_owned()));
    assert_eq!(outlook.upper_bound, Some(IDLE));
}

#[test]
fn a_backend_that_counts_more_than_a_young_ledger_holds_the_drain_for_one_idle_timeout() {
    let mut world = deployed();
    world.now = sketch::START;
    let mut drain = begin(&world, "shop/v1");
    let counted = |world: &World, sessions| {
        for (backend, sessions) in [("a1", 0), ("a2", sessions)] {
            let reading = crate::model::backend::CountReading { sessions, known: 0, at: world.now };
            world.backend(backend).live.count_read(Some(reading));
        }
    };
    counted(&world, 2);
    steps(&mut world, &mut drain, &[Step::Same, Step::Same]);
    assert_eq!(drain.doubt(&world.view, world.now).as_deref(), Some("a2: count probe says 2, ledger knows 0"));
    counted(&world, 0);
    steps(&mut world, &mut drain, &[Step::Fencing]);
    counted(&world, 1);
    steps(&mut world, &mut drain, &[Step::Reopened]);
    world.pass(IDLE - Duration::from_secs(1));
    counted(&world, 1);
    steps(&mut world, &mut drain, &[Step::Same]);
    world.pass(Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn somebody_older_than_the_ledger_who_clicks_once_holds_the_drain_until_the_session_is_over() {
    let mut world = deployed();
    world.now = sketch::START;
    let mut drain = begin(&world, "shop/v1");
    let (click, slot) = (Duration::from_secs(20 * 60), world.backend("a2").slot);
    world.pass(click);
    world.shop().ledger.adopt(key(1), slot, Adoption::Unsigned, world.now, world.now);
    assert_eq!(drain.progress(&world.view, world.now).remaining(), 0, "without a signed pin one click is no proof");
    world.pass(IDLE - click);
    steps(&mut world, &mut drain, &[Step::Same]);
    assert_eq!(drain.doubt(&world.view, world.now).as_deref(), Some("a2: 1 unknown session was seen once"));
    world.pass(click - Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Same]);
    world.pass(Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}
