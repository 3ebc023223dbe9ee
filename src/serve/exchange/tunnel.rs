//! A tunnel or an event stream as an exchange: with the head of its answer it joins the open ones, and leaves them when the exchange
//! is dropped.

use http::header::CONTENT_TYPE;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::context::Exchange;
use super::peer::is_streaming_path;
use crate::serve::transport::TunnelHandle;

impl Gateway {
    /// To be called after the 101's session news: a session that it made is the tunnel's own.
    pub(super) fn tunnel_opened(&self, exchange: &mut Exchange) {
        if let Some(handle) = exchange.tunnel.as_ref().map(|tunnel| tunnel.handle()) {
            self.opened(exchange, handle);
        }
    }

    /// Likewise for any other answer. A stream is known by its path or by its media type (server-sent events, HTML Standard §9.2);
    /// a long download is none, for it ends by itself.
    pub(super) fn stream_opened(&self, session: &Session, response: &ResponseHeader, exchange: &mut Exchange) {
        let by_type = response.headers.get(CONTENT_TYPE).is_some_and(|value| {
            let media = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
            media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        });
        if by_type || exchange.app.as_ref().is_some_and(|app| is_streaming_path(app, session)) {
            self.opened(exchange, TunnelHandle::of_stream(session.as_downstream().stream()));
        }
    }

    fn opened(&self, exchange: &mut Exchange, handle: TunnelHandle) {
        let (Some(app), Some(claim)) = (&exchange.app, &exchange.claim) else { return };
        let key = if exchange.ignored { None } else { exchange.visit.session_key() };
        exchange.tunnel_entry = Some(self.control.tunnels.enter(app, &claim.forward.backend, key, handle, self.control.now()));
    }
}
