//! Tests of the ledger as a whole: stories in a small language, the bounds, threads, and a simulation against a naive
//! model.

mod bounds;
mod copies;
mod model;
pub mod simulation;
mod stories;
mod tables;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use super::shard::audit::Audit;
use super::*;

const EPOCH: Time = Time::from_secs(1_000_000);

/// The defaults of an app.
fn rules() -> Rules {
    Rules::from(&crate::model::settings::SessionSettings::default())
}

/// `seconds` after the epoch.
fn at(seconds: u64) -> Time {
    EPOCH + Duration::from_secs(seconds)
}

/// A key like those that hashing ids gives.
fn key(n: u64) -> SessionKey {
    let mix = |seed: u64| {
        let mut z = n.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(1).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(2).to_le_bytes());
    SessionKey(bytes)
}

/// A ledger whose first `slots` backends are counted.
fn ledger_of(shards: usize, rules: Rules, slots: u32) -> (Ledger, Vec<Arc<Counts>>) {
    let ledger = Ledger::with_shards(shards, rules, EPOCH);
    let counts: Vec<Arc<Counts>> = (0..slots).map(|_| Arc::default()).collect();
    for (slot, counts) in counts.iter().enumerate() {
        ledger.register(slot as u32, counts);
    }
    (ledger, counts)
}

/// Every invariant that holds when no operation is under way.
fn audit(ledger: &Ledger, counts: &[Arc<Counts>]) {
    let aliases = lock(&ledger.aliases);
    let mut audit = Audit::default();
    for shard in &ledger.shards {
        lock(shard).audit(&mut audit, &aliases);
    }
    assert_eq!(ledger.room.entries(), audit.entries + ledger.room.aliases());
    assert!(ledger.room.aliases() >= aliases.len());
    assert_eq!(Shelf::ALL.map(|shelf| ledger.room.shelved(shelf)), audit.shelved);
    assert_eq!(ledger.room.unsigned(), audit.unsigned);
    for (slot, counts) in counts.iter().enumerate() {
        let recount = audit.gauges.get(&(slot as u32)).copied().unwrap_or_default();
        assert_eq!([counts.engaged(), counts.kept_alive(), counts.unconfirmed(), counts.candidates()], recount, "gauges of slot {slot}");
        let ended: u64 = EndReason::ALL.iter().map(|&reason| counts.ended(reason)).sum();
        let came = counts.born() + counts.adopted() + counts.arrived() + counts.restored();
        assert_eq!(came, counts.live() + counts.unconfirmed() + ended, "who came is here or ended, slot {slot}");
        let lost: u64 = LossCause::ALL.iter().map(|&cause| counts.lost(cause)).sum();
        assert_eq!(lost, counts.ended(EndReason::Lost) + counts.ended(EndReason::Evicted), "losses of slot {slot}");
    }
}

/// What is not zero, as `engaged 1 born 1 idle 1 lost/restart 1`.
fn shown(counts: &Counts) -> String {
    let mut words = Vec::new();
    let mut add = |name: &str, n: u64| {
        if n > 0 {
            words.push(format!("{name} {n}"));
        }
    };
    add("engaged", counts.engaged());
    add("kept", counts.kept_alive());
    add("unconfirmed", counts.unconfirmed());
    add("candidates", counts.candidates());
    add("born", counts.born());
    add("adopted", counts.adopted());
    add("arrived", counts.arrived());
    add("rotated", counts.rotated());
    for reason in EndReason::ALL {
        add(&format!("-{}", reason.as_str()), counts.ended(reason));
    }
    for cause in LossCause::ALL {
        add(&format!("lost/{}", cause.as_str()), counts.lost(cause));
    }
    words.join(" ")
}
