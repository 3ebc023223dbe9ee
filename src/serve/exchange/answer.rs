//! Our own answers: small, honest, in HTML or JSON as the client prefers, and never cached.

use http::StatusCode;
use http::header::{ACCEPT, HeaderValue};
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, Session};

use super::context::Exchange;
use super::session_news::pin_deletion;
use super::{BODY_REST, Gateway};
use crate::model::reason::Reason;

/// What a 503 asks the client to wait, in seconds: about the time in which a backend is found healthy again.
const RETRY_AFTER: &str = "5";

/// Bodies up to this size are read before an answer of ours, so that the connection stays usable.
const SMALL_BODY: u64 = 64 * 1024;

/// The status of a refusal.
pub(super) fn status(reason: Reason, request: &RequestHeader) -> u16 {
    match reason {
        Reason::Evicted if is_navigation(request) => 303,
        Reason::Evicted => 409,
        Reason::NoApp => 404,
        Reason::BadPath => 400,
        Reason::BodyTooLarge => 413,
        _ => 503,
    }
}

/// What the user is told; never anything about the inside.
fn sentence(status: u16) -> &'static str {
    match status {
        303 => "Your session has ended. Please start again.",
        400 => "The request could not be understood.",
        404 => "There is nothing at this address.",
        409 => "Your session has ended, and nothing was done. Please start again.",
        413 => "The request is too large.",
        502 => "The application answered in a way that could not be understood.",
        503 => "The application is not available at the moment. Please try again.",
        504 => "The application did not answer in time. It may still be working on the request.",
        _ => "The request could not be served.",
    }
}

impl Gateway {
    pub(super) async fn answer_refusal(&self, session: &mut Session, exchange: &mut Exchange, reason: Reason) -> Result<()> {
        let status = status(reason, session.req_header());
        read_rest(session.as_downstream_mut()).await;
        self.answer(session, exchange, status).await
    }

    async fn answer(&self, session: &mut Session, exchange: &mut Exchange, status: u16) -> Result<()> {
        exchange.pin_line = None;
        if exchange.refused == Some(Reason::Evicted) && status == 303 {
            self.tell_evicted(session, exchange);
        }
        let head = session.req_header();
        let json = head.headers.get(ACCEPT).is_some_and(|accept| {
            let accept = accept.to_str().unwrap_or_default();
            accept.contains("json") && !accept.contains("html")
        });
        let head_only = head.method == http::Method::HEAD;
        let title = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        let text = sentence(status);
        let body = if json {
            format!("{{\"status\":{status},\"error\":\"{text}\"}}\n")
        } else {
            format!(
                "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\n<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
            )
        };
        let mut response = Box::new(ResponseHeader::build(status, Some(8))?);
        response.insert_header("Content-Type", if json { "application/json" } else { "text/html; charset=utf-8" })?;
        response.insert_header("Content-Length", body.len().to_string())?;
        response.insert_header("Cache-Control", "no-store")?;
        if status == 303 {
            response.insert_header("Location", entry(head, exchange.prefix))?;
        }
        if let Some(line) = exchange.pin_line.take() {
            response.insert_header("Set-Cookie", line)?;
        }
        if status == 503 {
            response.insert_header("Retry-After", RETRY_AFTER)?;
        }
        if exchange.debug
            && let Some(reason) = exchange.reason
        {
            response.insert_header("X-Tidegate-Decision", HeaderValue::from_static(reason.as_str()))?;
        }
        if self.stop.draining() {
            session.as_downstream_mut().set_keepalive(None);
        }
        session.write_response_header(response, head_only).await?;
        if !head_only {
            session.write_response_body(Some(body.into()), true).await?;
        }
        Ok(())
    }

    /// A person learns with this answer that the session is over: the next request is a new client's. Not by a 409: what a
    /// script in the background is told, its user has not seen, and would go on to submit to another release.
    fn tell_evicted(&self, session: &Session, exchange: &mut Exchange) {
        let (Some(app), Some(facts)) = (&exchange.app, &exchange.facts) else { return };
        if let Some(key) = facts.key {
            app.ledger.tell_evicted(key, self.control.now());
        }
        exchange.pin_line = pin_deletion(session, app);
    }

    pub(super) async fn answer_failure(&self, session: &mut Session, e: &Error, exchange: &mut Exchange) -> FailToProxy {
        let code = self.failure(session, e, exchange);
        // After an error the connection's state is not ours to guess; the answer says that it ends.
        session.as_downstream_mut().set_keepalive(None);
        if code > 0
            && session.response_written().is_none()
            && let Err(write) = self.answer(session, exchange, code).await
        {
            log::debug!("cannot answer {code}: {write}");
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    /// 502: the backend answered nonsense or broke off; 503: none could be reached; 504: none answered in time; 0: the client
    /// has gone.
    fn failure(&self, session: &Session, e: &Error, exchange: &Exchange) -> u16 {
        use ErrorType::{ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, TLSHandshakeFailure, TLSHandshakeTimedout};
        use ErrorType::{ConnectionClosed, InvalidHTTPHeader, ReadError, ReadTimedout, WriteError, WriteTimedout};
        let code = match (e.etype(), e.esource()) {
            (ErrorType::HTTPStatus(code), _) => *code,
            _ if exchange.refused == Some(Reason::RetryBudget) => 503,
            (WriteError | ReadError | ConnectionClosed | ReadTimedout | WriteTimedout, ErrorSource::Downstream) => 0,
            (InvalidHTTPHeader, ErrorSource::Downstream) => 400,
            (_, ErrorSource::Downstream) => 400,
            (ReadTimedout | WriteTimedout, _) => 504,
            // Nothing was sent, so nothing can be under way.
            (ConnectTimedout | TLSHandshakeTimedout | ConnectRefused | ConnectNoRoute | ConnectError | TLSHandshakeFailure, _) => 503,
            (_, ErrorSource::Upstream) => 502,
            _ => 500,
        };
        if code >= 500
            && exchange.refused.is_none()
            && let (Some(app), Some(claim)) = (&exchange.app, &exchange.claim)
        {
            let backend = &claim.forward.backend;
            let request = session.req_header();
            log::warn!("backend {}/{}/{}: {} {code}: {e}", app.name, backend.release, backend.spec.name, request.method);
        }
        code
    }
}

/// Whether a person waits for a page, and not a script for data (Fetch Metadata, `Sec-Fetch-Mode`; older browsers say what they
/// accept).
fn is_navigation(request: &RequestHeader) -> bool {
    let says = |name: &str, word: &str| request.headers.get(name).map(|value| value.to_str().is_ok_and(|value| value.contains(word)));
    says("sec-fetch-mode", "navigate").or_else(|| says("accept", "text/html")).unwrap_or(false)
}

/// Where an app begins: its public prefix.
fn entry(request: &RequestHeader, prefix: usize) -> String {
    let prefix = request.uri.path().get(..prefix).unwrap_or("/");
    if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") }
}

/// Reads the rest of a small body, so that a client that is still sending meets an answer and not a reset.
async fn read_rest(downstream: &mut ServerSession) {
    let head = &downstream.req_header().headers;
    let length = head.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if head.contains_key(http::header::EXPECT) || !length.is_some_and(|length| length > 0 && length <= SMALL_BODY) {
        return;
    }
    downstream.set_total_drain_timeout(Some(BODY_REST));
    if let Err(e) = downstream.drain_request_body().await {
        log::debug!("the rest of a body was not sent: {e}");
    }
}
