//! The `Set-Cookie` line of our own pin. It lives exactly as long and goes exactly as far as the session cookie beside it:
//! a pin that outlives its session leads the user back to a draining backend, a pin that dies before it loses the user.

use std::fmt::Write;

use super::set_cookie::{SameSite, SetCookie};
use crate::model::time::Time;

/// What the names of all pin cookies begin with; the app's name follows.
pub const PIN_COOKIE_PREFIX: &str = "tidegate_";

/// Longest domain that a pin copies. Beyond, the pin stays with its host, and other hosts of the domain ask the ledger.
pub const MAX_DOMAIN_BYTES: usize = 64;

/// How far a pin cookie goes and how long it lives. Kept inside the pin: at a refresh there is no session cookie to copy from, and a pin that
/// came back as `Lax` instead of `None` would be lost in every frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinAttributes<'a> {
    /// `None` for exactly this host.
    pub domain: Option<&'a str>,
    /// `None` for the browser's default.
    pub same_site: Option<SameSite>,
    /// Only over TLS.
    pub secure: bool,
    /// A jar per top-level site.
    pub partitioned: bool,
    /// `None` until the browser is closed.
    pub expires: Option<Time>,
}

impl<'a> PinAttributes<'a> {
    /// Where there is no session cookie, for a client that came over TLS.
    pub const OVER_TLS: PinAttributes<'static> =
        PinAttributes { domain: None, same_site: Some(SameSite::Lax), secure: true, partitioned: false, expires: None };

    /// Where there is no session cookie, for a client that came without TLS.
    pub const OVER_PLAIN: PinAttributes<'static> = PinAttributes { secure: false, ..PinAttributes::OVER_TLS };

    /// Those of the session cookie in the same response.
    pub fn beside(cookie: &SetCookie<'a>, now: Time) -> PinAttributes<'a> {
        // An odd domain would make browsers refuse the line as a whole; they refuse the session cookie, too.
        let plain = |domain: &&str| domain.len() <= MAX_DOMAIN_BYTES && domain.bytes().all(|octet| octet.is_ascii_graphic());
        PinAttributes {
            domain: cookie.domain.and_then(|domain| std::str::from_utf8(domain).ok()).filter(plain),
            same_site: cookie.same_site,
            secure: cookie.secure,
            partitioned: cookie.partitioned,
            expires: cookie.lifetime(now).map(|lifetime| now + lifetime),
        }
    }

    fn push_to(&self, line: &mut String) {
        if let Some(domain) = self.domain {
            line.push_str("; Domain=");
            line.push_str(domain);
        }
        line.push_str(if self.secure { "; Secure" } else { "" });
        line.push_str(match self.same_site {
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::None) => "; SameSite=None",
            None => "",
        });
        line.push_str(if self.partitioned { "; Partitioned" } else { "" });
    }
}

/// The name of an app's pin cookie.
pub fn pin_cookie_name(app: &str) -> String {
    format!("{PIN_COOKIE_PREFIX}{app}")
}

/// The line that sets the pin `value`. Path is always `/` and HttpOnly is always there, whatever the session cookie says.
pub fn set_pin_cookie(name: &str, value: &str, attributes: &PinAttributes, now: Time) -> String {
    let mut line = String::with_capacity(name.len() + value.len() + 96);
    for part in [name, "=", value, "; Path=/; HttpOnly"] {
        line.push_str(part);
    }
    // Max-Age even where the application wrote Expires: it does not depend on the client's clock.
    if let Some(expires) = attributes.expires {
        let seconds = expires.since(now).as_millis().div_ceil(1000);
        write!(line, "; Max-Age={seconds}").expect("a String takes everything");
    }
    attributes.push_to(&mut line);
    line
}

/// The line that deletes the pin, at logout. Browsers delete only the cookie of the same Domain, so the attributes are best those of the
/// [verified pin](crate::model::pin::VerifiedPin::attributes); else those beside the deletion of the session cookie.
pub fn delete_pin_cookie(name: &str, attributes: &PinAttributes) -> String {
    let mut line = format!("{name}=; Path=/; HttpOnly; Max-Age=0");
    attributes.push_to(&mut line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_795_168_800);

    #[test]
    fn the_pin_copies_reach_and_lifetime_of_the_session_cookie() {
        let check = |session: &str, expected: &str| {
            let cookie = SetCookie::parse(session.as_bytes()).expect(session);
            let line = set_pin_cookie("tidegate_shop", "PIN", &PinAttributes::beside(&cookie, NOW), NOW);
            assert_eq!(line, format!("tidegate_shop=PIN; Path=/; HttpOnly{expected}"), "{session}");
        };
        check("JSESSIONID=a", "");
        check("JSESSIONID=a; Path=/shop; HttpOnly", "");
        check("JSESSIONID=a; Secure", "; Secure");
        check("JSESSIONID=a; SameSite=strict", "; SameSite=Strict");
        check("JSESSIONID=a; SameSite=odd", "");
        check("JSESSIONID=a; Domain=.example.com", "; Domain=example.com");
        check("JSESSIONID=a; Domain=ex\u{e9}mple.com", "");
        check(&format!("JSESSIONID=a; Domain={}", "d".repeat(65)), "");
        check("JSESSIONID=a; Max-Age=3600", "; Max-Age=3600");
        check("JSESSIONID=a; Expires=Fri, 20 Nov 2026 11:00:00 GMT", "; Max-Age=3600");
        check("JSESSIONID=a; Max-Age=60; Expires=Fri, 20 Nov 2026 11:00:00 GMT", "; Max-Age=60");
        check(
            "JSESSIONID=a; SameSite=None; Secure; Partitioned; Domain=x.com; Max-Age=9",
            "; Max-Age=9; Domain=x.com; Secure; SameSite=None; Partitioned",
        );
    }

    #[test]
    fn without_a_session_cookie_the_pin_is_lax_and_secure_over_tls() {
        let line = |attributes| set_pin_cookie("tidegate_shop", "PIN", attributes, NOW);
        assert_eq!(line(&PinAttributes::OVER_PLAIN), "tidegate_shop=PIN; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(line(&PinAttributes::OVER_TLS), "tidegate_shop=PIN; Path=/; HttpOnly; Secure; SameSite=Lax");
    }

    #[test]
    fn the_deletion_reaches_the_cookie_that_was_set() {
        let cookie = SetCookie::parse(b"JSESSIONID=; Domain=x.com; Secure; Expires=Thu, 01-Jan-1970 00:00:10 GMT");
        let line = delete_pin_cookie("tidegate_shop", &PinAttributes::beside(&cookie.expect("a line"), NOW));
        assert_eq!(line, "tidegate_shop=; Path=/; HttpOnly; Max-Age=0; Domain=x.com; Secure");
        let line = delete_pin_cookie("tidegate_shop", &PinAttributes::OVER_PLAIN);
        assert_eq!(line, "tidegate_shop=; Path=/; HttpOnly; Max-Age=0; SameSite=Lax");
    }

    #[test]
    fn the_line_set_is_the_line_read() {
        let line = set_pin_cookie(&pin_cookie_name("shop"), "PIN", &PinAttributes::OVER_TLS, NOW);
        let cookie = SetCookie::parse(line.as_bytes()).expect("a line");
        assert_eq!((cookie.name, cookie.value), (b"tidegate_shop".as_slice(), b"PIN".as_slice()));
        assert!(cookie.http_only && cookie.secure && !cookie.is_deletion(NOW));
    }
}
