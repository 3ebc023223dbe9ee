//! Who is chosen how often.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use super::*;
use crate::model::admission::{Health, Intent, ReleaseState};
use crate::model::backend::Live;
use crate::model::gate::InFlight;
use crate::model::ledger::{Ledger, Rules};
use crate::model::session_key::SessionKey;
use crate::model::settings::SessionSettings;
use crate::model::sketch::{self, START};
use crate::model::xorshift::Xorshift;

const KINDS: [Balance; 5] =
    [Balance::LeastSessions, Balance::LeastConnections, Balance::RoundRobin, Balance::RandomTwo, Balance::Consistent];

/// Backends `a1*2 a2 …`, up and open.
fn backends(drawn: &str) -> Vec<Arc<Backend>> {
    let spec = sketch::release(&format!("v1:{}", drawn.replace(' ', ",")), &mut 1000);
    let backend = |(slot, spec)| {
        let live = Arc::new(Live::new(&spec, ReleaseState::Current, START));
        live.observe(Health::Up, START);
        Arc::new(Backend { slot, release: "v1".into(), max_connections: None, spec: Arc::new(spec), live, left: None })
    };
    (0..).zip(spec.backends).map(backend).collect()
}

/// A crowd of new clients; each stays if it is told to.
struct Crowd {
    dice: Xorshift,
    turns: AtomicU64,
    now: Time,
    slow_start: Duration,
    tried: Vec<u32>,
    inside: Vec<InFlight>,
    ledger: Ledger,
    born: u64,
}

impl Crowd {
    fn new(seed: u64) -> Crowd {
        let ledger = Ledger::new(Rules::from(&SessionSettings::default()), START);
        Crowd {
            dice: Xorshift(seed),
            turns: AtomicU64::new(0),
            now: START,
            slow_start: Duration::ZERO,
            tried: vec![],
            inside: vec![],
            ledger,
            born: 0,
        }
    }

    fn choose<'p>(&mut self, pool: &'p Pool, balance: Balance, client: u64) -> Option<&'p Arc<Backend>> {
        let (turns, tried) = (&self.turns, self.tried.as_slice());
        let draw = Draw { dice: self.dice.next(), client, turns, now: self.now, tried, slow_start: self.slow_start };
        pool.choose(balance, &draw)
    }

    /// `count` clients come; where they stay, they have a session and, for the kinds that look at it, an exchange under way.
    fn come(&mut self, pool: &Pool, balance: Balance, count: usize) -> BTreeMap<String, f64> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            let client = self.dice.next();
            let Some(backend) = self.choose(pool, balance, client) else { continue };
            let backend = Arc::clone(backend);
            match balance {
                Balance::LeastSessions => {
                    self.ledger.register(backend.slot, &backend.live.counts);
                    self.born += 1;
                    self.ledger.born(SessionKey(u128::from(mix(self.born)).to_le_bytes()), backend.slot, 0, self.now);
                }
                _ => self.inside.extend(backend.live.gate.claim(Admission::Everyone, None)),
            }
            *shares.entry(backend.spec.name.clone()).or_insert(0.0) += 1.0 / count as f64;
        }
        shares
    }
}

fn share(shares: &BTreeMap<String, f64>, name: &str) -> f64 {
    shares.get(name).copied().unwrap_or(0.0)
}

#[test]
fn every_kind_gives_each_backend_its_weighted_share() {
    for balance in KINDS {
        for drawn in ["a1 a2 a3 a4", "a1*3 a2 a3*2", "a1*10 a2*5 a3*5", "a1", "a1*7 a2*0"] {
            let all = backends(drawn);
            let total: u32 = all.iter().map(|b| b.spec.weight).sum();
            let pool = Pool::new(all.iter().cloned(), balance);
            let shares = Crowd::new(11).come(&pool, balance, 6_000);
            for backend in &all {
                let expected = f64::from(backend.spec.weight) / f64::from(total);
                let found = share(&shares, &backend.spec.name);
                // A ring of 128 points per unit of weight is the coarsest.
                let tolerance = if balance == Balance::Consistent { 0.2 } else { 0.05 };
                assert!(
                    (found - expected).abs() <= tolerance * expected,
                    "{balance:?} {drawn}: {} has {found}, not {expected}",
                    backend.spec.name
                );
            }
        }
    }
}

#[test]
fn each_unit_of_weight_belongs_to_its_backend() {
    for drawn in ["a1", "a1*5", "a1 a2 a3", "a1*256 a2 a3 a4 a5", "a1 a2 a3 a4 a5*256", "a1*2 a2*200 a3 a4*7 a5 a6 a7*90 a8*3 a9"] {
        let pool = Pool::new(backends(drawn), Balance::RoundRobin);
        for unit in 0..pool.total() {
            let expected = pool.cumulative.iter().position(|&sum| sum > unit).expect("within the total");
            assert_eq!(pool.at(unit), Some(expected), "{drawn}: {unit}");
        }
        assert!(pool.at(pool.total()).is_none());
    }
}

#[test]
fn the_least_busy_of_sixteen_is_always_found() {
    let names = (b'a'..=b'p').map(|letter| char::from(letter).to_string() + "1").collect::<Vec<_>>().join(" ");
    let all = backends(&names);
    assert_eq!(all.len(), COMPARED);
    let _busy: Vec<_> = all.iter().flat_map(|b| [(); 2].map(|()| b.live.gate.claim(Admission::Everyone, None))).collect();
    let pool = Pool::new(all.iter().cloned(), Balance::LeastConnections);
    for quiet in &all {
        let others = all.iter().filter(|b| b.slot != quiet.slot);
        let _busier: Vec<_> = others.map(|b| b.live.gate.claim(Admission::Everyone, None)).collect();
        let shares = Crowd::new(8).come(&pool, Balance::LeastConnections, 1);
        assert_eq!(shares.keys().collect::<Vec<_>>(), [&quiet.spec.name]);
    }
}

#[test]
fn neighbours_that_are_closed_together_send_nobody_to_one_place() {
    for count in [50, 100] {
        let names: Vec<String> = (0..2 * count).map(|n| format!("a{n}")).collect();
        let all = backends(&names.join(" "));
        for backend in &all[..count] {
            backend.live.observe(Health::Down, START);
        }
        let pool = Pool::new(all.iter().cloned(), Balance::LeastConnections);
        let mut crowd = Crowd::new(6);
        crowd.come(&pool, Balance::LeastConnections, 4 * count);
        let most = all.iter().map(|b| b.live.gate.in_flight()).max().expect("some");
        assert!(most <= 6, "{most} at one of {count}, where each might have 4");
    }
}

#[test]
fn closed_and_tried_backends_are_never_chosen() {
    for balance in KINDS {
        let all = backends("a1 a2 a3 a4 a5 a6");
        all[0].live.observe(Health::Down, START);
        all[1].live.gate.set_intent(Intent::Drain);
        all[2].live.gate.set_state(ReleaseState::Draining);
        all[3].live.observe(Health::Stalled, START);
        let pool = Pool::new(all.iter().cloned(), balance);
        let mut crowd = Crowd::new(5);
        crowd.tried = vec![all[4].slot];
        let shares = crowd.come(&pool, balance, 500);
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["a6"], "{balance:?}");
        crowd.tried.push(all[5].slot);
        assert!(crowd.come(&pool, balance, 20).is_empty(), "{balance:?}: nobody is left");
        assert!(crowd.come(&Pool::default(), balance, 1).is_empty(), "{balance:?}: an empty pool");
        assert!(crowd.come(&Pool::new(backends("a1*0"), balance), balance, 1).is_empty(), "{balance:?}: weight 0");
    }
}

#[test]
fn least_sessions_stays_even() {
    let pool = Pool::new(backends("a1 a2 a3 a4 a5 a6 a7 a8 a9 b1"), Balance::LeastSessions);
    let mut crowd = Crowd::new(3);
    crowd.come(&pool, Balance::LeastSessions, 2_000);
    let counts: Vec<u64> = pool.backends().iter().map(|b| b.sessions()).collect();
    let (least, most) = (counts.iter().min().expect("ten"), counts.iter().max().expect("ten"));
    assert!(most - least <= 10, "{counts:?}");
}

#[test]
fn a_fresh_backend_gets_at_most_about_twice_its_share_until_it_has_caught_up() {
    let all = backends("a1 a2 a3 a4 a5 a6 a7 a8 a9 b1");
    all[9].live.observe(Health::Down, START);
    let pool = Pool::new(all.iter().cloned(), Balance::LeastSessions);
    let mut crowd = Crowd::new(9);
    crowd.come(&pool, Balance::LeastSessions, 9_000);
    all[9].live.observe(Health::Up, START);
    let fresh = share(&crowd.come(&pool, Balance::LeastSessions, 1_000), "b1");
    assert!((0.15..=0.22).contains(&fresh), "{fresh} of 0.1");
}

#[test]
fn a_recovered_backend_is_warmed_by_slow_start() {
    for balance in [Balance::LeastSessions, Balance::LeastConnections, Balance::RoundRobin, Balance::RandomTwo] {
        let all = backends("a1 a2 a3 a4");
        let pool = Pool::new(all.iter().cloned(), balance);
        let mut crowd = Crowd::new(21);
        crowd.slow_start = Duration::from_secs(100);
        all[3].live.observe(Health::Down, START);
        all[3].live.observe(Health::Up, START);
        let mut shares = Vec::new();
        for seconds in [10, 50, 100] {
            crowd.now = START + Duration::from_secs(seconds);
            crowd.inside.clear();
            crowd.ledger.evict(&[0, 1, 2, 3], None, usize::MAX, crowd.now);
            shares.push(share(&crowd.come(&pool, balance, 400), "a4"));
        }
        assert!(shares[0] < 0.13 && shares[0] < shares[1] && shares[1] <= shares[2] + 0.05, "{balance:?}: {shares:?}");
        assert!(shares[2] > 0.2, "{balance:?}: {shares:?}");
    }
    // The first pass of a backend is not a recovery, and a lone cold backend takes what comes.
    let alone = backends("a1");
    alone[0].live.observe(Health::Down, START);
    alone[0].live.observe(Health::Up, START);
    let mut crowd = Crowd::new(1);
    crowd.slow_start = Duration::from_secs(3600);
    assert_eq!(share(&crowd.come(&Pool::new(alone, Balance::RoundRobin), Balance::RoundRobin, 50), "a1").round(), 1.0);
}

fn homes(pool: &Pool) -> HashMap<u64, String> {
    let mut crowd = Crowd::new(4);
    (0..2_000).filter_map(|client| Some((client, crowd.choose(pool, Balance::Consistent, client)?.spec.name.clone()))).collect()
}

#[test]
fn consistent_moves_only_whom_it_must() {
    let drawn = "a1 a2 a3*2 a4 a5 a6 a7 a8 a9 b1";
    let before = homes(&Pool::new(backends(drawn), Balance::Consistent));
    let moved = |after: &HashMap<u64, String>| {
        before.iter().filter(|(client, home)| after[client] != **home).map(|(_, home)| home.clone()).collect::<Vec<_>>()
    };
    // Removed, and closed.
    let without = homes(&Pool::new(backends(&drawn.replace(" a5", "")), Balance::Consistent));
    assert!(moved(&without).len() > 100 && moved(&without).iter().all(|home| home == "a5"));
    let closed = backends(drawn);
    closed[4].live.observe(Health::Down, START);
    let closed = homes(&Pool::new(closed, Balance::Consistent));
    assert!(moved(&closed).len() > 100 && moved(&closed).iter().all(|home| home == "a5"));
    let refuges: HashSet<&String> = before.iter().filter(|(_, home)| *home == "a5").map(|(client, _)| &closed[client]).collect();
    assert!(refuges.len() >= 8, "its clients are spread: {refuges:?}");
    // Another order and other addresses move nobody.
    let mut elsewhere = backends(drawn);
    elsewhere.reverse();
    assert_eq!(moved(&homes(&Pool::new(elsewhere, Balance::Consistent))).len(), 0);
    // Another name moves its clients.
    let renamed = homes(&Pool::new(backends(&drawn.replace("a5", "c5")), Balance::Consistent));
    assert!(moved(&renamed).iter().filter(|home| *home == "a5").count() > 100);
}

#[test]
fn two_releases_with_equal_backend_names_share_the_ring() {
    let mut all = backends("a1 a1");
    let mut spec = sketch::backend("a1", 1, false, 1);
    spec.route = "b1".to_owned();
    all[1] = Arc::new(Backend { spec: Arc::new(spec), ..Backend::clone(&all[1]) });
    let pool = Pool::new(all, Balance::Consistent);
    let mut crowd = Crowd::new(8);
    let slots: HashSet<u32> = (0..50).filter_map(|client| Some(crowd.choose(&pool, Balance::Consistent, client)?.slot)).collect();
    assert_eq!(slots.len(), 2);
}

#[test]
fn ten_thousand_backends_make_a_pool_in_a_moment() {
    let names: Vec<String> = (0..10_000).map(|n| format!("a{n}")).collect();
    let all = backends(&names.join(" "));
    for balance in KINDS {
        let begin = Instant::now();
        let pool = Pool::new(all.iter().cloned(), balance);
        // A debug build on a busy machine; released, it is a tenth.
        assert!(begin.elapsed() < Duration::from_secs(10), "{balance:?}: {:?}", begin.elapsed());
        let shares = Crowd::new(2).come(&pool, balance, 2_000);
        assert!(shares.len() > 1_500, "{balance:?}: {}", shares.len());
    }
}
