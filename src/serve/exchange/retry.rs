//! A request whose backend broke off: whether it is sent again, and where.
//!
//! Nothing here concerns a backend that could not be reached: there nothing was sent, see `peer`. Once a byte has left, a request that
//! may change something is never sent again, for its backend may have acted on it.

use std::sync::Arc;

use pingora_core::{Error, ErrorSource, ErrorType, RetryType};
use pingora_proxy::Session;

use super::Gateway;
use super::context::Exchange;
use crate::model::decide::Footing;
use crate::model::health::ConnectFailure;
use crate::model::reason::Reason;

impl Gateway {
    /// Decides it, for an error after the connect.
    pub(super) fn broke_off(&self, session: &Session, exchange: &mut Exchange, mut e: Box<Error>, reused: bool) -> Box<Error> {
        // An HTTP/2 backend may say itself that it has not acted (RFC 9113 §8.7); Pingora then has decided already.
        // It decides so too where the backend wrote nonsense: that is no such word.
        let refused = matches!(e.retry, RetryType::Decided(true)) && e.etype() == &ErrorType::H2Error;
        let method = &session.req_header().method;
        let whole = !session.as_ref().retry_buffer_truncated() && session.response_written().is_none();
        if !whole || !(refused || method.is_idempotent()) {
            e.set_retry(false);
            return e;
        }
        // A pooled connection that turned out to be closed: a request that may be repeated by its method (RFC 9110 §9.2.2) is.
        e.retry.decide_reuse(reused);
        if !e.retry() && method.is_safe() && is_silent_end(&e) && !exchange.tallied && !exchange.repeated {
            exchange.repeated = true;
            self.leave_if_new(exchange);
            e.set_retry(true);
        } else if e.retry() && exchange.retries > 0 {
            self.renew_pool(exchange);
        }
        if e.retry() {
            e.set_retry(self.may_retry(exchange));
        }
        e
    }

    /// Whether a further try is within the app's budget; the exchange is refused if it is not.
    pub(super) fn may_retry(&self, exchange: &mut Exchange) -> bool {
        let Some(app) = &exchange.app else { return false };
        let (tally, rules) = (&app.tally, &app.settings.limits.retry_budget);
        // The sum is worth its cost only where it is asked for.
        let requests = if exchange.retries > 0 { tally.requests() } else { 0 };
        let allowed = tally.retries.allows(rules, exchange.retries, requests, self.control.now());
        exchange.retries += 1;
        if !allowed {
            exchange.refuse(Reason::RetryBudget);
        }
        allowed
    }

    /// A connection of its own broke without an answer: the process may just have died. Who has a session there asks it once more
    /// (when it is gone, that connect will be refused); a new client does better elsewhere, if there is anybody else.
    fn leave_if_new(&self, exchange: &mut Exchange) {
        let (Some(claim), Some(app)) = (&exchange.claim, &exchange.app) else { return };
        let backend = Arc::clone(&claim.forward.backend);
        self.prober.report_connect_failure(&backend, ConnectFailure::Other);
        if claim.forward.footing == Footing::New && app.open.backends().len() > 1 && exchange.tried.add(backend.slot) {
            exchange.claim = None;
            exchange.stay = None;
        }
    }

    /// A second pooled connection was closed too: so are all of them, for the process has ended. The next one is a new one.
    fn renew_pool(&self, exchange: &Exchange) {
        if let Some(claim) = &exchange.claim {
            claim.forward.backend.live.renew_pool();
        }
    }
}

/// Whether the backend broke off without a word. One that is merely slow may still be working.
fn is_silent_end(e: &Error) -> bool {
    matches!(e.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError)
        && *e.esource() != ErrorSource::Downstream
}
