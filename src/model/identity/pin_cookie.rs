//! The `Set-Cookie` line of our own pin. It lives exactly as long and goes exactly as far as the session cookie beside it:
//! a pin that outlives its session leads the user back to a draining backend, a pin that dies before it loses the user.

use std::fmt::Write;

use super::set_cookie::{SameSite, SetCookie};
use crate::model::time::Time;

/// What the names of all pin cookies begin with; the app's name follows.
pub const PIN_COOKIE_PREFIX: &str = "tidegate_";

/// What the pin's attributes are taken from.
#[derive(Clone, Copy, Debug)]
pub enum Beside<'a> {
    /// The session cookie in the same response.
    SessionCookie(&'a SetCookie<'a>),
    /// No session cookie, and the client came over TLS.
    NothingOverTls,
    /// No session cookie, and the client came without TLS.
    NothingOverPlain,
}

/// The name of an app's pin cookie.
pub fn pin_cookie_name(app: &str) -> String {
    format!("{PIN_COOKIE_PREFIX}{app}")
}

/// The line that sets the pin `value`. Path is always `/` and HttpOnly is always there, whatever the session cookie says.
pub fn set_pin_cookie(name: &str, value: &str, beside: Beside, now: Time) -> String {
    let mut line = String::with_capacity(name.len() + value.len() + 96);
    for part in [name, "=", value, "; Path=/; HttpOnly"] {
        line.push_str(part);
    }
    if let Beside::SessionCookie(cookie) = beside {
        // Max-Age even where the application wrote Expires: it does not depend on the client's clock.
        if let Some(lifetime) = cookie.lifetime(now) {
            write!(line, "; Max-Age={}", lifetime.as_secs().max(1)).expect("a String takes everything");
        }
    }
    push_reach(&mut line, beside);
    line
}

/// The line that deletes the pin, at logout. Browsers delete only the cookie of the same Domain, so it must be beside the deletion of
/// the session cookie; one that is refused for lack of Secure would delete nothing, so that is copied too.
pub fn delete_pin_cookie(name: &str, beside: Beside) -> String {
    let mut line = format!("{name}=; Path=/; HttpOnly; Max-Age=0");
    push_reach(&mut line, beside);
    line
}

fn push_reach(line: &mut String, beside: Beside) {
    let cookie = match beside {
        Beside::SessionCookie(cookie) => cookie,
        Beside::NothingOverTls => return line.push_str("; Secure; SameSite=Lax"),
        Beside::NothingOverPlain => return line.push_str("; SameSite=Lax"),
    };
    // An odd domain would make browsers refuse the line as a whole; they refused the session cookie, too.
    let domain = cookie.domain.and_then(|domain| std::str::from_utf8(domain).ok());
    if let Some(domain) = domain.filter(|domain| domain.bytes().all(|octet| octet.is_ascii_graphic())) {
        line.push_str("; Domain=");
        line.push_str(domain);
    }
    line.push_str(if cookie.secure { "; Secure" } else { "" });
    line.push_str(match cookie.same_site {
        Some(SameSite::Strict) => "; SameSite=Strict",
        Some(SameSite::Lax) => "; SameSite=Lax",
        Some(SameSite::None) => "; SameSite=None",
        None => "",
    });
    line.push_str(if cookie.partitioned { "; Partitioned" } else { "" });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_795_168_800);

    #[test]
    fn the_pin_copies_reach_and_lifetime_of_the_session_cookie() {
        let check = |session: &str, expected: &str| {
            let cookie = SetCookie::parse(session.as_bytes()).expect(session);
            let line = set_pin_cookie("tidegate_shop", "PIN", Beside::SessionCookie(&cookie), NOW);
            assert_eq!(line, format!("tidegate_shop=PIN; Path=/; HttpOnly{expected}"), "{session}");
        };
        check("JSESSIONID=a", "");
        check("JSESSIONID=a; Path=/shop; HttpOnly", "");
        check("JSESSIONID=a; Secure", "; Secure");
        check("JSESSIONID=a; SameSite=strict", "; SameSite=Strict");
        check("JSESSIONID=a; SameSite=odd", "");
        check("JSESSIONID=a; Domain=.example.com", "; Domain=example.com");
        check("JSESSIONID=a; Domain=ex\u{e9}mple.com", "");
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
        let line = |beside| set_pin_cookie("tidegate_shop", "PIN", beside, NOW);
        assert_eq!(line(Beside::NothingOverPlain), "tidegate_shop=PIN; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(line(Beside::NothingOverTls), "tidegate_shop=PIN; Path=/; HttpOnly; Secure; SameSite=Lax");
    }

    #[test]
    fn the_deletion_reaches_the_cookie_that_was_set() {
        let cookie = SetCookie::parse(b"JSESSIONID=; Domain=x.com; Secure; Expires=Thu, 01-Jan-1970 00:00:10 GMT");
        let line = delete_pin_cookie("tidegate_shop", Beside::SessionCookie(&cookie.expect("a line")));
        assert_eq!(line, "tidegate_shop=; Path=/; HttpOnly; Max-Age=0; Domain=x.com; Secure");
        let line = delete_pin_cookie("tidegate_shop", Beside::NothingOverPlain);
        assert_eq!(line, "tidegate_shop=; Path=/; HttpOnly; Max-Age=0; SameSite=Lax");
    }

    #[test]
    fn the_line_set_is_the_line_read() {
        let line = set_pin_cookie(&pin_cookie_name("shop"), "PIN", Beside::NothingOverTls, NOW);
        let cookie = SetCookie::parse(line.as_bytes()).expect("a line");
        assert_eq!((cookie.name, cookie.value), (b"tidegate_shop".as_slice(), b"PIN".as_slice()));
        assert!(cookie.http_only && cookie.secure && !cookie.is_deletion(NOW));
    }
}
