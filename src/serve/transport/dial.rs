//! How our own connections to backends are made: for Pingora they are virtual sockets, so it neither connects nor tunes them.

use std::io;
use std::time::Duration;

use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::virt::VirtualSockOpt;
use pingora_core::{Error, ErrorType, Result};
use rustix::net::sockopt;
use tokio::net::TcpStream;

/// A connection to a backend; Pingora applies its connect timeout to its own connections alone.
pub(super) async fn connect(address: &SocketAddr, timeout: Option<Duration>) -> Result<TcpStream> {
    let Some(inet) = address.as_inet() else {
        return Error::e_explain(ErrorType::ConnectError, "backends have TCP addresses");
    };
    let connecting = TcpStream::connect(inet);
    let connected = match timeout {
        Some(limit) => tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        None => connecting.await,
    };
    connected.map_err(|e| {
        let kind = connect_error(&e);
        Error::because(kind, format!("connecting to {address}"), e)
    })
}

/// The same kinds as Pingora's own connector, so that the glue judges both alike.
fn connect_error(e: &io::Error) -> ErrorType {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => ErrorType::ConnectNoRoute,
        // Out of ports, or forbidden to us: not the backend's fault.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse => ErrorType::InternalError,
        _ => ErrorType::ConnectError,
    }
}

/// What Pingora asks of the socket below.
pub(super) fn set_option(tcp: &TcpStream, option: VirtualSockOpt) -> io::Result<()> {
    match option {
        VirtualSockOpt::NoDelay => tcp.set_nodelay(true),
        VirtualSockOpt::KeepAlive(keepalive) => keep_alive(tcp, &keepalive),
        other => {
            log::debug!("socket option not applied to a connection to a backend: {other:?}");
            Ok(())
        }
    }
}

fn keep_alive(tcp: &TcpStream, keepalive: &TcpKeepalive) -> io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, keepalive.idle)?;
    sockopt::set_tcp_keepintvl(tcp, keepalive.interval)?;
    sockopt::set_tcp_keepcnt(tcp, u32::try_from(keepalive.count).unwrap_or(u32::MAX))?;
    let unacknowledged = u32::try_from(keepalive.user_timeout.as_millis()).unwrap_or(u32::MAX);
    if unacknowledged > 0 {
        sockopt::set_tcp_user_timeout(tcp, unacknowledged)?;
    }
    Ok(())
}
