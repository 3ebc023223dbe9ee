//! One `Set-Cookie` line, read by the rules for browsers (RFC 6265 §5.2), because a browser is who will obey it: unknown attributes
//! and bad values are ignored, of equal attributes the last one counts.

use std::time::Duration;

use super::cookie_date::parse_cookie_date;
use super::cookie_pair::pair;
use crate::model::octets::{split_before, split_once};
use crate::model::time::Time;

/// A cookie as an application sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetCookie<'a> {
    /// Exact case; never empty.
    pub name: &'a [u8],
    /// Without the pair of quotation marks around it; may be empty.
    pub value: &'a [u8],
    /// `None` when absent or not absolute: then the directory of the request's path.
    pub path: Option<&'a [u8]>,
    /// Without a leading dot, as written otherwise; `None` for a cookie of exactly this host.
    pub domain: Option<&'a [u8]>,
    /// Seconds to live; not positive means that the cookie is to be deleted.
    pub max_age: Option<i64>,
    /// Ignored where there is a `max_age`.
    pub expires: Option<Time>,
    /// Only over TLS.
    pub secure: bool,
    /// Not for scripts.
    pub http_only: bool,
    /// `None` when absent or unknown: the browser's default.
    pub same_site: Option<SameSite>,
    /// A jar per top-level site (CHIPS).
    pub partitioned: bool,
}

/// When a browser sends a cookie from other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// On top-level navigation.
    Lax,
    /// Always.
    None,
}

/// Which cookie of that name it is: a hash of domain and path, because a browser keeps one cookie for each. Two bytes are
/// enough for a ledger entry: a false match only believes one deletion in 65,535 that was meant for another path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope(pub u16);

impl Scope {
    /// Nobody knows: an adopted session, or one that does not live in a cookie.
    pub const UNKNOWN: Scope = Scope(0);

    /// Whether a deletion with scope `other` means a cookie born with this scope. Unknown matches everything.
    pub fn matches(self, other: Scope) -> bool {
        self == other || self == Scope::UNKNOWN || other == Scope::UNKNOWN
    }
}

impl<'a> SetCookie<'a> {
    /// Reads a line; `None` when browsers would ignore it because it has no name.
    pub fn parse(line: &'a [u8]) -> Option<SetCookie<'a>> {
        let mut parts = line.split(|&octet| octet == b';');
        let (name, value) = pair(parts.next()?)?;
        if name.is_empty() {
            return None;
        }
        let mut cookie = SetCookie { name, value, ..SetCookie::default() };
        for part in parts {
            let (attribute, value) = split_once(part, b'=').unwrap_or((part, &[]));
            cookie.read(attribute.trim_ascii(), value.trim_ascii());
        }
        Some(cookie)
    }

    fn read(&mut self, attribute: &[u8], value: &'a [u8]) {
        let is = |name: &str| attribute.eq_ignore_ascii_case(name.as_bytes());
        if is("path") {
            self.path = value.starts_with(b"/").then_some(value);
        } else if is("domain") {
            self.domain = Some(value.strip_prefix(b".").unwrap_or(value)).filter(|domain| !domain.is_empty());
        } else if is("max-age") {
            self.max_age = parse_max_age(value).or(self.max_age);
        } else if is("expires") {
            self.expires = parse_cookie_date(value).or(self.expires);
        } else if is("secure") {
            self.secure = true;
        } else if is("httponly") {
            self.http_only = true;
        } else if is("partitioned") {
            self.partitioned = true;
        } else if is("samesite") {
            let known = [("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];
            let same_site = known.iter().find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes()));
            self.same_site = same_site.map(|&(_, same_site)| same_site);
        }
    }

    /// How long the browser keeps it; zero when it is to be deleted, `None` until the browser is closed.
    pub fn lifetime(&self, now: Time) -> Option<Duration> {
        match (self.max_age, self.expires) {
            (Some(seconds), _) => Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
            (None, Some(expires)) => Some(expires.since(now)),
            (None, None) => None,
        }
    }

    /// Whether the line ends a session: the cookie lives no longer, or says nothing.
    pub fn is_deletion(&self, now: Time) -> bool {
        self.value.is_empty() || self.lifetime(now) == Some(Duration::ZERO)
    }

    /// Which cookie of this name the line means, in the answer to a request for `request_path`. Browsers fill an absent path from
    /// it (RFC 6265 §5.1.4), so `Path=/shop` may delete what was born without a path.
    pub fn scope(&self, request_path: &[u8]) -> Scope {
        let path = self.path.unwrap_or_else(|| default_path(request_path));
        let domain = self.domain.unwrap_or_default();
        // FNV-1a: stable for ever, because the ledger is kept on disk. A cookie of exactly this host differs from one of the same domain.
        let octets = domain.iter().map(u8::to_ascii_lowercase).chain([b';']).chain(path.iter().copied());
        let hash = octets.fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
        let [a, b, c, d] = hash.to_be_bytes();
        Scope(u16::from_be_bytes([a ^ c, b ^ d]).max(1))
    }
}

/// Digits with an optional minus; too large a number means as long as possible.
fn parse_max_age(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0_i64, |size, octet| size.saturating_mul(10).saturating_add(i64::from(octet - b'0')));
    Some(if digits.len() < value.len() { -size } else { size })
}

/// The directory of a path.
fn default_path(request_path: &[u8]) -> &[u8] {
    let (path, _) = split_before(request_path, |octet| octet == b'?');
    match path.iter().rposition(|&octet| octet == b'/') {
        Some(last) if last > 0 && path.starts_with(b"/") => path.get(..last).unwrap_or(b"/"),
        _ => b"/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::xorshift::Xorshift;

    const NOW: Time = Time::from_secs(1_795_168_800); // Fri, 20 Nov 2026 10:00:00 GMT

    fn parsed(line: &str) -> SetCookie<'_> {
        SetCookie::parse(line.as_bytes()).expect(line)
    }

    #[test]
    fn attributes_are_read_as_browsers_read_them() {
        let check = |line: &'static str, expected: SetCookie| assert_eq!(parsed(line), expected, "{line}");
        let plain = SetCookie { name: b"S", value: b"a", ..SetCookie::default() };
        check("S=a", plain);
        check(" S = \"a\" ", plain);
        check("S=a; ; =; Foo; Bar=1", plain);
        check("S=a; Path=/shop", SetCookie { path: Some(b"/shop"), ..plain });
        check("S=a;PATH= /shop ", SetCookie { path: Some(b"/shop"), ..plain });
        check("S=a; Path=/a; Path=/b", SetCookie { path: Some(b"/b"), ..plain });
        check("S=a; Path=/a; Path=b", plain);
        check("S=a; Path", plain);
        check("S=a; Domain=.Example.com", SetCookie { domain: Some(b"Example.com"), ..plain });
        check("S=a; Domain=", plain);
        check("S=a; Max-Age=60", SetCookie { max_age: Some(60), ..plain });
        check("S=a; max-age=-1", SetCookie { max_age: Some(-1), ..plain });
        check("S=a; Max-Age=60; Max-Age=x", SetCookie { max_age: Some(60), ..plain });
        check("S=a; Max-Age=1.5", plain);
        check("S=a; Max-Age=-", plain);
        check("S=a; Max-Age=+5", plain);
        check("S=a; Max-Age=99999999999999999999", SetCookie { max_age: Some(i64::MAX), ..plain });
        check("S=a; Expires=Thu, 01 Jan 1970 00:00:10 GMT", SetCookie { expires: Some(Time(10_000)), ..plain });
        check("S=a; Expires=never", plain);
        check("S=a; secure; HTTPONLY", SetCookie { secure: true, http_only: true, ..plain });
        check("S=a; Secure=false", SetCookie { secure: true, ..plain });
        check("S=a; SameSite=lax", SetCookie { same_site: Some(SameSite::Lax), ..plain });
        check("S=a; SameSite=None; Partitioned", SetCookie { same_site: Some(SameSite::None), partitioned: true, ..plain });
        check("S=a; SameSite=Strict; SameSite=odd", plain);
        check("S=a=b", SetCookie { value: b"a=b", ..plain });
        check("S=", SetCookie { value: b"", ..plain });
        for ignored in ["", "S", "=a", " =a", "; Path=/"] {
            assert_eq!(SetCookie::parse(ignored.as_bytes()), None, "{ignored}");
        }
    }

    #[test]
    fn a_deletion_is_empty_or_over() {
        let check = |line: &str, expected: bool| assert_eq!(parsed(line).is_deletion(NOW), expected, "{line}");
        check("S=a", false);
        check("S=a; Max-Age=1", false);
        check("S=a; Max-Age=0", true);
        check("S=a; Max-Age=-1", true);
        check("S=a; Expires=Thu, 01-Jan-1970 00:00:10 GMT", true);
        check("S=a; Expires=Fri, 20 Nov 2026 10:00:00 GMT", true);
        check("S=a; Expires=Fri, 20 Nov 2026 10:00:01 GMT", false);
        check("S=a; Max-Age=0; Expires=Fri, 20 Nov 2036 10:00:01 GMT", true);
        check("S=a; Max-Age=5; Expires=Thu, 01-Jan-1970 00:00:10 GMT", false);
        check("S=a; Max-Age=soon; Expires=Thu, 01-Jan-1970 00:00:10 GMT", true);
        check("S=a; Expires=0", false);
        check("S=", true);
        check("S=\"\"; Max-Age=60", true);
        check("S=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0", true); // PHP
    }

    #[test]
    fn a_scope_is_domain_and_path_with_the_path_filled_in() {
        let check = |a: &str, b: &str, same: bool| {
            let [a_scope, b_scope] = [a, b].map(|line| parsed(line).scope(b"/shop/login?next=/x/y"));
            assert_eq!(a_scope == b_scope, same, "{a} {b}");
            assert_eq!(a_scope.matches(b_scope), same);
            assert_ne!(a_scope, Scope::UNKNOWN);
        };
        check("S=a", "S=b; Path=/shop", true);
        check("S=a", "S=b; Path=relative", true);
        check("S=a; Path=/", "S=b; Path=/shop", false);
        check("S=a; Path=/shop", "S=b; Path=/Shop", false);
        check("S=a; Path=/shop", "S=b; Path=/shop/", false);
        check("S=a; Domain=x.com", "S=b; Domain=.X.COM", true);
        check("S=a; Domain=x.com", "S=b", false);
        assert!(Scope::UNKNOWN.matches(Scope(7)) && Scope(7).matches(Scope::UNKNOWN));
    }

    #[test]
    fn the_default_path_is_the_directory() {
        let check = |path: &str, expected: &str| assert_eq!(default_path(path.as_bytes()), expected.as_bytes(), "{path}");
        check("/shop/login", "/shop");
        check("/shop/", "/shop");
        check("/shop", "/");
        check("/", "/");
        check("", "/");
        check("*", "/");
        check("shop/x", "/");
    }

    #[test]
    fn no_line_makes_it_panic() {
        let mut dice = Xorshift(0x5e7);
        for _ in 0..50_000 {
            let line = dice.octets(60, b"S=a; Max-Age=-1 Expires Path/Domain.\"");
            if let Some(cookie) = SetCookie::parse(&line) {
                cookie.is_deletion(NOW);
                cookie.scope(&line);
            }
        }
    }
}
