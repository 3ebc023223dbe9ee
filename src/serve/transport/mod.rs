//! How bytes get in and out: listeners, the accept loop, HTTP/1 and HTTP/2 connections, tunnels, and stopping them all.
//! Knows nothing of apps, releases or sessions: it hands every request to a proxy and asks no questions.
//!
//! Pingora's `Server` is not used: it cannot learn a port, drops idle connections the moment it stops accepting, sleeps its
//! whole grace period, and keeps 87 KiB per idle connection.
//!
//! | file | holds |
//! |---|---|
//! | `listener` | sockets that listen, and handles to hand them over or renew their certificates |
//! | `certificates` | which certificate a handshake shows |
//! | `accept` | from a fresh socket to the loop of its protocol |
//! | `sock` | one connection as Pingora sees it |
//! | `wire` | TCP or TLS under it |
//! | `head` | the deadline for a request head |
//! | `parked` | HTTP/1, request after request |
//! | `http2` | HTTP/2 streams |
//! | `dial` | how connections to backends are made |
//! | `line` | connections to backends, kept between exchanges |
//! | `tunnel` | upgraded connections: whole at birth, closable from outside |
//! | `stop` | the phases of a stop, and the counts that end it |

mod accept;
mod certificates;
mod dial;
mod head;
mod http2;
mod line;
mod listener;
mod parked;
mod sock;
mod stop;
#[cfg(test)]
mod tests;
mod tunnel;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::runtime::Handle;

use listener::OpenListener;

pub use certificates::{CertificateError, CertificateFacts, TlsSpec};
pub use line::{Line, LineTimes, Lines, Place};
pub use listener::{BoundListener, ListenError, ListenerHandle, ListenerSpec, PreparedCertificates};
pub use sock::Sock;
pub use stop::{Stop, StopTimes, Stopped};
pub use tunnel::{Tunnel, TunnelHandle};

/// Limits on client connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// How long a connection may be silent between requests. Longer than a backend's would do no harm; longer than that of
    /// a balancer in front would: it must close first.
    pub idle_timeout: Duration,
    /// From the first byte of a request, or from the beginning of the connection, to the end of the request's head.
    pub header_timeout: Duration,
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
    /// Further clients wait in the backlog. Per process, not per listener.
    pub max_connections: Option<usize>,
}

impl Default for TransportOptions {
    fn default() -> TransportOptions {
        TransportOptions {
            idle_timeout: Duration::from_secs(55),
            header_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_connections: None,
        }
    }
}

/// What every connection task needs.
struct Shared<P> {
    proxy: Arc<HttpProxy<P>>,
    options: TransportOptions,
    stop: Stop,
}

/// Begins to accept on all listeners, on the given runtime, and returns at once. Ends by [`Stop::run`].
///
/// The handles are in the order of the listeners; each is good until accepting ends.
///
/// Of the proxy's own options only `h2_options` is heeded; they must be built on Pingora's `default_h2_options()`. Text
/// listeners take HTTP/2 with prior knowledge whether `h2c` is set or not, TLS listeners by ALPN.
///
/// # Errors
///
/// A socket that the runtime cannot watch (no descriptor left for its poller); then nothing is served.
pub fn serve<P>(
    runtime: &Handle,
    listeners: Vec<BoundListener>,
    proxy: Arc<HttpProxy<P>>,
    options: TransportOptions,
    stop: Stop,
) -> io::Result<Vec<ListenerHandle>>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let shared = Arc::new(Shared { proxy, options, stop });
    let open: Vec<_> = {
        let _within = runtime.enter();
        let open = listeners.into_iter().map(BoundListener::open);
        open.collect::<io::Result<_>>()?
    };
    let handles = open.iter().map(OpenListener::handle).collect();
    for listener in open {
        // Counted here and not in the task: a stop that comes first must wait for it.
        let counted = shared.stop.count_listener();
        runtime.spawn(accept::run(listener, shared.clone(), counted));
    }
    Ok(handles)
}
