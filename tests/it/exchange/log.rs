//! The access log as an operator's tools read it, and what must never be in it.

use serde_json::Value;

use crate::client::{Browser, Call};
use crate::process::wait_for_some;
use crate::scenarios::user_on;
use crate::shop::{PINS, Shop, backend};
use crate::tidegate::{SOON, Tidegate};

const FILE: &str = "access.log";

fn logging(pin: &str, format: &str) -> Shop {
    Shop::new(pin)
        .session("query_parameter: sid")
        .process(&format!("server: {{grace_period: 5s, threads: 2, access_log: {{path: \"@folder/{FILE}\", format: {format}}}}}"))
}

/// The first line of the file that contains `part`.
fn line_with(tidegate: &Tidegate, part: &str) -> String {
    wait_for_some(&format!("a line with {part} is written"), SOON, || {
        let text = tidegate.read(FILE);
        text.split_inclusive('\n').find(|line| line.ends_with('\n') && line.contains(part)).map(str::to_owned)
    })
}

#[test]
fn a_json_line_says_who_asked_for_what_where_it_went_and_why() {
    let a1 = backend("v1", "a1");
    let tidegate = logging("cookie", "json").release("v1", &[&a1]).start();
    let mut user = user_on(&tidegate, "a1");
    let call = Call::post("/body?x=1", "hello").field("User-Agent", "Quoted \"agent\" \\ 1").field("Referer", "http://shop.test/from");
    user.send_or_panic(call).expect_status(200);
    let line: Value = serde_json::from_str(&line_with(&tidegate, "/body?x=1")).unwrap();
    let request_id = a1.requests_to("/body")[0].head.field("x-request-id").unwrap().to_owned();
    let expected = serde_json::json!({
        "client": "127.0.0.1", "host": "shop.test", "method": "POST", "path": "/body?x=1", "protocol": "HTTP/1.1", "status": 200, "bytes": 5,
        "request_bytes": 5, "app": "shop", "release": "v1", "backend": "a1", "reason": "pinned", "pin": "valid", "request_id": request_id,
        "user_agent": "Quoted \"agent\" \\ 1", "referer": "http://shop.test/from",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(line[key], *value, "{key} in {line}");
    }
    let (whole, backend) = (line["duration_seconds"].as_f64().unwrap(), line["backend_seconds"].as_f64().unwrap());
    assert!(0.0 < backend && backend <= whole && whole < 30.0, "{line}");
    let time = line["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    // A refusal too: nobody served it.
    Browser::new(tidegate.port()).with_host("nobody.test").get("/refused").expect_status(404);
    let line: Value = serde_json::from_str(&line_with(&tidegate, "/refused")).unwrap();
    assert_eq!((&line["status"], &line["reason"], &line["backend"]), (&404.into(), &"no_app".into(), &Value::Null));
}

#[test]
fn a_combined_line_is_what_apache_and_nginx_write() {
    let a1 = backend("v1", "a1");
    let tidegate = logging("cookie", "combined").release("v1", &[&a1]).start();
    let call = Call::post("/body?x=1", "hello").field("User-Agent", "a \"b\"");
    tidegate.browser().send_or_panic(call).expect_status(200);
    let line = line_with(&tidegate, "/body?x=1");
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with("] \"POST /body?x=1 HTTP/1.1\" 200 5 \"-\" \"a \\\"b\\\"\"\n"), "{line}");
}

#[test]
fn no_log_ever_holds_a_session_id_or_a_pin() {
    for (at, pin) in PINS.into_iter().enumerate() {
        let format = ["json", "combined"][at % 2];
        let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
        let tidegate = logging(pin, format).release("v1", &[&a1]).release("v2", &[&b1]).start();
        let mut user = user_on(&tidegate, "a1");
        let mut secrets: Vec<String> = user.cookies().iter().map(|cookie| cookie.value.clone()).collect();
        let id = user.get("/").word("id");
        for target in [format!("/page;jsessionid={id}"), format!("/page;jsessionid={id}?a=1"), format!("/page?a=1&sid={id}&b=2")] {
            let referer = format!("http://shop.test{target}");
            user.send_or_panic(Call::get(&target).field("Referer", &referer)).expect_status(200);
        }
        user.post("/login", "x").expect_status(200);
        tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
        let list = tidegate.cli(&["sessions", "shop", "--list"]).expect_code(0).stdout;
        let explained = tidegate.cli(&["explain", "shop", "--cookie", &format!("JSESSIONID={id}")]).expect_code(0).stdout;
        secrets.push(id.split('.').next().unwrap().to_owned());
        secrets.extend(user.cookies().iter().map(|cookie| cookie.value.clone()));
        user.get("/last").expect_status(404);
        line_with(&tidegate, "/last");
        let access = tidegate.read(FILE);
        assert!(access.contains("/page?a=1&b=2") && access.contains("/page?a=1"), "{access}");
        let metrics = tidegate.admin(Call::get("/metrics")).text();
        let status = tidegate.admin_get("/api/v1/status").to_string();
        let process = tidegate.read("tidegate.log");
        assert!(secrets.len() >= 3 && !process.is_empty());
        for secret in &secrets {
            for (place, text) in [
                ("access", &access),
                ("process", &process),
                ("metrics", &metrics),
                ("status", &status),
                ("list", &list),
                ("explain", &explained),
            ] {
                assert!(!text.contains(secret.as_str()), "{pin}: {secret} is in {place}:\n{text}");
            }
        }
    }
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_and_no_line_is_lost() {
    let a1 = backend("v1", "a1");
    let tidegate = logging("cookie", "json").release("v1", &[&a1]).start();
    let mut browser = tidegate.browser();
    browser.get("/peek?n=1");
    line_with(&tidegate, "n=1");
    let (here, away) = (tidegate.folder().join(FILE), tidegate.folder().join("access.log.1"));
    std::fs::rename(&here, &away).unwrap();
    browser.get("/peek?n=2");
    tidegate.signal(rustix::process::Signal::USR1);
    wait_for_some("there is a new file", SOON, || here.exists().then_some(()));
    browser.get("/peek?n=3");
    line_with(&tidegate, "n=3");
    let all = tidegate.read("access.log.1") + &tidegate.read(FILE);
    for n in 1..=3 {
        assert_eq!(all.matches(&format!("n={n}")).count(), 1, "{all}");
    }
    assert!(!tidegate.read("access.log.1").contains("n=3"));
}
