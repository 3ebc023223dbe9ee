//! TLS: which certificate is shown to whom, what is negotiated, and who is sent away.

use std::path::PathBuf;
use std::pin::Pin;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use pingora_core::protocols::tls::SslStream;

use super::*;

/// A directory of certificates that goes with the test.
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn new() -> Files {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tidegate-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Files(path)
    }

    fn pair(&self, name: &str, one_file: bool) -> (PathBuf, Option<PathBuf>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let file = name.replace('*', "any");
        let certificate = self.0.join(format!("{file}.pem"));
        let key = self.0.join(format!("{file}.key"));
        let (cert_pem, key_pem) = (made.cert.pem(), made.signing_key.serialize_pem());
        if one_file {
            std::fs::write(&certificate, cert_pem + &key_pem).unwrap();
            return (certificate, None);
        }
        std::fs::write(&certificate, cert_pem).unwrap();
        std::fs::write(&key, key_pem).unwrap();
        (certificate, Some(key))
    }

    pub(super) fn spec(&self, names: &[&str]) -> TlsSpec {
        let certificates = names.iter().enumerate();
        TlsSpec { certificates: certificates.map(|(index, name)| self.pair(name, index % 2 == 1)).collect() }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

type Tls = SslStream<TcpStream>;

pub(super) async fn connect(
    stage: &Stage,
    name: Option<&str>,
    protocols: &[u8],
    at_most: Option<SslVersion>,
) -> Result<Tls, openssl::ssl::Error> {
    let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
    context.set_verify(SslVerifyMode::NONE);
    context.set_max_proto_version(at_most).unwrap();
    context.set_security_level(0);
    if !protocols.is_empty() {
        context.set_alpn_protos(protocols).unwrap();
    }
    let mut ssl = Ssl::new(&context.build()).unwrap();
    if let Some(name) = name {
        ssl.set_hostname(name).unwrap();
    }
    let mut tls = SslStream::new(ssl, stage.connect().await).unwrap();
    Pin::new(&mut tls).connect().await?;
    Ok(tls)
}

fn shown(tls: &Tls) -> String {
    let certificate = tls.ssl().peer_certificate().unwrap();
    let names = certificate.subject_alt_names().unwrap();
    names[0].dnsname().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_name_chooses_the_certificate() {
    let files = Files::new();
    let spec = files.spec(&["shop.example.com", "wiki.example.com", "*.example.net"]);
    let stage = Stage::with(TransportOptions::default(), Some(spec)).await;
    for (name, expected) in [
        (Some("shop.example.com"), "shop.example.com"),
        (Some("WIKI.example.com"), "wiki.example.com"),
        (Some("any.example.net"), "*.example.net"),
        (Some("a.b.example.net"), "shop.example.com"),
        (Some("elsewhere.org"), "shop.example.com"),
        (None, "shop.example.com"),
    ] {
        for at_most in [Some(SslVersion::TLS1_2), None] {
            let mut tls = connect(&stage, name, b"\x08http/1.1", at_most).await.unwrap();
            assert_eq!(shown(&tls), expected, "{name:?}");
            for _ in 0..3 {
                assert_eq!(get(&mut tls, "/").await.status(), "200");
            }
            assert_eq!(get(&mut tls, "/big").await.body.len(), 1 << 20);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_shown_from_the_next_handshake_on() {
    let files = Files::new();
    let spec = files.spec(&["old.example.com"]);
    let stage = Stage::with(TransportOptions::default(), Some(spec)).await;
    let mut before = connect(&stage, None, b"", None).await.unwrap();
    let prepared = stage.handle.prepare_certificates(&files.spec(&["new.example.com"])).unwrap().unwrap();
    assert!(prepared.differ());
    prepared.show();
    let facts = stage.handle.certificates();
    assert_eq!(facts[0].names, ["new.example.com"]);
    assert!(facts[0].not_after > 1_800_000_000, "{facts:?}");
    let after = connect(&stage, None, b"", None).await.unwrap();
    assert_eq!(shown(&after), "new.example.com");
    assert_eq!(get(&mut before, "/").await.status(), "200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_protocols_and_silent_clients_are_sent_away() {
    let files = Files::new();
    let options = TransportOptions { handshake_timeout: Duration::from_millis(200), ..TransportOptions::default() };
    let stage = Stage::with(options, Some(files.spec(&["shop.example.com"]))).await;
    let old = connect(&stage, None, b"", Some(SslVersion::TLS1_1)).await;
    assert!(old.is_err());
    let mut silent = stage.connect().await;
    assert_eq!(read_to_end(&mut silent).await, "");
    until("nobody is left", || stage.stop.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelining_works_through_tls() {
    let files = Files::new();
    let spec = files.spec(&["shop.example.com"]);
    let stage = Stage::with(TransportOptions::default(), Some(spec)).await;
    let mut tls = connect(&stage, None, b"", None).await.unwrap();
    let both = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    tls.write_all(both).await.unwrap();
    assert!(read_answer(&mut tls).await.body.starts_with("GET /1 "));
    assert!(read_answer(&mut tls).await.body.starts_with("GET /2 "));
    assert_eq!(get(&mut tls, "/3").await.status(), "200");
}

#[test]
fn a_foreign_key_is_a_problem_that_names_both_files() {
    let files = Files::new();
    let mut spec = files.spec(&["a.example.com"]);
    spec.certificates[0].1 = files.pair("b.example.com", false).1;
    let address = "127.0.0.1:0".parse().unwrap();
    let tls = Some(spec);
    let error = BoundListener::bind(&ListenerSpec { address, tls }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("b.example.com.key") && text.contains("a.example.com.pem"), "{text}");
}
