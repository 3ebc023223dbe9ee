//! What one decision costs, against the number of backends and of sessions. It must be flat: the last column is the ratio to
//! the smallest of its row's kind, and only caches may make it grow.
//!
//! `cargo bench --bench decide`

#![allow(clippy::indexing_slicing, reason = "a bench may panic")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate::model::admission::Admission;
use tidegate::model::change::loaded;
use tidegate::model::decide::{Decision, PinClaim, Question, decide};
use tidegate::model::facts::Facts;
use tidegate::model::gate::InFlight;
use tidegate::model::identity::PinAttributes;
use tidegate::model::ledger::Attention;
use tidegate::model::pin::Pin;
use tidegate::model::replay::Errand;
use tidegate::model::settings::{Address, AppSpec, BackendSpec, Balance, Current, Match, Protocol, ReleaseSpec, Settings};
use tidegate::model::time::Time;
use tidegate::model::view::{App, View};

const NOW: Time = Time::from_secs(1_795_168_800);
const BACKENDS: [usize; 4] = [4, 100, 1_000, 10_000];
const SESSIONS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` comes here, without optimisation: only that it runs.
        new_client(&view(4, Balance::LeastSessions).apps[0], 1);
        return;
    }
    println!("{:<40} {:>10} {:>10} {:>7}", "one decision", "of", "ns", "ratio");
    for balance in [Balance::LeastSessions, Balance::LeastConnections, Balance::RoundRobin, Balance::RandomTwo, Balance::Consistent] {
        row(&format!("new client, {balance:?}"), "backends", BACKENDS, |&backends| {
            let view = view(backends, balance);
            let _under_way = busy(&view.apps[0]);
            measure(|turn| new_client(&view.apps[0], turn))
        });
    }
    row("pinned client, facts and ledger", "backends", BACKENDS, |&backends| pinned_client(backends, 1_000));
    row("pinned client, facts and ledger", "sessions", SESSIONS, |&sessions| pinned_client(4, sessions));
}

fn row<N: std::fmt::Display, const LEN: usize>(what: &str, of: &str, sizes: [N; LEN], cost: impl Fn(&N) -> f64) {
    let mut smallest = None;
    for size in sizes {
        let ns = cost(&size);
        let ratio = ns / *smallest.get_or_insert(ns);
        println!("{:<40} {:>10} {ns:>10.0} {ratio:>7.2}", format!("{what} ({of})"), size.to_string());
    }
}

/// Nanoseconds per call: the fastest of five rounds of at least 50 ms, because whatever disturbs a round makes it slower.
fn measure(mut call: impl FnMut(u64)) -> f64 {
    let mut turn = 0;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let (begin, before) = (Instant::now(), turn);
        while begin.elapsed() < Duration::from_millis(50) {
            for _ in 0..1_000 {
                call(turn);
                turn += 1;
            }
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / (turn - before) as f64);
    }
    best
}

fn view(backends: usize, balance: Balance) -> View {
    let backend = |n: usize| BackendSpec {
        name: format!("a{n}"),
        address: Address { host: format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255), port: 8080 },
        route: format!("a{n}"),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    };
    let release = ReleaseSpec { name: "v1".to_owned(), path: None, backends: (0..backends).map(backend).collect() };
    let app = AppSpec {
        name: "shop".to_owned(),
        matches: vec![Match { host: None, path: "/".to_owned() }],
        settings: Settings { balance, ..Settings::default() },
        current: Current::Release("v1".to_owned()),
        releases: vec![release],
    };
    loaded(vec![app], NOW)
}

/// One to three exchanges under way at each backend: an idle one would end every search for the least busy.
fn busy(app: &App) -> Vec<InFlight> {
    let backends = app.open.backends().iter().enumerate();
    backends.flat_map(|(n, b)| (0..1 + n % 3).map(|_| b.live.gate.claim(Admission::Everyone, None).expect("it is open"))).collect()
}

fn mixed(turn: u64) -> u64 {
    tidegate::model::balance::mix(turn)
}

fn new_client(app: &App, turn: u64) {
    let question = Question {
        now: NOW,
        has_id: false,
        session: None,
        pin: PinClaim::None,
        tried: &[],
        waited: false,
        errand: Errand::Read,
        disowned: false,
        dice: mixed(turn),
        client: mixed(!turn),
    };
    assert!(matches!(black_box(decide(app, black_box(&question))), Decision::Forward(_)));
}

/// Everything from the request's cookies on: identity, signature of the pin, ledger, decision.
fn pinned_client(backends: usize, sessions: u64) -> f64 {
    let view = view(backends, Balance::LeastSessions);
    let app = &view.apps[0];
    let slot = |n: u64| u32::try_from(n % backends as u64).expect("a slot");
    let id = |n: u64| format!("{:032X}", u128::from(mixed(n)) << 32);
    for n in 0..sessions {
        let key = app.hash.key(id(n).as_bytes());
        app.ledger.born(key, slot(n), 1, NOW);
        app.ledger.enter(key, Attention::Foreground, NOW);
        app.ledger.leave(key, NOW);
    }
    // More pins than the thread remembers, at every number of sessions: else only that memory would be measured. Clients of few
    // sessions have several pins each, as after some minutes of clicks.
    let cookies: Vec<String> = (0..16_384u64)
        .map(|turn| {
            let n = mixed(turn) % sessions;
            let backend = format!("a{}", slot(n));
            let binding = app.keyring.binding(id(n).as_bytes());
            let seen = NOW - Duration::from_secs(turn / sessions);
            let pin = Pin { release: "v1", backend: &backend, binding, issued: NOW, seen, attributes: PinAttributes::OVER_TLS };
            format!("theme=dark; JSESSIONID={}; tidegate_shop={}", id(n), app.keyring.sign("shop", &pin))
        })
        .collect();
    measure(|turn| {
        let cookie = &cookies[turn as usize % cookies.len()];
        let facts = Facts::read(app, [cookie.as_bytes()], |_| None, b"/shop/cart", None, NOW);
        let question = Question {
            now: NOW,
            has_id: facts.key.is_some(),
            session: facts.session,
            pin: facts.pin,
            tried: &[],
            waited: false,
            errand: Errand::Read,
            disowned: false,
            dice: mixed(turn),
            client: mixed(!turn),
        };
        let Decision::Forward(forward) = black_box(decide(app, &question)) else { panic!("it is pinned") };
        assert_eq!(forward.reason.as_str(), "pinned");
    })
}
