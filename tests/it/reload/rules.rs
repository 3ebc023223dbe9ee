//! Each rule of a reload, once, with the real binary.

use rustix::process::Signal;
use serde_json::json;

use super::{applied, export, refused, shop, with_current};
use crate::process::{Scratch, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

#[test]
fn a_release_is_added_and_promoted_by_the_file_and_the_old_one_drains() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = shop(&[("v1", &[&a1])]).start();
    let mut user = user_on(&tidegate, "a1");
    applied(&tidegate, &shop(&[("v1", &[&a1]), ("v2", &[&b1])]).yaml());
    assert_eq!(tidegate.release_state("shop", "v2"), "staged");
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
    let done = applied(&tidegate, &with_current("v2", &[("v1", &[&a1]), ("v2", &[&b1])]).yaml());
    assert_eq!(done["drains"], json!(["d1"]), "{done}");
    assert_eq!((tidegate.release_state("shop", "v1").as_str(), tidegate.release_state("shop", "v2").as_str()), ("draining", "current"));
    assert_eq!(user.get("/").word("backend"), "a1", "who has a session stays");
    assert_eq!(tidegate.browser().get("/").word("backend"), "b1");
    // Out of the file while somebody is left: refused in figures, by exit code too.
    let without = with_current("v2", &[("v2", &[&b1])]).yaml();
    let told = refused(&tidegate, &without, 409);
    assert!(told.contains("shop/v1: 1 live session (1 engaged)") && told.contains("--force"), "{told}");
    let command = tidegate.cli(&["reload"]).expect_code(1);
    assert!(command.stderr.contains("shop/v1: 1 live session") && command.stdout.is_empty(), "{command:?}");
    let command = tidegate.cli(&["reload", "--json"]).expect_code(1);
    let document: serde_json::Value = serde_json::from_str(&command.stdout).unwrap();
    assert_eq!(document["problems"][0]["what"], "shop/v1: 1 live session (1 engaged)", "{document}");
    assert!(command.stderr.contains("shop/v1: 1 live session"), "{command:?}");
    let command = tidegate.cli(&["reload", "--force"]).expect_code(0);
    assert!(command.stdout.contains("shop/v1: removed"), "{command:?}");
    assert_eq!(user.get("/").expect_status(200).word("backend"), "b1", "evicted, and a clean start");
    assert!(!export(&tidegate).contains("v1"), "{}", export(&tidegate));
}

#[test]
fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = shop(&[("v1", &[&a1, &a2])]).start();
    let _user = user_on(&tidegate, "a1");
    let before = export(&tidegate);
    tidegate.write_config(&Shop::new("cookie").weighted_release("v1", &[(&a1, 7), (&a2, 1)]).yaml());
    let told = tidegate.cli(&["reload", "--dry-run"]).expect_code(0).stdout;
    assert!(told.contains("shop/v1/a1: weight 1 -> 7 (1 live sessions there)") && told.contains("nothing was changed"), "{told}");
    tidegate.write_config(&shop(&[("v1", &[&a2])]).yaml());
    let told = tidegate.cli(&["reload", "--dry-run"]).expect_code(1).stdout;
    assert!(told.contains("refused: shop/v1/a1: 1 live session"), "{told}");
    assert_eq!(export(&tidegate), before);
    assert_eq!(tidegate.metrics().sum("tidegate_config_reloads_total", &[]), 0.0, "a dry run is no reload");
    let document = tidegate.cli(&["reload", "--dry-run", "--json"]).expect_code(1).stdout;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["result"], "would_refuse", "{document}");
}

#[test]
fn every_problem_of_the_file_is_shown_with_its_line_and_nothing_changes() {
    let a1 = backend("v1", "a1");
    let tidegate = shop(&[("v1", &[&a1])]).start();
    let bad = shop(&[("v1", &[&a1])]).app("balance: lest_sessions").app("slow_start: never").yaml();
    let told = refused(&tidegate, &bad, 400);
    assert_eq!(told.lines().count(), 2, "{told}");
    let command = tidegate.cli(&["reload"]).expect_code(1);
    let line = bad.lines().position(|line| line.contains("lest_sessions")).unwrap() + 5;
    assert!(command.stderr.contains(&format!("tidegate.yaml:{line}: apps.shop.balance:")), "{} {line}", command.stderr);
    tidegate.signal(Signal::HUP);
    wait_for("the log tells the same", SOON, || tidegate.read("tidegate.log").contains("SIGHUP: nothing was changed"));
    assert!(tidegate.read("tidegate.log").contains("apps.shop.slow_start"));
    let metrics = tidegate.metrics();
    assert_eq!(metrics.sum("tidegate_config_reloads_total", &[("result", "failed")]), 3.0);
    tidegate.browser().get("/").expect_status(200);
}

#[test]
fn a_signal_reloads() {
    let a1 = backend("v1", "a1");
    let tidegate = shop(&[("v1", &[&a1])]).start();
    tidegate.write_config(&Shop::new("cookie").weighted_release("v1", &[(&a1, 9)]).yaml());
    tidegate.signal(Signal::HUP);
    wait_for("it is applied", SOON, || export(&tidegate).contains("weight: 9"));
    tidegate.signal(Signal::HUP);
    wait_for("nothing is left to do", SOON, || tidegate.metrics().sum("tidegate_config_reloads_total", &[("result", "unchanged")]) == 1.0);
    assert!(tidegate.metrics().sum("tidegate_config_last_reload_success_timestamp_seconds", &[]) > 1.7e9);
}

#[test]
fn what_needs_an_upgrade_is_said_and_nothing_of_the_file_is_applied() {
    let a1 = backend("v1", "a1");
    let tidegate = shop(&[("v1", &[&a1])]).start();
    let weight = Shop::new("cookie").weighted_release("v1", &[(&a1, 9)]);
    let file = weight.clone().process("listeners: [{address: \"127.0.0.1:@port\"}, {address: \"127.0.0.1:1\"}]").yaml();
    let told = refused(&tidegate, &file, 409);
    assert!(told.contains("listener 127.0.0.1:1 is new") && told.contains("tidegate upgrade"), "{told}");
    let told = refused(&tidegate, &weight.process("state: {directory: @folder/elsewhere}").yaml(), 409);
    assert!(told.contains("state is changed"), "{told}");
}

#[test]
fn what_commands_did_stays_and_status_shows_where_the_file_differs() {
    let (a1, b1, c1) = (backend("v1", "a1"), backend("v2", "b1"), backend("v3", "c1"));
    let file = |weight| Shop::new("cookie").weighted_release("v1", &[(&a1, weight)]).release("v2", &[&b1]).yaml();
    let tidegate = Tidegate::start(&file(1));
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    tidegate.cli(&["stage", "shop", "v3", "--backend", &format!("c1={}", c1.address())]).expect_code(0);
    tidegate.cli(&["drain", "shop/v1/a1", "--force"]).expect_code(0);
    applied(&tidegate, &file(5));
    let states = ["v1", "v2", "v3"].map(|release| tidegate.release_state("shop", release));
    assert_eq!(states, ["draining", "current", "staged"]);
    assert_eq!(tidegate.backend("shop", "v1", "a1", "intent"), "drain");
    let truth = export(&tidegate);
    assert!(truth.contains("weight: 5") && truth.contains("current: v2") && truth.contains("v3:"), "{truth}");
    let told = tidegate.cli(&["status"]).expect_code(0).stdout;
    assert!(told.contains("shop: current is v2, the file says v1") && told.contains("shop/v3: staged"), "{told}");
    tidegate.write_config(&file(6));
    let differs = tidegate.admin_get("/api/v1/status")["differs"].to_string();
    assert!(differs.contains("has changed since it was applied"), "{differs}");
}

#[test]
fn a_changed_address_drains_the_old_one_and_no_session_moves_however_it_is_pinned() {
    for pin in crate::shop::PINS {
        let (old, new) = (backend("v1", "a1"), backend("v1", "a1"));
        let a2 = backend("v1", "a2");
        let file = |origin| Shop::new(pin).session("idle_timeout: 3s").release("v1", &[origin, &a2]);
        let tidegate = file(&old).start();
        let mut users: Vec<_> = (0..4).map(|_| user_on(&tidegate, "a1")).collect();
        let done = applied(&tidegate, &file(&new).yaml());
        assert_eq!(done["changes"][0]["live"], 4, "{pin}: {done}");
        let away = super::away("a1", &old);
        assert_eq!(tidegate.backend("shop", "v1", &away, "intent"), "drain", "{pin}");
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        new.clear_requests();
        for (nth, user) in users.iter_mut().enumerate() {
            for _ in 0..3 {
                user.get("/").expect_status(200);
            }
            assert_eq!(user.get("/").number("counter"), 6, "{pin}: user {nth} has the same session");
        }
        assert!(new.requests_to("/").is_empty(), "{pin}: nobody moved");
        let mut newcomer = user_on(&tidegate, "a1");
        assert_eq!((newcomer.get("/").number("counter"), new.live_sessions().len()), (3, 1), "{pin}: the name means the new address");
        // Everybody leaves, and the old address goes by itself.
        users.clear();
        wait_for("the old address is gone", SOON * 2, || !tidegate.status("shop").to_string().contains(&away));
        tidegate.browser().get("/").expect_status(200);
    }
}

#[test]
fn a_weight_edit_resets_nothing_and_probes_go_on() {
    let a1 = backend("v1", "a1");
    let slow = "interval: 60s, timeout: 1s, rise: 1, fall: 1";
    let tidegate = shop(&[("v1", &[&a1])]).probes(slow).start();
    let _user = user_on(&tidegate, "a1");
    let probes = a1.probes();
    let born = tidegate.metrics().sum("tidegate_sessions_born_total", &[]);
    applied(&tidegate, &Shop::new("cookie").probes(slow).weighted_release("v1", &[(&a1, 9)]).yaml());
    assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "up");
    assert_eq!(tidegate.metrics().sum("tidegate_sessions_born_total", &[]), born);
    tidegate.wait_for_sessions("shop", "v1", 1, 0);
    // An edit of `health` itself is heard at once.
    let eager = "interval: 200ms, timeout: 200ms, rise: 1, fall: 1";
    applied(&tidegate, &Shop::new("cookie").probes(eager).weighted_release("v1", &[(&a1, 9)]).yaml());
    wait_for("the new interval counts", SOON, || a1.probes() > probes + 5);
}

#[test]
fn certificates_are_read_again_without_an_edit_and_a_bad_one_changes_nothing() {
    let (a1, folder) = (backend("v1", "a1"), Scratch::new("certificates"));
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let write = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        folder.write("shop.pem", &(made.cert.pem() + &made.signing_key.serialize_pem()));
    };
    write(&made("old.test"));
    let certificate = folder.path().join("shop.pem");
    let line =
        format!("listeners: [{{address: \"127.0.0.1:@port\", tls: {{certificates: [{{certificate: \"{}\"}}]}}}}]", certificate.display());
    let file = shop(&[("v1", &[&a1])]).process(&line);
    let tidegate = file.start();
    let shown = |name: &str| tidegate.metrics().sum("tidegate_certificate_expiry_timestamp_seconds", &[("name", name)]) > 1.7e9;
    assert!(shown("old.test"));
    write(&made("new.test"));
    applied(&tidegate, &file.yaml());
    assert!(shown("new.test") && !shown("old.test"));
    folder.write("shop.pem", "no certificate");
    let (status, done) = super::reload(&tidegate, &file.clone().app("balance: round_robin").yaml());
    assert_eq!(status, 400, "{done}");
    assert!(done["error"].as_str().unwrap().contains("shop.pem"), "{done}");
    assert!(shown("new.test") && !export(&tidegate).contains("round_robin"));
}
