//! The accept loop, and the way from a fresh socket to the loop of its protocol.
//!
//! At a stop everything the kernel has completed is taken before the socket closes: what is left in a backlog then is
//! reset. Tokio may not know of it yet, so that is asked of the kernel itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::tls::SslStream;
use pingora_proxy::ProxyHttp;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::certificates::Certificates;
use super::listener::OpenListener;
use super::sock::Sock;
use super::stop::{Counted, raised};
use super::{Shared, http2, parked};

/// The wait after the process has run out of descriptors or memory, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Between two complaints in the log about the same trouble.
const QUIET: Duration = Duration::from_secs(60);

/// The client is gone already, its network is, or a firewall forbids it (accept(2)): the next one may be fine. Anything else
/// is ours, and would come back at once.
const OF_ONE_CLIENT: [Errno; 11] = [
    Errno::CONNABORTED,
    Errno::CONNRESET,
    Errno::PERM,
    Errno::PROTO,
    Errno::NETDOWN,
    Errno::NOPROTOOPT,
    Errno::HOSTDOWN,
    Errno::HOSTUNREACH,
    Errno::NETUNREACH,
    Errno::OPNOTSUPP,
    Errno::INTR,
];

/// At a stop under full load the backlog refills while it is emptied; a whole backlog has been served after this many.
const LAST_ACCEPTS: usize = 65_536;

/// Accepts until the stop. Owns the socket: at its end clients are refused.
pub(super) async fn run<P>(listener: OpenListener, shared: Arc<Shared<P>>, counted: Counted)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut draining = shared.stop.drain_watch();
    let mut accepting = Accepting { listener, shared, pause: None, quiet_until: None };
    tokio::select! {
        () = raised(&mut draining) => {}
        () = accepting.until_dropped() => {}
    }
    accepting.take_the_rest();
    // Before the count goes down: whoever waits for it may rely on clients being refused.
    drop(accepting);
    drop(counted);
}

struct Accepting<P> {
    listener: OpenListener,
    shared: Arc<Shared<P>>,
    /// `Some` while the system refuses; the next wait.
    pause: Option<Duration>,
    /// Since a complaint was logged.
    quiet_until: Option<Instant>,
}

impl<P> Accepting<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn until_dropped(&mut self) {
        loop {
            // At the limit clients wait in the backlog, as with HAProxy's `maxconn`: no answer is better than a reset.
            if let Some(limit) = self.shared.options.max_connections {
                self.shared.stop.until_below(limit).await;
            }
            match self.listener.socket.accept().await {
                Ok((tcp, peer)) => self.accepted(tcp, peer),
                Err(e) => self.refused(&e).await,
            }
        }
    }

    fn accepted(&mut self, tcp: TcpStream, peer: SocketAddr) {
        self.pause = None;
        let certificates = self.listener.certificates.as_ref();
        let certificates = certificates.map(|shared| shared.load_full());
        let counted = self.shared.stop.count_connection();
        let shared = self.shared.clone();
        tokio::spawn(serve(shared, tcp, peer, certificates, counted));
    }

    async fn refused(&mut self, e: &io::Error) {
        let errno = Errno::from_io_error(e);
        if errno.is_some_and(|errno| OF_ONE_CLIENT.contains(&errno)) {
            log::debug!("listener {}: {e}", self.listener.address);
            return;
        }
        // At the limit each connection that ends lets one in and the next is refused: not a line for each.
        let now = Instant::now();
        if self.quiet_until.is_none_or(|until| now >= until) {
            self.quiet_until = Some(now + QUIET);
            let remedy = match errno {
                Some(Errno::MFILE) => "; raise the limit of open files (LimitNOFILE, ulimit -n)",
                Some(Errno::NFILE) => "; raise fs.file-max",
                _ => "",
            };
            let address = self.listener.address;
            log::error!("listener {address}: cannot accept: {e}{remedy}");
        }
        let pause = self.pause.unwrap_or(FIRST_PAUSE);
        self.pause = Some((pause * 2).min(LONGEST_PAUSE));
        sleep(pause).await;
    }

    fn take_the_rest(&mut self) {
        for _ in 0..LAST_ACCEPTS {
            match accept_now(&self.listener.socket) {
                Ok((tcp, peer)) => self.accepted(tcp, peer),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => break,
            }
        }
        log::debug!("listener {}: closed", self.listener.address);
    }
}

/// `WouldBlock` when the kernel has nothing more.
fn accept_now(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (accepted, peer) = rustix::net::acceptfrom_with(socket, flags)?;
    // Linux gives no address when the client has reset already; such a connection is of no use.
    let peer = peer.and_then(|any| SocketAddr::try_from(any).ok());
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(accepted.into())?, peer))
}

/// One connection, from its first byte to its last. Each protocol's future is boxed: an idle connection pays only for its own.
async fn serve<P>(shared: Arc<Shared<P>>, tcp: TcpStream, peer: SocketAddr, certificates: Option<Arc<Certificates>>, _counted: Counted)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let sock = match certificates {
        None => Sock::plain(tcp, peer),
        Some(certificates) => {
            let limit = shared.options.handshake_timeout;
            match Box::pin(timeout(limit, handshake(&certificates, tcp))).await {
                Ok(Ok(tls)) => Sock::tls(tls, peer),
                // Scanners and probes do this all day: no more than a word for who looks.
                Ok(Err(e)) => return log::debug!("TLS with {peer}: {e}"),
                Err(_) => return log::debug!("TLS with {peer}: not done in {limit:?}"),
            }
        }
    };
    let sock = Box::new(sock);
    if sock.negotiated_http2() {
        return Box::pin(http2::serve(shared, sock)).await;
    }
    let begin = Instant::now();
    if let Some(sock) = parked::serve(&shared, sock, begin).await {
        Box::pin(http2::serve(shared, sock)).await;
    }
}

async fn handshake(certificates: &Certificates, tcp: TcpStream) -> Result<SslStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let mut tls = SslStream::new(certificates.handshake()?, tcp)?;
    tls.accept().await?;
    Ok(tls)
}
