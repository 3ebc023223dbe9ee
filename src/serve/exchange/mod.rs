//! One request and its answer, through Pingora's hooks. Each hook is short: what to do is decided in the model, how it is
//! put on the wire is in the file named after it.
//!
//! | file | holds |
//! |---|---|
//! | `context` | what is remembered from hook to hook |
//! | `client` | who asks: address, scheme, host, behind trusted proxies |
//! | `entry` | reads the facts, decides, claims |
//! | `patience` | waiting for a backend without losing sight of the client |
//! | `request_head` | what the backend sees |
//! | `retry` | a backend that broke off: whether the request is sent again |
//! | `replay` | an answer that is discarded, and the second try |
//! | `tunnel` | a WebSocket or event stream joins the open tunnels |
//! | `session_news` | what an answer says of its session |
//! | `response_head` | what the client sees |
//! | `answer` | our own answers |

mod answer;
mod client;
mod context;
mod entry;
mod explain;
mod patience;
mod peer;
mod record;
mod replay;
mod request_head;
mod response_head;
mod retry;
mod session_news;
mod tunnel;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::access_log::AccessLog;
use super::control::Control;
use super::probe::Prober;
use super::transport::{Lines, Stop};
use crate::model::reason::Reason;

pub use client::TrustedProxies;
pub use context::Exchange;
pub use explain::explain;
use patience::{Patience, Queues};

/// All that the hooks share.
pub struct Gateway {
    /// The snapshot, the clock and the one door for changes.
    pub control: Arc<Control>,
    /// Told when a backend cannot be reached.
    pub prober: Arc<Prober>,
    /// Whose X-Forwarded-* count.
    pub trusted: TrustedProxies,
    /// Whether we are stopping: answers then close their connection.
    pub stop: Stop,
    /// Where exchanges are written down.
    pub access_log: Option<AccessLog>,
    /// Exchanges under way, waiting ones included.
    pub under_way: Arc<AtomicUsize>,
    /// Connections to backends.
    pub lines: Arc<Lines>,
    queues: Queues,
}

impl Gateway {
    /// A gateway that has served nobody yet.
    pub fn new(
        control: Arc<Control>,
        prober: Arc<Prober>,
        trusted: TrustedProxies,
        stop: Stop,
        lines: Arc<Lines>,
        access_log: Option<AccessLog>,
    ) -> Gateway {
        let (under_way, queues) = (Arc::default(), Queues::default());
        Gateway { control, prober, trusted, stop, access_log, under_way, lines, queues }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: Pingora moves it from future to future.
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Box<Exchange> {
        Box::new(Exchange::new(&self.under_way))
    }

    /// None: the default module would cost every request an allocation for a compression that is off.
    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, exchange: &mut Box<Exchange>) -> Result<bool> {
        let admitted = match self.read(session, exchange)? {
            Ok(()) if self.may_be_known_elsewhere(exchange) => Box::pin(self.claim_after_asking(session, exchange)).await?,
            Ok(()) => match self.claim_at_once(session, exchange) {
                Some(claimed) => claimed,
                None => Box::pin(self.claim(session, exchange)).await?,
            },
            refused => refused,
        };
        match admitted {
            Ok(()) => Ok(false),
            Err(reason) => {
                exchange.refuse(reason);
                Box::pin(self.answer_refusal(session, exchange, reason)).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Box<Exchange>) -> Result<Box<HttpPeer>> {
        // A retry: the claim was given up because its backend could not be reached, or its backend closed meanwhile.
        if exchange.claim.as_ref().is_none_or(|claim| claim.closed())
            && let Err(reason) = Box::pin(self.claim_again(session, exchange)).await?
        {
            exchange.refuse(reason);
            return Error::e_explain(ErrorType::HTTPStatus(answer::status(reason, session.req_header())), reason.as_str());
        }
        if std::mem::take(&mut exchange.pause) {
            Box::pin(Patience::of(session).pause(session)).await?;
        }
        peer::build(&self.lines, session, exchange)
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, exchange: &mut Box<Exchange>, e: Box<Error>) -> Box<Error> {
        self.connect_failed(session, exchange, e)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _reused: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        if let Some(tunnel) = &exchange.tunnel {
            if let Some(stream) = session.as_downstream().stream() {
                tunnel.join(stream);
            }
            tunnel.arm();
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        self.write_request_head(session, request, exchange)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        if end {
            if body.as_ref().is_some_and(Bytes::is_empty) {
                // An HTTP/2 body that ends with an empty DATA frame would be written as two chunked terminators, and the
                // second one would be read as the next request on the backend's connection.
                *body = None;
            }
            if let Some(tunnel) = exchange.tunnel.as_ref().filter(|_| !session.was_upgraded()) {
                tunnel.body_ended();
            }
        }
        if session.was_upgraded() {
            // What a tunnel carries is no body.
            return Ok(());
        }
        exchange.body_within_limit(session.as_downstream().body_bytes_read())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        let switching = response.status == http::StatusCode::SWITCHING_PROTOCOLS;
        let interim = response.status.is_informational() && !switching;
        // Pingora ends a connection whose answer begins before its request has arrived; an interim answer is what some wait for.
        session.as_downstream_mut().set_close_on_response_before_downstream_finish(!interim);
        if interim {
            return Ok(());
        }
        if let Some(line) = &exchange.line {
            line.head_passed(&session.req_header().method, response);
        }
        self.hear_session_news(session, response, exchange)?;
        exchange.tally();
        if self.access_log.is_some() {
            exchange.first_byte.get_or_insert_with(|| exchange.started.elapsed());
        }
        if switching {
            // A tunnel is quiet for as long as its users are; the read timeout of a request would cut it.
            let timeout = exchange.app.as_ref().map(|app| app.settings.timeouts.tunnel);
            session.as_downstream_mut().set_read_timeout(timeout);
            self.tunnel_opened(exchange);
        } else {
            self.stream_opened(session, response, exchange);
        }
        Ok(())
    }

    /// Tells the connection when the answer is whole, and ends an event stream that was closed, at its next event. Most end before: this is for HTTP/2, whose streams share a connection
    /// that must not be cut.
    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Duration>> {
        if end && let Some(line) = &exchange.line {
            line.answered();
        }
        match &exchange.tunnel_entry {
            Some(entry) if exchange.tunnel.is_none() && entry.is_closed() => {
                // As if the client had gone, which is how one over HTTP/1 ends.
                Err(Error::new_down(ErrorType::Custom("closed, for it outlived its session")))
            }
            _ => Ok(None),
        }
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, exchange: &mut Box<Exchange>) -> Result<()> {
        if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        self.write_response_head(session, response, exchange)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        exchange: &mut Box<Exchange>,
        mut client_reused: bool,
    ) -> Box<Error> {
        if let Some(line) = &exchange.line {
            client_reused = line.was_kept();
            if line.is_overdue() && e.etype() == &ErrorType::ReadError {
                e.etype = ErrorType::ReadTimedout;
            }
        }
        if std::mem::take(&mut exchange.replaying) {
            // Decided where the answer was heard.
            return e;
        }
        self.broke_off(session, exchange, e, client_reused)
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Box<Exchange>, _: &Error, _: ProxyWarnLogContext) -> bool {
        // Retries are logged once, by name of the backend, where they are decided.
        true
    }

    fn suppress_error_log(&self, _: &Session, exchange: &Box<Exchange>, e: &Error) -> bool {
        // A client that goes away is no fault, and a refusal is in the access log.
        exchange.refused.is_some() || *e.esource() == ErrorSource::Downstream
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, exchange: &mut Box<Exchange>) -> FailToProxy {
        Box::pin(self.answer_failure(session, e, exchange)).await
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, exchange: &mut Box<Exchange>) {
        self.write_down(session, e, exchange);
    }
}

/// Longest that an answer of ours waits for the rest of a request's body, so that the client does not meet a reset.
const BODY_REST: Duration = Duration::from_secs(1);

impl Exchange {
    fn refuse(&mut self, reason: Reason) {
        self.refused = Some(reason);
        self.reason = Some(reason);
        self.tally();
    }
}
