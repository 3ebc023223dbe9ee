//! The peer that Pingora connects to, built from what was claimed. It looks up and decides nothing.

use std::sync::Arc;

use http::header::{EXPECT, UPGRADE};
use pingora_core::protocols::ALPN;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions, Scheme};
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::Gateway;
use super::context::Exchange;
use crate::model::admission::Health;
use crate::model::decide::Footing;
use crate::model::health::ConnectFailure;
use crate::model::routes::under;
use crate::model::settings::Protocol;
use crate::model::view::App;
use crate::serve::transport::{LineTimes, Lines, Place, Tunnel};

/// Streams on one HTTP/2 connection to a backend: what Tomcat and nginx allow by default, halved.
const H2_STREAMS: usize = 64;

pub(super) fn build(lines: &Arc<Lines>, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
    let upgrade = is_websocket(session);
    let (Some(claim), Some(app)) = (&exchange.claim, &exchange.app) else {
        return Error::e_explain(ErrorType::InternalError, "no backend was claimed");
    };
    let backend = &claim.forward.backend;
    let Some(address) = backend.live.address() else {
        let mut e = Error::explain(ErrorType::ConnectError, "the backend's host name has not been resolved");
        e.set_retry(exchange.tried.add(backend.slot));
        exchange.claim = None;
        exchange.stay = None;
        return Err(e.into_up());
    };
    let timeouts = &app.settings.timeouts;
    let streaming = upgrade || is_streaming_path(app, session);
    let mut options = PeerOptions::new();
    let read = if streaming { timeouts.tunnel } else { timeouts.read };
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    let mut group_key = backend.live.pool_generation();
    (exchange.line, exchange.tunnel, exchange.tunnel_entry) = (None, None, None);
    if backend.spec.protocol == Protocol::Http1 && backend.spec.tls.is_none() && !upgrade {
        // It keeps the other times itself.
        let place = Place { address, generation: group_key };
        let line = lines.line(place, LineTimes { connect: timeouts.connect, read, idle: timeouts.idle });
        options.custom_l4 = Some(line.clone());
        exchange.line = Some(line);
    } else {
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.read_timeout = Some(read);
    }
    if backend.spec.protocol == Protocol::Http2 && !upgrade {
        options.alpn = ALPN::H2;
        options.max_h2_streams = H2_STREAMS;
    } else if upgrade {
        let tunnel = Tunnel::new();
        group_key = tunnel.group_key();
        options.custom_l4 = Some(tunnel.connector(Some(timeouts.connect)));
        exchange.tunnel = Some(tunnel);
    }
    let mut sni = String::new();
    if let Some(tls) = &backend.spec.tls {
        sni = tls.server_name.clone().unwrap_or_else(|| backend.spec.address.host.clone());
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
    }
    Ok(Box::new(HttpPeer {
        _address: SocketAddr::Inet(address),
        scheme: if backend.spec.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
        sni,
        proxy: None,
        client_cert_key: None,
        group_key,
        options,
    }))
}

/// Whether answers there are streams (`streaming_paths`).
pub(super) fn is_streaming_path(app: &App, session: &Session) -> bool {
    app.settings.streaming_paths.iter().any(|prefix| under(prefix, session.req_header().uri.path()))
}

impl Gateway {
    /// A connect failed: nothing was sent, so any method may go elsewhere.
    pub(super) fn connect_failed(&self, session: &mut Session, exchange: &mut Exchange, mut e: Box<Error>) -> Box<Error> {
        e.set_retry(false);
        let (Some(claim), Some(app)) = (&exchange.claim, &exchange.app) else { return e };
        let backend = Arc::clone(&claim.forward.backend);
        let failure = failure(&e);
        if backend.live.may_complain(self.control.now()) {
            log::warn!("backend {}/{}/{}: {}", app.name, backend.release, backend.spec.name, failure.as_str());
        }
        self.prober.report_connect_failure(&backend, failure);
        if session.as_downstream().retry_buffer_truncated() {
            return e;
        }
        // A paused process accepts until its backlog is full, and then not at all. Its sessions wait for it; when the prober
        // finds it down, the next attempt is decided anew.
        let paused = failure == ConnectFailure::TimedOut && backend.live.gate.read().health != Health::Down;
        let patient = paused && claim.forward.footing != Footing::New && !claim.forward.stands_in;
        if patient && exchange.started.elapsed() < app.settings.timeouts.read {
            exchange.pause = true;
            e.set_retry(true);
            return e;
        }
        let room = exchange.tried.add(backend.slot);
        exchange.claim = None;
        exchange.stay = None;
        e.set_retry(room && self.may_retry(exchange));
        e
    }
}

/// Whether a tunnel is asked for. Any other `Upgrade`, such as the `h2c` that some clients send with every request, is an offer
/// that Pingora takes out. A request that waits for `100 Continue`, or has a body, is none: its body would not end before the
/// backend's first word, and the guard of a tunnel waits for that end.
fn is_websocket(session: &mut Session) -> bool {
    if !session.is_upgrade_req() {
        return false;
    }
    let head = &session.req_header().headers;
    let websocket = head
        .get_all(UPGRADE)
        .iter()
        .flat_map(|v| v.as_bytes().split(|&b| b == b','))
        .any(|p| p.trim_ascii().eq_ignore_ascii_case(b"websocket"));
    websocket && !head.contains_key(EXPECT) && session.as_downstream_mut().is_body_empty()
}

fn failure(e: &Error) -> ConnectFailure {
    match e.etype() {
        ErrorType::ConnectRefused => ConnectFailure::Refused,
        ErrorType::ConnectNoRoute => ConnectFailure::Unreachable,
        ErrorType::ConnectTimedout => ConnectFailure::TimedOut,
        _ => ConnectFailure::Other,
    }
}
