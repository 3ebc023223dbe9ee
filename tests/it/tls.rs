//! A TLS listener: the certificate that fits the name asked for, HTTP/1.1 and HTTP/2, and what changes because it is TLS.

use std::io::{Read, Write};
use std::net::TcpStream;

use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};

use crate::client::Call;
use crate::http2::{self, Stream};
use crate::origin::Origin;
use crate::process::{Scratch, wait_for_some};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};
use crate::websocket::Frame;

/// Certificates for `shop.test` and `*.other.test`, and a tidegate that shows them.
fn start(origin: &Origin, folder: &Scratch, pin: &str) -> Tidegate {
    let mut lines = Vec::new();
    for (file, name) in [("shop", "shop.test"), ("other", "*.other.test")] {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = folder.write(&format!("{file}.pem"), &made.cert.pem());
        let key = folder.write(&format!("{file}.key"), &made.signing_key.serialize_pem());
        lines.push(format!("{{certificate: \"{}\", key: \"{}\"}}", certificate.display(), key.display()));
    }
    let listener = format!("listeners: [{{address: \"127.0.0.1:@port\", tls: {{certificates: [{}]}}}}]", lines.join(", "));
    Shop::new(pin).session("pin_on: first_response").process(&listener).release("v1", &[origin]).start()
}

fn connect(tidegate: &Tidegate, name: &str, protocols: &[u8]) -> SslStream<TcpStream> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE); // self-signed: who it is for is looked at instead
    connector.set_alpn_protos(protocols).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", tidegate.port())).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let configured = connector.build().configure().unwrap().verify_hostname(false);
    configured.connect(name, stream).unwrap()
}

#[test]
fn each_name_gets_its_certificate_and_any_other_the_first() {
    let (a1, folder) = (backend("v1", "a1"), Scratch::new("certificates"));
    let tidegate = start(&a1, &folder, "cookie");
    let check = |asked: &str, expected: &str| {
        let tls = connect(&tidegate, asked, b"\x08http/1.1");
        let names = tls.ssl().peer_certificate().unwrap().subject_alt_names().unwrap();
        assert_eq!(names[0].dnsname(), Some(expected), "{asked}");
    };
    check("shop.test", "shop.test");
    check("SHOP.test", "shop.test");
    check("www.other.test", "*.other.test");
    check("other.test", "shop.test");
    check("a.b.other.test", "shop.test");
    check("nobody.test", "shop.test");
}

#[test]
fn the_backend_is_told_https_and_the_pin_is_for_https_only() {
    let (a1, folder) = (backend("v1", "a1"), Scratch::new("certificates"));
    let tidegate = start(&a1, &folder, "cookie");
    let mut tls = connect(&tidegate, "shop.test", b"\x02h2\x08http/1.1");
    assert_eq!(tls.ssl().selected_alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 where both can");
    drop(tls);
    tls = connect(&tidegate, "shop.test", b"\x08http/1.1");
    assert_eq!(tls.ssl().selected_alpn_protocol(), Some(&b"http/1.1"[..]));
    tls.write_all(b"GET /headers HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    tls.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.to_ascii_lowercase().contains("x-forwarded-proto: https\r\n"), "{text}");
    let pin = text.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie: tidegate_shop=")).expect("a pin");
    for attribute in ["; Secure", "; HttpOnly", "; Path=/"] {
        assert!(pin.contains(attribute), "{pin}");
    }
    let get = Stream { method: "GET", url: "https://shop.test/headers", fields: &[], frames: &[] };
    let post = Stream { method: "POST", url: "https://shop.test/body", fields: &[], frames: &["hello", ""] };
    let answers = http2::tls(tidegate.port(), "shop.test", &[get, post]);
    let (status, head, text) = &answers[0];
    assert_eq!(*status, 200);
    assert!(text.to_ascii_lowercase().contains("x-forwarded-proto: https\r\n"), "{text}");
    assert!(text.to_ascii_lowercase().contains("\r\nhost: shop.test\r\n"), "{text}");
    let pin = head.get("set-cookie").expect("a pin").to_str().unwrap();
    assert!(pin.starts_with("tidegate_shop=") && pin.contains("; Secure"), "{pin}");
    assert_eq!((answers[1].0, answers[1].2.as_str()), (200, "hello"));
}

fn line(behind: &Tidegate, keys: &str) -> String {
    format!("a1: {{address: \"127.0.0.1:{}\", {keys}}}", behind.port())
}

/// A tidegate whose backend is another one with a TLS listener, so that both speak what the other understands.
fn before(behind: &Tidegate, keys: &str) -> Shop {
    Shop::new("cookie").health("host: shop.test").release_of("v1", vec![line(behind, keys)])
}

#[test]
fn a_backend_behind_tls_is_probed_and_served_over_http1_and_http2() {
    for protocol in ["http1", "http2"] {
        let (origin, folder) = (backend("v1", "a1"), Scratch::new("certificates"));
        let behind = start(&origin, &folder, "learn");
        let tidegate = before(&behind, &format!("tls: {{verify: false, server_name: shop.test}}, protocol: {protocol}")).start();
        let mut user = user_on(&tidegate, "a1");
        let body = "0123456789".repeat(20_000);
        for call in [Call::post("/body", body.as_str()), Call::post("/body", body.as_str()).chunked(1_000)] {
            let answer = user.send_or_panic(call).expect_status(200);
            assert!(answer.text() == body, "{protocol}: {} bytes", answer.body.len());
        }
        assert_eq!(user.get("/").number("counter"), 3, "{protocol}");
        user.send_or_panic(Call::new("HEAD", "/peek")).expect_status(200);
        user.get("/status?code=304").expect_status(304);
        let (_, mut events) = user.open(&Call::get("/events?count=3&every=1")).unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = events.read_chunk().unwrap() {
            text.extend(chunk);
        }
        assert_eq!(String::from_utf8_lossy(&text), "data: 1\n\ndata: 2\n\ndata: 3\n\n", "{protocol}");
        let mut tunnel = user.websocket("/echo");
        tunnel.send_text("hello").unwrap();
        assert_eq!(tunnel.read_frame().unwrap(), Frame::Text("hello".to_owned()), "{protocol}");
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
        was_spoken(&behind, if protocol == "http2" { "HTTP/2.0" } else { "HTTP/1.1" });
    }
}

/// By its access log, which goes where its process log goes.
fn was_spoken(behind: &Tidegate, protocol: &str) {
    let line = wait_for_some("the line is written", SOON, || {
        let log = behind.read("tidegate.log");
        log.split_inclusive('\n').find(|line| line.contains("\"path\":\"/body\"") && line.ends_with('\n')).map(str::to_owned)
    });
    assert!(line.contains(&format!("\"protocol\":\"{protocol}\"")), "{line}");
}

#[test]
fn a_backend_whose_certificate_nobody_vouches_for_gets_no_request() {
    let (origin, folder) = (backend("v1", "a1"), Scratch::new("certificates"));
    let behind = start(&origin, &folder, "learn");
    let tidegate = before(&behind, "tls: {server_name: shop.test}").start_as_it_is();
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
    tidegate.browser().get("/").expect_status(503);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_backend_with_plain_http2_is_served() {
    let origin = backend("v1", "a1");
    let behind = Shop::new("learn").release("v1", &[&origin]).start();
    let tidegate = before(&behind, "protocol: http2").start();
    let mut user = user_on(&tidegate, "a1");
    assert_eq!(user.post("/body", "hello").expect_status(200).text(), "hello");
    assert_eq!(user.get("/").number("counter"), 3);
    was_spoken(&behind, "HTTP/2.0");
}
