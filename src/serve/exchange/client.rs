//! Who asks: the address, scheme and host, as seen or as told by a trusted proxy.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{HOST, HeaderValue};
use ipnet::IpNet;
use memchr::{memchr, memrchr};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::model::balance::mix;

/// Whose X-Forwarded-* count. Clones share it, so that a reload changes it for all.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<ArcSwap<Vec<IpNet>>>);

impl TrustedProxies {
    /// Those of these networks.
    pub fn new(networks: Vec<IpNet>) -> TrustedProxies {
        TrustedProxies(Arc::new(ArcSwap::from_pointee(networks)))
    }

    /// Others, from the next request on.
    pub fn replace(&self, networks: Vec<IpNet>) {
        self.0.store(Arc::new(networks));
    }

    /// Whether this address is one of ours.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.load().iter().any(|net| net.contains(&ip))
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
        // Longer than any address: 45 octets are enough for IPv6 with an embedded IPv4 address (INET6_ADDRSTRLEN).
        let mut text = [0; 48];
        let mut rest = text.as_mut_slice();
        let written = match self.peer {
            IpAddr::V4(v4) => write_v4(v4, &mut rest),
            IpAddr::V6(v6) => write!(rest, "{v6}"),
        };
        let left = rest.len();
        let length = written.map_or(0, |()| text.len() - left);
        HeaderValue::from_bytes(text.get(..length).unwrap_or_default()).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// As `Display` would: its machinery costs every request ten times as much.
fn write_v4(address: Ipv4Addr, text: &mut &mut [u8]) -> io::Result<()> {
    for (place, octet) in address.octets().into_iter().enumerate() {
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        let significant = if octet >= 100 {
            0
        } else if octet >= 10 {
            1
        } else {
            2
        };
        text.write_all(if place > 0 { b"." } else { b"" })?;
        text.write_all(digits.get(significant..).unwrap_or_default())?;
    }
    Ok(())
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

/// The authority of the request's target: HTTP/2 has one always, HTTP/1 in absolute form; then it counts, and not the Host
/// field (RFC 9112 §3.2.2).
pub(super) fn authority(request: &RequestHeader) -> Option<&str> {
    match request.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None if request.raw_path().first() == Some(&b'/') => None,
        None => {
            let (_, rest) = std::str::from_utf8(request.raw_path()).ok()?.split_once("://")?;
            rest.split(['/', '?', '#']).next()
        }
    }
}

/// The request's host without a port.
pub(super) fn host(session: &Session) -> Option<&str> {
    let request = session.req_header();
    let authority = match authority(request) {
        Some(authority) => authority,
        None => request.headers.get(HOST)?.to_str().ok()?,
    };
    let authority = memrchr(b'@', authority.as_bytes()).and_then(|at| authority.get(at + 1..)).unwrap_or(authority);
    let (host, end) = match authority.strip_prefix('[') {
        Some(literal) => (literal, b']'),
        None => (authority, b':'),
    };
    memchr(end, host.as_bytes()).map_or(Some(host), |end| host.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(octet, 255 - octet, octet / 3, octet);
            let client = Client { peer: address.into(), ..Client::default() };
            assert_eq!(client.peer_text(), address.to_string());
        }
        let v6: std::net::Ipv6Addr = "2001:db8::7".parse().expect("an address");
        assert_eq!(Client { peer: v6.into(), ..Client::default() }.peer_text(), "2001:db8::7");
    }
}
