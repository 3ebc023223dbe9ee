//! Listening sockets: bound before anything is served, so that "address in use" is an error of the start and not of a task.
//!
//! There is one socket and no hidden duplicate of it: while any copy lives in this process the kernel goes on completing
//! connections that nobody will ever accept. Whoever needs it for a hand-over has a [`ListenerHandle`], which is weak.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::certificates::{CertificateError, CertificateFacts, Certificates, SharedCertificates, TlsSpec};

/// Connections the kernel holds for us while we are busy. It cuts this to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 65_535;

/// A dead client is found after about 60 + 5 × 10 s; routers forget idle connections after 5 minutes or more.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 5;

/// Where to listen, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Port 0 lets the kernel choose; [`BoundListener::address`] tells.
    pub address: SocketAddr,
    /// `None` is plain text.
    pub tls: Option<TlsSpec>,
}

/// Why a listener cannot be had; names the address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate cannot be used.
    #[error("listener {address}: {source}")]
    Certificate {
        /// The address asked for.
        address: SocketAddr,
        /// What is wrong with the file.
        source: CertificateError,
    },
}

/// A socket that listens already, but that nobody accepts from yet: clients wait in its backlog.
#[derive(Debug)]
pub struct BoundListener {
    socket: TcpListener,
    certificates: Option<SharedCertificates>,
    asked: SocketAddr,
    address: SocketAddr,
}

impl BoundListener {
    /// Loads the certificates, then binds.
    ///
    /// # Errors
    ///
    /// An unusable certificate, or an address that cannot be bound.
    pub fn bind(spec: &ListenerSpec) -> Result<BoundListener, ListenError> {
        let certificates = load(spec)?;
        let failed = |source| ListenError::Bind { address: spec.address, source };
        let socket = listen(spec.address).map_err(failed)?;
        BoundListener::new(socket, spec.address, certificates).map_err(failed)
    }

    /// Takes over a socket that a previous process bound for the same address.
    ///
    /// # Errors
    ///
    /// An unusable certificate, or a socket that refuses its options.
    pub fn adopt(spec: &ListenerSpec, socket: TcpListener) -> Result<BoundListener, ListenError> {
        let certificates = load(spec)?;
        BoundListener::new(socket, spec.address, certificates).map_err(|source| ListenError::Bind { address: spec.address, source })
    }

    fn new(socket: TcpListener, asked: SocketAddr, certificates: Option<SharedCertificates>) -> io::Result<BoundListener> {
        socket.set_nonblocking(true)?;
        // On Linux accepted sockets inherit these from the listening one: four system calls saved per connection.
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
        let address = socket.local_addr()?;
        Ok(BoundListener { socket, certificates, asked, address })
    }

    /// Where it really listens: the port is never 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ready to accept from; must be called within a tokio runtime.
    pub(super) fn open(self) -> io::Result<OpenListener> {
        Ok(OpenListener {
            socket: Arc::new(tokio::net::TcpListener::from_std(self.socket)?),
            certificates: self.certificates,
            asked: self.asked,
            address: self.address,
        })
    }
}

/// A listener that is accepted from. Holds the only lasting reference to the socket.
pub(super) struct OpenListener {
    pub(super) socket: Arc<tokio::net::TcpListener>,
    pub(super) certificates: Option<SharedCertificates>,
    asked: SocketAddr,
    pub(super) address: SocketAddr,
}

impl OpenListener {
    pub(super) fn handle(&self) -> ListenerHandle {
        ListenerHandle {
            socket: Arc::downgrade(&self.socket),
            certificates: self.certificates.clone(),
            asked: self.asked,
            address: self.address,
        }
    }
}

/// What the rest of the process may still do with a listener that serves: hand it over, renew its certificates.
#[derive(Clone, Debug)]
pub struct ListenerHandle {
    socket: Weak<tokio::net::TcpListener>,
    certificates: Option<SharedCertificates>,
    asked: SocketAddr,
    address: SocketAddr,
}

impl ListenerHandle {
    /// The address of the configuration; its port may be 0. By this a successor recognises the socket.
    pub fn asked_address(&self) -> SocketAddr {
        self.asked
    }

    /// Where it really listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, to send it to a successor; `None` once accepting has ended. Drop it right after sending.
    pub fn socket(&self) -> Option<Arc<tokio::net::TcpListener>> {
        self.socket.upgrade()
    }

    /// What certificates it shows now; empty for plain text.
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        match &self.certificates {
            Some(shared) => shared.load().facts().to_vec(),
            None => Vec::new(),
        }
    }

    /// Loads other certificates without showing them yet: of several listeners all or none are to change. `None` for plain text.
    ///
    /// # Errors
    ///
    /// An unusable certificate.
    pub fn prepare_certificates(&self, spec: &TlsSpec) -> Result<Option<PreparedCertificates>, ListenError> {
        let Some(shared) = &self.certificates else { return Ok(None) };
        let loaded = Certificates::load(spec).map_err(|source| ListenError::Certificate { address: self.asked, source })?;
        Ok(Some(PreparedCertificates { shared: Arc::clone(shared), loaded: Arc::new(loaded) }))
    }
}

/// Certificates that were read and are fine, for one listener.
#[derive(Debug)]
pub struct PreparedCertificates {
    shared: SharedCertificates,
    loaded: Arc<Certificates>,
}

impl PreparedCertificates {
    /// Whether they are others than those that are shown now.
    pub fn differ(&self) -> bool {
        self.shared.load().facts() != self.loaded.facts()
    }

    /// Shows them from the next handshake on.
    pub fn show(self) {
        self.shared.store(self.loaded);
    }
}

fn load(spec: &ListenerSpec) -> Result<Option<SharedCertificates>, ListenError> {
    let Some(tls) = &spec.tls else {
        return Ok(None);
    };
    let loaded = Certificates::load(tls).map_err(|source| ListenError::Certificate { address: spec.address, source })?;
    Ok(Some(Arc::new(arc_swap::ArcSwap::from_pointee(loaded))))
}

/// By hand and not by `TcpListener::bind`, whose backlog of 128 is overrun by a burst of clients.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for connections of the previous process in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_is_answered_with_a_real_port_and_a_taken_one_is_named() {
        let spec = |address| ListenerSpec { address, tls: None };
        let first = BoundListener::bind(&spec("127.0.0.1:0".parse().unwrap())).unwrap();
        assert_ne!(first.address().port(), 0);
        let error = BoundListener::bind(&spec(first.address())).unwrap_err();
        assert!(error.to_string().contains(&first.address().to_string()));
    }

    #[test]
    fn an_accepted_socket_inherits_nodelay_and_keepalive() {
        let spec = ListenerSpec { address: "[::1]:0".parse().unwrap(), tls: None };
        let listener = BoundListener::bind(&spec).unwrap();
        let client = std::net::TcpStream::connect(listener.address()).unwrap();
        listener.socket.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.socket.accept().unwrap();
        assert!(sockopt::tcp_nodelay(&accepted).unwrap());
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEPALIVE_IDLE);
        drop(client);
    }

    #[tokio::test]
    async fn a_handle_does_not_keep_the_socket_open() {
        let spec = ListenerSpec { address: "127.0.0.1:0".parse().unwrap(), tls: None };
        let listener = BoundListener::bind(&spec).unwrap().open().unwrap();
        let handle = listener.handle();
        assert!(handle.socket().is_some());
        drop(listener);
        assert!(handle.socket().is_none());
        assert!(std::net::TcpStream::connect(handle.address()).is_err());
    }
}
