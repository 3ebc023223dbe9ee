//! Receivers of every kind, on real sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, LazyLock, Mutex};

use pingora_core::connectors::http::Connector as HttpConnector;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};

use super::*;
use crate::model::settings::Address;
use crate::serve::clock::Clock;

const KEY: &[u8] = &[b'k'; 32];
/// Reading the system's certificates takes longer than a report.
static CONNECTORS: LazyLock<Connectors> = LazyLock::new(Connectors::default);
const BODY: &str = r#"{"id":"d7"}"#;

/// A file with that text.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(test: &str, text: &[u8]) -> KeyFile {
        let path = std::env::temp_dir().join(format!("tidegate-report-{test}-{}.key", std::process::id()));
        std::fs::write(&path, text).expect("it can be written");
        KeyFile(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it can be removed");
    }
}

#[test]
fn the_signature_is_that_of_the_manual() {
    // echo -n '1795168800.{"id":"d7"}' | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk
    let expected = "08e0bc60af8246e4add0abfab5b4690888e66f0a917e6fc8c48b274bed92235e";
    assert_eq!(signature(KEY, 1_795_168_800, BODY.as_bytes()), expected);
}

/// What a receiver does with one connection.
#[derive(Clone, Copy)]
enum Manner {
    Says(u16),
    Hangs,
    Closes,
}

/// A receiver that behaves so, connection after connection, the last way for ever; and the requests it read.
fn receiver(manners: &'static [Manner]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut hanging = Vec::new();
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let request = read_request(&mut stream);
            requests.lock().unwrap().push(request);
            match manners.get(n).or(manners.last()).expect("a manner") {
                // A sender that gave up is no fault of the receiver.
                Manner::Says(status) => drop(write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")),
                Manner::Hangs => hanging.push(stream),
                Manner::Closes => {}
            }
        }
    });
    (address, seen)
}

/// Head and body.
fn read_request(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(BODY.as_bytes()) && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("ASCII")
}

fn report(url: &str, tls: bool, address: SocketAddr, file: &KeyFile) -> Report {
    let address = Address { host: if tls { "localhost".to_owned() } else { address.ip().to_string() }, port: address.port() };
    let url = WebhookUrl { url: url.to_owned(), tls, address, target: "/hook?a=b".to_owned() };
    Report { url, key_file: file.0.clone(), body: Bytes::from_static(BODY.as_bytes()), about: "drain d7: drained".to_owned() }
}

fn times() -> Times {
    let ms = Duration::from_millis;
    Times { attempt: ms(300), first_pause: ms(20), longest_pause: ms(50), give_up: ms(1500) }
}

async fn deliver(address: SocketAddr) -> [u64; ReportResult::ALL.len()] {
    let control = Control::new(Clock::start());
    let file = KeyFile::new(&address.port().to_string(), KEY);
    report("http://receiver/hook", false, address, &file).deliver(&CONNECTORS, &control, times()).await;
    control.reports.so_far().map(|(_, count)| count)
}

#[tokio::test]
async fn a_report_is_tried_again_until_it_is_taken() {
    let (address, seen) = receiver(&[Manner::Says(500), Manner::Closes, Manner::Hangs, Manner::Says(302), Manner::Says(204)]);
    let [delivered, failed, given_up, dropped] = deliver(address).await;
    assert_eq!((delivered, failed, given_up, dropped), (1, 4, 0, 0));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5, "{seen:?}");
    for request in seen.iter() {
        assert!(request.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{request}");
        let field = |name: &str| {
            let line = request.lines().find_map(|line| line.to_lowercase().starts_with(name).then(|| line.split_once(": ")));
            line.flatten().unwrap_or_else(|| panic!("no {name} in {request}")).1.to_owned()
        };
        assert_eq!((field("host").as_str(), field("content-length").as_str()), (address.to_string().as_str(), "11"));
        let signed = field("x-tidegate-signature");
        let (time, mac) = signed.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature");
        assert_eq!(mac, signature(KEY, time.parse().expect("seconds"), BODY.as_bytes()));
    }
}

#[tokio::test]
async fn a_key_that_is_being_written_signs_nothing_and_is_read_again() {
    let (address, seen) = receiver(&[Manner::Says(204)]);
    let file = KeyFile::new("rewritten", b"ffff");
    let report = report("http://receiver/hook", false, address, &file);
    let control = Control::new(Clock::start());
    let delivering = report.deliver(&CONNECTORS, &control, Times { give_up: Duration::from_secs(30), ..times() });
    let writing = async {
        while control.reports.so_far().iter().all(|(_, count)| *count == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(seen.lock().unwrap().is_empty(), "nothing was sent with half a key");
        std::fs::write(&file.0, KEY).expect("it can be written");
    };
    tokio::join!(delivering, writing);
    let [delivered, failed, given_up, dropped] = control.reports.so_far().map(|(_, count)| count);
    assert!((delivered, given_up, dropped) == (1, 0, 0) && failed > 0, "{failed}");
    let seen = seen.lock().unwrap();
    let signed = seen.iter().flat_map(|request| request.lines()).find_map(|line| line.strip_prefix("X-Tidegate-Signature: t="));
    let (time, mac) = signed.and_then(|rest| rest.split_once(",v1=")).expect("a signature");
    assert_eq!(mac, signature(KEY, time.parse().expect("seconds"), BODY.as_bytes()));
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_given_up() {
    let (address, seen) = receiver(&[Manner::Hangs]);
    LazyLock::force(&CONNECTORS);
    let begun = Instant::now();
    let [delivered, failed, given_up, _] = deliver(address).await;
    assert_eq!((delivered, given_up), (0, 1));
    // On a busy machine an attempt may be over before the receiver has heard of it.
    let heard = seen.lock().unwrap().len() as u64;
    assert!((1..=6).contains(&failed) && (1..=failed + 1).contains(&heard), "{failed} {heard}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let [delivered, failed, given_up, _] = deliver(nobody).await;
    assert!(delivered == 0 && failed > 5 && given_up == 1, "{failed}");
}

#[tokio::test]
async fn https_is_only_for_receivers_whose_certificate_is_good() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = std::env::temp_dir().join(format!("tidegate-webhook-{}.pem", std::process::id()));
    std::fs::write(&file, made.cert.pem()).expect("it can be written");
    let mut acceptor = openssl::ssl::SslAcceptor::mozilla_intermediate_v5(openssl::ssl::SslMethod::tls()).expect("TLS");
    acceptor.set_certificate(&openssl::x509::X509::from_der(made.cert.der()).expect("DER")).expect("a certificate");
    let key = openssl::pkey::PKey::private_key_from_der(&made.signing_key.serialize_der()).expect("DER");
    acceptor.set_private_key(&key).expect("its key");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = acceptor.accept(stream.expect("a connection")) else { continue };
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("an open connection");
        }
    });
    let key_file = KeyFile::new("tls", KEY);
    let report = report("https://localhost/hook", true, address, &key_file);
    let limit = Duration::from_secs(5);
    let why = report.attempt(&CONNECTORS, 1, limit).await.expect_err("nobody knows the certificate");
    assert!(why.starts_with("TLS handshake failed"), "{why}");
    let mut options = ConnectorOptions::new(1);
    options.ca_file = file.to_str().map(str::to_owned);
    let knowing = Connectors { http: HttpConnector::new(Some(options)), transport: TransportConnector::new(None) };
    assert_eq!(report.attempt(&knowing, 1, limit).await, Ok(()));
    std::fs::remove_file(&file).expect("it can be removed");
}
