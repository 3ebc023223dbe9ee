//! Deadlines of drains: empty by then, whoever still clicks; or without those that somebody is engaged in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Browser;
use crate::origin::Origin;
use crate::process::{delay, wait_until_equal};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::Tidegate;

/// How long a drain has.
const DEADLINE: Duration = Duration::from_secs(5);

/// A ledger that has seen one idle timeout, before v1 (a1) and v2 (b1).
fn seasoned(a1: &Origin, b1: &Origin) -> Tidegate {
    let shop = Shop::new("cookie").session("idle_timeout: 3s").session("engaged_within: 1s").session("confirm_within: 1s");
    let tidegate = shop.release("v1", &[a1]).release("v2", &[b1]).start();
    // v2 drains since the start, for it may have had users; its verdict says that the ledger is believed.
    tidegate.wait_for_state("shop", "v2", "drained");
    tidegate
}

/// Clicks with all of them until told to stop.
fn click(users: &mut [Browser], stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        for user in users.iter_mut() {
            user.get("/").expect_status(200);
        }
        delay(Duration::from_millis(50));
    }
}

/// Promotes v2 and waits, while `users` click; the exit code and how long it took.
fn promote_while_clicking(tidegate: &Tidegate, users: &mut [Browser], then: &str) -> (i32, Duration) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clicking = scope.spawn(|| click(users, &stop));
        let began = Instant::now();
        let deadline = format!("{}s", DEADLINE.as_secs());
        let ended = tidegate.cli(&["promote", "shop", "v2", "--then", then, "--timeout", &deadline, "--wait"]);
        let took = began.elapsed();
        stop.store(true, Ordering::SeqCst);
        clicking.join().expect("every click was answered");
        println!("{then}: exit {} after {took:?}\n{}", ended.code, ended.stderr);
        (ended.code, took)
    })
}

#[test]
fn a_drain_that_evicts_is_empty_by_its_deadline_whoever_clicks() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    let mut users: Vec<Browser> = (0..5).map(|_| user_on(&tidegate, "a1")).collect();
    let (code, took) = promote_while_clicking(&tidegate, &mut users, "evict");
    assert_eq!(code, 0);
    assert!(took > DEADLINE / 2 && took < DEADLINE + Duration::from_millis(1500), "one second is the CLI's look: {took:?}");
    let drains = tidegate.admin_get("/api/v1/drains");
    let drain = drains["drains"].as_array().and_then(|all| all.last()).expect("a drain").clone();
    assert_eq!((&drain["verdict"], &drain["ended"]["evicted"]), (&"drained".into(), &5.into()), "{drain}");
    assert!(drain["finished"].as_str() <= drain["deadline"].as_str(), "{drain}");
    for user in &mut users {
        assert_eq!(user.get("/").expect_status(200).word("release"), "v2");
    }
}

#[test]
fn a_drain_that_moves_the_idle_leaves_who_clicks_and_says_so() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    let mut users: Vec<Browser> = (0..2).map(|_| user_on(&tidegate, "a1")).collect();
    // Somebody's tab keeps the session alive, and nobody looks at it.
    let mut poller = user_on(&tidegate, "a1").websocket("/echo");
    let (code, _) = promote_while_clicking(&tidegate, &mut users, "move_idle");
    assert_eq!(code, 2, "deadline reached, sessions left");
    for user in &mut users {
        assert_eq!(user.get("/").expect_status(200).word("release"), "v1");
    }
    // Who polled is moved; what is open there stays open, and holds the fence.
    // (An answer is with its client a moment before its exchange is over.)
    let look = || {
        let drains = tidegate.admin_get("/api/v1/drains");
        drains["drains"].as_array().and_then(|all| all.last()).expect("a drain").clone()
    };
    wait_until_equal("exchanges under way", DEADLINE, &1.into(), || look()["in_flight"].clone());
    let drain = look();
    assert_eq!(
        (&drain["ended"]["evicted"], &drain["sessions"]["engaged"], &drain["in_flight"]),
        (&1.into(), &2.into(), &1.into()),
        "{drain}"
    );
    poller.send_text("still here").expect("its tunnel is open");
    assert_eq!(tidegate.release_state("shop", "v1"), "draining");
}

#[test]
fn an_order_to_evict_without_a_deadline_is_obeyed_at_once_and_only_once() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = seasoned(&a1, &b1);
    assert_eq!(tidegate.cli(&["promote", "shop", "v2"]).code, 0);
    let mut users: Vec<Browser> = (0..5).map(|_| user_on(&tidegate, "b1")).collect();
    let rollback = ["rollback", "shop", "--then", "evict", "--wait"];
    let ended = tidegate.cli(&rollback);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let drains = tidegate.admin_get("/api/v1/drains");
    let drain = drains["drains"].as_array().and_then(|all| all.last()).expect("a drain").clone();
    assert_eq!(drain["ended"]["evicted"], 5, "nobody was left to the idle timeout: {drain}");
    let again = tidegate.cli(&rollback);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stderr.contains("already rolled back: v1 is current"), "{}", again.stderr);
    for user in &mut users {
        assert_eq!(user.get("/").expect_status(200).word("release"), "v1");
    }
}
