//! Page, stream, command line, API and metrics say the same at the same moment: whoever looks at two of them must not have to wonder
//! which one lies.
//!
//! The document is read before and after all the others. When both readings are equal, what was read in between must equal them, figures
//! that count seconds included; when time has moved on, all are read again.

mod figures;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::figures::Figures;
use crate::client::{Browser, Call};
use crate::process::{delay, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// What a source must show at least of each backend, release and running drain.
struct Source {
    name: &'static str,
    figures: Figures,
    backend: &'static [&'static str],
    release: &'static [&'static str],
    drain: &'static [&'static str],
}

/// One request stays open all the time, however slow the machine.
const LONG: Duration = Duration::from_secs(300);

const WHOLE_BACKEND: &[&str] =
    &["intent", "health", "admission", "incarnation", "in_flight", "live", "engaged", "kept_alive", "unconfirmed"];
const WHOLE_RELEASE: &[&str] = &["state", "live", "engaged", "kept_alive", "unconfirmed", "in_flight"];
const WHOLE_DRAIN: &[&str] = &["target", "state", "initial", "remaining", "progress", "confident", "engaged", "kept_alive", "unconfirmed"];

/// All of them, at one moment as nearly as can be.
fn sources(tidegate: &Tidegate, document: &Value) -> Vec<Source> {
    let source = |name, figures, backend, release, drain| Source { name, figures, backend, release, drain };
    let json_of = |arguments: &[&str]| serde_json::from_str::<Value>(&tidegate.cli(arguments).expect_code(0).stdout).expect("one document");
    let frame = first_frame(tidegate);
    let page = tidegate.admin(Call::get("/")).expect_status(200).text();
    let text = tidegate.cli(&["status"]).expect_code(0).stdout;
    let sessions = tidegate.cli(&["sessions", "shop"]).expect_code(0).stdout;
    let whole = (WHOLE_BACKEND, WHOLE_RELEASE, WHOLE_DRAIN);
    let told: &[&str] = &["initial", "remaining", "percent", "confident"];
    let shown: &[&str] = &["state", "initial", "remaining", "progress", "percent", "confident"];
    let counts: &[&str] = &["live", "engaged", "kept_alive", "unconfirmed"];
    let measured = figures::of_metrics(&tidegate.metrics(), &figures::of_document(document));
    let row: &[&str] = &["intent", "health", "admission", "in_flight", "live", "engaged", "unconfirmed"];
    vec![
        source("live stream", figures::of_frame(&frame), WHOLE_BACKEND, WHOLE_RELEASE, shown),
        source("page", figures::of_page(&page), WHOLE_BACKEND, WHOLE_RELEASE, shown),
        source("/api/v1/drains", figures::of_document(&tidegate.admin_get("/api/v1/drains")), &[], &[], WHOLE_DRAIN),
        source(
            "/api/v1/apps/shop/sessions",
            figures::of_sessions(&tidegate.admin_get("/api/v1/apps/shop/sessions?list=1")),
            &[],
            counts,
            &[],
        ),
        source("status --json", figures::of_document(&json_of(&["status", "--json"])), whole.0, whole.1, whole.2),
        source("status", figures::of_status_text(&text), row, &["state", "in_flight", "live", "engaged", "unconfirmed"], told),
        source("sessions --json", figures::of_sessions(&json_of(&["sessions", "shop", "--list", "--json"])), &[], counts, &[]),
        source("sessions", figures::of_sessions_text("shop", &sessions), &[], counts, &[]),
        source(
            "/metrics",
            measured,
            &["live", "engaged", "kept_alive", "unconfirmed", "in_flight"],
            &["live", "engaged", "kept_alive", "unconfirmed", "in_flight"],
            &["initial", "remaining", "progress", "confident", "engaged", "kept_alive", "unconfirmed"],
        ),
    ]
}

/// Of a stream that begins now: it holds everything.
fn first_frame(tidegate: &Tidegate) -> Value {
    let port = tidegate.admin_url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let (head, mut wire) = Browser::new(port).with_host("127.0.0.1").open(&Call::get("/live")).expect("an answer");
    assert_eq!(head.word(1), "200", "{}", head.raw);
    let mut text = String::new();
    while !text.contains("\n\n") {
        text += &String::from_utf8(wire.read_chunk().expect("a frame").expect("no end")).expect("UTF-8");
    }
    let data = text.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_else(|| panic!("no data: {text}"));
    serde_json::from_str(data).expect("JSON")
}

/// Compares everything with everything, by way of the document; its figures are returned.
fn agree(tidegate: &Tidegate, when: &str) -> Figures {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // All open pages share a look that is up to a second old.
        delay(Duration::from_millis(1_000));
        let document = tidegate.admin_get("/api/v1/status");
        let sources = sources(tidegate, &document);
        let expected = figures::of_document(&document);
        if expected != figures::of_document(&tidegate.admin_get("/api/v1/status")) {
            assert!(Instant::now() < deadline, "{when}: the figures never stand still");
            continue;
        }
        for source in &sources {
            compare(source, &expected, when);
        }
        return expected;
    }
}

fn compare(source: &Source, expected: &Figures, when: &str) {
    let name = source.name;
    let wrong: Vec<String> = source
        .figures
        .iter()
        .filter_map(|(key, value)| {
            expected.get(key).filter(|expected| *expected != value).map(|expected| format!("{key}: {value}, document: {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{when}: {name} differs from the status document:\n{}", wrong.join("\n"));
    let missing: Vec<&String> = expected
        .keys()
        .filter(|key| {
            let (place, field) = key.split_once('.').expect("a name has a field");
            let must = match place.split('/').count() {
                1 => expected.contains_key(&format!("{place}.remaining")) && source.drain.contains(&field),
                2 => source.release.contains(&field),
                _ => source.backend.contains(&field),
            };
            must && !source.figures.contains_key(*key)
        })
        .collect();
    assert!(missing.is_empty(), "{when}: {name} does not show {missing:?}: {:#?}", source.figures);
}

#[track_caller]
fn expect(figures: &Figures, name: &str, expected: &str) {
    assert_eq!(figures.get(name).map(String::as_str), Some(expected), "{name} of {figures:#?}");
}

#[test]
fn page_stream_commands_api_and_metrics_say_the_same_at_the_same_moment() {
    let (a1, mut a2, b1, b2) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"), backend("v2", "b2"));
    let shop = Shop::new("route")
        .session("idle_timeout: 9m")
        .session("confirm_within: 9m")
        .session("engaged_within: 5s")
        .session("count_probe: {url_path: /count, json: sessions}")
        .app("timeouts: {read: 10m}");
    let tidegate = shop.release("v1", &[&a1, &a2]).release("v2", &[&b1, &b2]).start();

    // Silent until the end.
    let mut silent = tidegate.browser();
    silent.get("/").expect_status(200);
    silent.get("/").expect_status(200);
    // A forecast takes a history.
    for _ in 0..24 {
        let mut user = tidegate.browser();
        user.get("/").expect_status(200);
        user.get("/").expect_status(200);
        user.get("/logout").expect_status(200);
    }
    // Three more, one who never came back, and one older than the ledger; one request stays open.
    let mut engaged = [user_on(&tidegate, "a1"), user_on(&tidegate, "a1"), user_on(&tidegate, "a2")];
    let mut newborn = tidegate.browser();
    newborn.get("/").expect_status(200);
    let mut older = Browser::new(a2.port());
    older.get("/").expect_status(200);
    let mut older = older.tab_before(tidegate.port());
    for _ in 0..2 {
        assert_eq!(older.get("/").expect_status(200).word("backend"), "a2");
    }
    let mut holder = engaged[0].tab().with_timeout(LONG);
    let held = std::thread::spawn(move || holder.get("/hold").status);
    wait_for("a request is in flight", SOON, || tidegate.status("shop")["releases"]["v1"]["backends"]["a1"]["in_flight"] == 1);
    wait_for("backends have counted", SOON, || tidegate.counted("shop", "v1", "a1").is_some());
    wait_for("one is merely kept alive", SOON, || {
        engaged[2].get("/").expect_status(200);
        let sessions = &tidegate.status("shop")["releases"]["v1"]["sessions"];
        sessions["kept_alive"].as_u64() >= Some(1) && sessions["engaged"].as_u64() >= Some(1)
    });
    let before = agree(&tidegate, "before the deploy");
    for (name, expected) in [("live", "5"), ("unconfirmed", "1"), ("in_flight", "1")] {
        expect(&before, &format!("shop/v1.{name}"), expected);
    }

    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let drain = tidegate.drain("shop/v1")["id"].as_str().expect("an id").to_owned();
    let mut there = user_on(&tidegate, "b1");
    tidegate.cli(&["drain", "shop/v2/b1"]).expect_code(0);
    wait_for("the drain is confident", SOON, || tidegate.drain("shop/v1")["confident"] == true);
    engaged[1].get("/logout").expect_status(200);
    let during = agree(&tidegate, "during two drains");
    for (name, expected) in [("initial", "5"), ("remaining", "4"), ("ended.logout", "1"), ("unconfirmed", "1"), ("confident", "true")] {
        expect(&during, &format!("{drain}.{name}"), expected);
    }
    assert!(during.contains_key(&format!("{drain}.p50")), "a forecast is among what is compared: {during:#?}");

    // a2 restarts: whoever is there is lost.
    a2.restart();
    let (status, lost) = tidegate.admin_post("/api/v1/lost", &json!({ "target": "shop/v1/a2" }));
    assert_eq!(status, 200, "{lost}");
    let after_loss = agree(&tidegate, "after a loss");
    assert_ne!(after_loss[&format!("{drain}.ended.lost")], "0", "{after_loss:#?}");

    a1.let_go();
    assert_eq!(held.join().expect("the request ends"), 200);
    for user in engaged.iter_mut().chain([&mut silent, &mut newborn, &mut older, &mut there]) {
        user.get("/logout").expect_status(200);
    }
    tidegate.wait_for_state("shop", "v1", "drained");
    wait_for("the other is drained too", SOON, || tidegate.drain("shop/v2/b1")["verdict"] == "drained");
    let after = agree(&tidegate, "after both drains");
    expect(&after, &format!("{drain}.state"), "drained");
    expect(&after, "shop/v1.state", "drained");
    let drained = after.iter().filter(|(name, state)| name.starts_with('d') && name.ends_with(".state") && *state == "drained").count();
    let finished = tidegate.metrics().sum("tidegate_drains_finished_total", &[("verdict", "drained")]);
    assert_eq!((drained, finished), (3, 3.0), "with that of v2, which nobody had used");
}

#[test]
fn figures_that_are_not_sure_are_told_as_such_everywhere() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("cookie").session("idle_timeout: 9m").release("v1", &[&a1]).release("v2", &[&b1]).start();
    let user = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let figures = agree(&tidegate, "without history");
    let drain = tidegate.drain("shop/v1")["id"].as_str().expect("an id").to_owned();
    expect(&figures, &format!("{drain}.confident"), "false");
    assert!(!figures.contains_key(&format!("{drain}.p50")), "nobody forecasts from nothing: {figures:#?}");
    drop(user);
}
