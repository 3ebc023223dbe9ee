//! Every kind of answer, from real sockets.

use std::sync::LazyLock;
use std::time::Instant;

use tokio::net::TcpListener;

use super::*;
use crate::model::settings::{BackendTls, StatusSet};
use crate::serve::probe::stub::{Manner, Stub, refused, spec};

const TIMEOUT: Duration = Duration::from_millis(600);

fn settings() -> HealthSettings {
    HealthSettings { timeout: TIMEOUT, drain: StatusSet(vec![(404, 404)]), ..HealthSettings::default() }
}

fn probe(address: SocketAddr, settings: HealthSettings) -> BackendProbe {
    probe_of(spec(address), settings)
}

fn probe_of(spec: BackendSpec, settings: HealthSettings) -> BackendProbe {
    // Reading the system's certificates takes longer than a probe.
    static CONNECTORS: LazyLock<Arc<Connectors>> = LazyLock::new(Arc::default);
    BackendProbe::new(Arc::clone(&CONNECTORS), Arc::new(spec), settings)
}

async fn check(manner: Manner, expected: ProbeAnswer, words: &str) {
    let backend = Stub::start(manner.clone()).await;
    let probe = probe(backend.address, settings());
    let begun = Instant::now();
    let result = probe.probe(backend.address).await;
    assert_eq!(answer_of(&result), expected, "{manner:?}: {result:?}");
    assert_eq!(describe(&result, TIMEOUT), words, "{manner:?}");
    assert!(begun.elapsed() < TIMEOUT + Duration::from_millis(300), "{manner:?} took {:?}", begun.elapsed());
}

fn answers(bytes: &str) -> Manner {
    Manner::Answers(bytes.to_owned())
}

#[tokio::test]
async fn a_status_is_ready_drain_or_neither() {
    check(Manner::status(200), ProbeAnswer::Ready, "probe passed").await;
    check(Manner::status(204), ProbeAnswer::Ready, "probe passed").await;
    // Not followed: a login page elsewhere says nothing of this backend, the redirect itself does.
    check(answers("HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), ProbeAnswer::Ready, "probe passed").await;
    check(Manner::status(404), ProbeAnswer::Drain, "status 404 asks for a soft stop").await;
    check(Manner::status(503), ProbeAnswer::Other, "status 503").await;
    check(Manner::status(400), ProbeAnswer::Other, "status 400").await;
    check(answers("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), ProbeAnswer::Ready, "probe passed").await;
    check(answers("HTTP/1.1 200 OK\r\n\r\nuntil the end"), ProbeAnswer::Ready, "probe passed").await;
}

#[tokio::test]
async fn a_slow_answer_ends_at_the_timeout_in_total() {
    check(Manner::Silent, ProbeAnswer::Silent, "no answer within 600ms").await;
    check(Manner::Drips("HTTP/1.1 200 OK\r\nX-Slow: ".to_owned()), ProbeAnswer::Silent, "no answer within 600ms").await;
    check(Manner::Drips("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n".to_owned()), ProbeAnswer::Silent, "no answer within 600ms").await;
    // The status has said enough.
    check(Manner::Drips("HTTP/1.1 503 X\r\nContent-Length: 9000\r\n\r\n".to_owned()), ProbeAnswer::Other, "status 503").await;
}

#[tokio::test]
async fn a_broken_answer_is_no_answer() {
    check(Manner::Closes, ProbeAnswer::Other, "connection closed before the answer was complete").await;
    check(answers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), ProbeAnswer::Other, "connection closed before the answer was complete")
        .await;
    check(answers("SSH-2.0-OpenSSH_9.2\r\n\r\n"), ProbeAnswer::Other, "the answer is not HTTP").await;
    check(answers("\0\0\0\0"), ProbeAnswer::Other, "the answer is not HTTP").await;
}

#[tokio::test]
async fn a_large_page_is_not_read_to_its_end() {
    let page = format!("HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n{}", "x".repeat(200_000));
    check(Manner::Drips(page), ProbeAnswer::Ready, "probe passed").await;
}

#[tokio::test]
async fn nobody_listening_is_refused_and_a_full_backlog_is_a_connect_timeout() {
    let address = refused();
    let result = probe(address, settings()).probe(address).await;
    assert_eq!((answer_of(&result), describe(&result, TIMEOUT).as_str()), (ProbeAnswer::Refused, "connect refused"));

    // A backlog of one that nobody empties: the kernel drops what comes after.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let listener = socket.listen(1).expect("listens");
    let full = listener.local_addr().expect("bound");
    let mut held = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(full)).await {
        held.push(stream.expect("a place in the backlog"));
    }
    let result = probe(full, settings()).probe(full).await;
    assert_eq!(answer_of(&result), ProbeAnswer::ConnectTimeout);
    assert_eq!(describe(&result, TIMEOUT), "no connection within 600ms");
    drop((held, listener));
}

#[tokio::test]
async fn the_request_is_what_the_settings_say() {
    let backend = Stub::start(Manner::status(200)).await;
    let other = Stub::start(Manner::status(200)).await;
    let asked = HealthSettings {
        method: "OPTIONS".to_owned(),
        path: "/shop/health?deep=1".to_owned(),
        host: Some("shop.example.com".to_owned()),
        port: Some(other.address.port()),
        ..settings()
    };
    assert!(probe(backend.address, asked).probe(backend.address).await.is_ok());
    assert!(backend.requests().is_empty(), "the second port was probed");
    let head = other.requests().remove(0);
    assert!(head.starts_with("OPTIONS /shop/health?deep=1 HTTP/1.1\r\n"), "{head}");
    for line in ["host: shop.example.com", "user-agent: tidegate-probe/", "connection: close"] {
        assert!(head.to_lowercase().contains(line), "{line} in {head}");
    }

    assert!(probe(backend.address, settings()).probe(backend.address).await.is_ok());
    let head = backend.requests().remove(0).to_lowercase();
    assert!(head.starts_with("get / http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", backend.address)), "{head}");
    assert!(!head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn methods_with_and_without_a_body_end_their_request() {
    let backend = Stub::start(answers("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")).await;
    let head = HealthSettings { method: "HEAD".to_owned(), ..settings() };
    let result = probe(backend.address, head).probe(backend.address).await;
    assert_eq!(answer_of(&result), ProbeAnswer::Ready, "a length without a body is right for HEAD: {result:?}");
    backend.behave(Manner::status(200));
    let post = HealthSettings { method: "POST".to_owned(), ..settings() };
    assert!(probe(backend.address, post).probe(backend.address).await.is_ok());
    let head = backend.requests().remove(1).to_lowercase();
    assert!(head.contains("content-length: 0\r\n") && !head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn probes_keep_the_cookie_they_were_given() {
    let backend = Stub::start(answers("HTTP/1.1 200 OK\r\nSet-Cookie: JSESSIONID=s1; Path=/\r\nContent-Length: 0\r\n\r\n")).await;
    let probe = probe(backend.address, settings());
    for _ in 0..2 {
        assert!(probe.probe(backend.address).await.is_ok());
    }
    let [first, second] = backend.requests().try_into().expect("two probes, two connections");
    assert!(!first.to_lowercase().contains("cookie:"), "{first}");
    assert!(second.to_lowercase().contains("cookie: jsessionid=s1\r\n"), "{second}");
}

#[tokio::test]
async fn the_instance_of_the_last_answer_is_remembered() {
    let life = |n: u32| answers(&format!("HTTP/1.1 200 OK\r\nX-Started: {n}\r\nContent-Length: 0\r\n\r\n"));
    let backend = Stub::start(life(1)).await;
    let probe = probe(backend.address, HealthSettings { instance_header: Some("x-started".to_owned()), ..settings() });
    assert_eq!(probe.instance(), None);
    for (manner, expected) in [(life(1), Some("1")), (life(2), Some("2")), (Manner::status(200), None)] {
        backend.behave(manner);
        assert!(probe.probe(backend.address).await.is_ok());
        assert_eq!(probe.instance().as_deref(), expected.map(str::as_bytes));
    }
}

#[tokio::test]
async fn tcp_asks_for_a_connection_and_no_more() {
    let tcp = || HealthSettings { tcp: true, ..settings() };
    let backend = Stub::start(Manner::Silent).await;
    assert!(probe(backend.address, tcp()).probe(backend.address).await.is_ok());
    assert!(backend.requests().is_empty());
    let address = refused();
    assert_eq!(answer_of(&probe(address, tcp()).probe(address).await), ProbeAnswer::Refused);
}

#[tokio::test]
async fn pingora_can_run_the_check_too() {
    let backend = Stub::start(Manner::status(200)).await;
    let probe: Box<dyn HealthCheck + Send + Sync> = Box::new(probe(backend.address, settings()));
    let target = Target::new(&backend.address.to_string()).expect("an address");
    assert!(probe.check(&target).await.is_ok());
    backend.behave(Manner::status(404));
    assert_eq!(answer_of(&probe.check(&target).await), ProbeAnswer::Drain);
    assert_eq!((probe.health_threshold(true), probe.health_threshold(false)), (2, 2));
}

/// A listener with a certificate for `shop.test`, on a thread of its own; each connection gets `alpn` and the answer.
fn tls_backend(rounds: usize) -> SocketAddr {
    use std::io::{Read, Write};
    let made = rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).expect("a certificate");
    let mut acceptor = openssl::ssl::SslAcceptor::mozilla_intermediate_v5(openssl::ssl::SslMethod::tls()).expect("TLS");
    let certificate = openssl::x509::X509::from_der(made.cert.der()).expect("DER");
    let key = openssl::pkey::PKey::private_key_from_der(&made.signing_key.serialize_der()).expect("DER");
    acceptor.set_certificate(&certificate).expect("a certificate");
    acceptor.set_private_key(&key).expect("its key");
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().take(rounds) {
            let Ok(mut stream) = acceptor.accept(stream.expect("a connection")) else { continue };
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|n| n > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("an open connection");
            }
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_is_checked_unless_told_otherwise() {
    let address = tls_backend(2);
    let tls = |verify| BackendSpec { tls: Some(BackendTls { server_name: Some("shop.test".to_owned()), verify }), ..spec(address) };
    let result = probe_of(tls(false), settings()).probe(address).await;
    assert_eq!(answer_of(&result), ProbeAnswer::Ready, "{result:?}");
    let result = probe_of(tls(true), settings()).probe(address).await;
    assert_eq!(answer_of(&result), ProbeAnswer::Other, "{result:?}");
    assert!(describe(&result, TIMEOUT).starts_with("TLS handshake failed"), "{}", describe(&result, TIMEOUT));
}

#[tokio::test]
async fn a_tls_backend_that_accepts_and_is_silent_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let tls = BackendSpec { tls: Some(BackendTls { server_name: None, verify: false }), ..spec(address) };
    assert_eq!(answer_of(&probe_of(tls, settings()).probe(address).await), ProbeAnswer::Silent);
    drop(listener);
}

#[tokio::test]
async fn a_backend_with_http2_is_asked_in_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        let mut asked = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.expect("each probe connects anew");
            let mut connection = h2::server::handshake(stream).await.expect("a preface");
            let (request, mut respond) = connection.accept().await.expect("a request").expect("a sound one");
            asked.push((request.uri().to_string(), request.headers().contains_key("connection")));
            let answer = http::Response::builder().status(200).body(()).expect("an answer");
            respond.send_response(answer, true).expect("an open stream");
            // Until the prober closes the connection.
            assert!(connection.accept().await.is_none());
        }
        asked
    });
    let h2 = BackendSpec { protocol: Protocol::Http2, ..spec(address) };
    let probe = probe_of(h2, settings());
    for _ in 0..2 {
        let result = probe.probe(address).await;
        assert_eq!(answer_of(&result), ProbeAnswer::Ready, "{result:?}");
    }
    for (uri, connection) in server.await.expect("the server does not panic") {
        assert!(uri.ends_with(&format!("://{address}/")) && !connection, "{uri}");
    }
}
