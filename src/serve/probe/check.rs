//! One probe of one backend, as Pingora's `HealthCheck`.
//!
//! `check()` can only say pass or fail; what else there is to know travels in the type of its error, and
//! [`answer_of`] reads it back. Each probe opens its own connection: a pooled one would prove nothing about whether
//! the backend still accepts. The last one is kept as a witness, see `witness`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::client::HttpSession as HttpExchange;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Exchange;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::HealthCheck;

use super::cookies::Cookies;
use crate::model::health::{ConnectFailure, ProbeAnswer};
use crate::model::settings::{Address, BackendSpec, HealthSettings, Protocol};
use crate::serve::outbound::{self, Connected, Connectors};

/// The status is one of `drain`.
const DRAIN: &str = "probe asks for a soft stop";
/// The status is neither of `ready` nor of `drain`.
const STATUS: &str = "probe status";
/// Of an answer's body we wait for this much: enough for any health page, and a large home page costs no traffic.
const BODY_READ: usize = 64 * 1024;

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
    kept: Option<Stream>,
}

impl BackendProbe {
    /// A probe that remembers nothing yet.
    pub fn new(connectors: Arc<Connectors>, spec: Arc<BackendSpec>, settings: HealthSettings) -> BackendProbe {
        BackendProbe { connectors, spec, settings, memory: Mutex::default() }
    }

    /// The value of `instance_header` in the last probe's answer: a new one proves that the backend's process began another life.
    pub fn instance(&self) -> Option<Box<[u8]>> {
        self.memory().instance.clone()
    }

    /// The connection of the last probe, if that passed and the backend keeps it open.
    pub fn take_connection(&self) -> Option<Stream> {
        self.memory().kept.take()
    }

    /// Whether the backend still answers on that connection: then it is the process that opened it.
    pub async fn is_answered(&self, connection: Stream, address: SocketAddr) -> bool {
        let mut exchange = HttpExchange::H1(Http1Exchange::new(connection));
        let asked = self.exchange(&mut exchange, address.port());
        tokio::time::timeout(self.settings.timeout, asked).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Whether a probe's connection is kept until the next one: its end says at once what else would be seen late or never. Not where
    /// a header tells more, nor where the probed port is another process's.
    fn keeps_connection(&self) -> bool {
        self.spec.protocol == Protocol::Http1 && self.settings.instance_header.is_none() && self.settings.port.is_none()
    }

    /// Probes the backend at `address`, with the port of the settings where they name one.
    ///
    /// # Errors
    /// Anything but a ready backend; [`answer_of`] and [`describe`] say what it was.
    pub async fn probe(&self, address: SocketAddr) -> Result<()> {
        // A probe without an answer says nothing of the process behind the address.
        self.memory().instance = None;
        let port = self.settings.port.unwrap_or_else(|| address.port());
        let connected = Connected::default();
        let peer = outbound::peer(SocketAddr::new(address.ip(), port), outbound::tls_of(&self.spec), self.spec.protocol, &connected);
        outbound::within(self.settings.timeout, &connected, self.ask(&peer, port)).await
    }

    async fn ask(&self, peer: &HttpPeer, port: u16) -> Result<()> {
        if self.settings.tcp {
            return self.connectors.transport.new_stream(peer).await.map(drop);
        }
        let (mut exchange, _) = self.connectors.http.get_http_session(peer).await?;
        self.exchange(&mut exchange, port).await?;
        if let (HttpExchange::H1(mut exchange), true) = (exchange, self.keeps_connection()) {
            exchange.respect_keepalive();
            let kept = if exchange.will_keepalive() { exchange.reuse().await } else { None };
            self.memory().kept = kept;
        }
        Ok(())
    }

    async fn exchange(&self, exchange: &mut HttpExchange, port: u16) -> Result<()> {
        exchange.write_request_header(Box::new(self.request(port)?)).await?;
        exchange.finish_request_body().await?;
        let status = outbound::read_head(exchange).await?;
        if let Some(head) = exchange.response_header() {
            self.remember(head);
        }
        let answer = self.judge(status);
        if answer.is_ok() {
            read_body(exchange).await?;
        }
        answer
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
        request.insert_header(header::HOST, host_of(&self.settings, &self.spec, port))?;
        request.insert_header(header::USER_AGENT, USER_AGENT)?;
        request.insert_header(header::ACCEPT, "*/*")?;
        if self.spec.protocol == Protocol::Http1 {
            request.insert_header(header::CONNECTION, if self.keeps_connection() { "keep-alive" } else { "close" })?;
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

/// What a probe of whatever kind calls itself.
pub(super) const USER_AGENT: &str = concat!("tidegate-probe/", env!("CARGO_PKG_VERSION"));

/// The `Host` that a backend is probed with.
pub(super) fn host_of(settings: &HealthSettings, spec: &BackendSpec, port: u16) -> String {
    let address = || Address { host: spec.address.host.clone(), port }.to_string();
    settings.host.clone().unwrap_or_else(address)
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
        _ => outbound::describe(e, timeout),
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
