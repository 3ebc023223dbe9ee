//! The small notations of the configuration, both ways: durations, sizes, status codes, addresses, names, paths.
//!
//! The admin API and the command line read the same notations with the same functions, so that `--deadline 4h` and
//! `deadline: 4h` cannot differ.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::problem::{Wrong, quote};
use crate::model::settings::Address;

const UNITS: &str = "units: ms, s, m, h, d";

/// Ten years: beyond it a number was mistyped, and sums with the wall clock stay far from overflow.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// `250ms`, `5s`, `30m`, `12h`, `7d`: one whole number and one unit.
///
/// # Errors
/// Anything else; a bare number is refused because nobody agrees on its unit.
pub fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or("");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Wrong::new(
            format!("{} is not a duration", quote(text)),
            format!("write one whole number and one unit, such as 30s ({UNITS})"),
        ));
    }
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(Wrong::new(format!("{} has no unit", quote(text)), format!("write {digits}s ({UNITS})"))),
        _ => {
            let meant = match unit.trim().to_ascii_lowercase().as_str() {
                "ms" | "msec" | "millis" | "milliseconds" => "ms",
                "s" | "sec" | "secs" | "second" | "seconds" => "s",
                "m" | "min" | "mins" | "minute" | "minutes" => "m",
                "h" | "hr" | "hrs" | "hour" | "hours" => "h",
                "d" | "day" | "days" => "d",
                _ => return Err(Wrong::new(format!("{} has an unknown unit", quote(text)), format!("write 30s, for example ({UNITS})"))),
            };
            return Err(Wrong::new(format!("{} is not a duration", quote(text)), format!("write {digits}{meant} ({UNITS})")));
        }
    };
    let millis = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
    match millis.map(Duration::from_millis) {
        Some(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(Wrong::new(format!("{} is longer than ten years", quote(text)), "write a shorter time, or null where none is meant")),
    }
}

/// The shortest notation that [`parse_duration`] reads back; what is below a millisecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, scale) = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, scale)| millis >= *scale && millis.is_multiple_of(*scale))
        .unwrap_or(if millis == 0 { ("s", 1) } else { ("ms", 1) });
    format!("{}{unit}", millis / scale)
}

/// `512B`, `16KiB`, `64MiB`, `1GiB`, in bytes.
///
/// # Errors
/// Anything else; `MB` is refused because half the world reads it as `MiB`.
pub fn parse_size(text: &str) -> Result<u64, Wrong> {
    let units = "units: B, KiB, MiB, GiB";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or("");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Wrong::new(
            format!("{} is not a size", quote(text)),
            format!("write a whole number and a unit, such as 64MiB ({units})"),
        ));
    }
    let scale: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            let meant = match unit.trim().to_ascii_lowercase().chars().next() {
                None | Some('b') => "B",
                Some('k') => "KiB",
                Some('m') => "MiB",
                _ => "GiB",
            };
            let what = if unit.is_empty() { "has no unit" } else { "has an unknown unit" };
            return Err(Wrong::new(format!("{} {what}", quote(text)), format!("write {digits}{meant} ({units})")));
        }
    };
    let size = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).filter(|size| *size <= 1 << 50);
    size.ok_or_else(|| Wrong::new(format!("{} is too large", quote(text)), "write a smaller size, or null for no limit"))
}

/// The shortest notation that [`parse_size`] reads back.
pub fn format_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let (unit, scale) = units.into_iter().find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale)).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// `404` or `200-399`, both ends included.
pub(super) fn status_range(text: &str) -> Result<(u16, u16), Wrong> {
    let remedy = "write a code such as 404 or a range such as 200-399, from 100 to 599";
    let code = |s: &str| s.parse::<u16>().ok().filter(|_| s.len() == 3);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (code(low), code(high)) {
        (Some(low), Some(high)) if (100..=599).contains(&low) && (100..=599).contains(&high) => {
            if low > high {
                return Err(Wrong::new(format!("{} begins above its end", quote(text)), format!("write {high}-{low}")));
            }
            Ok((low, high))
        }
        _ => {
            let hundred = text.strip_suffix("xx").and_then(|h| h.parse::<u8>().ok()).filter(|h| (1..=5).contains(h));
            let remedy = hundred.map_or(remedy.to_owned(), |h| format!("write {h}00-{h}99"));
            Err(Wrong::new(format!("{} is not a status code or a range of them", quote(text)), remedy))
        }
    }
}

/// Where a backend listens: `10.0.0.5:8080`, `tomcat.internal:8080`, `[::1]:8080`.
///
/// # Errors
/// No port, a URL, a malformed host.
pub fn parse_address(text: &str) -> Result<Address, Wrong> {
    let wrong = |remedy: String| Wrong::new(format!("{} is not the address of a backend", quote(text)), remedy);
    if let Some((scheme, rest)) = text.split_once("://") {
        let tls = if scheme.eq_ignore_ascii_case("https") { " and `tls: true`" } else { "" };
        return Err(wrong(format!("write host and port only: {}{tls}", quote(rest.trim_end_matches('/')))));
    }
    if text.parse::<IpAddr>().is_ok() {
        let host = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
        return Err(wrong(format!("add the port: {host}:8080")));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong("write HOST:PORT, such as 10.0.0.5:8080".to_owned()));
    };
    let Some(port) = port.parse::<u16>().ok().filter(|p| *p > 0 && port.bytes().all(|b| b.is_ascii_digit())) else {
        return Err(wrong("write a port from 1 to 65535 after the `:`".to_owned()));
    };
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        Some(_) => return Err(wrong("write an IPv6 address between the brackets, such as [::1]:8080".to_owned())),
        None if host.is_empty() => return Err(wrong(format!("write the host before the port, such as 127.0.0.1:{port}"))),
        None if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            return Err(wrong(format!("write the IPv6 address in brackets: [{host}]:{port}")));
        }
        None => {
            parse_host(host).map_err(|w| wrong(w.remedy))?;
            host
        }
    };
    Ok(Address { host: host.to_owned(), port })
}

/// A host name or IPv4 address.
pub(super) fn parse_host(host: &str) -> Result<(), Wrong> {
    let wrong = |remedy: &str| Err(Wrong::new(format!("{} is not a host name", quote(host)), remedy));
    if !host.is_ascii() {
        return wrong("write the name in its ASCII form (xn--…)");
    }
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if host.len() > 253 || !host.split('.').all(label) {
        return wrong("write a host name of letters, digits, `-` and `.`, or an IP address");
    }
    let numeric = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if numeric && host.parse::<std::net::Ipv4Addr>().is_err() {
        return wrong("write four numbers from 0 to 255 for an IPv4 address");
    }
    Ok(())
}

/// An address to listen on: an IP and a port; 0 lets the system choose the port.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.rsplit(':').next().and_then(|p| p.parse::<u16>().ok());
    let host = text.rsplit_once(':').map_or("", |(host, _)| host);
    let remedy = match (port, host) {
        (Some(port), "localhost") => format!("write 127.0.0.1:{port}"),
        (Some(port), "" | "*") => format!("write 0.0.0.0:{port}, or [::]:{port} for IPv6 too"),
        (Some(port), host) if host.parse::<std::net::Ipv6Addr>().is_ok() => format!("write [{host}]:{port}"),
        _ => "write IP:PORT, such as 0.0.0.0:8080".to_owned(),
    };
    Err(Wrong::new(format!("{} is not an address to listen on", quote(text)), remedy))
}

/// A network, `10.0.0.0/8`, or one address; host bits are cleared.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|n| n.trunc())
        .ok_or_else(|| Wrong::new(format!("{} is not a network", quote(text)), "write 10.0.0.0/8, or one address such as 10.0.0.7"))
}

/// The name of a release or backend: a part of targets, URLs and metric labels.
///
/// # Errors
/// Characters or a length that one of those could not carry; a leading `-` would be read as an option, a leading `.` as a directory.
pub fn parse_name(text: &str) -> Result<(), Wrong> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    named(text, 64, ok, "letters, digits, `.`, `_` and `-`, beginning with a letter, digit or `_`", text.starts_with(['-', '.']))
}

/// The name of an app: a part of its cookie's name and of file names, hence in lower case.
///
/// # Errors
/// As [`parse_name`], and capitals and dots.
pub fn parse_app_name(text: &str) -> Result<(), Wrong> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    let lower = text.to_ascii_lowercase();
    if text != lower && lower.bytes().all(ok) {
        return Err(Wrong::new(format!("{} has capital letters", quote(text)), format!("write {}", quote(&lower))));
    }
    named(text, 32, ok, "lower-case letters, digits, `_` and `-`, beginning with a letter, digit or `_`", text.starts_with('-'))
}

/// A route: it stands after the last `.` of a session id, before a `~`, and inside a cookie.
pub(super) fn route(text: &str) -> Result<(), Wrong> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    named(text, 64, ok, "letters, digits, `_` and `-`: no `.`, since what follows the last `.` of a session id is its route", false)
}

fn named(text: &str, longest: usize, ok: impl Fn(u8) -> bool, allowed: &str, bad_start: bool) -> Result<(), Wrong> {
    let what = if text.is_empty() {
        "the name is empty".to_owned()
    } else if text.len() > longest {
        format!("{} is longer than {longest} characters", quote(text))
    } else if bad_start || !text.bytes().all(ok) {
        format!("{} cannot be a name here", quote(text))
    } else {
        return Ok(());
    };
    Err(Wrong::new(what, format!("use at most {longest} {allowed}")))
}

/// A token of RFC 9110 §5.6.2: names of cookies, headers and methods.
pub(super) fn token(text: &str) -> Result<(), Wrong> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(ok) {
        return Ok(());
    }
    Err(Wrong::new(format!("{} cannot be sent as a name in HTTP", quote(text)), "use letters, digits, `-` and `_`, at most 128"))
}

/// A path as clients send it: no query, nothing that would have to be encoded, no `.` or `..`.
pub(super) fn path(text: &str) -> Result<String, Wrong> {
    let wrong = |remedy: String| Err(Wrong::new(format!("{} is not a path", quote(text)), remedy));
    if !text.starts_with('/') {
        return if text.contains("://") || text.is_empty() {
            wrong("write only the path, beginning with `/`".to_owned())
        } else {
            wrong(format!("begin it with `/`: {}", quote(&format!("/{text}"))))
        };
    }
    if text.contains(['?', '#', ';']) {
        return wrong("leave out `?`, `#`, `;` and what follows".to_owned());
    }
    if text.len() > 1024 || !text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}*".contains(&b)) {
        return wrong(
            "use letters, digits and `-._~/`, others as %XX; no `*`: a path is matched by whole segments from its beginning".to_owned(),
        );
    }
    if text.contains("//") || text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return wrong("write it without `//`, `.` and `..`".to_owned());
    }
    Ok(text.to_owned())
}

/// A [`path`] that others may lie below: without trailing slash, except for `/` itself.
pub(super) fn prefix(text: &str) -> Result<String, Wrong> {
    let path = path(text)?;
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// A path with an optional query, as a probe asks for it.
pub(super) fn request_path(text: &str) -> Result<String, Wrong> {
    let (bare, query) = text.split_once('?').unwrap_or((text, ""));
    path(bare)?;
    if query.len() > 1024 || !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(Wrong::new(format!("{} is not a path", quote(text)), "encode spaces and special characters of the query as %XX"));
    }
    Ok(text.to_owned())
}

/// A pattern of User-Agent: printable ASCII in which `*` stands for anything.
pub(super) fn agent_pattern(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 256 || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(Wrong::new(
            format!("{} is not a pattern of User-Agent", quote(text)),
            "use 1 to 256 printable ASCII characters; `*` stands for anything",
        ));
    }
    if text.bytes().all(|b| b == b'*') {
        return Err(Wrong::new(
            format!("{} matches every client", quote(text)),
            "write a narrower pattern such as \"kube-probe/*\": nobody would be counted",
        ));
    }
    Ok(text.to_owned())
}

/// The name of a file: not empty, no control characters.
pub(super) fn file_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
        return Err(Wrong::new(format!("{} is not the name of a file", quote(text)), "write a path such as /etc/tidegate/shop.pem"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        let check = |text: &str, expected: Result<u64, &str>| match (parse_duration(text), expected) {
            (Ok(d), Ok(ms)) => assert_eq!(d, Duration::from_millis(ms), "{text}"),
            (Err(w), Err(start)) => assert!(w.to_string().starts_with(start), "{text}: {w}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("250ms", Ok(250));
        check("5s", Ok(5000));
        check("30m", Ok(1_800_000));
        check("12h", Ok(43_200_000));
        check("7d", Ok(604_800_000));
        check("0s", Ok(0));
        check("30", Err("`30` has no unit; write 30s"));
        check("5min", Err("`5min` is not a duration; write 5m"));
        check("30 s", Err("`30 s` is not a duration; write 30s"));
        check("1H", Err("`1H` is not a duration; write 1h"));
        check("1h30m", Err("`1h30m` is not a duration; write one whole number"));
        check("1.5s", Err("`1.5s` is not a duration"));
        check("-5s", Err("`-5s` is not a duration"));
        check("", Err("`` is not a duration"));
        check("s", Err("`s` is not a duration"));
        check("5w", Err("`5w` has an unknown unit"));
        check("5µs", Err("`5µs` has an unknown unit"));
        check("٣s", Err("`٣s` is not a duration"));
        check("4000d", Err("`4000d` is longer than ten years"));
        check("99999999999999999999d", Err("`99999999999999999999d` is longer"));
    }

    #[test]
    fn what_is_formatted_is_read_back() {
        for ms in [0, 1, 250, 1000, 1500, 55_000, 60_000, 3_600_000, 5_400_000, 86_400_000, 604_800_000] {
            let d = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(d)), Ok(d));
        }
        assert_eq!(format_duration(Duration::from_secs(5400)), "90m");
        for bytes in [0, 1, 512, 1024, 1536, 64 << 20, 3 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(64 << 20), "64MiB");
    }

    #[test]
    fn sizes_and_status_codes_say_how_they_are_written() {
        let check = |got: Option<Wrong>, start: &str| assert!(got.as_ref().is_some_and(|w| w.to_string().starts_with(start)), "{got:?}");
        check(parse_size("64MB").err(), "`64MB` has an unknown unit; write 64MiB");
        check(parse_size("64").err(), "`64` has no unit; write 64B");
        check(parse_size("64m").err(), "`64m` has an unknown unit; write 64MiB");
        check(parse_size("much").err(), "`much` is not a size");
        check(parse_size("99999999999999999GiB").err(), "`99999999999999999GiB` is too large");
        assert_eq!(status_range("404"), Ok((404, 404)));
        assert_eq!(status_range("200-399"), Ok((200, 399)));
        check(status_range("399-200").err(), "`399-200` begins above its end; write 200-399");
        check(status_range("4xx").err(), "`4xx` is not a status code or a range of them; write 400-499");
        check(status_range("99").err(), "`99` is not a status code");
        check(status_range("200-600").err(), "`200-600` is not a status code");
        check(status_range("+20").err(), "`+20` is not a status code");
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let check = |text: &str, expected: &str| match parse_address(text) {
            Ok(address) => assert_eq!(address.to_string(), expected, "{text}"),
            Err(w) => assert!(w.remedy.starts_with(expected), "{text}: {w}"),
        };
        check("10.0.0.5:8080", "10.0.0.5:8080");
        check("tomcat_1.internal:80", "tomcat_1.internal:80");
        check("[::1]:8080", "[::1]:8080");
        check("10.0.0.5", "add the port: 10.0.0.5:8080");
        check("::1", "add the port: [::1]:8080");
        check("::1:8080", "add the port");
        check("1:2:3:4:5:6:7:8:8080", "write the IPv6 address in brackets: [1:2:3:4:5:6:7:8]:8080");
        check("http://a:80/", "write host and port only: `a:80`");
        check("https://a:443", "write host and port only: `a:443` and `tls: true`");
        check("a:0", "write a port from 1 to 65535");
        check("a:+80", "write a port from 1 to 65535");
        check("a:65536", "write a port from 1 to 65535");
        check(":8080", "write the host before the port, such as 127.0.0.1:8080");
        check("10.0.0.256:80", "write four numbers");
        check("bücher.example:80", "write the name in its ASCII form");
        check("a b:80", "write a host name");
        check("[x]:80", "write an IPv6 address between the brackets");
        check("", "write HOST:PORT");
    }

    #[test]
    fn paths_are_normalised_or_refused() {
        let check = |text: &str, expected: Result<&str, &str>| match (prefix(text), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(w), Err(start)) => assert!(w.remedy.starts_with(start), "{text}: {w}"),
            (got, _) => panic!("{text}: {got:?}"),
        };
        check("/", Ok("/"));
        check("/shop/", Ok("/shop"));
        check("/a/b%20c", Ok("/a/b%20c"));
        check("shop", Err("begin it with `/`: `/shop`"));
        check("", Err("write only the path"));
        check("http://x/shop", Err("write only the path"));
        check("/shop?x=1", Err("leave out"));
        check("/shop;jsessionid=1", Err("leave out"));
        check("/shop/*", Err("use letters, digits"));
        check("/sh op", Err("use letters, digits"));
        check("/a/../b", Err("write it without"));
        check("//", Err("write it without"));
    }
}
