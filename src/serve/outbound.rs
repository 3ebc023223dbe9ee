//! Requests of our own: probes, counts and reports. What they have in common is how they connect and that they end.
//!
//! Pingora's timeouts begin anew with every byte that drips in, so each request needs [`within`] around it. No connection is
//! kept: a pooled one would prove nothing about whether the other side still accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector as HttpConnector;
use pingora_core::protocols::http::client::HttpSession as HttpExchange;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::tls::ALPN;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme, Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};

use crate::model::settings::{BackendSpec, Protocol};

/// Interim answers before the real one; whoever sends more talks nonsense.
const INTERIM_ANSWERS: u8 = 10;

/// What such requests connect with. One for all: each holds a TLS context with the system's certificates.
pub struct Connectors {
    /// HTTP/1 and HTTP/2.
    pub http: HttpConnector,
    /// Bare connections.
    pub transport: TransportConnector,
}

impl Default for Connectors {
    fn default() -> Self {
        Connectors { http: HttpConnector::new(None), transport: TransportConnector::new(None) }
    }
}

/// Whether a connection was made, TLS aside: what tells a silent server from an absent one.
#[derive(Clone, Debug, Default)]
pub struct Connected(Arc<AtomicBool>);

impl Connected {
    fn yes(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Tracing for Connected {
    fn on_connected(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn on_disconnected(&self) {}

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

/// TLS of a request: the name to ask for and to find in the certificate, and whether the certificate is checked.
pub type Tls = (String, bool);

/// TLS towards a backend, as its spec has it.
pub fn tls_of(spec: &BackendSpec) -> Option<Tls> {
    spec.tls.as_ref().map(|tls| (tls.server_name.clone().unwrap_or_else(|| spec.address.host.clone()), tls.verify))
}

/// Built field by field: [`HttpPeer::new`] resolves names and panics on bad ones.
pub fn peer(address: SocketAddr, tls: Option<Tls>, protocol: Protocol, connected: &Connected) -> HttpPeer {
    let mut options = PeerOptions::new();
    options.tracer = Some(Tracer(Box::new(connected.clone())));
    // One stream per connection keeps HTTP/2 connections out of Pingora's pool: the next request connects anew.
    options.max_h2_streams = 1;
    options.alpn = match protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::Http2 => ALPN::H2,
    };
    let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let mut sni = String::new();
    if let Some((name, verify)) = tls {
        sni = name;
        options.verify_cert = verify;
        options.verify_hostname = verify;
    }
    HttpPeer { _address: PeerAddress::Inet(address), scheme, sni, proxy: None, client_cert_key: None, group_key: 0, options }
}

/// The one limit around a whole request. Its end is a connect timeout or a silent server, whichever it was.
///
/// # Errors
/// Those of `work`, and the end of the time.
pub async fn within<T>(limit: Duration, connected: &Connected, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        // A TLS handshake that times out is called a connect timeout by Pingora, yet the other side did accept.
        Ok(Err(e)) if *e.etype() == ErrorType::ConnectTimedout && connected.yes() => {
            Err(Error::because(ErrorType::ReadTimedout, "connected, then silent", e))
        }
        Ok(result) => result,
        Err(_) if connected.yes() => Err(Error::new_up(ErrorType::ReadTimedout)),
        Err(_) => Err(Error::new_up(ErrorType::ConnectTimedout)),
    }
}

/// Reads heads until one is final; it is then the exchange's `response_header()`.
///
/// # Errors
/// The connection's, or too many interim answers.
pub async fn read_head(exchange: &mut HttpExchange) -> Result<u16> {
    for _ in 0..=INTERIM_ANSWERS {
        exchange.read_response_header().await?;
        let Some(head) = exchange.response_header() else { break };
        if !head.status.is_informational() {
            return Ok(head.status.as_u16());
        }
    }
    Err(Error::new_up(ErrorType::InvalidHTTPHeader))
}

/// What went wrong, in a few words for events: `no answer within 1s`.
pub fn describe(e: &Error, limit: Duration) -> String {
    match e.etype() {
        ErrorType::ConnectRefused => "connect refused".to_owned(),
        ErrorType::ConnectNoRoute => "no route to host".to_owned(),
        ErrorType::ConnectTimedout => format!("no connection within {limit:?}"),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout => format!("no answer within {limit:?}"),
        ErrorType::ConnectionClosed => "connection closed before the answer was complete".to_owned(),
        ErrorType::ReadError | ErrorType::WriteError => "connection broke before the answer was complete".to_owned(),
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => "the answer is not HTTP".to_owned(),
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
            format!("TLS handshake failed: {}", e.root_cause())
        }
        other => other.as_str().to_owned(),
    }
}
