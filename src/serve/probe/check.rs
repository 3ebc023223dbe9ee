//! One probe of one backend, as Pingora's `HealthCheck`.
//!
//! `check()` can only say pass or fail; what else there is to know travels in the type of its error, and
//! [`answer_of`] reads it back. Each probe opens its own connection: a pooled one would prove nothing about whether
//! the backend still accepts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header;
use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector as HttpConnector;
use pingora_core::protocols::http::client::HttpSession as HttpExchange;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::tls::ALPN;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme, Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::HealthCheck;

use super::cookies::Cookies;
use crate::model::health::{ConnectFailure, ProbeAnswer};
use crate::model::settings::{BackendSpec, HealthSettings, Protocol};

/// The status is one of `drain`.
const DRAIN: &str = "probe asks for a soft stop";
/// The status is neither of `ready` nor of `drain`.
const STATUS: &str = "probe status";
/// Of an answer's body we wait for this much: enough for any health page, and a large home page costs no traffic.
const BODY_READ: usize = 64 * 1024;
/// Interim answers before the real one; a backend that sends more talks nonsense.
const INTERIM_ANSWERS: u8 = 10;

/// What probes connect with. One for all backends: each holds a TLS context with the system's certificates.
pub struct Connectors {
    http: HttpConnector,
    transport: TransportConnector,
}

impl Default for Connectors {
    fn default() -> Self {
        Connectors { http: HttpConnector::new(None), transport: TransportConnector::new(None) }
    }
}

/// The probe of one backend.
pub struct BackendProbe {
    connectors: Arc<Connectors>,
    spec: Arc<BackendSpec>,
    settings: HealthSettings,
    memory: Mutex<Memory>,
}

/// What a probe keeps for the next one.
#[derive(Default)]
struct Memory {
    cookies: Cookies,
    instance: Option<Box<[u8]>>,
}

impl BackendProbe {
    /// A probe that remembers nothing yet.
    pub fn new(connectors: Arc<Connectors>, spec: Arc<BackendSpec>, settings: HealthSettings) -> BackendProbe {
        BackendProbe { connectors, spec, settings, memory: Mutex::default() }
    }

    /// The last value of `instance_header`: a new one proves that the backend's process began another life.
    pub fn instance(&self) -> Option<Box<[u8]>> {
        self.memory().instance.clone()
    }

    /// Whether the application has given the probe a session of its own, by a cookie of one of these names.
    pub fn has_session(&self, names: &[String]) -> bool {
        self.memory().cookies.contain_any(names)
    }

    /// Probes the backend at `address`, with the port of the settings where they name one.
    ///
    /// # Errors
    /// Anything but a ready backend; [`answer_of`] and [`describe`] say what it was.
    pub async fn probe(&self, address: SocketAddr) -> Result<()> {
        let port = self.settings.port.unwrap_or_else(|| address.port());
        let connected = Arc::new(AtomicBool::new(false));
        let peer = self.peer(SocketAddr::new(address.ip(), port), &connected);
        // One limit around everything: Pingora's own timeouts begin anew with every byte that drips in.
        match tokio::time::timeout(self.settings.timeout, self.ask(&peer, port)).await {
            Ok(Err(e)) if *e.etype() == ErrorType::ConnectTimedout && connected.load(Ordering::Acquire) => Err(silent(e)),
            Ok(result) => result,
            Err(_) if connected.load(Ordering::Acquire) => Err(Error::new_up(ErrorType::ReadTimedout)),
            Err(_) => Err(Error::new_up(ErrorType::ConnectTimedout)),
        }
    }

    async fn ask(&self, peer: &HttpPeer, port: u16) -> Result<()> {
        if self.settings.tcp {
            return self.connectors.transport.new_stream(peer).await.map(drop);
        }
        let (mut exchange, _) = self.connectors.http.get_http_session(peer).await?;
        exchange.write_request_header(Box::new(self.request(port)?)).await?;
        exchange.finish_request_body().await?;
        let status = self.read_head(&mut exchange).await?;
        let answer = self.judge(status);
        if answer.is_ok() {
            read_body(&mut exchange).await?;
        }
        answer
    }

    async fn read_head(&self, exchange: &mut HttpExchange) -> Result<u16> {
        for _ in 0..=INTERIM_ANSWERS {
            exchange.read_response_header().await?;
            let Some(head) = exchange.response_header() else { break };
            if !head.status.is_informational() {
                self.remember(head);
                return Ok(head.status.as_u16());
            }
        }
        Err(Error::new_up(ErrorType::InvalidHTTPHeader))
    }

    fn judge(&self, status: u16) -> Result<()> {
        // `drain` wins, so that `ready: [200-399], drain: [204]` means what it says.
        if self.settings.drain.contains(status) {
            Err(Error::new_up(ErrorType::CustomCode(DRAIN, status)))
        } else if self.settings.ready.contains(status) {
            Ok(())
        } else {
            Err(Error::new_up(ErrorType::CustomCode(STATUS, status)))
        }
    }

    fn remember(&self, head: &ResponseHeader) {
        let mut memory = self.memory();
        for line in head.headers.get_all(header::SET_COOKIE) {
            memory.cookies.set(line.as_bytes());
        }
        if let Some(name) = &self.settings.instance_header
            && let Some(value) = head.headers.get(name.as_str())
        {
            memory.instance = Some(value.as_bytes().into());
        }
    }

    fn request(&self, port: u16) -> Result<RequestHeader> {
        let mut request = RequestHeader::build(self.settings.method.as_str(), self.settings.path.as_bytes(), None)?;
        match &self.settings.host {
            Some(host) => request.insert_header(header::HOST, host.as_str())?,
            None => {
                let address = crate::model::settings::Address { host: self.spec.address.host.clone(), port };
                request.insert_header(header::HOST, address.to_string())?;
            }
        }
        request.insert_header(header::USER_AGENT, concat!("tidegate-probe/", env!("CARGO_PKG_VERSION")))?;
        request.insert_header(header::ACCEPT, "*/*")?;
        if self.spec.protocol == Protocol::Http1 {
            request.insert_header(header::CONNECTION, "close")?;
            // Pingora frames a bodiless POST as one that never ends unless it is told its length.
            if !matches!(self.settings.method.as_str(), "GET" | "HEAD" | "OPTIONS") {
                request.insert_header(header::CONTENT_LENGTH, "0")?;
            }
        }
        if let Some(cookies) = self.memory().cookies.header() {
            request.insert_header(header::COOKIE, cookies)?;
        }
        Ok(request)
    }

    /// Built field by field: [`HttpPeer::new`] resolves names and panics on bad ones.
    fn peer(&self, address: SocketAddr, connected: &Arc<AtomicBool>) -> HttpPeer {
        let mut options = PeerOptions::new();
        options.tracer = Some(Tracer(Box::new(ConnectedFlag(Arc::clone(connected)))));
        // One stream per connection keeps HTTP/2 connections out of Pingora's pool: the next probe connects anew.
        options.max_h2_streams = 1;
        options.alpn = match self.spec.protocol {
            Protocol::Http1 => ALPN::H1,
            Protocol::Http2 => ALPN::H2,
        };
        let mut sni = String::new();
        if let Some(tls) = &self.spec.tls {
            sni = tls.server_name.clone().unwrap_or_else(|| self.spec.address.host.clone());
            options.verify_cert = tls.verify;
            options.verify_hostname = tls.verify;
        }
        HttpPeer {
            _address: PeerAddress::Inet(address),
            scheme: if self.spec.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
            sni,
            proxy: None,
            client_cert_key: None,
            group_key: 0,
            options,
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HealthCheck for BackendProbe {
    async fn check(&self, target: &Target) -> Result<()> {
        match target.addr.as_inet() {
            Some(address) => self.probe(*address).await,
            None => Err(Error::new_up(ErrorType::ConnectNoRoute)),
        }
    }

    fn health_threshold(&self, success: bool) -> usize {
        let times = if success { self.settings.rise } else { self.settings.fall };
        usize::try_from(times).unwrap_or(usize::MAX)
    }
}

async fn read_body(exchange: &mut HttpExchange) -> Result<()> {
    let mut read = 0;
    while let Some(chunk) = exchange.read_response_body().await? {
        read += chunk.len();
        if read > BODY_READ {
            break;
        }
    }
    Ok(())
}

/// A TLS handshake that times out is called a connect timeout by Pingora, yet the backend did accept.
fn silent(e: Box<Error>) -> Box<Error> {
    Error::because(ErrorType::ReadTimedout, "connected, then silent", e)
}

/// Told by Pingora when the TCP connection stands, before any TLS.
#[derive(Debug)]
struct ConnectedFlag(Arc<AtomicBool>);

impl Tracing for ConnectedFlag {
    fn on_connected(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn on_disconnected(&self) {}

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(ConnectedFlag(Arc::clone(&self.0)))
    }
}

/// What the result of a probe means.
pub fn answer_of(result: &Result<()>) -> ProbeAnswer {
    let Err(e) = result else { return ProbeAnswer::Ready };
    match e.etype() {
        ErrorType::CustomCode(DRAIN, _) => ProbeAnswer::Drain,
        ErrorType::ConnectRefused => ProbeAnswer::Refused,
        ErrorType::ConnectNoRoute => ProbeAnswer::Unreachable,
        ErrorType::ConnectTimedout => ProbeAnswer::ConnectTimeout,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout => ProbeAnswer::Silent,
        _ => ProbeAnswer::Other,
    }
}

/// The result of a probe in a few words, for events: `no answer within 1s`.
pub fn describe(result: &Result<()>, timeout: Duration) -> String {
    let Err(e) = result else { return "probe passed".to_owned() };
    match e.etype() {
        ErrorType::CustomCode(DRAIN, status) => format!("status {status} asks for a soft stop"),
        ErrorType::CustomCode(STATUS, status) => format!("status {status}"),
        ErrorType::ConnectRefused => "connect refused".to_owned(),
        ErrorType::ConnectNoRoute => "no route to host".to_owned(),
        ErrorType::ConnectTimedout => format!("no connection within {timeout:?}"),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout => {
            format!("no answer within {timeout:?}")
        }
        ErrorType::ConnectionClosed => "connection closed before the answer was complete".to_owned(),
        ErrorType::ReadError | ErrorType::WriteError => "connection broke before the answer was complete".to_owned(),
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => "the answer is not HTTP".to_owned(),
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
            format!("TLS handshake failed: {}", e.root_cause())
        }
        other => other.as_str().to_owned(),
    }
}

impl ConnectFailure {
    /// What a failed connect of real traffic tells about its backend; for `fail_to_connect`.
    pub fn of(e: &Error) -> ConnectFailure {
        match e.etype() {
            ErrorType::ConnectRefused => ConnectFailure::Refused,
            ErrorType::ConnectNoRoute => ConnectFailure::Unreachable,
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ConnectFailure::TimedOut,
            _ => ConnectFailure::Other,
        }
    }
}

#[cfg(test)]
mod tests;
