//! The `session` section: how an app's sessions are recognised, pinned and ended.
//!
//! A name that our own pin uses is refused as the application's cookie: both would be rewritten by turns.

use std::time::Duration;

use super::app::{DAY, MILLISECOND, YEAR, header, prefixes};
use super::problem::{Wrong, quote};
use super::read::{Field, Section, Unique};
use super::scalar;
use crate::model::settings::{Balance, CountFormat, CountProbe, Ignore, KeySpec, PinMode, PinOn, SessionSettings};

pub(super) const BALANCE: [(&str, Balance); 5] = [
    ("least_sessions", Balance::LeastSessions),
    ("least_connections", Balance::LeastConnections),
    ("round_robin", Balance::RoundRobin),
    ("random_two", Balance::RandomTwo),
    ("consistent", Balance::Consistent),
];
pub(super) const PIN: [(&str, PinMode); 4] =
    [("cookie", PinMode::Cookie), ("route", PinMode::Route), ("prefix", PinMode::Prefix), ("learn", PinMode::Learn)];
pub(super) const PIN_ON: [(&str, PinOn); 2] = [("session", PinOn::Session), ("first_response", PinOn::FirstResponse)];

/// Bytes below which a signing key can be guessed.
pub(super) const SHORTEST_KEY: u64 = 32;

/// Headers that carry something else already, or are changed on the way.
const TAKEN_HEADERS: [&str; 10] = [
    "cookie",
    "set-cookie",
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "upgrade",
    "location",
    "authorization",
];

pub(super) fn session(s: &mut Section) -> SessionSettings {
    let d = SessionSettings::default();
    let session = SessionSettings {
        cookies: s.or("cookies", d.cookies, |f| f.set(cookie)),
        path_parameter: s.optional("path_parameter", d.path_parameter, parameter),
        query_parameter: s.optional("query_parameter", d.query_parameter, parameter),
        header: s.optional("header", d.header, session_header),
        pin: s.or("pin", d.pin, |f| f.choice(&PIN)),
        pin_on: s.or("pin_on", d.pin_on, |f| f.choice(&PIN_ON)),
        // Tests of an operator's own may use short ones; zero would end every session at once.
        idle_timeout: s.or("idle_timeout", d.idle_timeout, |f| f.duration(Duration::from_millis(100)..=YEAR)),
        max_lifetime: s.optional("max_lifetime", d.max_lifetime, |f| f.duration(Duration::from_millis(100)..=YEAR)),
        confirm_within: s.or("confirm_within", d.confirm_within, |f| f.duration(MILLISECOND..=DAY)),
        rotation_within: s.optional("rotation_within", d.rotation_within, |f| f.duration(MILLISECOND..=YEAR)),
        engaged_within: s.or("engaged_within", d.engaged_within, |f| f.duration(MILLISECOND..=YEAR)),
        background_paths: s.or("background_paths", d.background_paths, prefixes),
        max_entries: s.or("max_entries", d.max_entries, |f| f.whole(1..=100_000_000)),
        ignore: s.section("ignore", |s| Ignore {
            clients: s.or("clients", Vec::new(), |f| f.set(|f| f.parsed(scalar::network))),
            user_agents: s.or("user_agents", Vec::new(), |f| f.set(|f| f.parsed(scalar::agent_pattern))),
        }),
        keys: s.or("keys", d.keys, keys),
        count_probe: s.optional("count_probe", d.count_probe, |f| f.section(count_probe)?),
    };
    if s.is_good() {
        check_identity(s, &session);
    }
    session
}

/// What the settings say together: there must be an id, and a place for the pin.
fn check_identity(s: &Section, session: &SessionSettings) {
    let by_url = session.path_parameter.is_some() || session.query_parameter.is_some();
    let empty = session.cookies.is_empty() && s.has("cookies");
    if empty && !by_url && session.header.is_none() {
        let remedy = "name the application's cookie, or a path_parameter, query_parameter or header";
        s.wrong_at("cookies", Wrong::new("no session could be recognised", remedy));
    } else if empty && session.pin == PinMode::Prefix {
        s.wrong_at(
            "pin",
            Wrong::new("`pin: prefix` writes into the application's cookie, and there is none", "name it in `cookies`, or use another pin"),
        );
    }
}

fn cookie(f: &Field) -> Option<String> {
    f.parsed(|t| {
        scalar::token(t)?;
        if t.to_ascii_lowercase().starts_with("tidegate_") {
            return Err(Wrong::new(
                format!("{} is the name of a pin", quote(t)),
                "name the application's own cookie; pins need no configuration",
            ));
        }
        Ok(t.to_owned())
    })
}

fn parameter(f: &Field) -> Option<String> {
    f.parsed(|t| {
        let fine = (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        if fine {
            Ok(t.to_owned())
        } else {
            Err(Wrong::new(format!("{} is not the name of a parameter", quote(t)), "use letters, digits and `-._~`, at most 64"))
        }
    })
}

fn session_header(f: &Field) -> Option<String> {
    let name = header(f)?;
    let lower = name.to_ascii_lowercase();
    if TAKEN_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-tidegate-") || lower.starts_with("x-forwarded-") {
        return f.wrong(Wrong::new(
            format!("{} cannot carry a session id", quote(&name)),
            "name the application's own header, such as Mcp-Session-Id; cookies belong in `cookies`",
        ));
    }
    Some(name)
}

fn keys(f: &Field) -> Option<Vec<KeySpec>> {
    let mut ids = Unique::default();
    f.list(|f| {
        f.section(|s| {
            let id = s.required("id", |f| f.parsed(key_id));
            if let Some(first) = id.clone().and_then(|id| ids.insert(id, &s.place_of("id"))) {
                s.wrong_at(
                    "id",
                    Wrong::new(format!("this id is taken in line {}", first.line), "give each key an id of its own: pins name it"),
                );
            }
            let file = s.required("file", |f| {
                let (name, length) = f.file()?;
                if length < SHORTEST_KEY {
                    let what = format!("the key {} has {length} bytes, at least {SHORTEST_KEY} are needed", quote(&name));
                    return f.wrong(Wrong::new(what, format!("make it with `head -c 32 /dev/urandom > {name}`")));
                }
                Some(name)
            });
            Some(KeySpec { id: id?, file: file? })
        })?
    })
}

fn key_id(text: &str) -> Result<String, Wrong> {
    let fine = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fine {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("{} is not the id of a key", quote(text)), "use at most 16 letters, digits, `-` or `_`"))
    }
}

fn count_probe(s: &mut Section) -> Option<CountProbe> {
    let url_path = s.required("url_path", |f| f.parsed(scalar::request_path));
    let user_file = s.optional("user_file", None, Field::file).map(|(name, _)| name);
    let tomcat = s.optional("tomcat", None, Field::flag).unwrap_or(false);
    let json = s.optional("json", None, |f| f.parsed(dotted));
    let format = match (tomcat, json) {
        (true, None) => CountFormat::Tomcat,
        (false, Some(path)) => CountFormat::Json(path),
        (both, _) => {
            let what = if both { "`tomcat` and `json` exclude each other" } else { "it is not said how to read the answer" };
            let place = s.place().clone();
            s.wrong_place(&place, Wrong::new(what, "write either `tomcat: true` or `json: sessions.active`"));
            return None;
        }
    };
    Some(CountProbe { url_path: url_path?, user_file, format })
}

fn dotted(text: &str) -> Result<String, Wrong> {
    let fine = text.len() <= 256 && text.split('.').all(|part| !part.is_empty()) && !text.chars().any(char::is_control);
    if fine {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("{} is not a dotted path", quote(text)), "write the keys to the number, such as sessions.active"))
    }
}
