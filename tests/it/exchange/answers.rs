//! Our own answers: which status, in which form, and whether the connection can be used again.

use std::io::{BufReader, Write};

use crate::client::{Call, Wire};
use crate::process::free_port;
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, next_request};
use crate::tidegate::Tidegate;

/// A request on a connection of its own, and the same connection once more if we promised to keep it.
struct Case {
    /// Request line and fields but Host and the end.
    head: &'static str,
    host: &'static str,
    body: &'static str,
    status: u16,
    is_kept: bool,
}

fn check(tidegate: &Tidegate, case: &Case) {
    let Case { head, host, body, status, is_kept } = case;
    for (accept, form) in [("*/*", "text/html; charset=utf-8"), ("application/json", "application/json")] {
        let mut wire = Wire::connect(tidegate.port()).unwrap();
        let request = format!("{head}\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n{body}");
        for round in 0..2 {
            let what = format!("{head} for {host}, {accept}, round {round}");
            wire.send(request.as_bytes()).unwrap();
            let method = head.split(' ').next().unwrap();
            let answer = wire.read_response(method).unwrap().unwrap_or_else(|| panic!("{what}: no answer"));
            let answer = answer.expect_status(*status);
            assert_eq!(answer.head.field("content-type"), Some(form), "{what}");
            assert_eq!(answer.head.field("cache-control"), Some("no-store"), "{what}");
            assert_eq!(answer.head.field("retry-after").is_some(), *status == 503, "{what}");
            let length: usize = answer.head.field("content-length").expect("a length").parse().unwrap();
            assert_eq!(answer.body.len(), if method == "HEAD" { 0 } else { length }, "{what}");
            if method != "HEAD" && accept != "*/*" {
                let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(json["status"], *status, "{what}");
            } else if method != "HEAD" {
                assert!(answer.text().starts_with("<!doctype html>"), "{what}: {}", answer.text());
            }
            assert_eq!(!answer.head.says("connection", "close"), *is_kept, "{what}: {}", answer.head.raw);
            if !is_kept {
                assert_eq!(wire.read_to_end().unwrap(), b"", "{what}");
                break;
            }
        }
    }
}

#[test]
fn what_cannot_be_served_is_answered_in_the_clients_form() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").app("limits: {max_body: 1KiB}").release("v1", &[&a1]).start();
    let long = Box::leak("x".repeat(2000).into_boxed_str());
    let chunked = Box::leak(format!("7d0\r\n{long}\r\n0\r\n\r\n").into_boxed_str());
    let cases = [
        Case { head: "GET / HTTP/1.1", host: "nobody.test", body: "", status: 404, is_kept: true },
        Case { head: "HEAD / HTTP/1.1", host: "nobody.test", body: "", status: 404, is_kept: true },
        Case { head: "POST / HTTP/1.1\r\nContent-Length: 5", host: "nobody.test", body: "hello", status: 404, is_kept: true },
        Case { head: "POST /body HTTP/1.1\r\nContent-Length: 2000", host: "shop.test", body: long, status: 413, is_kept: true },
        Case { head: "POST /body HTTP/1.1\r\nTransfer-Encoding: chunked", host: "shop.test", body: chunked, status: 413, is_kept: false },
    ];
    for case in &cases {
        check(&tidegate, case);
    }
    assert!(a1.requests().is_empty(), "a refused request arrived");
    let fits = Call::post("/body", "x".repeat(1024)).chunked(100);
    assert_eq!(tidegate.browser().send_or_panic(fits).expect_status(200).body.len(), 1024);
}

#[test]
fn without_a_backend_the_answer_is_503_and_says_when_to_try_again() {
    let tidegate = Shop::new("cookie").release_of("v1", vec![format!("a1: \"127.0.0.1:{}\"", free_port())]).start_as_it_is();
    for head in ["GET / HTTP/1.1", "HEAD / HTTP/1.1", "POST / HTTP/1.1\r\nContent-Length: 0"] {
        check(&tidegate, &Case { head, host: "shop.test", body: "", status: 503, is_kept: true });
    }
}

#[test]
fn nonsense_silence_and_absence_are_told_apart() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        if let Some(head) = next_request(&mut input, stream)? {
            match head.word(1) {
                "/garbage" => out.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")?,
                "/half" => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?,
                "/closed" => {}
                // Silent until the proxy has had enough.
                _ => drop(crate::http::Head::read(&mut input)?),
            }
        }
        Ok(())
    });
    let tidegate = Shop::new("cookie").app("timeouts: {read: 300ms}").release_of("v1", vec![speaker.line("a1")]).start();
    for (path, status) in [("/garbage", 502), ("/half", 502), ("/closed", 502), ("/silent", 504)] {
        for method in ["GET", "POST"] {
            let length = if method == "POST" { "\r\nContent-Length: 0" } else { "" };
            let head = Box::leak(format!("{method} {path} HTTP/1.1{length}").into_boxed_str());
            check(&tidegate, &Case { head, host: "shop.test", body: "", status, is_kept: false });
        }
    }
    assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "up", "its probes pass");
}

#[test]
fn an_answer_that_breaks_off_is_not_passed_as_whole() {
    let speaker = Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        if let Some(head) = next_request(&mut input, stream)? {
            match head.word(1) {
                "/length" => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?,
                _ => out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")?,
            }
        }
        Ok(())
    });
    let tidegate = Shop::new("cookie").release_of("v1", vec![speaker.line("a1")]).start();
    for path in ["/length", "/chunked"] {
        let answer = tidegate.browser().send(Call::get(path));
        assert!(answer.is_err(), "{path}: {answer:?}");
    }
}

#[test]
fn a_head_request_gets_the_fields_and_keeps_the_connection() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mut wire = Wire::connect(tidegate.port()).unwrap();
    for _ in 0..2 {
        wire.send(b"HEAD /body HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /peek HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        let head = wire.read_response("HEAD").unwrap().unwrap().expect_status(200);
        assert_eq!(head.head.field("content-length"), Some("0"));
        assert_eq!(wire.read_response("GET").unwrap().unwrap().expect_status(200).word("backend"), "a1");
    }
}

#[test]
fn an_old_client_gets_an_answer_it_can_read() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mut wire = Wire::connect(tidegate.port()).unwrap();
    wire.send(b"GET /events?count=3&every=1 HTTP/1.0\r\nHost: shop.test\r\n\r\n").unwrap();
    let text = String::from_utf8(wire.read_to_end().unwrap()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
}
