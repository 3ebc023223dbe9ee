//! Who asks: the address, scheme and host, as seen or as told by a trusted proxy.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use http::header::{HOST, HeaderValue};
use ipnet::IpNet;
use pingora_proxy::Session;

use crate::model::balance::mix;

/// Whose X-Forwarded-* count.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether this address is one of ours.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Of the connection.
    pub(super) peer: IpAddr,
    /// Of the user: the peer, or what trusted proxies say.
    pub(super) address: IpAddr,
    /// Whether the peer is one of `trusted_proxies`.
    pub(super) trusted: bool,
    /// Whether the connection to us is encrypted.
    pub(super) tls: bool,
}

impl Default for Client {
    fn default() -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Client { peer: nobody, address: nobody, trusted: false, tls: false }
    }
}

impl Client {
    pub(super) fn of(session: &Session, trusted: &TrustedProxies) -> Client {
        let peer = session.client_addr().and_then(|a| a.as_inet()).map_or(Client::default().peer, |a| a.ip().to_canonical());
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let is_trusted = trusted.contains(peer);
        let told = is_trusted.then(|| forwarded_for(session, trusted)).flatten();
        Client { peer, address: told.unwrap_or(peer), trusted: is_trusted, tls }
    }

    /// Whether the user's own connection is encrypted, as far as we are told.
    pub(super) fn secure(&self, session: &Session) -> bool {
        let told = self.trusted.then(|| session.get_header("x-forwarded-proto")).flatten();
        // Of a chain of proxies the first one met the user.
        let first = |proto: &HeaderValue| {
            proto.as_bytes().split(|&b| b == b',').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"https")
        };
        told.map_or(self.tls, first)
    }

    /// A number that stays the same for this user: IPv6 by /64, because a device changes the rest of its address at will.
    pub(super) fn hash(&self) -> u64 {
        match self.address {
            IpAddr::V4(v4) => mix(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => mix((u128::from(v6) >> 64) as u64),
        }
    }

    /// The peer's address as a header value.
    pub(super) fn peer_text(&self) -> HeaderValue {
        let mut text = String::with_capacity(40);
        // Writing to a String cannot fail.
        if write!(text, "{}", self.peer).is_err() {
            text.clear();
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    }
}

/// The rightmost address of X-Forwarded-For that is not one of our own proxies: everything left of it may be invented.
fn forwarded_for(session: &Session, trusted: &TrustedProxies) -> Option<IpAddr> {
    let fields = session.req_header().headers.get_all("x-forwarded-for");
    let mut last = None;
    for field in fields.iter().rev() {
        for part in field.to_str().ok()?.rsplit(',') {
            let part = part.trim().trim_start_matches('[');
            let part = part.split(']').next().unwrap_or(part);
            let ip: IpAddr = match part.parse::<IpAddr>() {
                Ok(ip) => ip.to_canonical(),
                Err(_) => part.parse::<std::net::SocketAddr>().ok()?.ip().to_canonical(),
            };
            last = Some(ip);
            if !trusted.contains(ip) {
                return last;
            }
        }
    }
    last
}

/// The request's host without a port: from the target's authority (HTTP/2, absolute form) or the Host field.
pub(super) fn host(session: &Session) -> Option<&str> {
    let request = session.req_header();
    let authority = match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(HOST)?.to_str().ok()?,
    };
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next();
    }
    authority.split(':').next()
}
