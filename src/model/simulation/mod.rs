//! A seeded simulation of the model: simulated clients, applications and operators, thousands of random steps, invariants after
//! every step. The seed is the bug report.
//!
//! `TIDEGATE_SIM_SEED=n` repeats one seed, `TIDEGATE_SIM_SEEDS=n` runs as many. Nothing here decides anything: who goes where is
//! `decide`'s word, and what the proxy tells the ledger is in `shell`, which must say what `serve::exchange` says.
//!
//! | file | holds |
//! |---|---|
//! | `application` | what backends remember, clients and their cookie jars |
//! | `shell` | the proxy's part: decide, claim, enter, hear the answer, leave |
//! | `operator` | commands, probes, crashes, the controller |
//! | `invariants` | what must hold after every step |

mod application;
mod invariants;
mod operator;
mod reload;
mod shell;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use self::application::{Application, Client};
use self::shell::Exchange;
use crate::model::backend::Backend;
use crate::model::drain::Drain;
use crate::model::settings::{AppSpec, Balance, Failover, PinMode, PinOn, Settings, WhenAllDraining};
use crate::model::sketch::{self, World};
use crate::model::xorshift::Xorshift;

/// Steps per seed: some dozens of deployments.
const STEPS: usize = 2_500;
/// Seeds of an ordinary test run: some ten seconds in a debug build.
const SEEDS: u64 = 24;
const CLIENTS: usize = 24;

/// A backend of an app: the app's position in the view, and the slot.
type Place = (usize, u32);

struct Simulation {
    seed: u64,
    dice: Xorshift,
    world: World,
    /// As applied last.
    file: Vec<AppSpec>,
    clients: Vec<Client>,
    /// Every backend that ever was.
    backends: HashMap<Place, Arc<Backend>>,
    applications: HashMap<Place, Application>,
    /// Exchanges that have a claim.
    under_way: Vec<Exchange>,
    drains: Vec<Drain>,
    /// Ids that an answer has replaced. Whoever did not get that answer goes on with the old one, which the ledger knows for 30 s more.
    renamed: HashSet<String>,
    next_name: u64,
    step: usize,
    /// Kept only when one seed is repeated: telling costs more than acting.
    trail: Vec<String>,
    told: bool,
    /// What happened, by name: coverage, and sessions that opened on emptying backends by cause.
    seen: BTreeMap<&'static str, u64>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut dice = Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let apps = ["shop", "blog"].into_iter().take(1 + dice.below(2));
        let specs: Vec<AppSpec> = apps.map(|name| app(name, &mut dice)).collect();
        let mut simulation = Simulation {
            seed,
            world: World::of(specs.clone()),
            file: specs,
            clients: Vec::new(),
            backends: HashMap::new(),
            applications: HashMap::new(),
            under_way: Vec::new(),
            drains: Vec::new(),
            renamed: HashSet::new(),
            next_name: 0,
            step: 0,
            trail: Vec::new(),
            told: from_environment("TIDEGATE_SIM_SEED").is_some(),
            seen: BTreeMap::new(),
            dice,
        };
        simulation.clients = (0..CLIENTS).map(|_| simulation.newcomer()).collect();
        simulation.meet_backends();
        for app in 0..simulation.world.view.apps.len() {
            simulation.begin_drains_of_start(app);
        }
        simulation
    }

    fn newcomer(&mut self) -> Client {
        let app = self.dice.below(self.world.view.apps.len());
        Client { app, jar: None, pin: None, address: self.dice.next(), comes_back: self.dice.below(4) > 0, exchanges: 0 }
    }

    fn run(&mut self, steps: usize) {
        for step in 0..steps {
            self.step = step;
            self.act();
            self.check();
        }
    }

    fn act(&mut self) {
        match self.dice.below(100) {
            0..42 => self.request(),
            42..76 => self.advance(),
            76..84 => self.pass_time(),
            84..90 => self.controller(),
            90..95 => self.weather(),
            _ => self.operator(),
        }
    }

    fn pass_time(&mut self) {
        let span = match self.dice.below(20) {
            0 => Duration::from_secs(3600),
            1..3 => Duration::from_secs(400),
            3..6 => Duration::from_secs(61),
            _ => Duration::from_millis(self.dice.next() % 5_000),
        };
        self.note(|| format!("{} ms pass", span.as_millis()));
        self.world.now = self.world.now + span;
        // Expiry must not depend on when the timer comes by.
        if self.dice.below(2) == 0 {
            self.world.pass(Duration::ZERO);
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.told {
            self.trail.push(format!("{}: {}", self.step, what()));
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }

    /// Something does not hold.
    fn fail(&self, what: &str) -> ! {
        panic!("TIDEGATE_SIM_SEED={} step {}: {what}\n{}", self.seed, self.step, self.trail.join("\n"));
    }

    fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }
}

/// An app with random settings and one to three releases of one to four backends.
fn app(name: &str, dice: &mut Xorshift) -> AppSpec {
    let mut one_of = |choices: usize| dice.below(choices);
    let mut settings = Settings::default();
    let session = &mut settings.session;
    session.pin = [PinMode::Cookie, PinMode::Cookie, PinMode::Route, PinMode::Prefix, PinMode::Learn][one_of(5)];
    session.pin_on = [PinOn::Session, PinOn::FirstResponse][one_of(2)];
    session.idle_timeout = Duration::from_secs([300, 1800][one_of(2)]);
    session.max_lifetime = [None, None, None, Some(Duration::from_secs(2400))][one_of(4)];
    session.rotation_within = [None, None, Some(Duration::from_secs(60))][one_of(3)];
    session.max_entries = [1_000_000, 1_000_000, 1_000_000, 30][one_of(4)];
    session.background_paths = vec!["/poll".to_owned()];
    settings.balance =
        [Balance::LeastSessions, Balance::LeastConnections, Balance::RoundRobin, Balance::RandomTwo, Balance::Consistent][one_of(5)];
    settings.when_all_draining = [WhenAllDraining::Serve, WhenAllDraining::Serve, WhenAllDraining::Refuse][one_of(3)];
    settings.failover = [Failover::Temporary, Failover::Temporary, Failover::Repin, Failover::Off][one_of(4)];
    settings.failover_wait = Duration::from_secs([0, 0, 5][one_of(3)]);
    settings.slow_start = Duration::from_secs([0, 60][one_of(2)]);
    let by_health = one_of(4) == 0;
    let count = 1 + one_of(3);
    let releases: Vec<String> = (1..=count)
        .map(|nth| {
            let mark = if nth == count && !by_health { ">" } else { "" };
            let backends: Vec<String> =
                (1..=1 + one_of(4)).map(|b| format!("r{nth}b{b}{}", ["", "", "*3", "*0", "!"][one_of(5)])).collect();
            format!("{mark}v{nth}:{}", backends.join(","))
        })
        .collect();
    sketch::app(name, &releases.join(" "), settings)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn no_seed_breaks_an_invariant() {
    let (first, count) = match from_environment("TIDEGATE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (1, from_environment("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + count {
        let mut simulation = Simulation::new(seed);
        simulation.run(STEPS);
        for (what, times) in simulation.seen {
            *seen.entry(what).or_insert(0) += times;
        }
    }
    if count >= SEEDS {
        // A simulation in which something never happens proves nothing about it.
        let missing: BTreeSet<_> = invariants::MUST_HAPPEN.iter().filter(|what| !seen.contains_key(*what)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}\n{seen:#?}");
    }
    if from_environment("TIDEGATE_SIM_SEEDS").is_some() {
        println!("{seen:#?}");
    }
}
