//! One process writes down, the next one goes on: nothing that commands and drains brought about is lost in between.

use super::*;
use crate::model::admission::{Health, Intent, ReleaseState};
use crate::model::change::{Change, NewApp};
use crate::model::drain::DrainState;
use crate::model::event::Owner;
use crate::model::ledger::{Attention, EndReason};
use crate::model::pin::Keyring;
use crate::model::session_key::{KeyedHash, SessionKey};
use crate::model::settings::Settings;
use crate::model::sketch;
use crate::model::target::Target;
use crate::serve::clock::Clock;
use crate::serve::control::DrainOrder;

const DRAWN: &str = "v1:a1,a2 >v2:b1,b2";

fn app(memory: Option<AppMemory>) -> NewApp {
    let mut settings = Settings::default();
    settings.session.idle_timeout = Duration::from_millis(1);
    let keyring = Arc::new(Keyring::new([("k", [7; 32].as_slice())]).unwrap());
    NewApp { spec: sketch::app("shop", DRAWN, settings), keyring, hash: Arc::new(KeyedHash::new([7; 16])), memory }
}

fn first() -> Arc<Control> {
    let control = Control::new(Clock::start());
    control.apply(&Change::Load(vec![app(None)]), Owner::Config, DrainOrder::default()).unwrap();
    for backend in control.view().apps[0].backends.iter().flatten() {
        backend.live.observe(Health::Up, control.now());
    }
    Arc::new(control)
}

fn order(control: &Control, change: Change) -> Vec<u64> {
    control.apply(&change, Owner::Operator, DrainOrder::default()).unwrap()
}

/// What the next process starts with.
fn next(control: &Arc<Control>) -> (Remembered, Arc<Control>) {
    let scribe = Scribe::new(Arc::clone(control), || None);
    let remembered = Remembered::read(&scribe.documents(true).into_iter().collect()).unwrap().expect("something was written");
    let next = Arc::new(Control::new(Clock::start()));
    let apps = vec![app(remembered.apps.get("shop").cloned())];
    next.recall(apps, &remembered.drains, remembered.events.clone()).unwrap();
    (remembered, next)
}

fn intent(target: &str, intent: Intent) -> Change {
    Change::Intent { target: Target::parse(target).unwrap(), intent, force: true }
}

#[tokio::test]
async fn releases_intents_and_drains_go_on_where_they_were_left() {
    let control = first();
    let view = control.view();
    let shop = view.app("shop").unwrap();
    shop.ledger.born(SessionKey([1; 16]), shop.slot("v1", "a1").unwrap(), 0, control.now());
    shop.ledger.enter(SessionKey([1; 16]), Attention::Foreground, control.now());
    order(&control, Change::Stage { app: "shop".into(), release: sketch::release("v3:c1", &mut 9000) });
    let backend = order(&control, intent("shop/v2/b2", Intent::Drain));
    order(&control, intent("shop/v1/a2", Intent::Maintain));
    // Longer than the idle timeout, from which on the ledger is believed; the exchange that is under way keeps v1 from its end.
    tokio::time::sleep(Duration::from_millis(50)).await;
    control.tick();
    control.tick();
    let (_, next) = next(&control);
    assert_eq!(next.remember_apps(), control.remember_apps().into_iter().map(untested).collect::<Vec<_>>());
    assert_eq!(next.remember_drains(), control.remember_drains());
    assert_eq!(next.drain(backend[0]).unwrap().state, DrainState::Drained);
    let view = next.view();
    let shop = view.app("shop").unwrap();
    let state = |name| shop.release(name).unwrap().state;
    assert_eq!([state("v1"), state("v2"), state("v3")], [ReleaseState::Draining, ReleaseState::Current, ReleaseState::Staged]);
    let b2 = shop.backend(shop.slot("v2", "b2").unwrap()).unwrap();
    assert!(b2.live.gate.read().fenced, "a finished drain stays closed");
    let events: Vec<_> = next.events().into_iter().map(|event| event.what).collect();
    assert!(events.iter().any(|what| what == "staged with 1 backends"), "{events:?}");
    // Numbers go on, too: `tidegate wait d1` never means another drain.
    let again = order(&next, intent("shop/v2/b1", Intent::Drain));
    assert!(again[0] > *backend.iter().max().unwrap());
}

/// Health is found anew by the next process.
fn untested((name, mut app): (String, AppMemory)) -> (String, AppMemory) {
    for backend in app.releases.iter_mut().flat_map(|release| &mut release.backends) {
        backend.health = Health::Untested;
    }
    (name, app)
}

#[test]
fn a_drain_goes_on_counting_who_left() {
    let control = first();
    let live = |control: &Control, id: u8| {
        let view = control.view();
        let shop = view.app("shop").unwrap();
        shop.ledger.born(SessionKey([id; 16]), shop.slot("v1", "a1").unwrap(), 0, control.now());
        shop.ledger.enter(SessionKey([id; 16]), Attention::Foreground, control.now());
    };
    let logout = |control: &Control, id: u8| {
        let view = control.view();
        assert!(view.app("shop").unwrap().ledger.end(SessionKey([id; 16]), EndReason::Logout, 0, control.now()));
    };
    live(&control, 1);
    logout(&control, 1);
    // A drain that begins with two people, of whom one leaves in each process.
    order(&control, Change::Promote { app: "shop".into(), release: "v1".into(), from: None, force: true });
    (2..4).for_each(|id| live(&control, id));
    let id = order(&control, Change::Promote { app: "shop".into(), release: "v2".into(), from: None, force: true })[0];
    logout(&control, 2);
    let left = |control: &Control| control.drain(id).unwrap().progress(&control.view(), control.now()).ended[0];
    assert_eq!(left(&control), 1);
    let (_, next) = next(&control);
    assert_eq!((left(&next), next.drain(id).unwrap().initial), (1, 2));
    live(&next, 3);
    logout(&next, 3);
    assert_eq!(left(&next), 2);
}

#[test]
fn a_cancelled_drain_is_not_begun_anew() {
    let control = first();
    let id = control.drains()[0].id;
    control.cancel(id).unwrap();
    let (_, next) = next(&control);
    assert_eq!(next.drains().iter().filter(|drain| drain.state.runs()).count(), 0);
}

#[test]
fn only_what_changed_is_written() {
    let control = first();
    let scribe = Scribe::new(Arc::clone(&control), || None);
    let names = |all| scribe.documents(all).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(false), ["life", "file", "apps", "events", "drains", "histories"]);
    assert_eq!(names(false), [""; 0]);
    order(&control, intent("shop/v2/b2", Intent::Maintain));
    assert_eq!(names(false), ["apps", "events"]);
    scribe.end_in_order();
    assert_eq!(names(false), ["life"]);
    assert_eq!(names(true).len(), 6);
}

#[test]
fn a_document_that_makes_no_sense_is_named() {
    let documents = Documents::from([("apps".to_owned(), b"{".to_vec())]);
    let fault = Remembered::read(&documents).expect_err("half a document");
    assert!(fault.starts_with("document 'apps'"), "{fault}");
    assert!(Remembered::read(&Documents::new()).unwrap().is_none());
}

#[test]
fn sessions_of_the_last_moment_may_be_unknown_to_the_next_process() {
    let control = first();
    let (mut remembered, _) = next(&control);
    let now = control.now() + Duration::from_secs(5);
    let shop = remembered.apps.get_mut("shop").unwrap();
    shop.doubt_births(now);
    let since: Vec<_> = shop.releases.iter().map(|release| release.backends[0].since == now).collect();
    assert_eq!(since, [false, true], "only where somebody can have been born");
    remembered.shift(|at| at + Duration::from_secs(60));
    assert_eq!(remembered.apps["shop"].releases[1].backends[0].since, now + Duration::from_secs(60));
}

#[tokio::test]
async fn an_eviction_goes_on() {
    let control = first();
    let view = control.view();
    let shop = view.app("shop").unwrap();
    let slot = shop.slot("v2", "b1").unwrap();
    // More than a second's worth, each with an exchange under way, so that none idles out.
    for id in 0..80 {
        shop.ledger.born(SessionKey([id; 16]), slot, 0, control.now());
        shop.ledger.enter(SessionKey([id; 16]), Attention::Foreground, control.now());
    }
    assert_eq!(control.evict(&Target::parse("shop/v2").unwrap(), None).unwrap(), 80);
    let (remembered, next) = next(&control);
    assert_eq!(remembered.drains.evictions.len(), 1);
    let view = next.view();
    let shop = view.app("shop").unwrap();
    for id in 0..30 {
        shop.ledger.born(SessionKey([id; 16]), slot, 0, next.now());
        shop.ledger.enter(SessionKey([id; 16]), Attention::Foreground, next.now());
    }
    let left = || shop.backend(slot).unwrap().live.counts.live();
    for _ in 0..200 {
        next.tick();
        if left() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left(), 0);
}

#[test]
fn how_much_is_doubted_depends_on_how_the_process_before_ended() {
    let control = first();
    let (remembered, _) = next(&control);
    let now = control.now() + Duration::from_secs(3600);
    let ago = |seconds| Some(Time(0) + now.since(Time(0)).saturating_sub(Duration::from_secs(seconds)));
    // Draining and current release: whether each is as young as this start.
    let check = |ended_in_order: bool, written: Option<Time>, expected: [bool; 2]| {
        let mut remembered = Remembered { life: Life { ended_in_order }, ..remembered.clone() };
        remembered.doubt(written, now);
        let releases = &remembered.apps["shop"].releases;
        let young = [0, 1].map(|n: usize| releases[n].backends.iter().all(|backend| backend.since == now));
        assert_eq!(young, expected, "in order: {ended_in_order}, written: {written:?}");
    };
    check(true, ago(1), [false, false]);
    check(true, ago(86_400), [false, false]);
    check(false, ago(1), [false, true]);
    check(false, ago(30), [false, true]);
    check(false, ago(31), [true, true]);
    check(false, None, [true, true]);
}
