//! `session.count_probe`: asks a backend again and again how many sessions it has.
//!
//! A task of its own beside the health probes, so that a slow manager holds up nothing. An answer that cannot be read takes the
//! last reading away: what a backend said a while ago proves nothing about now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use pingora_core::protocols::http::client::HttpSession as HttpExchange;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::time::Instant;

use super::check::{USER_AGENT, host_of};
use super::cookies::Cookies;
use super::watch::Watch;
use crate::model::backend::CountReading;
use crate::model::count::CountFault;
use crate::model::event::Owner;
use crate::model::settings::{BackendSpec, CountProbe, HealthSettings, Protocol};
use crate::serve::outbound::{self, Connected, Connectors};

mod answer;

/// A whole question and its answer. A manager looks at every session it has, which takes a while; health probes are shorter.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions to a backend that empties; its drain waits for the answer.
const EMPTYING: Duration = Duration::from_secs(1);
/// Between two questions to any other backend: people look at that, nothing waits for it.
const SERVING: Duration = Duration::from_secs(10);
/// A drain that begins between two questions is noticed within this time.
const LOOK: Duration = Duration::from_millis(250);
/// Largest answer. Tomcat's has at most a line for each minute of its timeout.
const BODY_MAX: usize = 1024 * 1024;

/// Why there is no reading, in words for the log.
type Failure = (CountFault, String);

/// Asks until it is dropped, or is not wanted any more.
pub async fn run(watch: Arc<Watch>, connectors: Arc<Connectors>) {
    let mut cookies = Cookies::default();
    let mut last = None;
    // A host name is resolved for the first health probe.
    watch.first_answer().await;
    loop {
        let subject = watch.subject();
        let Some(probe) = &subject.count_probe else {
            watch.live.count_read(None);
            return;
        };
        let known = || watch.live.counts.known(subject.idle_timeout, watch.control.now());
        let (started, at, known_before) = (Instant::now(), watch.control.now(), known());
        let question = Question { spec: &subject.spec, health: &subject.health, probe, address: watch.live.address(), patience: PATIENCE };
        let result = question.ask(&connectors, &mut cookies).await;
        let reading = result.as_ref().ok().map(|&sessions| CountReading { sessions, known: known_before.min(known()), at });
        watch.live.count_read(reading);
        if let Some(news) = news(last, &result) {
            watch.control.note(Owner::Health, &subject.name(), news);
        }
        last = result.err().map(|(fault, _)| fault);
        if let Some(fault) = last {
            watch.live.count_faults.met(fault);
        }
        rest(&watch, started).await;
    }
}

/// What the event log is told after an answer. The words of one fault may differ each time (a server that says when it will be
/// back), so only another fault is news.
fn news(last: Option<CountFault>, result: &std::result::Result<u64, Failure>) -> Option<String> {
    match result {
        Err((fault, why)) if last != Some(*fault) => Some(format!("its own count of sessions is unknown: {why}")),
        Ok(sessions) if last.is_some() => Some(format!("its own count of sessions is known again: {sessions}")),
        _ => None,
    }
}

/// Until the next question is due; a drain that begins meanwhile makes it due sooner.
async fn rest(watch: &Watch, started: Instant) {
    loop {
        let due = started + if watch.live.emptying() { EMPTYING } else { SERVING };
        let now = Instant::now();
        if now >= due {
            return;
        }
        tokio::time::sleep_until(due.min(now + LOOK)).await;
    }
}

/// One question to one backend.
struct Question<'a> {
    spec: &'a BackendSpec,
    health: &'a HealthSettings,
    probe: &'a CountProbe,
    /// Resolved by the health probes; asking the name server once more would not make it answer.
    address: Option<SocketAddr>,
    patience: Duration,
}

impl Question<'_> {
    async fn ask(&self, connectors: &Connectors, cookies: &mut Cookies) -> std::result::Result<u64, Failure> {
        let credentials = match &self.probe.user_file {
            Some(file) => Some(credentials(file).await.map_err(|why| (CountFault::UserFile, why))?),
            None => None,
        };
        let Some(address) = self.address else {
            return Err((CountFault::Unreachable, format!("host name {} does not resolve", self.spec.address.host)));
        };
        let connected = Connected::default();
        let peer = outbound::peer(address, outbound::tls_of(self.spec), self.spec.protocol, &connected);
        let exchange = self.converse(connectors, &peer, credentials.as_deref(), cookies);
        match outbound::within(self.patience, &connected, exchange).await {
            Ok((status, body)) => judge(self.probe, status, &body),
            Err(e) => Err((fault_of(&e), describe(&e, self.patience))),
        }
    }

    async fn converse(
        &self,
        connectors: &Connectors,
        peer: &HttpPeer,
        credentials: Option<&str>,
        cookies: &mut Cookies,
    ) -> Result<(u16, Vec<u8>)> {
        let (mut exchange, _) = connectors.http.get_http_session(peer).await?;
        exchange.write_request_header(Box::new(self.request(credentials, cookies)?)).await?;
        exchange.finish_request_body().await?;
        let status = outbound::read_head(&mut exchange).await?;
        if let Some(head) = exchange.response_header() {
            for line in head.headers.get_all(header::SET_COOKIE) {
                cookies.set(line.as_bytes());
            }
        }
        // An error page is not worth the wait.
        let body = if status == StatusCode::OK { read_body(&mut exchange).await? } else { Vec::new() };
        Ok((status, body))
    }

    /// The path is the backend's own: a manager does not move with a release.
    fn request(&self, credentials: Option<&str>, cookies: &Cookies) -> Result<RequestHeader> {
        let mut request = RequestHeader::build("GET", self.probe.url_path.as_bytes(), None)?;
        request.insert_header(header::HOST, host_of(self.health, self.spec, self.spec.address.port))?;
        request.insert_header(header::USER_AGENT, USER_AGENT)?;
        request.insert_header(header::ACCEPT, "text/plain, application/json")?;
        if self.spec.protocol == Protocol::Http1 {
            request.insert_header(header::CONNECTION, "close")?;
        }
        if let Some(credentials) = credentials {
            request.insert_header(header::AUTHORIZATION, credentials)?;
        }
        // So that an application in front of the count does not begin a session for each question.
        if let Some(cookies) = cookies.header() {
            request.insert_header(header::COOKIE, cookies)?;
        }
        Ok(request)
    }
}

/// Told from the others by [`fault_of`].
const TOO_LARGE: &str = "count answer too large";

async fn read_body(exchange: &mut HttpExchange) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = exchange.read_response_body().await? {
        if body.len() + chunk.len() > BODY_MAX {
            return Err(Error::new_up(ErrorType::Custom(TOO_LARGE)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn judge(probe: &CountProbe, status: u16, body: &[u8]) -> std::result::Result<u64, Failure> {
    match status {
        200 => answer::read(&probe.format, body).map_err(|why| (CountFault::Unreadable, why)),
        401 | 403 => {
            let remedy = "check user_file, and that this user may ask (Tomcat: role manager-script)";
            Err((CountFault::Unauthorized, format!("status {status}; {remedy}")))
        }
        _ => Err((CountFault::Status, format!("status {status}; check url_path"))),
    }
}

fn fault_of(e: &Error) -> CountFault {
    match e.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::TLSHandshakeTimedout => CountFault::Silent,
        ErrorType::Custom(TOO_LARGE) => CountFault::TooLarge,
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => CountFault::Unreadable,
        _ => CountFault::Unreachable,
    }
}

fn describe(e: &Error, patience: Duration) -> String {
    match e.etype() {
        ErrorType::Custom(TOO_LARGE) => format!("the answer is larger than {BODY_MAX} bytes"),
        _ => outbound::describe(e, patience),
    }
}

/// Read for every question: a password that was changed needs no restart.
async fn credentials(file: &str) -> std::result::Result<String, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|e| format!("user_file {file} cannot be read: {e}"))?;
    let user = text.lines().next().unwrap_or_default().trim_end();
    if !user.contains(':') {
        return Err(format!("user_file {file} holds no user:password"));
    }
    Ok(format!("Basic {}", STANDARD.encode(user)))
}

#[cfg(test)]
mod tests;
