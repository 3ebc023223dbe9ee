//! A cookie jar as browsers keep it (RFC 6265 with the cookie prefixes and `SameSite` left out).
//!
//! Deleting is not special: a cookie that has expired on arrival replaces and removes the one with the same name,
//! domain (with or without the attribute) *and path*. A deletion with another path therefore deletes nothing, which real applications get wrong.

use std::time::{Duration, SystemTime};

/// One kept cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name, case kept.
    pub name: String,
    /// Its value as sent.
    pub value: String,
    /// The host it belongs to; with `host_only` not its subdomains.
    pub domain: String,
    /// No `Domain` attribute was given.
    pub host_only: bool,
    /// The path prefix it is sent to.
    pub path: String,
    /// Sent over TLS only.
    pub secure: bool,
    /// Kept from scripts.
    pub http_only: bool,
    /// When it goes; `None` for "with the browser".
    pub expires: Option<SystemTime>,
    /// The whole `Set-Cookie` value, for assertions on attributes we do not act upon.
    pub raw: String,
}

/// All cookies of one browser.
#[derive(Debug, Clone, Default)]
pub struct Jar {
    cookies: Vec<Cookie>,
}

impl Jar {
    /// Takes one `Set-Cookie` value that came for a request to `host` and `target`.
    pub fn store(&mut self, host: &str, target: &str, secure_transport: bool, set_cookie: &str) {
        self.store_at(host, target, secure_transport, set_cookie, SystemTime::now());
    }

    fn store_at(&mut self, host: &str, target: &str, secure_transport: bool, set_cookie: &str, now: SystemTime) {
        let Some(cookie) = parse(host, target, set_cookie, now) else {
            return;
        };
        if cookie.secure && !secure_transport {
            return; // "leave secure cookies alone": RFC 6265bis §5.7
        }
        let same = |kept: &Cookie| {
            kept.name == cookie.name && kept.domain == cookie.domain && kept.host_only == cookie.host_only && kept.path == cookie.path
        };
        let alive = cookie.expires.is_none_or(|at| at > now);
        match self.cookies.iter().position(same) {
            // In place: a cookie keeps its creation time, which decides the order of sending.
            Some(at) if alive => self.cookies[at] = cookie,
            Some(at) => drop(self.cookies.remove(at)),
            None if alive => self.cookies.push(cookie),
            None => {}
        }
    }

    /// The cookies to send, longer paths first, then older ones first.
    pub fn matching(&self, host: &str, target: &str, secure_transport: bool) -> Vec<&Cookie> {
        let now = SystemTime::now();
        let path = path_of(target);
        let mut found: Vec<&Cookie> = self
            .cookies
            .iter()
            .filter(|cookie| cookie.expires.is_none_or(|at| at > now))
            .filter(|cookie| secure_transport || !cookie.secure)
            .filter(|cookie| cookie.domain == host || !cookie.host_only && is_below(host, &cookie.domain))
            .filter(|cookie| path_matches(path, &cookie.path))
            .collect();
        found.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len())); // stable: age decides within a length
        found
    }

    /// All cookies, expired ones too.
    pub fn all(&self) -> &[Cookie] {
        &self.cookies
    }

    /// Forgets all cookies of a name, as a user or a script can.
    pub fn forget(&mut self, name: &str) {
        self.cookies.retain(|cookie| cookie.name != name);
    }
}

fn parse(host: &str, target: &str, set_cookie: &str, now: SystemTime) -> Option<Cookie> {
    let mut parts = set_cookie.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let mut cookie = Cookie {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
        domain: host.to_owned(),
        host_only: true,
        path: default_path(target),
        secure: false,
        http_only: false,
        expires: None,
        raw: set_cookie.to_owned(),
    };
    let mut max_age = None;
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "domain" if !value.is_empty() => {
                let domain = value.trim_start_matches('.').to_ascii_lowercase();
                if domain != host && !is_below(host, &domain) {
                    return None;
                }
                cookie.domain = domain;
                cookie.host_only = false;
            }
            "path" if value.starts_with('/') => cookie.path = value.to_owned(),
            "secure" => cookie.secure = true,
            "httponly" => cookie.http_only = true,
            "max-age" => max_age = value.parse::<i64>().ok(),
            "expires" => cookie.expires = parse_date(value),
            _ => {}
        }
    }
    if let Some(seconds) = max_age {
        // Max-Age wins over Expires: RFC 6265 §5.3 step 3.
        cookie.expires = Some(match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => now + Duration::from_secs(seconds),
            _ => SystemTime::UNIX_EPOCH,
        });
    }
    Some(cookie)
}

fn path_of(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or("/")
}

fn default_path(target: &str) -> String {
    let path = path_of(target);
    match path.rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(end) => path[..end].to_owned(),
    }
}

fn path_matches(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Reads the cookie dates that are met in practice: `Thu, 01 Jan 1970 00:00:10 GMT`, also with dashes.
fn parse_date(text: &str) -> Option<SystemTime> {
    let parts: Vec<&str> = text.split([' ', '-', ',', ':']).filter(|part| !part.is_empty()).collect();
    let &[_, day, month, year, hour, minute, second, ..] = parts.as_slice() else {
        return None;
    };
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = MONTHS.iter().position(|name| month.to_ascii_lowercase().starts_with(name))? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let (hour, minute, second): (u64, u64, u64) = (hour.parse().ok()?, minute.parse().ok()?, second.parse().ok()?);
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leap_days(year) != leap_days(year - 1);
    const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut days = (year.checked_sub(1970)?) * 365 + leap_days(year - 1) - leap_days(1969);
    days += LENGTHS[..month as usize - 1].iter().sum::<u64>();
    days += u64::from(is_leap && month > 2) + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores each `(target, Set-Cookie)` in turn and says what is sent to `target` afterwards.
    fn check(stored: &[(&str, &str)], host: &str, target: &str, expected: &str) {
        let mut jar = Jar::default();
        for (at, set_cookie) in stored {
            jar.store("shop.test", at, false, set_cookie);
        }
        let sent: Vec<String> =
            jar.matching(host, target, false).iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        assert_eq!(sent.join("; "), expected, "after {stored:?}, to {host}{target}");
    }

    #[test]
    fn the_jar_sends_what_a_browser_sends() {
        let host = "shop.test";
        check(&[("/", "A=1")], host, "/x", "A=1");
        check(&[("/", "A=1; Path=/")], "other.test", "/x", "");
        check(&[("/", "A=1; Path=/")], "sub.shop.test", "/x", "");
        check(&[("/", "A=1; Domain=shop.test")], "sub.shop.test", "/x", "A=1");
        check(&[("/", "A=1; Domain=.shop.test")], host, "/x", "A=1");
        check(&[("/", "A=1; Domain=evil.test")], host, "/x", "");
        check(&[("/a/b", "A=1")], host, "/a/c", "A=1");
        check(&[("/a/b", "A=1")], host, "/b", "");
        check(&[("/", "A=1; Path=/shop")], host, "/shopping", "");
        check(&[("/", "A=1; Path=/shop")], host, "/shop?x=/", "A=1");
        check(&[("/", "A=1"), ("/", "A=2; Path=/x")], host, "/x", "A=2; A=1");
        check(&[("/", "A=1"), ("/", "B=1"), ("/", "A=3")], host, "/", "A=3; B=1");
        check(&[("/", "A=1; Secure")], host, "/", "");
    }

    #[test]
    fn a_deletion_needs_the_same_path_and_domain() {
        let host = "shop.test";
        check(&[("/", "A=1"), ("/", "A=; Max-Age=0")], host, "/", "");
        check(&[("/", "A=1"), ("/", "A=; Max-Age=-1")], host, "/", "");
        check(&[("/", "A=1; Path=/"), ("/", "A=; Path=/x; Max-Age=0")], host, "/x", "A=1");
        check(&[("/", "A=1"), ("/", "A=; Domain=shop.test; Max-Age=0")], host, "/", "A=1");
        let gone = "A=; Expires=Thu, 01 Jan 1970 00:00:10 GMT";
        check(&[("/", "A=1"), ("/", gone)], host, "/", "");
        check(&[("/", "A=1; Expires=Thu, 01-Jan-1970 00:00:10 GMT")], host, "/", "");
        check(&[("/", "A=1; Expires=Fri, 31 Dec 2199 23:59:59 GMT")], host, "/", "A=1");
        check(&[("/", "A=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:10 GMT")], host, "/", "A=1");
        check(&[("/", "A=1"), ("/", "A=; Max-Age=0"), ("/", "A=2")], host, "/", "A=2");
    }

    #[test]
    fn dates_are_read_to_the_second() {
        let seconds = |text: &str| {
            let since = parse_date(text)?.duration_since(SystemTime::UNIX_EPOCH);
            Some(since.unwrap().as_secs())
        };
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:10 GMT"), Some(10));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(seconds("Fri, 01 Mar 2024 00:00:00 GMT"), Some(1_709_251_200));
        assert_eq!(seconds("soon"), None);
    }
}
