//! `session.count_probe`: a backend's own word on how many sessions it has, and what is said when it says nothing.

use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use crate::client::Call;
use crate::process::{Scratch, wait_for, wait_until_equal};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok, next_request};
use crate::tidegate::{SOON, Tidegate};
use crate::tomcat::{self, MANAGER_USER, Tomcat, TomcatSpec};

fn failures(tidegate: &Tidegate, backend: &str, cause: &str) -> u64 {
    tidegate.metrics().sum("tidegate_count_probe_failures_total", &[("backend", backend), ("cause", cause)]) as u64
}

/// Waits until the drain of v1 tells this about its confidence; the empty string when it is confident.
fn wait_until_told(tidegate: &Tidegate, expected: &str) {
    wait_until_equal("what is told of v1's drain", SOON, &(expected.is_empty(), expected.to_owned()), || {
        let drain = tidegate.drain("shop/v1");
        (drain["confident"] == true, drain["confidence"].as_str().unwrap_or_default().to_owned())
    });
}

fn wait_until_counted(tidegate: &Tidegate, backend: &str, expected: Option<u64>) {
    wait_until_equal(&format!("{backend} counts"), SOON, &expected, || tidegate.counted("shop", "v1", backend));
}

#[test]
fn a_real_tomcat_says_how_many_sessions_it_has_and_nothing_when_it_is_asked_wrongly_or_stands_still() {
    let shop = [tomcat::Context { path: tomcat::SHOP, cookies: true }];
    let tomcat = Tomcat::start(TomcatSpec::new("v1", "a1").with_contexts(&shop));
    let b1 = backend("v2", "b1");
    let scratch = Scratch::new("count");
    let user = scratch.write("manager-user", &format!("{MANAGER_USER}\n"));
    let before = |url_path: &str| {
        Shop::new("cookie")
            .session(&format!("count_probe: {{url_path: \"{url_path}\", user_file: {}, tomcat: true}}", user.display()))
            .probes("interval: 500ms, timeout: 1s, rise: 1, fall: 1")
            .probed("/")
            .health("ready: [200-404]")
            .release_of("v1", vec![format!("a1: \"{}\"", tomcat.address())])
            .release("v2", &[&b1])
    };
    let elsewhere = before("/manager/text/sessions?path=/nope").start();
    let nowhere = before("/manager/number-of-sessions").start();
    let tidegate = before("/manager/text/sessions?path=/shop").start();
    let mut users: Vec<_> = (0..3).map(|_| tidegate.browser()).collect();
    for user in &mut users {
        user.get("/shop/index.jsp").expect_status(200);
        user.get("/shop/index.jsp").expect_status(200);
    }
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    wait_until_counted(&tidegate, "a1", Some(3));
    wait_until_told(&tidegate, "");
    assert_eq!(tomcat.manager_sessions(tomcat::SHOP), 3, "asking makes no sessions");
    assert_eq!(tidegate.metrics().sum("tidegate_count_probe_drift", &[("release", "v1"), ("backend", "a1")]), 0.0);
    // Somebody whom only Tomcat knows.
    crate::client::Browser::new(tomcat.port()).get("/shop/index.jsp").expect_status(200);
    wait_until_counted(&tidegate, "a1", Some(4));
    assert_eq!(tidegate.metrics().sum("tidegate_count_probe_drift", &[("release", "v1"), ("backend", "a1")]), 1.0);
    wait_until_told(&tidegate, "count probe says 4, ledger knows 3");

    let unknown = |cause: &str, why: &str| {
        wait_until_counted(&tidegate, "a1", None);
        wait_for(&format!("{cause} is counted"), SOON, || failures(&tidegate, "a1", cause) >= 2);
        let told = format!("shop/v1/a1: its own count of sessions is unknown: {why}");
        let log = tidegate.read("tidegate.log");
        assert_eq!(log.matches(&told).count(), 1, "once, however often: {told}\n{log}");
        let drain = tidegate.drain("shop/v1");
        let told = drain["confidence"].as_str().unwrap_or_default();
        assert!(drain["confident"] == false && told.ends_with("of 30m, and the count probe cannot be read"), "{drain}");
        assert_eq!(tidegate.metrics().sum("tidegate_count_probe_drift", &[("release", "v1")]), 0.0, "no number, no drift");
    };
    scratch.write("manager-user", "test:wrong");
    unknown("unauthorized", "status 401; check user_file");
    scratch.write("manager-user", MANAGER_USER);
    wait_until_counted(&tidegate, "a1", Some(4));
    assert!(tidegate.read("tidegate.log").contains("shop/v1/a1: its own count of sessions is known again: 4"));
    tomcat.pause();
    unknown("silent", "no answer within 5s");
    tomcat.resume();
    wait_until_counted(&tidegate, "a1", Some(4));

    let never = |tidegate: &Tidegate, cause: &str, why: &str| {
        wait_for(&format!("{cause} is counted"), SOON, || failures(tidegate, "a1", cause) >= 1);
        assert_eq!(tidegate.counted("shop", "v1", "a1"), None);
        let log = tidegate.read("tidegate.log");
        assert!(log.contains(why), "{why}\n{log}");
    };
    never(&elsewhere, "unreadable", "FAIL - No context exists named");
    never(&nowhere, "status", "status 404; check url_path");
}

#[test]
fn a_tomcat_that_agrees_makes_a_young_drain_confident_and_it_ends_with_the_last_logout() {
    let shop = [tomcat::Context { path: tomcat::SHOP, cookies: true }];
    let tomcat = Tomcat::start(TomcatSpec::new("v1", "a1").with_contexts(&shop));
    let b1 = backend("v2", "b1");
    let scratch = Scratch::new("count");
    let user = scratch.write("manager-user", MANAGER_USER);
    let tidegate = Shop::new("cookie")
        .session(&format!("count_probe: {{url_path: \"/manager/text/sessions?path=/shop\", user_file: {}, tomcat: true}}", user.display()))
        // The count is asked for every second all the same.
        .probes("interval: 20s, timeout: 1s, rise: 1, fall: 1")
        .probed("/")
        .health("ready: [200-404]")
        .release_of("v1", vec![format!("a1: \"{}\"", tomcat.address())])
        .release("v2", &[&b1])
        .start();
    let mut users: Vec<_> = (0..3).map(|_| tidegate.browser()).collect();
    for user in &mut users {
        user.get("/shop/index.jsp").expect_status(200);
        user.get("/shop/index.jsp").expect_status(200);
    }
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    wait_until_told(&tidegate, "");
    users.pop().expect("three").get("/shop/logout.jsp").expect_status(200);
    let first = Instant::now();
    wait_until_counted(&tidegate, "a1", Some(2));
    assert!(first.elapsed() < Duration::from_secs(5), "counted {:?} after a logout", first.elapsed());
    for user in &mut users {
        user.get("/shop/logout.jsp").expect_status(200);
    }
    let left = Instant::now();
    tidegate.wait_for_state("shop", "v1", "drained");
    assert!(left.elapsed() < Duration::from_secs(2), "{:?} after the last logout", left.elapsed());
}

#[test]
fn sessions_that_are_nobodys_hold_no_drain_once_the_ledger_is_old_enough() {
    // Longer than a start and a promotion take on a busy machine.
    const IDLE: Duration = Duration::from_secs(10);
    // This application never forgets by itself.
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let mut tidegate = Shop::new("cookie")
        .session("count_probe: {url_path: /count, json: sessions}")
        .session(&format!("idle_timeout: {}s", IDLE.as_secs()))
        .session("ignore: {user_agents: [\"monitor/*\"]}")
        .release("v1", &[&a1])
        .release("v2", &[&b1])
        .start();
    let mut user = tidegate.browser();
    user.get("/page").expect_status(200);
    let mut monitor = tidegate.browser();
    let look = |monitor: &mut crate::client::Browser| monitor.send_or_panic(Call::get("/page").field("User-Agent", "monitor/1"));
    assert_eq!(look(&mut monitor).word("session"), "new");
    assert_eq!(look(&mut monitor).word("session"), "known");
    // Only the pin still says where the user was, and the application has forgotten the session.
    assert!(tidegate.stop().success());
    a1.forget(&user.cookie("JSESSIONID").expect("a session"));
    let began = Instant::now();
    tidegate.start_anew();
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    assert_eq!(user.get("/page").word("backend"), "b1");
    assert_eq!(tidegate.metrics().sum("tidegate_replays_total", &[]), 1.0, "a1 made a session for an answer that nobody got");
    assert_eq!(a1.live_sessions().len(), 2, "that one, and the monitor's");
    wait_until_told(&tidegate, "count probe says 2, ledger knows 0");
    assert!(began.elapsed() < IDLE, "the machine is too slow for this test");
    tidegate.wait_for_state("shop", "v1", "drained");
    assert!(began.elapsed() > IDLE, "drained after {:?}", began.elapsed());
    assert_eq!(tidegate.metrics().sum("tidegate_count_probe_drift", &[("backend", "a1")]), 2.0, "drift stays visible");
}

#[test]
fn a_backend_that_hangs_when_asked_for_its_count_delays_neither_its_health_nor_another_backend() {
    let answering = |body: Option<&'static str>| {
        Speaker::start(move |stream| {
            let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
            while let Some(head) = next_request(&mut input, stream)? {
                match body {
                    Some(body) if head.word(1) == "/count" => answer_ok(&mut out, body)?,
                    // Says that an answer comes, and waits until the other side has had enough.
                    _ => {
                        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")?;
                        std::io::copy(&mut input, &mut std::io::sink())?;
                    }
                }
            }
            Ok(())
        })
    };
    let (a1, a2, a3) =
        (answering(None), answering(Some(r#"{"sessions":{"active":7}}"#)), answering(Some(r#"{"sessions":{"active":"7"}}"#)));
    let tidegate = Shop::new("cookie")
        .session("count_probe: {url_path: /count, json: sessions.active}")
        .release_of("v1", vec![a1.line("a1"), a2.line("a2"), a3.line("a3")])
        .start();
    wait_until_counted(&tidegate, "a2", Some(7));
    assert_eq!(failures(&tidegate, "a1", "silent"), 0, "the other one still hangs");
    wait_for("the hanging one is given up", SOON, || {
        assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "up");
        failures(&tidegate, "a1", "silent") >= 1
    });
    assert_eq!(tidegate.counted("shop", "v1", "a1"), None);
    assert_eq!((tidegate.counted("shop", "v1", "a3"), failures(&tidegate, "a3", "unreadable") >= 1), (None, true));
    assert!(
        tidegate.read("tidegate.log").contains("shop/v1/a3: its own count of sessions is unknown: \"sessions.active\" is not a number")
    );
}
