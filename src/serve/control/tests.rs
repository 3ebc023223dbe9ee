//! Orders that meet: two pipelines, an operator who changes her mind, the controller's turn in between.

use std::sync::Barrier;

use super::*;
use crate::model::admission::{Admission, Health, Intent};
use crate::model::change::NewApp;
use crate::model::change::reload::Reload;
use crate::model::pin::Keyring;
use crate::model::session_key::{KeyedHash, SessionKey};
use crate::model::settings::Settings;
use crate::model::sketch;

/// An app `shop` as drawn, all backends up, whose ledger is believed at once.
fn control(drawn: &str) -> Control {
    let mut settings = Settings::default();
    settings.session.idle_timeout = Duration::from_millis(1);
    let keyring = Arc::new(Keyring::new([("k", [7; 32].as_slice())]).unwrap());
    let app = NewApp { spec: sketch::app("shop", drawn, settings), keyring, hash: Arc::new(KeyedHash::new([7; 16])), memory: None };
    let control = Control::new(Clock::start());
    control.apply(&Change::Load(vec![app]), Owner::Config, DrainOrder::default()).unwrap();
    for backend in control.view().apps[0].backends.iter().flatten() {
        backend.live.observe(Health::Up, control.now());
    }
    control
}

fn promote(control: &Control, release: &str, from: Option<&str>) -> Result<Vec<u64>, Refused> {
    let change = Change::Promote { app: "shop".to_owned(), release: release.to_owned(), from: from.map(str::to_owned), force: false };
    control.apply(&change, Owner::Operator, DrainOrder::default())
}

fn order(control: &Control, target: &str, intent: Intent) -> Result<Vec<u64>, Refused> {
    let change = Change::Intent { target: Target::parse(target).unwrap(), intent, force: false };
    control.apply(&change, Owner::Operator, DrainOrder::default())
}

fn state(control: &Control, id: u64) -> DrainState {
    control.drain(id).expect("it is remembered").state
}

/// A newborn, which holds a drain.
fn open_session(control: &Control, id: u8) {
    let view = control.view();
    let app = view.app("shop").unwrap();
    app.ledger.born(SessionKey([id; 16]), app.slot("v1", "a1").unwrap(), 0, control.now());
}

#[test]
fn while_another_process_takes_over_a_reload_is_refused_and_leaves_no_trace() {
    let control = control("v2:b1 >v1:a1");
    let app = Arc::clone(&control.view().apps[0]);
    let spec = |drawn: &str| sketch::app("shop", drawn, Settings::clone(&app.settings));
    let next = NewApp { spec: spec("v2:b1*7 >v1:a1"), keyring: Arc::clone(&app.keyring), hash: Arc::clone(&app.hash), memory: None };
    let reload = Reload { applied: vec![spec("v2:b1 >v1:a1")], next: vec![next], force: true, serving: true };
    control.freeze(true);
    let (before, generation) = (control.view(), control.generation());
    let refused = control.reload(&reload).unwrap_err();
    assert_eq!(refused.iter().map(|r| r.what.as_str()).collect::<Vec<_>>(), ["an upgrade is under way"]);
    assert!(Arc::ptr_eq(&before, &control.view()) && control.generation() == generation);
    control.freeze(false);
    assert_eq!(control.reload(&reload).unwrap().0.len(), 1, "it failed, and the edit is applied after it");
}

#[test]
fn of_two_pipelines_that_promote_at_once_one_is_told_that_it_was_late() {
    for _ in 0..200 {
        let control = control("v2:b1 v3:c1 >v1:a1");
        let start = Barrier::new(2);
        let outcomes = std::thread::scope(|scope| {
            let run = |release: &'static str| {
                let (control, start) = (&control, &start);
                scope.spawn(move || {
                    start.wait();
                    (release, promote(control, release, Some("v1")))
                })
            };
            [run("v2"), run("v3")].map(|thread| thread.join().unwrap())
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
        assert_eq!((won.len(), lost.len()), (1, 1));
        let (winner, refused) = (won[0].0, lost[0].1.as_ref().unwrap_err());
        assert_eq!(control.view().app("shop").unwrap().current.as_deref(), Some(winner));
        assert_eq!(refused.kind, RefusedKind::Conflict);
        assert_eq!(refused.what, format!("app 'shop': current is '{winner}', not 'v1'"));
    }
}

#[test]
fn a_promotion_given_again_finds_its_drain_or_begins_it_anew() {
    let control = control("v2:b1 >v1:a1");
    open_session(&control, 1);
    let drains = promote(&control, "v2", None).unwrap();
    assert_eq!(promote(&control, "v2", Some("v1")).unwrap(), drains, "it is the same drain");
    control.cancel(drains[0]).unwrap();
    assert_eq!(state(&control, drains[0]), DrainState::Cancelled);
    let view = control.view();
    assert_eq!(view.app("shop").unwrap().release("v1").unwrap().state.as_str(), "draining", "only a promotion brings it back");
    let told = control.events().last().unwrap().what.clone();
    assert!(told.contains("tidegate drain shop/v1"), "{told}");
    let anew = promote(&control, "v2", None).unwrap();
    assert_ne!(anew, drains);
    assert_eq!(order(&control, "shop/v1", Intent::Drain).unwrap(), anew);
    assert_eq!(state(&control, anew[0]), DrainState::Draining);
    assert!(control.cancel(drains[0]).is_err(), "it has ended");
}

fn rollback(control: &Control, from: Option<&str>) -> Result<Vec<u64>, Refused> {
    let change = Change::Rollback { app: "shop".to_owned(), to: None, from: from.map(str::to_owned), force: false };
    control.apply(&change, Owner::Operator, DrainOrder::default())
}

#[test]
fn a_rollback_given_again_finds_its_drain_and_promotes_nobody() {
    let control = control("v0:z1 v2:b1 >v1:a1");
    promote(&control, "v2", None).unwrap();
    let view = control.view();
    let app = view.app("shop").unwrap();
    app.ledger.born(SessionKey([9; 16]), app.slot("v2", "b1").unwrap(), 0, control.now());
    let drains = rollback(&control, Some("v2")).unwrap();
    assert_eq!(drains.len(), 1);
    for from in [None, Some("v2")] {
        assert_eq!(rollback(&control, from).unwrap(), drains);
        assert_eq!(control.view().app("shop").unwrap().current.as_deref(), Some("v1"));
    }
    // v2 is over; v0, which drains since the start, was not set going by the rollback.
    let stop = Change::Stop { app: "shop".to_owned(), release: "v2".to_owned(), force: true };
    control.apply(&stop, Owner::Operator, DrainOrder::default()).unwrap();
    assert!(rollback(&control, None).unwrap().is_empty());
}

#[test]
fn a_cancelled_host_gives_back_what_no_other_drain_wants() {
    let control = control(">v1:a1,b1,c2");
    open_session(&control, 1);
    let one = order(&control, "shop/v1/a1", Intent::Drain).unwrap();
    let host = order(&control, "host:10.0.0.1", Intent::Drain).unwrap();
    let admissions = || [0, 1, 2].map(|slot: usize| control.view().apps[0].backends[slot].as_ref().unwrap().admission());
    assert_eq!(admissions(), [Admission::KnownSessions, Admission::KnownSessions, Admission::Everyone]);
    control.cancel(host[0]).unwrap();
    assert_eq!(admissions(), [Admission::KnownSessions, Admission::Everyone, Admission::Everyone]);
    assert_eq!((state(&control, one[0]), state(&control, host[0])), (DrainState::Draining, DrainState::Cancelled));
    control.cancel(one[0]).unwrap();
    assert_eq!(admissions(), [Admission::Everyone; 3]);
}

#[test]
fn a_drain_that_is_cancelled_while_it_fences_leaves_a_release_that_drains() {
    let control = control("v2:b1 >v1:a1");
    let inside = control.view().apps[0].backends[1].as_ref().unwrap().live.gate.claim(Admission::KnownSessions, None).unwrap();
    let drains = promote(&control, "v2", None).unwrap();
    let release = |control: &Control| control.view().app("shop").unwrap().release("v1").unwrap().state.as_str();
    while state(&control, drains[0]) != DrainState::Fencing {
        control.tick();
    }
    assert_eq!(release(&control), "fencing");
    control.cancel(drains[0]).unwrap();
    assert_eq!(release(&control), "draining");
    drop(inside);
}

#[test]
fn the_drain_of_a_backend_that_is_removed_is_superseded() {
    let control = control("v2:b1 >v1:a1");
    open_session(&control, 1);
    let stage = |drawn: &str| Change::Stage { app: "shop".to_owned(), release: sketch::release(drawn, &mut 9000) };
    control.apply(&stage("v3:c3"), Owner::Operator, DrainOrder::default()).unwrap();
    let drains = order(&control, "shop/v3/c3", Intent::Drain).unwrap();
    let remove = Change::Remove { app: "shop".to_owned(), release: "v3".to_owned() };
    control.apply(&remove, Owner::Operator, DrainOrder::default()).unwrap();
    control.tick();
    assert_eq!(state(&control, drains[0]), DrainState::Superseded);
    let told = control.drain(drains[0]).unwrap().progress(&control.view(), control.now());
    assert_eq!(told.backends, 1, "as it was before it went");
}

#[test]
fn an_eviction_counts_and_takes_only_the_silent() {
    let control = control("v2:b1 >v1:a1");
    let target = Target::parse("shop/v1").unwrap();
    open_session(&control, 1);
    let view = control.view();
    let app = view.app("shop").unwrap();
    let hours = |n: u64| control.now() + Duration::from_secs(3600 * n);
    assert_eq!(control.evict(&target, Some(Duration::from_secs(60))).unwrap(), 0, "newborns are nobody's stay yet");
    app.ledger.enter(SessionKey([1; 16]), crate::model::ledger::Attention::Foreground, control.now());
    let slots = [app.slot("v1", "a1").unwrap()];
    assert_eq!(app.ledger.silent(&slots, Duration::ZERO, hours(1)), 0, "an exchange is open");
    app.ledger.leave(SessionKey([1; 16]), control.now());
    assert_eq!(
        (app.ledger.silent(&slots, Duration::from_secs(3000), hours(1)), app.ledger.silent(&slots, Duration::from_secs(4000), hours(1))),
        (1, 0)
    );
    assert!(control.evict(&Target::parse("shop/v9").unwrap(), None).is_err());
}

#[test]
fn an_order_to_evict_without_a_deadline_begins_at_once() {
    let control = control("v2:b1 >v1:a1");
    open_session(&control, 1);
    let change = Change::Promote { app: "shop".to_owned(), release: "v2".to_owned(), from: None, force: false };
    let how = DrainOrder { then: Some(DrainThen::Evict), ..DrainOrder::default() };
    let drains = control.apply(&change, Owner::Operator, how).unwrap();
    let deadline = control.drain(drains[0]).unwrap().deadline.expect("as soon as the rate allows");
    assert!(deadline.since(control.now()) <= Duration::from_millis(1_020));
}

#[test]
fn what_returns_to_service_supersedes_its_drain() {
    let control = control("v2:b1 >v1:a1,a2");
    open_session(&control, 1);
    let backend = order(&control, "shop/v1/a1", Intent::Drain).unwrap();
    let release = promote(&control, "v2", None).unwrap();
    assert_eq!((state(&control, backend[0]), state(&control, release[0])), (DrainState::Draining, DrainState::Draining), "several at once");
    let other = promote(&control, "v1", None).unwrap();
    assert_eq!((state(&control, backend[0]), state(&control, release[0])), (DrainState::Draining, DrainState::Superseded));
    assert_eq!(state(&control, other[0]), DrainState::Draining);
    order(&control, "shop/v1/a1", Intent::Serve).unwrap();
    assert_eq!(state(&control, backend[0]), DrainState::Superseded);
    let served = order(&control, "shop/v1/a2", Intent::Drain).unwrap();
    control.cancel(served[0]).unwrap();
    assert_eq!(control.view().apps[0].backends[1].as_ref().unwrap().admission(), Admission::Everyone, "cancelled, a backend serves again");
}

#[test]
fn a_drain_ends_by_itself_and_its_verdict_stays() {
    let control = control("v2:b1 >v1:a1");
    let drains = promote(&control, "v2", None).unwrap();
    // It is believed after a millisecond, and drained two turns later.
    while state(&control, drains[0]) != DrainState::Drained {
        control.tick();
    }
    assert_eq!(state(&control, drains[0]), DrainState::Drained);
    assert!(promote(&control, "v2", None).unwrap().is_empty(), "nothing drains any more");
    assert_eq!(control.finished()[0], (DrainState::Drained, 1));
}

#[test]
fn an_outlook_is_remembered_for_a_moment() {
    let control = control("v2:b1 >v1:a1");
    open_session(&control, 1);
    let drains = promote(&control, "v2", None).unwrap();
    let drain = control.drain(drains[0]).unwrap();
    let first = control.outlook(&drain);
    open_session(&control, 2);
    assert_eq!(control.outlook(&drain), first);
}

#[test]
fn while_another_process_takes_over_no_order_is_taken_and_no_drain_moves() {
    let control = control("v1:a1 >v2:b1");
    control.freeze(true);
    for refused in [
        promote(&control, "v1", None).map(drop),
        order(&control, "shop/v2/b1", Intent::Maintain).map(drop),
        control.cancel(1).map(drop),
        control.evict(&Target::parse("shop/v1").unwrap(), None).map(drop),
    ] {
        assert_eq!(refused.expect_err("frozen").what, "an upgrade is under way");
    }
    let before = control.drains()[0].state;
    for _ in 0..4 {
        std::thread::yield_now();
        control.tick();
    }
    assert_eq!(control.drains()[0].state, before);
    control.freeze(false);
    promote(&control, "v1", None).expect("it goes on");
}
