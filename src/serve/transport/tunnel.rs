//! Upgraded connections (WebSocket): kept whole at birth, and closable from outside.
//!
//! Pingora tears a tunnel down when the backend's 101 is read before the empty request body was taken off its queue: one
//! in a hundred on a busy machine, and nothing is logged. The connection to the backend therefore gives out no byte until
//! the body has ended. Closing must end both sides: a side that waits for a stuck peer does not notice the other's end.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::task::AtomicWaker;
use pingora_core::Result;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::dial::{connect, set_option};
use super::sock::Sock;

/// One attempt to reach a backend with an upgrade request. Make a new one for every attempt.
///
/// Not for requests that wait for `100 Continue`: their body never ends before the backend's first word.
pub struct Tunnel {
    gate: Arc<Gate>,
    group_key: u64,
}

/// Closes a tunnel from outside; harmless when the tunnel has already ended. Clones mean the same tunnel.
#[derive(Clone)]
pub struct TunnelHandle(Arc<Gate>);

#[derive(Default)]
struct Gate {
    /// The connection is established, TLS included: from here reads are held back.
    armed: AtomicBool,
    /// The request body has passed the proxy's filter.
    body_ended: AtomicBool,
    closed: AtomicBool,
    backend: AtomicWaker,
    client: AtomicWaker,
}

impl Tunnel {
    /// A fresh, unarmed gate.
    #[expect(clippy::new_without_default, reason = "each tunnel takes a new key")]
    pub fn new() -> Tunnel {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tunnel {
            gate: Arc::default(),
            // The upper half of the space, so that no key chosen by hand collides.
            group_key: (1 << 63) | NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// For `peer.options.custom_l4`. Pingora applies no connect timeout to it, so it is given here.
    pub fn connector(&self, timeout: Option<Duration>) -> Arc<dyn L4Connect + Send + Sync> {
        Arc::new(Connector { gate: self.gate.clone(), timeout })
    }

    /// For `peer.group_key`: no other request may ever get this connection, nor this request a pooled one.
    pub fn group_key(&self) -> u64 {
        self.group_key
    }

    /// To be called in `connected_to_upstream`.
    pub fn arm(&self) {
        self.gate.armed.store(true, Ordering::Release);
    }

    /// To be called in `request_body_filter` at the end of the body, unless the exchange is upgraded already.
    pub fn body_ended(&self) {
        self.gate.body_ended.store(true, Ordering::Release);
    }

    /// Ties the client's connection to this tunnel, so that closing ends both. False if it is not one of ours.
    pub fn join(&self, client: &Stream) -> bool {
        self.handle().join(client)
    }

    /// For whoever may want to close it.
    pub fn handle(&self) -> TunnelHandle {
        TunnelHandle(self.gate.clone())
    }
}

impl TunnelHandle {
    /// Whether it has a client connection to itself that it ends with: a stream may share one.
    pub fn is_tunnel(&self) -> bool {
        self.0.armed.load(Ordering::Acquire)
    }

    /// For an exchange that is no tunnel and may have to end like one: an event stream. `client` is its connection if it has one of
    /// its own; without one (HTTP/2, whose connection others share) closing cuts nothing, and whoever writes must ask.
    pub fn of_stream(client: Option<&Stream>) -> TunnelHandle {
        let handle = TunnelHandle(Arc::default());
        if client.is_some_and(|client| !handle.join(client)) {
            log::debug!("an event stream's client is no connection of ours");
        }
        handle
    }

    fn join(&self, client: &Stream) -> bool {
        match client.as_any().downcast_ref::<Sock>() {
            Some(sock) => {
                sock.join(self.clone());
                true
            }
            None => false,
        }
    }

    /// Ends both sides at once, also when a peer does not read. Both peers see the end of the connection; no close frame
    /// is made up (WebSocket code 1006).
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.backend.wake();
        self.0.client.wake();
    }

    /// Whether it was closed from outside.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// The client's side: registers the task, then tells whether the tunnel is closed. In this order no wake is lost.
    pub(super) fn cut_for_client(&self, cx: &Context<'_>) -> bool {
        self.0.client.register(cx.waker());
        self.is_closed()
    }
}

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelHandle").field("closed", &self.is_closed()).finish()
    }
}

struct Connector {
    gate: Arc<Gate>,
    timeout: Option<Duration>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("tunnel::Connector").field("timeout", &self.timeout).finish()
    }
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<L4Stream> {
        let tcp = connect(address, self.timeout).await?;
        Ok(L4Stream::from(VirtualSocketStream::new(Box::new(Guarded { tcp, held: true, gate: self.gate.clone() }))))
    }
}

/// The connection to the backend.
struct Guarded {
    tcp: TcpStream,
    /// No byte of the backend is given out yet.
    held: bool,
    gate: Arc<Gate>,
}

impl Guarded {
    fn is_cut(&self, cx: &Context<'_>) -> bool {
        self.gate.backend.register(cx.waker());
        self.gate.closed.load(Ordering::Acquire)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        if this.held && this.gate.armed.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut this.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut this.tcp).poll_write(cx, data)
    }

    /// Pingora flushes right after it took the end of the body off its queue: from then on the 101 may be read.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.tcp).poll_flush(cx);
        if this.held && flushed.is_ready() && this.gate.body_ended.load(Ordering::Acquire) {
            this.held = false;
            this.gate.backend.wake();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for Guarded {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        set_option(&self.tcp, option)
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("tcp", &self.tcp).field("held", &self.held).finish()
    }
}
