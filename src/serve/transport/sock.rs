//! One client connection as Pingora sees it: TCP or TLS, with a write buffer that exists only while an answer is written.
//!
//! Pingora's own stream keeps 64 KiB of buffers per connection for its whole life; this one keeps none while idle. Head and
//! body leave in one write. Bytes written stay here until `flush` or until 4 KiB are together: whoever writes must flush.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use openssl::ssl::SslRef;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, SslStream};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::head::{Due, HeadWatch};
use super::tunnel::TunnelHandle;
use super::wire::Wire;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Takes the first read of a request, which mostly is all of it.
const READ_BUFFER: usize = 2048;

/// Holds a response head and a small body together: one segment, one TLS record.
const WRITE_BUFFER: usize = 2048;

/// How long a client may go on sending a body after our last word. Closing at once would reset the connection,
/// and the reset may overtake the answer (RFC 9112 §9.6).
const LAST_READS: Duration = Duration::from_secs(1);

/// Told to a client whose head did not come in time, before the connection is closed.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A client connection.
pub struct Sock {
    wire: Wire,
    /// Taken from the socket while looking for the HTTP/2 preface, and still to be read.
    unread: Vec<u8>,
    /// Written by Pingora, not yet by us; `out[..out_done]` has left. No capacity while parked.
    out: Vec<u8>,
    out_done: usize,
    head: HeadWatch,
    /// We have closed our direction.
    said_all: bool,
    /// Set while the connection is the client's side of a tunnel or of an event stream; lets it be closed from outside. Others pay
    /// for no lock.
    tunnel: OnceLock<Mutex<TunnelHandle>>,
    digest: Arc<SocketDigest>,
    established: SystemTime,
}

impl Sock {
    /// A plain-text connection from `peer`.
    pub(super) fn plain(tcp: TcpStream, peer: SocketAddr) -> Sock {
        Sock::new(Wire::Plain(tcp), peer)
    }

    /// A connection whose TLS handshake is done.
    pub(super) fn tls(tls: SslStream<TcpStream>, peer: SocketAddr) -> Sock {
        Sock::new(Wire::Tls(Box::new(tls)), peer)
    }

    fn new(wire: Wire, peer: SocketAddr) -> Sock {
        let digest = SocketDigest::from_raw_fd(wire.tcp().as_raw_fd());
        // Known from accept: no getpeername, and it still tells after the client has reset the connection.
        if digest.peer_addr.set(Some(peer.into())).is_err() {
            unreachable!("the digest is new");
        }
        Sock {
            wire,
            unread: Vec::new(),
            out: Vec::new(),
            out_done: 0,
            head: HeadWatch::default(),
            said_all: false,
            tunnel: OnceLock::new(),
            digest: Arc::new(digest),
            established: SystemTime::now(),
        }
    }

    /// Whether TLS agreed on HTTP/2.
    pub(super) fn negotiated_http2(&self) -> bool {
        matches!(self.selected_alpn_proto(), Some(ALPN::H2))
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    /// Gives back what a wait does not need.
    pub(super) fn park(&mut self) {
        self.out = Vec::new();
        self.out_done = 0;
    }

    /// Ready when there is something to read; with false if the client closed instead.
    ///
    /// What has come is taken at once and given back by `unread`: readiness alone is not to be trusted, since tokio also
    /// reports it when the last read happened to fill its buffer, and a peek would be a system call more per request.
    /// Read by `AsyncRead` and not `try_read`: only the former takes a short read as the end of readiness, and saves the next
    /// wait a read in vain.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Wire::Plain(tcp) = &mut self.wire else { return self.poll_decrypted(cx) };
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(true));
        }
        ready!(tcp.poll_read_ready(cx))?;
        let mut bytes = Vec::with_capacity(READ_BUFFER);
        let read = ready!(pin!(tcp.read_buf(&mut bytes)).poll(cx))?;
        self.unread = bytes;
        Poll::Ready(Ok(read > 0))
    }

    /// The same for TLS: only a peek, since records are for OpenSSL to read.
    fn poll_decrypted(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let decrypted = matches!(&self.wire, Wire::Tls(tls) if tls.ssl().pending() > 0);
        if decrypted || !self.unread.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let mut octet = [0];
        self.wire.tcp().poll_peek(cx, &mut ReadBuf::new(&mut octet)).map_ok(|seen| seen > 0)
    }

    /// Whether a plain-text client begins with the HTTP/2 preface. Waits only while what came could still become one, so
    /// the shortest HTTP/1.0 request is answered at once.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let Wire::Plain(tcp) = &self.wire else {
            return Ok(false);
        };
        // It may come in pieces; they are given back by `unread`.
        loop {
            let seen = self.unread.len().min(HTTP2_PREFACE.len());
            if self.unread.get(..seen) != HTTP2_PREFACE.get(..seen) {
                return Ok(false);
            }
            if seen == HTTP2_PREFACE.len() {
                return Ok(true);
            }
            tcp.readable().await?;
            match tcp.try_read_buf(&mut self.unread) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The next request head must be whole when it is due, or the client gets a 408 and the connection ends.
    pub(super) fn expect_head(&mut self, due: Due) {
        self.tunnel.take();
        self.head.begin(due);
    }

    /// The next request may have begun in bytes that Pingora holds already: its head cannot be watched.
    pub(super) fn expect_unwatched_head(&mut self) {
        self.tunnel.take();
        self.head.end();
    }

    /// Whether anything was read that is not of the last awaited head; only then can Pingora hold bytes of a next request.
    pub(super) fn has_read_beyond_head(&self) -> bool {
        self.head.has_read_beyond()
    }

    /// Makes this the client's side of a tunnel, until the next request. The last call counts: an upgrade may be tried at one backend
    /// after the other.
    pub(super) fn join(&self, tunnel: TunnelHandle) {
        let place = self.tunnel.get_or_init(|| Mutex::new(tunnel.clone()));
        *place.lock().unwrap_or_else(PoisonError::into_inner) = tunnel;
    }

    /// Says 408 if the client has begun a head, and ends the reading.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.has_begun() && self.out.is_empty() {
            // One try: the client is given up, and a fresh socket takes 70 bytes.
            match self.wire.poll_write(cx, REQUEST_TIMEOUT) {
                Poll::Ready(Err(e)) => log::debug!("408 not delivered: {e}"),
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
        }
        self.head.end();
        let late = "the request head did not arrive in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)))
    }

    fn is_cut(&self, cx: &Context<'_>) -> bool {
        self.tunnel.get().is_some_and(|tunnel| tunnel.lock().unwrap_or_else(PoisonError::into_inner).cut_for_client(cx))
    }

    fn poll_drain_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.out_done..)
            && !rest.is_empty()
        {
            match ready!(self.wire.poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.out_done += len,
            }
        }
        self.out.clear();
        self.out_done = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes what is buffered and `data` in one call. Plain text only: TLS copies into records anyway.
    fn poll_write_both(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let rest = self.out.get(self.out_done..).unwrap_or_default();
            if rest.is_empty() {
                self.out.clear();
                self.out_done = 0;
                return self.wire.poll_write(cx, data);
            }
            let Wire::Plain(tcp) = &mut self.wire else {
                ready!(self.poll_drain_out(cx))?;
                continue;
            };
            let both = [IoSlice::new(rest), IoSlice::new(data)];
            let len = ready!(Pin::new(tcp).poll_write_vectored(cx, &both))?;
            let of_data = len.saturating_sub(rest.len());
            self.out_done += len - of_data;
            if of_data > 0 {
                self.out.clear();
                self.out_done = 0;
                return Poll::Ready(Ok(of_data));
            }
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }
}

impl AsyncRead for Sock {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_cut(cx) {
            return Poll::Ready(Ok(())); // end of file: the tunnel ends as if the client had closed
        }
        let before = buf.filled().len();
        if this.unread.is_empty() {
            match this.wire.poll_read(cx, buf) {
                Poll::Ready(done) => done?,
                Poll::Pending => {
                    ready!(this.head.poll_overdue(cx));
                    return this.overdue(cx);
                }
            }
        } else {
            let len = this.unread.len().min(buf.remaining());
            buf.put_slice(this.unread.get(..len).unwrap_or_default());
            this.unread.drain(..len);
            if this.unread.is_empty() {
                this.unread = Vec::new();
            }
        }
        if this.head.observe(buf.filled().get(before..).unwrap_or_default()) {
            return this.overdue(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sock {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.out.len() + data.len() > WRITE_BUFFER {
            return this.poll_write_both(cx, data);
        }
        if this.out.capacity() == 0 {
            this.out.reserve_exact(WRITE_BUFFER);
        }
        this.out.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.out.is_empty() && this.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain_out(cx))?;
        this.wire.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_cut(cx) {
            return this.wire.poll_shutdown(cx);
        }
        ready!(this.poll_drain_out(cx))?;
        ready!(this.wire.poll_shutdown(cx))?;
        this.said_all = true;
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Shutdown for Sock {
    async fn shutdown(&mut self) {
        if let Err(e) = AsyncWriteExt::shutdown(self).await {
            log::debug!("client gone before the end: {e}");
        }
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        // An error page that Pingora wrote and did not flush: one try, since a drop cannot wait.
        if let (Wire::Plain(tcp), Some(rest)) = (&self.wire, self.out.get(self.out_done..))
            && !rest.is_empty()
            && let Err(e) = tcp.try_write(rest)
        {
            log::debug!("last bytes not delivered: {e}");
        }
        if self.head.may_have_body() && self.tunnel.get().is_none() {
            if !self.said_all
                && let Err(e) = rustix::net::shutdown(self.wire.tcp(), rustix::net::Shutdown::Write)
            {
                // Pingora drops a connection after an error without a word; most often the client has gone.
                log::debug!("client gone before the end: {e}");
                return;
            }
            hear_out(self.wire.tcp());
        }
    }
}

/// Throws away what the client still sends of a body nobody wants, until it has read our answer and closes.
///
/// In a task of its own and with a copy of the socket, so that the exchange is over, and counted so, when it is answered.
fn hear_out(tcp: &TcpStream) {
    let Ok(runtime) = Handle::try_current() else {
        return; // the process is going down
    };
    let copied = tcp.as_fd().try_clone_to_owned();
    match copied.and_then(|fd| TcpStream::from_std(fd.into())) {
        Ok(mut copy) => {
            let mut nowhere = tokio::io::sink();
            runtime.spawn(async move {
                let heard = timeout(LAST_READS, tokio::io::copy(&mut copy, &mut nowhere)).await;
                log::trace!("after the answer: {heard:?}");
            });
        }
        Err(e) => log::debug!("client not heard out: {e}"),
    }
}

impl UniqueID for Sock {
    fn id(&self) -> UniqueIDType {
        self.wire.tcp().as_raw_fd()
    }
}

impl Ssl for Sock {
    fn get_ssl(&self) -> Option<&SslRef> {
        match &self.wire {
            Wire::Plain(_) => None,
            Wire::Tls(tls) => tls.get_ssl(),
        }
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        match &self.wire {
            Wire::Plain(_) => None,
            Wire::Tls(tls) => tls.get_ssl_digest(),
        }
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match &self.wire {
            Wire::Plain(_) => None,
            Wire::Tls(tls) => tls.selected_alpn_proto(),
        }
    }
}

// The HTTP/2 preface is looked for here and not by Pingora, whose peek waits for 24 bytes for ever.
impl Peek for Sock {}

impl GetTimingDigest for Sock {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.established, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for Sock {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Sock {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

impl fmt::Debug for Sock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sock").field("fd", &self.id()).field("tls", &self.is_tls()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Sock, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (tcp, peer) = listener.accept().await.unwrap();
        (Sock::plain(tcp, peer), client.unwrap())
    }

    #[tokio::test]
    async fn head_and_small_body_leave_together_and_nothing_is_kept_while_parked() {
        let (mut sock, mut client) = pair().await;
        sock.write_all(b"head").await.unwrap();
        sock.write_all(b"body").await.unwrap();
        let mut buffer = [0; 16];
        assert!(client.try_read(&mut buffer).is_err(), "sent before flush");
        sock.flush().await.unwrap();
        let len = client.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"headbody");
        client.write_all(b"next").await.unwrap();
        sock.park();
        assert!(std::future::poll_fn(|cx| sock.poll_bytes(cx)).await.unwrap());
        assert_eq!(sock.out.capacity(), 0);
        drop(client);
    }

    /// Every way through the write buffer, against a socket that takes only part of what it is offered.
    #[tokio::test]
    async fn bytes_leave_whole_and_in_order_however_the_socket_takes_them() {
        let (mut sock, mut client) = pair().await;
        rustix::net::sockopt::set_socket_send_buffer_size(sock.wire.tcp(), 2048).unwrap();
        let sizes = [3000, 1, 2_000, 4096, 9, 16_384, 4_000, 97, 70_000, 0, 4095, 2];
        let lengths = sizes.iter().cycle().take(sizes.len() * 40);
        let mut expected = Vec::new();
        let mut pieces = Vec::new();
        for (index, len) in lengths.enumerate() {
            let piece: Vec<u8> = (0..*len).map(|at| ((at * 7 + index) % 251) as u8).collect();
            expected.extend_from_slice(&piece);
            pieces.push(piece);
        }
        let writing = async {
            for (index, piece) in pieces.iter().enumerate() {
                sock.write_all(piece).await.unwrap();
                if index % 5 == 0 {
                    sock.flush().await.unwrap();
                }
            }
            Shutdown::shutdown(&mut sock).await;
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(writing, client.read_to_end(&mut got));
        read.unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }
}
