//! What the backend sees of a request, whoever sent it.

use std::io::{BufReader, Write};

use crate::client::{Browser, Call, Wire};
use crate::http::{Head, Unstated, read_body};
use crate::http2::{self, Stream};
use crate::origin::Origin;
use crate::scenarios::{cookie_received, user_on};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok, next_request};
use crate::tidegate::Tidegate;

/// Sends a call for `/headers` and gives the head that the backend got.
fn seen_by_backend(browser: &mut Browser, origin: &Origin, call: Call) -> Head {
    browser.send_or_panic(call).expect_status(200);
    origin.requests_to("/headers").pop().expect("it arrived").head
}

fn values(head: &Head, name: &str) -> Vec<String> {
    head.fields_named(name).map(str::to_owned).collect()
}

/// What a client claims about itself and about us.
fn boastful() -> Call {
    Call::get("/headers")
        .field("X-Forwarded-For", "6.6.6.6, 9.9.9.9")
        .field("X-Forwarded-Proto", "https")
        .field("X-Forwarded-Host", "bank.test")
        .field("X-Request-Id", "chosen-by-client")
        .field("X-Tidegate-Release", "v9")
        .field("X-Tidegate-State", "draining")
        .field("X-Tidegate-Anything", "1")
        .field("X-Tidegate-Debug", "1")
}

#[test]
fn an_outsider_cannot_say_who_it_is() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mut browser = tidegate.browser();
    let answer = browser.send_or_panic(boastful());
    assert_eq!(answer.head.field("x-tidegate-decision"), None);
    let head = seen_by_backend(&mut browser, &a1, boastful());
    let check = |name: &str, expected: &[&str]| assert_eq!(values(&head, name), expected, "{name} in {}", head.raw);
    check("x-forwarded-for", &["127.0.0.1"]);
    check("x-forwarded-proto", &["http"]);
    check("x-forwarded-host", &["shop.test"]);
    check("host", &["shop.test"]);
    check("x-tidegate-release", &["v1"]);
    check("x-tidegate-current", &["v1"]);
    check("x-tidegate-state", &[]);
    check("x-tidegate-anything", &[]);
    check("x-tidegate-debug", &[]);
    let id = &values(&head, "x-request-id")[0];
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let next = seen_by_backend(&mut browser, &a1, Call::get("/headers"));
    assert_ne!(&values(&next, "x-request-id")[0], id, "an id of its own");
}

#[test]
fn our_fields_arrive_even_if_a_client_names_them_in_connection() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let named = "X-Tidegate-Release, X-Tidegate-Current, X-Tidegate-Anything, X-Request-Id, X-Own";
    let call = boastful().field("X-Own", "1").field("Connection", named);
    let head = seen_by_backend(&mut tidegate.browser(), &a1, call);
    let check = |name: &str, expected: &[&str]| assert_eq!(values(&head, name), expected, "{name} in {}", head.raw);
    check("x-forwarded-for", &["127.0.0.1"]);
    check("x-forwarded-proto", &["http"]);
    check("x-forwarded-host", &["shop.test"]);
    check("x-tidegate-release", &["v1"]);
    check("x-tidegate-current", &["v1"]);
    check("x-tidegate-anything", &[]);
    check("x-own", &[]);
    assert_eq!(values(&head, "x-request-id")[0].len(), 32);
    // Nobody names these for a good reason.
    for name in ["X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "Host"] {
        tidegate.browser().send_or_panic(Call::get("/headers").field("Connection", name)).expect_status(400);
    }
}

#[test]
fn a_trusted_proxy_speaks_for_its_client() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").process("trusted_proxies: [127.0.0.0/8]").release("v1", &[&a1]).start();
    let mut browser = tidegate.browser();
    let head = seen_by_backend(&mut browser, &a1, boastful());
    let check = |name: &str, expected: &[&str]| assert_eq!(values(&head, name), expected, "{name} in {}", head.raw);
    check("x-forwarded-for", &["6.6.6.6, 9.9.9.9, 127.0.0.1"]);
    check("x-forwarded-proto", &["https"]);
    check("x-forwarded-host", &["bank.test"]);
    check("x-request-id", &["chosen-by-client"]);
    check("x-tidegate-release", &["v1"]);
    check("x-tidegate-anything", &[]);
    check("x-tidegate-debug", &[]);
    let debug = Call::get("/").field("X-Tidegate-Debug", "1");
    let first = browser.send_or_panic(debug.clone());
    assert_eq!(first.head.field("x-tidegate-decision"), Some("v1/a1 new"));
    let second = browser.send_or_panic(debug);
    assert_eq!(second.head.field("x-tidegate-decision"), Some("v1/a1 pinned"));
    assert_eq!(browser.get("/").head.field("x-tidegate-decision"), None, "only those who ask");
}

#[test]
fn a_backend_is_told_that_its_release_drains_and_which_one_is_new() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]).start();
    let mut user = user_on(&tidegate, "a1");
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let head = seen_by_backend(&mut user, &a1, Call::get("/headers"));
    let told = ["x-tidegate-release", "x-tidegate-current", "x-tidegate-state"].map(|name| values(&head, name).concat());
    assert_eq!(told, ["v1", "v2", "draining"]);
    let head = seen_by_backend(&mut tidegate.browser(), &b1, Call::get("/headers"));
    let told = ["x-tidegate-release", "x-tidegate-current", "x-tidegate-state"].map(|name| values(&head, name).concat());
    assert_eq!(told, ["v2", "v2", ""]);
}

#[test]
fn no_backend_sees_the_pin_of_any_app() {
    for pin in crate::shop::PINS {
        let a1 = backend("v1", "a1");
        let mut yaml = Shop::new(pin).release("v1", &[&a1]).yaml();
        yaml += &format!(
            "  other:\n    match: [{{host: other.test, path: /}}]\n    releases: {{w1: {{backends: {{c1: \"{}\"}}}}}}\n",
            a1.address()
        );
        let tidegate = Tidegate::start(&yaml);
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        let cookies = "a=1; tidegate_shop=k.x.y; tidegate_other=k.x.y; tidegate_none=2; b=\"x; y\"";
        tidegate.browser().send_or_panic(Call::get("/headers").cookie(cookies)).expect_status(200);
        assert_eq!(cookie_received(&a1, "/headers"), "a=1; tidegate_none=2; b=\"x; y\"", "{pin}");
        let only_pins = Call::get("/headers").cookie("tidegate_shop=1; tidegate_other=2");
        tidegate.browser().send_or_panic(only_pins).expect_status(200);
        assert_eq!(cookie_received(&a1, "/headers"), "", "{pin}");
    }
}

#[test]
fn cookie_fields_that_http2_split_arrive_as_one_and_keep_their_session() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").release("v1", &[&a1, &a2]).start();
    for home in ["a1", "a2"] {
        let user = user_on(&tidegate, home);
        let cookies: Vec<String> = user.cookies().iter().map(|c| format!("{}={}", c.name, c.value)).collect();
        let mut fields = vec![("cookie", "a=1")];
        fields.extend(cookies.iter().map(|pair| ("cookie", pair.as_str())));
        fields.push(("cookie", "z=26"));
        let stream = Stream { method: "GET", url: "http://shop.test/page", fields: &fields, frames: &[] };
        let (status, _, text) = http2::plain(tidegate.port(), &[stream]).remove(0);
        assert_eq!(status, 200);
        assert!(text.contains(&format!("backend={home} ")) && text.contains("counter=3"), "{text}");
        let origin = if home == "a1" { &a1 } else { &a2 };
        let session = user.cookie("JSESSIONID").unwrap();
        assert_eq!(cookie_received(origin, "/page"), format!("a=1; JSESSIONID={session}; z=26"));
    }
}

#[test]
fn an_http2_body_that_ends_with_an_empty_frame_leaves_the_backend_connection_clean() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    for frames in [&["hello", " world", ""][..], &[""], &["hello world"]] {
        a1.clear_requests();
        let post = || Stream { method: "POST", url: "http://shop.test/body", fields: &[], frames };
        let get = || Stream { method: "GET", url: "http://shop.test/peek", fields: &[], frames: &[] };
        let answers = http2::plain(tidegate.port(), &[post(), get(), post(), get()]);
        let seen: Vec<(u16, &str)> = answers.iter().map(|(status, _, text)| (*status, text.split(' ').next().unwrap())).collect();
        let word = frames.concat();
        let word = word.split(' ').next().unwrap();
        assert_eq!(seen, [(200, word), (200, "release=v1"), (200, word), (200, "release=v1")], "{frames:?}");
        let starts: Vec<String> = a1.requests().iter().map(|request| request.head.start.clone()).collect();
        let once = ["POST /body HTTP/1.1", "GET /peek HTTP/1.1"];
        assert_eq!(starts, [once, once].concat(), "{frames:?}: nothing else on its connections");
        assert_eq!(a1.requests_to("/body")[1].body, frames.concat().as_bytes());
    }
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_from_the_backend() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mut wire = Wire::connect(tidegate.port()).unwrap();
    for _ in 0..2 {
        wire.send(b"POST /body HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
        assert_eq!(wire.read_head().unwrap().unwrap().word(1), "100");
        wire.send(b"hello").unwrap();
        let answer = wire.read_response("POST").unwrap().unwrap().expect_status(200);
        assert_eq!(answer.text(), "hello");
        assert!(!answer.head.says("connection", "close"), "{}", answer.head.raw);
    }
}

#[test]
fn interim_answers_pass_and_only_the_final_one_is_listened_to() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        while next_request(&mut input, stream)?.is_some() {
            out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nSet-Cookie: JSESSIONID=early; Path=/\r\n\r\n")?;
            out.write_all(b"HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=final; Path=/\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    let mut wire = Wire::connect(tidegate.port()).unwrap();
    wire.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    let early = wire.read_head().unwrap().unwrap();
    assert_eq!((early.word(1), early.field("link")), ("103", Some("</style.css>; rel=preload")));
    let pin = |head: &Head| head.fields_named("set-cookie").filter(|value| value.starts_with("tidegate_shop=")).count();
    assert_eq!(pin(&early), 0);
    let last = wire.read_response("GET").unwrap().unwrap().expect_status(200);
    assert_eq!((last.text().as_str(), pin(&last.head)), ("ok", 1));
    tidegate.wait_for_sessions("shop", "v1", 0, 1);
}

#[test]
fn bodies_pass_whole_in_both_directions_however_they_are_framed() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        while let Some(head) = next_request(&mut input, stream)? {
            let body = read_body(&mut input, &head, Unstated::Empty)?;
            if head.word(1) == "/until-close" {
                out.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                return out.write_all(&body);
            }
            answer_ok(&mut out, &String::from_utf8_lossy(&body))?;
        }
        Ok(())
    });
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    let mut browser = tidegate.browser();
    let text = "0123456789".repeat(30_000); // beyond the 64 KiB that are kept for a retry
    for target in ["/", "/until-close"] {
        for call in [Call::post(target, text.as_str()), Call::post(target, text.as_str()).chunked(999)] {
            let answer = browser.send_or_panic(call).expect_status(200);
            assert!(answer.text() == text, "{target}: {} of {} bytes", answer.body.len(), text.len());
        }
    }
}
