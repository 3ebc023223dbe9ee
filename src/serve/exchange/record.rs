//! What is written down of an exchange when it is over: counters and the access log. Nothing is undone here; a panic skips
//! this hook, so what must happen in any case is a guard in the context.

use http::header::{REFERER, USER_AGENT};
use pingora_core::Error;
use pingora_proxy::Session;

use super::Gateway;
use super::client::host;
use super::context::Exchange;
use crate::serve::access_log::{Record, referer_without_session, without_session};

impl Gateway {
    pub(super) fn write_down(&self, session: &Session, e: Option<&Error>, exchange: &mut Exchange) {
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let duration = exchange.started.elapsed();
        exchange.tally();
        if let Some(claim) = &exchange.claim {
            claim.forward.backend.live.tally.answered(status, duration);
            claim.release.tally.took(duration);
        }
        if let Some(e) = e {
            log::debug!("exchange ended early: {e}");
        }
        let Some(access_log) = &self.access_log else { return };
        let request = session.req_header();
        let target = request.uri.path_and_query().map_or("", |target| target.as_str());
        let names = exchange.app.as_ref().map(|app| &*app.names);
        let served = exchange.claim.as_ref();
        access_log.write(Record {
            time: self.control.now() - duration,
            client: exchange.client.address,
            host: host(session).map(Into::into),
            method: request.method.clone(),
            path: without_session(target.as_bytes(), names).into(),
            protocol: request.version,
            status,
            bytes: session.body_bytes_sent() as u64,
            request_bytes: session.body_bytes_read() as u64,
            duration,
            backend_duration: exchange.first_byte,
            app: exchange.app.as_ref().map(|app| app.name.clone()),
            release: served.map(|claim| claim.forward.backend.release.clone()),
            backend: served.map(|claim| claim.forward.backend.spec.clone()),
            reason: exchange.reason,
            pin: exchange.pin,
            request_id: exchange.request_id.value(),
            user_agent: request.headers.get(USER_AGENT).cloned(),
            referer: request.headers.get(REFERER).and_then(|referer| referer_without_session(referer, names)),
        });
    }
}
