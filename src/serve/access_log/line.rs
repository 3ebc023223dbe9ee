//! A record as a line. Runs on the log's own thread.
//!
//! Whatever a client sent stays inside its field: no byte of it can end a line, close a quote or reach a terminal.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Version};
use serde::Serialize;

use super::Record;
use crate::config::LogFormat;
use crate::serve::date::Date;

/// Appends the line of a record, with its end.
///
/// # Errors
/// None where `out` is memory.
pub fn write(out: &mut Vec<u8>, record: &Record, format: LogFormat) -> io::Result<()> {
    match format {
        LogFormat::Json => json(out, record)?,
        LogFormat::Combined => combined(out, record)?,
    }
    out.write_all(b"\n")
}

/// The fields of a JSON line, in this order. Names are an interface: dashboards depend on them.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    client: IpAddr,
    host: Option<&'a str>,
    method: &'a str,
    path: Cow<'a, str>,
    protocol: &'a str,
    status: u16,
    bytes: u64,
    request_bytes: u64,
    duration_seconds: f64,
    backend_seconds: Option<f64>,
    app: Option<&'a str>,
    release: Option<&'a str>,
    backend: Option<&'a str>,
    reason: Option<&'static str>,
    pin: &'static str,
    request_id: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    referer: Option<Cow<'a, str>>,
}

fn json(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let mut time = [0; 40];
    let mut rest = time.as_mut_slice();
    Date::of(record.time).rfc3339(&mut rest)?;
    let unused = rest.len();
    let time = time.get(..time.len() - unused).unwrap_or_default();
    let line = Line {
        time: std::str::from_utf8(time).unwrap_or_default(),
        client: record.client,
        host: record.host.as_deref(),
        method: record.method.as_str(),
        path: String::from_utf8_lossy(&record.path),
        protocol: protocol(record.protocol),
        status: record.status,
        bytes: record.bytes,
        request_bytes: record.request_bytes,
        duration_seconds: seconds(record.duration),
        backend_seconds: record.backend_duration.map(seconds),
        app: record.app.as_deref(),
        release: record.release.as_deref(),
        backend: record.backend.as_deref().map(|spec| spec.name.as_str()),
        reason: record.reason.map(|reason| reason.as_str()),
        pin: record.pin.as_str(),
        request_id: record.request_id.as_ref().map(text),
        user_agent: record.user_agent.as_ref().map(text),
        referer: record.referer.as_ref().map(text),
    };
    serde_json::to_writer(out, &line).map_err(io::Error::other)
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Whole microseconds: more digits would only look precise.
fn seconds(duration: Duration) -> f64 {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)).as_secs_f64()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Apache's `"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-agent}i\""`, which nginx writes too.
fn combined(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    write!(out, "{} - - [", record.client)?;
    Date::of(record.time).common_log(out)?;
    write!(out, "] \"")?;
    escape(out, record.method.as_str().as_bytes())?;
    write!(out, " ")?;
    escape(out, &record.path)?;
    write!(out, " {}\" {:03} ", protocol(record.protocol), record.status)?;
    match record.bytes {
        0 => write!(out, "-")?,
        bytes => write!(out, "{bytes}")?,
    }
    for value in [&record.referer, &record.user_agent] {
        write!(out, " \"")?;
        escape(out, value.as_ref().map_or(b"-".as_slice(), HeaderValue::as_bytes))?;
        write!(out, "\"")?;
    }
    Ok(())
}

/// As Apache escapes since 2.0.46: quotes and backslashes by a backslash, the usual letters, anything else as `\xhh`.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    for &byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x20..=0x7e => out.push(byte),
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;

    use super::*;
    use crate::model::reason::{PinResult, Reason};
    use crate::model::settings::Address;
    use crate::model::sketch::plain_backend;
    use crate::model::time::Time;

    fn line(record: &Record, format: LogFormat) -> String {
        let mut out = Vec::new();
        write(&mut out, record, format).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    fn full() -> Record {
        let backend = plain_backend(Address { host: "127.0.0.1".to_owned(), port: 8081 });
        Record {
            time: Time(1_795_168_800_250),
            client: "192.0.2.7".parse().expect("an address"),
            host: Some("shop.example.com".into()),
            method: Method::POST,
            path: (*b"/cart?item=7").into(),
            protocol: Version::HTTP_11,
            status: 200,
            bytes: 5120,
            request_bytes: 17,
            duration: Duration::from_micros(12_345),
            backend_duration: Some(Duration::from_millis(9)),
            app: Some("shop".into()),
            release: Some("v41".into()),
            backend: Some(Arc::new(backend)),
            reason: Some(Reason::Pinned),
            pin: PinResult::Valid,
            request_id: Some(HeaderValue::from_static("r-1")),
            user_agent: Some(HeaderValue::from_static("Mozilla/5.0 (X11)")),
            referer: Some(HeaderValue::from_static("https://shop.example.com/")),
        }
    }

    /// What a client sent that is no HTTP for us, answered by nobody.
    fn bare() -> Record {
        Record {
            host: None,
            path: (*b"/").into(),
            status: 0,
            bytes: 0,
            request_bytes: 0,
            backend_duration: None,
            app: None,
            release: None,
            backend: None,
            reason: None,
            pin: PinResult::None,
            request_id: None,
            user_agent: None,
            referer: None,
            ..full()
        }
    }

    #[test]
    fn a_json_line_has_every_field() {
        let expected = concat!(
            r#"{"time":"2026-11-20T10:00:00.250Z","client":"192.0.2.7","host":"shop.example.com","method":"POST","#,
            r#""path":"/cart?item=7","protocol":"HTTP/1.1","status":200,"bytes":5120,"request_bytes":17,"#,
            r#""duration_seconds":0.012345,"backend_seconds":0.009,"app":"shop","release":"v41","backend":"a1","#,
            r#""reason":"pinned","pin":"valid","request_id":"r-1","user_agent":"Mozilla/5.0 (X11)","#,
            r#""referer":"https://shop.example.com/"}"#,
            "\n"
        );
        assert_eq!(line(&full(), LogFormat::Json), expected);
        let expected = concat!(
            r#"{"time":"2026-11-20T10:00:00.250Z","client":"192.0.2.7","host":null,"method":"POST","path":"/","#,
            r#""protocol":"HTTP/1.1","status":0,"bytes":0,"request_bytes":0,"duration_seconds":0.012345,"#,
            r#""backend_seconds":null,"app":null,"release":null,"backend":null,"reason":null,"pin":"none","#,
            r#""request_id":null,"user_agent":null,"referer":null}"#,
            "\n"
        );
        assert_eq!(line(&bare(), LogFormat::Json), expected);
    }

    #[test]
    fn a_combined_line_is_what_apache_writes() {
        let expected = concat!(
            r#"192.0.2.7 - - [20/Nov/2026:10:00:00 +0000] "POST /cart?item=7 HTTP/1.1" 200 5120 "#,
            r#""https://shop.example.com/" "Mozilla/5.0 (X11)""#,
            "\n"
        );
        assert_eq!(line(&full(), LogFormat::Combined), expected);
        let expected = concat!(r#"192.0.2.7 - - [20/Nov/2026:10:00:00 +0000] "POST / HTTP/1.1" 000 - "-" "-""#, "\n");
        assert_eq!(line(&bare(), LogFormat::Combined), expected);
    }

    #[test]
    fn nothing_a_client_sends_leaves_its_field() {
        let check = |bytes: &[u8], json: &str, combined: &str| {
            let agent = HeaderValue::from_bytes(bytes).ok();
            let record = Record { path: bytes.into(), user_agent: agent, ..full() };
            let text = line(&record, LogFormat::Json);
            assert!(text.contains(&format!(r#""path":"{json}""#)), "{text}");
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(parsed["path"], String::from_utf8_lossy(bytes).as_ref());
            let text = line(&record, LogFormat::Combined);
            assert!(text.contains(&format!(r#""POST {combined} HTTP/1.1""#)), "{text}");
            assert!(text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')) && text.lines().count() == 1, "{text}");
        };
        check(b"/a\"b", r#"/a\"b"#, r#"/a\"b"#);
        check(b"/a\\b", r"/a\\b", r"/a\\b");
        check(b"/a\r\nSet", r"/a\r\nSet", r"/a\r\nSet");
        check(b"/a\x00\x1b[2J", r"/a\u0000\u001b[2J", r"/a\x00\x1b[2J");
        check(b"/\xc3\xa4", "/\u{e4}", r"/\xc3\xa4");
        check(b"/\xff\xfe", "/\u{fffd}\u{fffd}", r"/\xff\xfe");
    }
}
