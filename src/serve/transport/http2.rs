//! HTTP/2 on one connection: each stream is an exchange in a task of its own.
//!
//! Pingora has this loop too, but not to call from outside with a limit on the handshake and an end for dead peers: after
//! GOAWAY it waits for a client's answer, and a vanished client would hold up every stop for the whole grace period.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream};
use pingora_proxy::ProxyHttp;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::sock::Sock;
use super::stop::raised;

/// As in Pingora's loop: a client that sends so many broken requests is not worth another.
const MALFORMED_STREAMS: usize = 32;

/// After GOAWAY, with no stream left: time for a slow reader to take the last window (64 KiB), not for a dead one.
pub(super) const LAST_BYTES: Duration = Duration::from_secs(5);

/// Serves until the client closes, has been idle for too long, or the process stops.
pub(super) async fn serve<P>(shared: Arc<Shared<P>>, sock: Box<Sock>)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let digest = Arc::new(Digest {
        ssl_digest: sock.get_ssl_digest(),
        timing_digest: sock.get_timing_digest(),
        proxy_digest: sock.get_proxy_digest(),
        socket_digest: sock.get_socket_digest(),
    });
    let stream: Stream = sock;
    // From Pingora's defaults: they bound header lists and streams (CVE-2026-105297).
    let options = shared.proxy.h2_options().unwrap_or_else(default_h2_options);
    let preface = timeout(shared.options.header_timeout, handshake(stream, Some(options)));
    let mut connection = match preface.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(e)) => return log::debug!("HTTP/2: {e}"),
        Err(_) => return log::debug!("HTTP/2: no preface in time"),
    };
    let mut closing = shared.stop.close_watch();
    let mut leaving = false;
    let mut malformed = 0;
    let active = Arc::new(Active::default());
    loop {
        let idle = match leaving {
            true => LAST_BYTES,
            false => shared.options.idle_timeout,
        };
        let accepted = tokio::select! {
            biased;
            () = raised(&mut closing), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
                continue;
            }
            // Also drives all reading and writing of the connection.
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
            () = active.none_for(idle) => {
                if leaving {
                    return;
                }
                // Not just closed: a request that is on its way right now is still answered.
                connection.graceful_shutdown();
                leaving = true;
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                let counted = active.begin();
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _counted = counted;
                    let draining = shared.stop.drain_watch();
                    let session = ServerSession::new_http2(session);
                    // Nothing to reuse: the connection is this loop's.
                    drop(shared.proxy.process_new_http(session, &draining).await);
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                malformed += 1;
                if malformed >= MALFORMED_STREAMS {
                    return log::warn!("HTTP/2 connection closed after {malformed} malformed requests");
                }
            }
            Ok(None) => return,
            Err(e) => return log::debug!("HTTP/2: {e}"),
        }
    }
}

/// Streams under way on this connection.
#[derive(Default)]
struct Active {
    streams: AtomicUsize,
    none: Notify,
}

impl Active {
    fn begin(self: &Arc<Active>) -> Running {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// Resolves when there has been no stream for so long.
    async fn none_for(&self, idle: Duration) {
        while self.streams.load(Ordering::Acquire) > 0 {
            // Keeps one permit, so that an end between the look and the wait is not missed.
            self.none.notified().await;
        }
        sleep(idle).await;
    }
}

struct Running(Arc<Active>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_one();
        }
    }
}
