//! HTTP/1 on one connection, request after request. Between requests nothing of the proxy is alive.
//!
//! Pingora's own loop waits for the next request inside the request's future: 20 KiB per idle connection. Here the wait is
//! a peek, and the session is made when there is something to read.

use std::fmt::{self, Write};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::ProxyHttp;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Shared;
use super::head::Due;
use super::sock::Sock;
use super::stop::raised;

/// Serves until the connection ends. Returns it instead when its first bytes are HTTP/2's.
pub(super) async fn serve<P>(shared: &Arc<Shared<P>>, mut sock: Box<Sock>, accepted: Instant) -> Option<Box<Sock>>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let options = &shared.options;
    let draining = shared.stop.drain_watch();
    let mut closing = shared.stop.close_watch();
    // One of each for the whole connection: making them anew for every wait costs more than the wait.
    let mut closed = Box::pin(raised(&mut closing));
    let mut watches = false;
    let mut alarm = Box::pin(sleep_until(accepted + options.header_timeout));
    let mut first_head = Some(accepted + options.header_timeout);
    let mut kept: Option<HttpPersistentSettings> = None;
    loop {
        // Asked only after a body or a pipelined request: the question costs a microsecond.
        let may_hold = sock.has_read_beyond_head();
        let watched = !(may_hold && kept.as_ref().is_some_and(begins_next_request));
        if watched {
            let end = first_head.unwrap_or_else(|| Instant::now() + options.idle_timeout);
            // An alarm that goes off too early is set again then: moving it for every request costs more.
            if alarm.deadline() > end {
                alarm.as_mut().reset(end);
            }
            sock.park();
            let come = poll_fn(|cx| {
                // A request that has arrived is served, also at the very moment of closing.
                if let Poll::Ready(come) = sock.poll_bytes(cx) {
                    return Poll::Ready(come.unwrap_or(false));
                }
                // Polled once, it stays registered with this task; from then on the flag tells.
                let closes = match watches {
                    true => shared.stop.is_closing(),
                    false => closed.as_mut().poll(cx).is_ready(),
                };
                watches = true;
                while alarm.as_mut().poll(cx).is_ready() {
                    if alarm.deadline() >= end {
                        return Poll::Ready(false);
                    }
                    alarm.as_mut().reset(end);
                }
                if closes { Poll::Ready(false) } else { Poll::Pending }
            });
            if !come.await {
                return None; // idle for too long, closed, or reset
            }
            if let Some(until) = first_head
                && !sock.is_tls()
            {
                match Box::pin(timeout_at(until, sock.speaks_http2())).await {
                    Ok(Ok(false)) => {}
                    Ok(Ok(true)) => return Some(sock),
                    Ok(Err(_)) | Err(_) => return None,
                }
            }
            let head = first_head.take();
            sock.expect_head(head.map_or(Due::Within(options.header_timeout), Due::At));
        } else {
            sock.expect_unwatched_head();
        }

        let mut session = ServerSession::new_http1(sock);
        if let Some(kept) = kept.take() {
            kept.apply_to_session(&mut session);
        }
        // Browsers do not pipeline, load generators and some clients do; without this a second request ends the first.
        session.set_pipelining_enabled(true);
        // Only for the reading of this head, by which Pingora replaces it.
        session.set_keepalive(Some(options.header_timeout.as_secs().max(1)));
        // The boxed future (9 KiB) is gone before the next wait.
        let reusable = shared.proxy.process_new_http(session, &draining).await?;
        let (stream, settings) = reusable.consume();
        sock = own(stream)?;
        kept = settings;
    }
}

/// Not async: `Box<dyn Any>` is not `Send` and must not live across a wait.
fn own(stream: Stream) -> Option<Box<Sock>> {
    let own = stream.into_any().downcast::<Sock>();
    debug_assert!(own.is_ok(), "Pingora returns the stream it was given");
    own.ok()
}

/// Whether Pingora has read into the next request already. Then there may be nothing to wait for on the socket.
///
/// Pingora keeps those bytes to itself and has no getter; the debug form tells. If that ever changes, "yes" is the answer
/// that only costs memory, and a test notices.
fn begins_next_request(settings: &HttpPersistentSettings) -> bool {
    let mut text = Beginning(String::new());
    // Err means cut short: enough was seen.
    let whole = write!(text, "{settings:?}");
    whole.is_err() || !text.0.contains("pipelined_prefix: None")
}

/// Takes the first characters and refuses the rest, so that a long prefix is not spelled out.
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.0.len() + piece.len() > 256 {
            return Err(fmt::Error);
        }
        self.0.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session without a connection: [`HttpPersistentSettings`] can be had from nowhere else.
    fn settings() -> HttpPersistentSettings {
        let (here, _there) = tokio::io::duplex(16);
        HttpPersistentSettings::for_session(&ServerSession::new_http1(Box::new(here)))
    }

    #[test]
    fn bytes_of_the_next_request_are_noticed() {
        assert!(!begins_next_request(&settings()));
        for next in ["G", &"x".repeat(10_000)] {
            let mut settings = settings();
            settings.set_pipelined_prefix(next.as_bytes().into());
            assert!(begins_next_request(&settings), "{} bytes", next.len());
        }
    }
}
