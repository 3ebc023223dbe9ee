//! The prober with the real snapshot and real sockets.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;

use super::*;
use crate::model::admission::{Admission, Health};
use crate::model::change::{Change, NewApp};
use crate::model::event::{Event, Owner};
use crate::model::pin::Keyring;
use crate::model::session_key::KeyedHash;
use crate::model::settings::{Address, AppSpec, BackendSpec, Current, HealthSettings, Match, Protocol, ReleaseSpec, Settings, StatusSet};
use crate::serve::clock::Clock;
use crate::serve::control::DrainOrder;
use crate::serve::probe::stub::{Manner, Stub, refused};

/// Longer than any wait in these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A health section with the given interval; a silent backend costs half a second.
fn every(interval: Duration) -> HealthSettings {
    let drain = StatusSet(vec![(404, 404)]);
    HealthSettings { interval, timeout: Duration::from_millis(500), rise: 2, fall: 2, drain, ..HealthSettings::default() }
}

fn often() -> HealthSettings {
    every(Duration::from_millis(40))
}

/// So seldom that only the first probe and those asked for happen in a test.
fn seldom() -> HealthSettings {
    every(Duration::from_secs(3600))
}

fn release(name: &str, backends: &[(&str, SocketAddr)]) -> ReleaseSpec {
    let spec = |(name, address): &(&str, SocketAddr)| BackendSpec {
        name: (*name).to_owned(),
        address: Address { host: address.ip().to_string(), port: address.port() },
        route: (*name).to_owned(),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    };
    ReleaseSpec { name: name.to_owned(), path: None, backends: backends.iter().map(spec).collect() }
}

/// An app `shop` whose release `v1` has these backends.
fn control(health: HealthSettings, backends: &[(&str, SocketAddr)]) -> Arc<Control> {
    let spec = AppSpec {
        name: "shop".to_owned(),
        matches: vec![Match { host: None, path: "/".to_owned() }],
        settings: Settings { health, ..Settings::default() },
        current: Current::Release("v1".to_owned()),
        releases: vec![release("v1", backends)],
    };
    let keyring = Keyring::new([("k", [7; 32].as_slice())]).expect("a good key");
    let app = NewApp { spec, keyring: Arc::new(keyring), hash: Arc::new(KeyedHash::new([7; 16])), memory: None };
    let control = Arc::new(Control::new(Clock::start()));
    control.apply(&Change::Load(vec![app]), Owner::Config, DrainOrder::default()).expect("a good app");
    control
}

fn backend(control: &Control, release: &str, name: &str) -> Arc<Backend> {
    let view = control.view();
    let app = view.app("shop").expect("loaded");
    Arc::clone(app.backend(app.slot(release, name).expect("a backend")).expect("in its slot"))
}

fn health(control: &Control, name: &str) -> Health {
    backend(control, "v1", name).live.gate.read().health
}

/// The next event about `target`.
async fn event(news: &mut Receiver<Event>, target: &str) -> String {
    let next = async {
        loop {
            let event = news.recv().await.expect("the control lives");
            if &*event.target == target && event.owner == Owner::Health {
                return event.what;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("no event about {target}"))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_first_round_tests_everybody_and_is_bounded() {
    let good = Stub::start(Manner::status(200)).await;
    let failing = Stub::start(Manner::status(503)).await;
    let silent = Stub::start(Manner::Silent).await;
    let control = control(seldom(), &[("a1", good.address), ("a2", failing.address), ("a3", silent.address), ("a4", refused())]);
    let prober = Prober::start(Arc::clone(&control));
    let begun = Instant::now();
    prober.first_round().await;
    assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
    let found: Vec<_> = ["a1", "a2", "a3", "a4"].map(|name| health(&control, name)).into();
    assert_eq!(found, [Health::Up, Health::Down, Health::Stalled, Health::Down]);
    assert_eq!(backend(&control, "v1", "a1").admission(), Admission::Everyone);
}

#[tokio::test]
async fn changes_and_only_changes_are_told() {
    let stub = Stub::start(Manner::status(200)).await;
    let control = control(often(), &[("a1", stub.address)]);
    let mut news = control.follow();
    let _prober = Prober::start(Arc::clone(&control));
    assert_eq!(event(&mut news, "shop/v1/a1").await, "untested -> up: probe passed");
    stub.behave(Manner::status(404));
    assert_eq!(event(&mut news, "shop/v1/a1").await, "up -> draining: status 404 asks for a soft stop");
    stub.behave(Manner::Silent);
    assert_eq!(event(&mut news, "shop/v1/a1").await, "draining -> stalled: no answer within 500ms");
    assert_eq!(backend(&control, "v1", "a1").admission(), Admission::KnownSessions);
    let asked = stub.requests().len();
    until("two more silent probes", || stub.requests().len() >= asked + 2).await;
    stub.behave(Manner::status(200));
    assert_eq!(event(&mut news, "shop/v1/a1").await, "stalled -> up: probe passed");
    stub.behave(Manner::status(500));
    assert_eq!(event(&mut news, "shop/v1/a1").await, "up -> down: status 500");
    stub.stop().await;
    let told = control.events().iter().filter(|event| event.owner == Owner::Health).count();
    assert_eq!(told, 5);
}

#[tokio::test]
async fn a_slow_backend_delays_no_other() {
    let quick = Stub::start(Manner::status(200)).await;
    let slow = Stub::start(Manner::Silent).await;
    let settings = HealthSettings { timeout: PATIENCE, ..often() };
    let control = control(settings, &[("a1", slow.address), ("a2", quick.address)]);
    let _prober = Prober::start(Arc::clone(&control));
    until("many probes of the quick one", || quick.requests().len() >= 10).await;
    assert_eq!(slow.requests().len(), 1, "still at its first probe");
}

#[tokio::test]
async fn a_refused_request_counts_at_once_and_asks_for_a_probe() {
    let stub = Stub::start(Manner::status(200)).await;
    let address = stub.address;
    let control = control(HealthSettings { rise: 1, ..seldom() }, &[("a1", address)]);
    let prober = Prober::start(Arc::clone(&control));
    prober.first_round().await;
    assert_eq!(health(&control, "a1"), Health::Up);
    let mut news = control.follow();
    let subject = backend(&control, "v1", "a1");

    // It decides before any probe could: the backend even answers.
    prober.report_connect_failure(&subject, ConnectFailure::Refused);
    assert_eq!(health(&control, "a1"), Health::Down);
    assert_eq!(event(&mut news, "shop/v1/a1").await, "up -> down: connect refused");
    assert_eq!(subject.live.connect_failures(), 1);
    assert_eq!(event(&mut news, "shop/v1/a1").await, "down -> up: probe passed");

    stub.stop().await;
    prober.report_connect_failure(&subject, ConnectFailure::TimedOut);
    assert_eq!(health(&control, "a1"), Health::Up, "a timeout alone decides nothing");
    until("a second failing probe", || {
        prober.report_connect_failure(&subject, ConnectFailure::TimedOut);
        health(&control, "a1") == Health::Down
    })
    .await;
}

#[tokio::test]
async fn a_storm_of_failures_costs_four_probes_a_second() {
    let stub = Stub::start(Manner::status(200)).await;
    let control = control(seldom(), &[("a1", stub.address)]);
    let prober = Prober::start(Arc::clone(&control));
    prober.first_round().await;
    let subject = backend(&control, "v1", "a1");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1100) {
        prober.report_connect_failure(&subject, ConnectFailure::TimedOut);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let probes = stub.requests().len();
    assert!((3..=6).contains(&probes), "{probes}");
}

#[tokio::test]
async fn a_staged_release_is_probed_and_a_removed_one_is_not() {
    let stub = Stub::start(Manner::status(200)).await;
    let staged = Stub::start(Manner::status(200)).await;
    let control = control(often(), &[("a1", stub.address)]);
    let prober = Prober::start(Arc::clone(&control));
    prober.first_round().await;
    let stage = Change::Stage { app: "shop".to_owned(), release: release("v2", &[("b1", staged.address)]) };
    control.apply(&stage, Owner::Operator, DrainOrder::default()).expect("a good release");
    let b1 = backend(&control, "v2", "b1");
    until("the staged backend is up", || b1.live.gate.read().health == Health::Up).await;

    let remove = Change::Remove { app: "shop".to_owned(), release: "v2".to_owned() };
    control.apply(&remove, Owner::Operator, DrainOrder::default()).expect("a staged release");
    until("its watch ends", || prober.roster.lock().len() == 1).await;
    // A probe may have been under way.
    let (before, at_most) = (stub.requests().len(), staged.requests().len() + 1);
    until("the other one is probed on", || stub.requests().len() >= before + 5).await;
    assert!(staged.requests().len() <= at_most);
    // Reports about it come to nothing.
    prober.report_connect_failure(&b1, ConnectFailure::Refused);
    assert_eq!(b1.live.gate.read().health, Health::Up);
}

#[tokio::test]
async fn a_backend_keeps_its_watch_from_snapshot_to_snapshot() {
    let stub = Stub::start(Manner::status(200)).await;
    let control = control(seldom(), &[("a1", stub.address)]);
    let prober = Prober::start(Arc::clone(&control));
    prober.first_round().await;
    let stage = Change::Stage { app: "shop".to_owned(), release: release("v2", &[("b1", refused())]) };
    control.apply(&stage, Owner::Operator, DrainOrder::default()).expect("a good release");
    let b1 = backend(&control, "v2", "b1");
    until("the new snapshot was read", || b1.live.gate.read().health == Health::Down).await;
    assert_eq!(stub.requests().len(), 1, "a backend that was there before is not probed for it");
}

#[tokio::test]
async fn changed_settings_count_at_once() {
    let stub = Stub::start(Manner::status(200)).await;
    let control = control(seldom(), &[("a1", stub.address)]);
    let prober = Prober::start(Arc::clone(&control));
    prober.first_round().await;
    let mut view = View::clone(&control.view());
    let mut app = crate::model::view::App::clone(view.app("shop").expect("loaded"));
    app.settings = Arc::new(Settings { health: HealthSettings { path: "/ready".to_owned(), ..often() }, ..Settings::default() });
    view.apps = vec![Arc::new(app)];
    prober.roster.update(&view);
    until("probes of the new path", || stub.requests().iter().filter(|head| head.starts_with("GET /ready ")).count() >= 3).await;
    assert_eq!(health(&control, "a1"), Health::Up, "what was learnt is kept");
}

#[tokio::test]
async fn another_instance_proves_a_restart() {
    let life = |n: u32| Manner::Answers(format!("HTTP/1.1 200 OK\r\nX-Started: {n}\r\nContent-Length: 0\r\n\r\n"));
    let stub = Stub::start(life(1)).await;
    let settings = HealthSettings { instance_header: Some("X-Started".to_owned()), ..often() };
    let control = control(settings, &[("a1", stub.address)]);
    let mut news = control.follow();
    let _prober = Prober::start(Arc::clone(&control));
    assert_eq!(event(&mut news, "shop/v1/a1").await, "untested -> up: probe passed");
    until("a second look at the same life", || stub.requests().len() >= 2).await;
    let subject = backend(&control, "v1", "a1");
    assert_eq!(subject.live.incarnation(), 1);
    stub.behave(life(2));
    assert_eq!(event(&mut news, "shop/v1/a1").await, "restarted, as its instance header proves; 0 sessions lost");
    assert_eq!(subject.live.incarnation(), 2);
}

#[tokio::test]
async fn a_backend_by_name_gets_its_address_from_the_prober() {
    let listener = TcpListener::bind("localhost:0").await.expect("a free port");
    let stub = Stub::on(listener, Manner::status(200));
    let mut spec = release("v2", &[("b1", stub.address)]);
    spec.backends[0].address.host = "localhost".to_owned();
    let control = control(often(), &[]);
    let prober = Prober::start(Arc::clone(&control));
    control.apply(&Change::Stage { app: "shop".to_owned(), release: spec }, Owner::Operator, DrainOrder::default()).expect("good");
    let b1 = backend(&control, "v2", "b1");
    assert_eq!(b1.live.address(), None);
    until("it is up", || b1.live.gate.read().health == Health::Up).await;
    assert_eq!(b1.live.address(), Some(stub.address));
    drop(prober);
}

#[tokio::test]
async fn a_dropped_prober_probes_no_more() {
    let stub = Stub::start(Manner::status(200)).await;
    let control = control(often(), &[("a1", stub.address)]);
    let prober = Prober::start(Arc::clone(&control));
    prober.first_round().await;
    let watch = Arc::downgrade(&prober.roster.lock().values().next().expect("one").watch);
    drop(prober);
    until("the watch is gone", || watch.upgrade().is_none()).await;
}
