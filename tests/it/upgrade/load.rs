//! Upgrades under load: nobody fails, nobody moves, no WebSocket is cut before the grace period.

use std::time::Duration;

use super::{is_gone, owner, upgrade, upgrade_by_signal, wait_until_quiet};
use crate::fate::{Fate, Kind, Plan};
use crate::process::{wait_for, wait_until_equal};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

/// Long enough for every WebSocket of the test; an idle process does not wait for it.
const GRACE: &str = "server: {grace_period: 10m, threads: 2}";

fn upgrades(pin: &str) {
    let (count, users) = if is_long() { (20, 500) } else { (4, 30) };
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let shop = Shop::new(pin).process(GRACE).patient_probes().release("v1", &[&a1, &a2]);
    let tidegate = Tidegate::start_replaceable(&shop.yaml());
    let first = owner(&tidegate);
    for backend in ["a1", "a2"] {
        tidegate.wait_for_backend("shop", "v1", backend, "health", "up");
    }
    let plan = Plan { keep_alive: 4, close: 4, http2: 2, websockets: 5, users, ..Plan::default() };
    let people = (10 * users + 5) as u64;
    let load = Fate::start(tidegate.port(), plan);
    let all_live = || tidegate.sessions("shop", "v1").live;
    wait_until_equal("everybody has a session", Duration::from_secs(300), &people, all_live);
    let mut times = Vec::new();
    for nth in 0..count {
        load.go_on_for(200);
        let (_, took) = if nth % 2 == 0 { upgrade(&tidegate) } else { upgrade_by_signal(&tidegate) };
        times.push(took);
        assert_eq!(all_live(), people, "upgrade {nth}: everybody is known");
        wait_until_quiet(&tidegate);
    }
    load.go_on_for(200);
    assert!(!is_gone(first), "it keeps its WebSockets");
    let last = owner(&tidegate);
    let report = load.stop();
    let moved = report.count(|kind| matches!(kind, Kind::Moved | Kind::NewSession));
    let cut = report.count(|kind| kind == Kind::TunnelCut);
    println!(
        "{count} upgrades, pin {pin}, {people} sessions: {} of {} requests failed, {moved} sessions moved or new, {cut} WebSockets cut \
         ({} echoes), longest answer {:?}; an upgrade took {:?} to {:?}",
        report.failures.len(),
        report.sent,
        report.echoes,
        report.longest.0,
        times.iter().min().unwrap(),
        times.iter().max().unwrap(),
    );
    report.assert_clean();
    assert_eq!(report.duplicates(&[&a1, &a2]), Vec::<String>::new());
    assert_eq!(a1.live_sessions().len() + a2.live_sessions().len(), people as usize, "nobody got a second one");
    wait_for("the first process ends with its last WebSocket", SOON, || is_gone(first));
    assert_eq!(owner(&tidegate), last);
    assert_eq!(tidegate.metrics().sum("tidegate_session_loss_total", &[]), 0.0);
}

#[test]
fn nobody_notices_upgrades_under_load() {
    upgrades("cookie");
}

#[test]
fn nobody_notices_upgrades_under_load_where_the_ledger_alone_knows_the_pins() {
    upgrades("learn");
}

#[test]
fn a_websocket_stays_with_the_old_process_for_the_grace_period_and_not_longer() {
    let a1 = backend("v1", "a1");
    let shop = Shop::new("cookie").process("server: {grace_period: 4s, threads: 2}").release("v1", &[&a1]);
    let tidegate = Tidegate::start_replaceable(&shop.yaml());
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
    let old = owner(&tidegate);
    let load = Fate::start(tidegate.port(), Plan { websockets: 3, ..Plan::default() });
    wait_until_equal("they are open", SOON, &3, || load.so_far().tunnels);
    let begun = std::time::Instant::now();
    upgrade(&tidegate);
    let handed_over = begun.elapsed();
    wait_until_equal("each was cut and opened again", SOON, &6, || load.so_far().tunnels);
    let cut = begun.elapsed();
    let report = load.stop();
    assert_eq!(report.count(|kind| kind == Kind::TunnelCut), 3, "{report}");
    assert_eq!(report.failures.len(), 3, "{report}");
    println!("upgrade after {handed_over:?}, WebSockets cut after {cut:?} with a grace period of 4 s");
    assert!(cut >= Duration::from_secs(4), "{cut:?}");
    wait_for("the old one is gone", SOON, || is_gone(old));
}
