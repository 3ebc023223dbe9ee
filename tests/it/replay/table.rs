//! Method × body × HTTP version of client and backend × cause. Every row is a user who comes back with a dead session; what is
//! checked is what both backends saw, what the client got, and what was counted.

use super::{Stage, cookies};
use crate::client::{Browser, Call, HOST, Response};
use crate::http::Head;
use crate::http2::{self, Stream};
use crate::origin::{Origin, Recorded};
use crate::shop::{Shop, backend};
use crate::tidegate::Tidegate;

/// Methods and bodies: octets, and whether their length is told beforehand.
const REQUESTS: &[(&str, usize, bool)] = &[
    ("GET", 0, true),
    ("HEAD", 0, true),
    ("OPTIONS", 0, true),
    ("GET", 20_000, true),
    ("GET", 65_537, true),
    ("POST", 0, true),
    ("POST", 20_000, true),
    ("POST", 65_536, true),
    ("POST", 65_537, true),
    ("POST", 20_000, false),
    ("POST", 200_000, false),
    ("PUT", 20_000, true),
    ("PUT", 20_000, false),
    ("DELETE", 0, true),
];

/// What Pingora keeps of a body.
const BUFFER: usize = 65_536;

/// How a draining backend shows that it does not know the session.
#[derive(Clone, Copy)]
struct Cause {
    /// As counted.
    name: &'static str,
    /// A line of configuration.
    configured: &'static str,
    /// What it answers for `/page`; none: a page with a new session.
    answer: Option<&'static str>,
    /// The status of that.
    status: u16,
}

const NEW_SESSION: Cause = Cause { name: "new_session", configured: "not_mine: {status: [421]}", answer: None, status: 200 };
const STATUS: Cause = Cause {
    name: "not_mine",
    configured: "not_mine: {status: [421]}",
    answer: Some("HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n"),
    status: 421,
};
const HEADER: Cause = Cause {
    name: "not_mine",
    configured: "not_mine: {status: [], header: X-Not-Mine}",
    answer: Some("HTTP/1.1 403 Forbidden\r\nX-Not-Mine: yes\r\nContent-Length: 0\r\n\r\n"),
    status: 403,
};
const LOCATION: Cause = Cause {
    name: "not_mine",
    configured: "not_mine: {status: [], location: /login?expired}",
    answer: Some("HTTP/1.1 302 Found\r\nLocation: /login?expired=1\r\nContent-Length: 0\r\n\r\n"),
    status: 302,
};

struct Row<'a> {
    method: &'a str,
    octets: usize,
    told_length: bool,
    over_http2: bool,
}

/// Sends it; the status and the head's `Set-Cookie` lines.
fn send(tidegate: &Tidegate, user: &mut Browser, row: &Row, body: &str) -> Response {
    if !row.over_http2 {
        let mut call = match row.method {
            "POST" => Call::post("/page", body),
            method => Call::new(method, "/page").with_body(body),
        };
        if !row.told_length {
            call = call.chunked(1_000);
        }
        return user.send_or_panic(call);
    }
    let (cookies, length) = (cookies(user), body.len().to_string());
    let mut fields = vec![("cookie", cookies.as_str())];
    if row.told_length && !body.is_empty() {
        fields.push(("content-length", &length));
    }
    let (first, rest) = body.split_at(body.len() / 2);
    let frames: &[&str] = if body.is_empty() { &[] } else { &[first, rest] };
    let url = format!("http://{HOST}/page");
    let first = Stream { method: row.method, url: &url, fields: &fields, frames };
    let after = Stream { method: "GET", url: &format!("http://{HOST}/status?code=204"), fields: &[], frames: &[] };
    let mut answers = http2::plain(tidegate.port(), &[first, after]);
    assert_eq!(answers.remove(1).0, 204, "the connection is good for another stream");
    let (status, fields, text) = answers.remove(0);
    let fields: Vec<(String, String)> =
        fields.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect();
    for (_, line) in fields.iter().filter(|(name, _)| name == "set-cookie") {
        user.jar().store(HOST, "/page", false, line);
    }
    Response { status, head: Head { fields, ..Head::default() }, body: text.into_bytes() }
}

fn check(stage: &mut Stage, a1: &Origin, b1: &Origin, cause: Cause, row: &Row) {
    let what = format!("{} {} {}, {} octets, HTTP/2 {}", cause.name, cause.status, row.method, row.octets, row.over_http2);
    let mut user = stage.forgotten(a1);
    let dead = user.cookie("JSESSIONID").unwrap();
    a1.clear_requests();
    b1.clear_requests();
    let before = (stage.replays(cause.name), stage.born("a1"), stage.born("b1"));
    let body = "0123456789abcdef".repeat(row.octets.div_ceil(16))[..row.octets].to_owned();
    let answer = send(&stage.tidegate, &mut user, row, &body);

    let is_safe = matches!(row.method, "GET" | "HEAD" | "OPTIONS");
    let replayed = row.octets <= BUFFER && (is_safe || cause.answer.is_some());
    let (sent, cookies) = (answer.set_cookies("JSESSIONID"), answer.set_cookies("tidegate_shop"));
    let arrived = |origin: &Origin| origin.requests_to("/page");
    assert_eq!(arrived(a1).len(), 1, "{what}: to a1");
    expect_arrival(&arrived(a1)[0], row, &body, &what);
    let counted = (stage.replays(cause.name) - before.0, stage.born("a1") - before.1, stage.born("b1") - before.2);
    if replayed {
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(arrived(b1).len(), 1, "{what}: to b1");
        expect_arrival(&arrived(b1)[0], row, &body, &what);
        assert_eq!(arrived(b1)[0].head.field("cookie"), None, "{what}: neither the dead id nor the pin arrives");
        assert!(sent.len() == 1 && sent[0].contains(".b1;"), "{what}: one new session: {sent:?}");
        assert_eq!(cookies.len(), 1, "{what}: one pin: {cookies:?}");
        assert_eq!(counted, (1.0, 0.0, 1.0), "{what}: replays, born on a1, born on b1");
    } else {
        assert_eq!(answer.status, cause.status, "{what}: unchanged");
        assert!(arrived(b1).is_empty(), "{what}: to b1");
        let opens = cause.answer.is_none();
        assert_eq!((sent.len(), cookies.len()), (usize::from(opens), usize::from(opens)), "{what}: {sent:?} {cookies:?}");
        assert_eq!(counted, (0.0, f64::from(u8::from(opens)), 0.0), "{what}: replays, born on a1, born on b1");
    }
    if replayed && row.method != "HEAD" {
        // On the same connection, over HTTP/1.1; and the new session is at home.
        let next = user.get("/peek");
        assert_eq!((next.word("backend"), next.word("session")), ("b1".to_owned(), "known".to_owned()), "{what}: next");
        assert_ne!(user.cookie("JSESSIONID").unwrap(), dead, "{what}");
    }
}

fn expect_arrival(request: &Recorded, row: &Row, body: &str, what: &str) {
    assert_eq!(request.head.word(0), row.method, "{what}");
    assert!(request.body == body.as_bytes(), "{what}: {} octets arrived", request.body.len());
}

fn play(cause: Cause, over_http2: bool) {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let behind = |release: &str, origin: &Origin| {
        let behind = Shop::new("learn").release(release, &[origin]).start();
        let line = format!("{}: {{address: \"127.0.0.1:{}\", protocol: http2}}", origin.name(), behind.port());
        (behind, line)
    };
    let shop = Shop::new("cookie").app(cause.configured);
    let mut running = Vec::new();
    let shop = if over_http2 {
        let shop = shop.health("host: shop.test");
        [("v1", &a1), ("v2", &b1)].into_iter().fold(shop, |shop, (release, origin)| {
            let (tidegate, line) = behind(release, origin);
            running.push(tidegate);
            shop.release_of(release, vec![line])
        })
    } else {
        shop.release("v1", &[&a1]).release("v2", &[&b1])
    };
    let mut stage = Stage::new(&shop, 2 * REQUESTS.len() + 1);
    let mut living = stage.living();
    if let Some(answer) = cause.answer {
        a1.answer("/page", answer);
    }
    let mut rows = 0;
    for over_http2 in [false, true] {
        for &(method, octets, told_length) in REQUESTS {
            check(&mut stage, &a1, &b1, cause, &Row { method, octets, told_length, over_http2 });
            // Whoever lives stays, whatever the answer.
            assert_eq!(living.get("/page").status, cause.status, "{method}: a live session's answer is its own");
            assert_eq!(living.get("/peek").word("backend"), "a1");
            rows += 1;
        }
    }
    assert_eq!(rows, 28);
}

#[test]
fn a_new_session_on_a_draining_http1_backend_is_discarded() {
    play(NEW_SESSION, false);
}

#[test]
fn a_new_session_on_a_draining_http2_backend_is_discarded() {
    play(NEW_SESSION, true);
}

#[test]
fn a_draining_http1_backend_that_answers_421_sends_the_request_on() {
    play(STATUS, false);
}

#[test]
fn a_draining_http2_backend_that_answers_421_sends_the_request_on() {
    play(STATUS, true);
}

#[test]
fn a_draining_backend_disowns_a_session_by_a_header() {
    play(HEADER, false);
}

#[test]
fn a_draining_backend_disowns_a_session_by_a_redirect() {
    play(LOCATION, false);
}
