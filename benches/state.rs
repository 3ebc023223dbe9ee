//! What the state file costs: bytes per session, how long a start takes with so many, and how many births a second reach it.
//!
//! `cargo bench --bench state`. The file lies in the build directory, warm in the system's cache, as after a restart.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::model::change::loaded;
use tidegate::model::ledger::{Adoption, Attention};
use tidegate::model::session_key::SessionKey;
use tidegate::model::settings::{Address, AppSpec, BackendSpec, Current, Match, Protocol, ReleaseSpec, Settings};
use tidegate::model::time::Time;
use tidegate::model::view::View;
use tidegate::serve::state::{Keeper, Restored, StateFile, StateLock, StateSource, WriteFailures};

const NOW: Time = Time::from_secs(1_795_168_800);

/// Births between two flushes: what a busy site has in a second or two.
const BATCH: u64 = 20_000;

fn main() {
    // `cargo test --all-targets` comes here, without optimisation: only that it runs.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let sizes: &[u64] = if measuring { &[10_000, 100_000, 1_000_000] } else { &[1_000] };
    println!(
        "{:>9} {:>14} {:>11} {:>11} {:>10} {:>10} {:>12} {:>12}",
        "sessions", "write all, s", "bytes each", "check, s", "restore, s", "start, s", "births/s", "touches/s"
    );
    for &sessions in sizes {
        measure(sessions, if measuring { 10 * BATCH } else { 1000 });
    }
}

fn measure(sessions: u64, births: u64) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("state-bench");
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    let first = view();
    for n in 0..sessions {
        first.apps.first().unwrap().ledger.adopt(key(n), (n % 4) as u32, Adoption::SignedPin { issued: NOW }, NOW, NOW);
    }
    let begin = Instant::now();
    keep(&directory, first).stop().1.unwrap();
    let write_all = begin.elapsed();
    let bytes = fs::metadata(directory.join("state.db")).unwrap().len();

    let begin = Instant::now();
    let (mut file, _) = StateFile::open(StateLock::take(&directory, "").unwrap(), NOW).unwrap();
    let check = begin.elapsed();
    let again = view();
    let restored = file.restore(&again, NOW).unwrap();
    let start = begin.elapsed();
    assert_eq!(restored, Restored { entries: sessions, strangers: 0 });

    let keeper = Keeper::start(file, Arc::new(Source(Arc::new(again.clone()))), WriteFailures::default(), false).unwrap();
    let ledger = &again.apps.first().unwrap().ledger;
    let begin = Instant::now();
    for n in 0..births {
        ledger.born(key(sessions + n), (n % 4) as u32, 0, NOW);
        if n % BATCH == BATCH - 1 {
            keeper.flush().unwrap();
        }
    }
    keeper.flush().unwrap();
    let born = births as f64 / begin.elapsed().as_secs_f64();
    // Minutes later everybody comes once more.
    let (begin, later) = (Instant::now(), NOW + Duration::from_secs(300));
    let touches = births.min(sessions);
    for n in 0..touches {
        ledger.enter(key(n), Attention::Foreground, later);
        ledger.leave(key(n), later);
        if n % BATCH == BATCH - 1 {
            keeper.flush().unwrap();
        }
    }
    keeper.flush().unwrap();
    let touched = touches as f64 / begin.elapsed().as_secs_f64();
    keeper.stop().1.unwrap();
    fs::remove_dir_all(&directory).unwrap();
    println!(
        "{sessions:>9} {:>14.2} {:>11.0} {:>11.2} {:>10.2} {:>10.2} {born:>12.0} {touched:>12.0}",
        write_all.as_secs_f64(),
        bytes as f64 / sessions as f64,
        check.as_secs_f64(),
        (start - check).as_secs_f64(),
        start.as_secs_f64(),
    );
}

fn keep(directory: &Path, view: View) -> Keeper {
    let (file, _) = StateFile::open(StateLock::take(directory, "").unwrap(), NOW).unwrap();
    Keeper::start(file, Arc::new(Source(Arc::new(view))), WriteFailures::default(), false).unwrap()
}

struct Source(Arc<View>);

impl StateSource for Source {
    fn now(&self) -> Time {
        NOW
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.0)
    }

    fn documents(&self, _all: bool) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    fn failed(&self, why: Option<&str>) {
        assert_eq!(why, None);
    }
}

/// Keys like hashes: neighbours in time are far apart in the file.
fn key(n: u64) -> SessionKey {
    let mix = |seed: u64| {
        let z = (n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    SessionKey((u128::from(mix(1)) << 64 | u128::from(mix(2))).to_be_bytes())
}

fn view() -> View {
    let backend = |n: u16| BackendSpec {
        name: format!("a{n}"),
        address: Address { host: "127.0.0.1".to_owned(), port: 8080 + n },
        route: format!("a{n}"),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    };
    let mut settings = Settings::default();
    settings.session.max_entries = 10_000_000;
    let release = ReleaseSpec { name: "v1".to_owned(), path: None, backends: (0..4).map(backend).collect() };
    let app = AppSpec {
        name: "shop".to_owned(),
        matches: vec![Match { host: None, path: "/".to_owned() }],
        settings,
        current: Current::Release("v1".to_owned()),
        releases: vec![release],
    };
    loaded(vec![app], NOW)
}
