//! An app: what it serves, its releases and backends, and what must be unique among them.
//!
//! A route is unique in the app, not in its release: a session id carries the route alone, and two releases live side by side.

use std::net::IpAddr;
use std::time::Duration;

use super::problem::{Wrong, nearest, quote};
use super::read::{Field, Section, Unique};
use super::scalar;
use super::session::{BALANCE, session};
use super::webhook::webhook;
use crate::model::settings::{
    Address, AppSpec, BackendSpec, BackendTls, Current, DrainSettings, DrainThen, Failover, HealthSettings, Limits, Match, MovePoint,
    NotMine, Protocol, ReleaseSpec, Settings, StatusSet, Timeouts, WhenAllDraining,
};

/// Far above any sane value: these ranges catch slips of the keyboard, they are not advice.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// All apps, with what must be unique among them.
pub(super) fn apps(s: &mut Section) -> Vec<AppSpec> {
    let mut matches = Unique::default();
    let read = s.required("apps", |f| {
        f.not_empty("there is no app", "add one: `shop:` with `releases:` below it");
        f.names(|name, f| {
            f.parsed_name(name, scalar::parse_app_name);
            f.section(|s| app(name, s, &mut matches))
        })
    });
    read.unwrap_or_default()
}

fn app(name: &str, s: &mut Section, seen: &mut Unique<(Option<String>, String)>) -> AppSpec {
    let place = s.place_of("match");
    let matches = match s.take("match") {
        Some(f) => {
            f.not_empty("the app serves nothing", "add `- {host: shop.example.com, path: /}`, or leave `match` out to serve everything");
            f.list(|f| f.section(|s| one_match(s).map(|m| (m, f.place().clone())))?).unwrap_or_default()
        }
        None => vec![(Match { host: None, path: "/".to_owned() }, place)],
    };
    for (m, place) in &matches {
        if let Some(first) = seen.insert((m.host.clone(), m.path.clone()), place) {
            let host = m.host.as_deref().unwrap_or("any host");
            let what = format!("{host} with path {} is served already, in line {} ({})", m.path, first.line, first.at);
            s.wrong_place(place, Wrong::new(what, "give each app a host or path of its own"));
        }
    }
    let matches: Vec<Match> = matches.into_iter().map(|(m, _)| m).collect();
    let settings = settings(s);
    let public = match matches.as_slice() {
        [only] => Some(only.path.clone()),
        _ => None,
    };
    let (releases, names) = releases(s, public.as_deref());
    let current = current(s, &names);
    AppSpec { name: name.to_owned(), matches, settings, current, releases }
}

fn one_match(s: &mut Section) -> Option<Match> {
    let host = s.take("host").filter(|f| !f.is_null()).map(|f| f.parsed(match_host));
    let path = s.take("path").map(|f| f.parsed(scalar::prefix));
    // A host or path that could not be read must not look like "any": it would clash with every other app.
    Some(Match { host: host.map_or(Some(None), |h| h.map(Some))?, path: path.unwrap_or_else(|| Some("/".to_owned()))? })
}

fn match_host(text: &str) -> Result<String, Wrong> {
    let host = text.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if host == "*" {
        return Err(Wrong::new("`*` is not a host name", "leave `host` out to match any host"));
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && !name.contains(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(Wrong::new(format!("{} has a port", quote(text)), format!("write {}: the listener decides the port", quote(name))));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'))
        && inner.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Ok(host.to_owned());
    }
    scalar::parse_host(host.strip_prefix("*.").unwrap_or(host))?;
    Ok(host.to_owned())
}

/// The releases, and the names of all that are written, so that a bad one does not make `current` look wrong too.
fn releases(s: &mut Section, public: Option<&str>) -> (Vec<ReleaseSpec>, Vec<String>) {
    let mut seen = Seen::default();
    let mut names = Vec::new();
    let read = s.required("releases", |f| {
        f.not_empty("there is no release", "add one: `v1: {backends: {a1: 127.0.0.1:8081}}`");
        f.names(|name, f| {
            names.push(name.to_owned());
            f.parsed_name(name, scalar::parse_name);
            if name == "by_health" {
                f.wrong::<()>(Wrong::new("`by_health` has a meaning of its own in `current`", "choose another name"));
            }
            f.section(|s| release(name, s, public, &mut seen))
        })
    });
    (read.unwrap_or_default(), names)
}

/// What must be unique among the backends of an app.
#[derive(Default)]
struct Seen {
    routes: Unique<String>,
    addresses: Unique<(String, u16, Option<String>)>,
}

fn release(name: &str, s: &mut Section, public: Option<&str>, seen: &mut Seen) -> ReleaseSpec {
    let path = s.optional("path", None, |f| f.parsed(scalar::prefix));
    // Where a backend really serves the app: two releases may share an address only if this differs.
    let effective = path.as_deref().or(public).map(str::to_owned);
    let backends = s.required("backends", |f| {
        f.not_empty("there is no backend", "add one: `a1: 127.0.0.1:8081`");
        f.names(|name, f| {
            f.parsed_name(name, scalar::parse_name);
            backend(name, f, effective.as_deref(), seen)
        })
    });
    ReleaseSpec { name: name.to_owned(), path, backends: backends.unwrap_or_default() }
}

fn backend(name: &str, f: &Field, path: Option<&str>, seen: &mut Seen) -> Option<BackendSpec> {
    if f.is_null() {
        return f.wrong(Wrong::new("has no address", format!("write it: `{name}: 127.0.0.1:8081`")));
    }
    let spec = if f.is_section() {
        f.section(|s| long_backend(name, s))?
    } else {
        f.parsed(scalar::parse_address).map(|address| short_backend(name, address))
    };
    // Checked although the address may be wrong: its route can clash all the same.
    let route = spec.as_ref().map_or(name, |b| b.route.as_str());
    if route == name && scalar::parse_name(name).is_ok() && scalar::route(name).is_err() {
        let what = format!("{} cannot be a route: what follows the last `.` of a session id is its route", quote(name));
        f.wrong::<()>(Wrong::new(what, format!("add `route: {}`, or choose another name", name.replace('.', "-"))));
    }
    if let Some(first) = seen.routes.insert(route.to_owned(), f.place()) {
        let what = format!("the route {} is taken in line {} ({})", quote(route), first.line, first.at);
        f.wrong::<()>(Wrong::new(what, "choose another name, or add `route:`: routes are unique in an app, across its releases"));
    }
    let spec = spec?;
    let host = spec.address.host.parse::<IpAddr>().map_or_else(|_| spec.address.host.to_ascii_lowercase(), |ip| ip.to_string());
    if let Some(first) = seen.addresses.insert((host, spec.address.port, path.map(str::to_owned)), f.place()) {
        let what = format!("{} with the same path is a backend already, in line {} ({})", spec.address, first.line, first.at);
        f.wrong::<()>(Wrong::new(what, "use another address, or give the release a `path:` of its own"));
    }
    Some(spec)
}

fn short_backend(name: &str, address: Address) -> BackendSpec {
    BackendSpec {
        name: name.to_owned(),
        address,
        route: name.to_owned(),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    }
}

fn long_backend(name: &str, s: &mut Section) -> Option<BackendSpec> {
    let address = s.required("address", |f| f.parsed(scalar::parse_address));
    // The rest is read even without an address, for its own problems.
    let usual = short_backend(name, Address { host: String::new(), port: 0 });
    let spec = BackendSpec {
        route: s.optional("route", None, |f| f.parsed(|t| scalar::route(t).map(|()| t.to_owned()))).unwrap_or(usual.route),
        weight: s.or("weight", usual.weight, |f| f.whole(0..=1000)),
        backup: s.or("backup", usual.backup, Field::flag),
        max_connections: s.optional("max_connections", None, |f| f.whole(1..=1_000_000)),
        tls: s.optional("tls", None, backend_tls),
        protocol: s.or("protocol", usual.protocol, |f| f.choice(&[("http1", Protocol::Http1), ("http2", Protocol::Http2)])),
        name: usual.name,
        address: usual.address,
    };
    Some(BackendSpec { address: address?, ..spec })
}

fn backend_tls(f: &Field) -> Option<BackendTls> {
    if f.is_section() {
        return f.section(|s| BackendTls {
            server_name: s.optional("server_name", None, |f| f.parsed(|t| scalar::parse_host(t).map(|()| t.to_owned()))),
            verify: s.or("verify", true, Field::flag),
        });
    }
    match f.text()? {
        "true" => Some(BackendTls { server_name: None, verify: true }),
        other => {
            f.wrong(Wrong::new(format!("{} does not say how to use TLS", quote(other)), "write true, null, or {server_name: …, verify: …}"))
        }
    }
}

fn current(s: &mut Section, releases: &[String]) -> Current {
    let names = || releases.iter().map(String::as_str);
    let few = || names().take(10).collect::<Vec<_>>().join(", ");
    let only = match releases {
        [only] => Some(Current::Release(only.clone())),
        _ => None,
    };
    let read = |f: &Field| match f.text()? {
        "by_health" => Some(Current::ByHealth),
        // Without releases their absence is the problem, and it is reported.
        name if releases.is_empty() || names().any(|r| r == name) => Some(Current::Release(name.to_owned())),
        name => {
            let remedy = match nearest(name, names().chain(["by_health"])) {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => format!("write one of: {}, by_health", few()),
            };
            f.wrong(Wrong::new(format!("there is no release {}", quote(name)), remedy))
        }
    };
    let written = s.take("current").filter(|f| !f.is_null());
    match (written, only) {
        (Some(f), _) => read(&f).unwrap_or(Current::ByHealth),
        (None, Some(only)) => only,
        (None, None) => {
            if releases.len() > 1 {
                s.wrong_at(
                    "current",
                    Wrong::new(
                        format!("is missing, and there are {} releases", releases.len()),
                        format!("write one of: {}, by_health", few()),
                    ),
                );
            }
            Current::ByHealth
        }
    }
}

fn settings(s: &mut Section) -> Settings {
    let d = Settings::default();
    Settings {
        session: s.section("session", session),
        balance: s.or("balance", d.balance, |f| f.choice(&BALANCE)),
        when_all_draining: s.or("when_all_draining", d.when_all_draining, |f| f.choice(&WHEN_ALL_DRAINING)),
        failover: s.or("failover", d.failover, |f| f.choice(&FAILOVER)),
        failover_wait: s.or("failover_wait", d.failover_wait, |f| f.duration(Duration::ZERO..=DAY)),
        health: s.section("health", health),
        limits: s.section("limits", limits),
        timeouts: s.section("timeouts", timeouts),
        streaming_paths: s.or("streaming_paths", d.streaming_paths, prefixes),
        slow_start: s.or("slow_start", d.slow_start, |f| f.duration(Duration::ZERO..=DAY)),
        drain: s.section("drain", drain),
        not_mine: s.section("not_mine", not_mine),
    }
}

pub(super) const WHEN_ALL_DRAINING: [(&str, WhenAllDraining); 2] = [("serve", WhenAllDraining::Serve), ("refuse", WhenAllDraining::Refuse)];
pub(super) const FAILOVER: [(&str, Failover); 3] = [("temporary", Failover::Temporary), ("repin", Failover::Repin), ("off", Failover::Off)];
pub(super) const THEN: [(&str, DrainThen); 3] =
    [("keep", DrainThen::Keep), ("move_idle", DrainThen::MoveIdle), ("evict", DrainThen::Evict)];

fn health(s: &mut Section) -> HealthSettings {
    let d = HealthSettings::default();
    let health = HealthSettings {
        tcp: s.or("tcp", d.tcp, Field::flag),
        path: s.or("path", d.path, |f| f.parsed(scalar::request_path)),
        method: s.or("method", d.method, method),
        host: s.optional("host", d.host, |f| f.parsed(probe_host)),
        port: s.optional("port", d.port, |f| f.whole(1..=65535)),
        interval: s.or("interval", d.interval, |f| f.duration(Duration::from_millis(100)..=DAY)),
        timeout: s.or("timeout", d.timeout, |f| f.duration(MILLISECOND..=DAY)),
        rise: s.or("rise", d.rise, |f| f.whole(1..=100)),
        fall: s.or("fall", d.fall, |f| f.whole(1..=100)),
        ready: s.or("ready", d.ready, statuses),
        drain: s.or("drain", d.drain, statuses),
        instance_header: s.optional("instance_header", d.instance_header, header),
    };
    // A timeout above the interval is fine, as in HAProxy: the next probe begins when the overdue one has ended.
    if health.tcp {
        for key in ["path", "method", "host", "ready", "drain", "instance_header"].into_iter().filter(|k| s.has(k)) {
            s.wrong_at(key, Wrong::new("means nothing with `tcp: true`, which only connects", "remove this line or `tcp: true`"));
        }
    } else if health.ready.0.is_empty() && s.has("ready") {
        s.wrong_at("ready", Wrong::new("no answer would mean up", "write [200-399], or remove the line"));
    }
    health
}

fn limits(s: &mut Section) -> Limits {
    let mut limits = Limits::default();
    limits.max_connections = s.optional("max_connections", limits.max_connections, |f| f.whole(1..=1_000_000));
    if let Some(queue) = s.take("queue") {
        queue.section(|s| {
            limits.queue_size = s.or("size", limits.queue_size, |f| f.whole(0..=1_000_000));
            limits.queue_timeout = s.or("timeout", limits.queue_timeout, |f| f.duration(MILLISECOND..=DAY));
        });
    }
    if let Some(budget) = s.take("retry_budget") {
        budget.section(|s| {
            let rules = &mut limits.retry_budget;
            rules.percent = s.or("percent", rules.percent, |f| f.whole(0..=1000));
            rules.least_per_second = s.or("least_per_second", rules.least_per_second, |f| f.whole(0..=1_000_000));
        });
    }
    limits.max_body = s.optional("max_body", limits.max_body, |f| match f.parsed(scalar::parse_size)? {
        0 => f.wrong(Wrong::new("no request could have a body", "write null for no limit")),
        size => Some(size),
    });
    limits
}

fn timeouts(s: &mut Section) -> Timeouts {
    let d = Timeouts::default();
    let range = || MILLISECOND..=YEAR;
    Timeouts {
        connect: s.or("connect", d.connect, |f| f.duration(range())),
        read: s.or("read", d.read, |f| f.duration(range())),
        write: s.or("write", d.write, |f| f.duration(range())),
        idle: s.or("idle", d.idle, |f| f.duration(range())),
        tunnel: s.or("tunnel", d.tunnel, |f| f.duration(range())),
    }
}

fn drain(s: &mut Section) -> DrainSettings {
    let d = DrainSettings::default();
    let (webhook, webhook_key_file) = webhook(s);
    let move_point = |s: &mut Section| {
        let method = s.required("method", method);
        let path = s.required("path", |f| f.parsed(scalar::path));
        Some(MovePoint { method: method?, path: path? })
    };
    DrainSettings {
        deadline: s.optional("deadline", d.deadline, |f| f.duration(MILLISECOND..=YEAR)),
        then: s.or("then", d.then, |f| f.choice(&THEN)),
        evict_per_second: s.or("evict_per_second", d.evict_per_second, |f| f.whole(1..=1_000_000)),
        tunnels: s.optional("tunnels", d.tunnels, |f| f.duration(Duration::ZERO..=YEAR)),
        move_points: s.or("move_points", d.move_points, |f| f.list(|f| f.section(move_point)?)),
        no_replay: s.or("no_replay", d.no_replay, prefixes),
        webhook,
        webhook_key_file,
    }
}

fn not_mine(s: &mut Section) -> NotMine {
    let d = NotMine::default();
    NotMine {
        status: s.or("status", d.status, statuses),
        header: s.optional("header", d.header, header),
        location: s.optional("location", d.location, |f| {
            f.parsed(|t| {
                let fine = (1..=1024).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
                if fine {
                    Ok(t.to_owned())
                } else {
                    Err(Wrong::new(format!("{} cannot begin a Location", quote(t)), "write the beginning of a URL or path, such as /login"))
                }
            })
        }),
    }
}

pub(super) fn prefixes(f: &Field) -> Option<Vec<String>> {
    f.set(|f| f.parsed(scalar::prefix))
}

/// The name of a response header that a backend sets for us.
pub(super) fn header(f: &Field) -> Option<String> {
    f.parsed(|t| scalar::token(t).map(|()| t.to_owned()))
}

fn statuses(f: &Field) -> Option<StatusSet> {
    f.set(|f| f.parsed(scalar::status_range)).map(StatusSet)
}

fn method(f: &Field) -> Option<String> {
    f.parsed(|t| {
        let letters = (1..=32).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
        if letters {
            Ok(t.to_ascii_uppercase())
        } else {
            Err(Wrong::new(format!("{} is not a method", quote(t)), "write GET, HEAD, POST, …"))
        }
    })
}

/// A Host header may carry a port, unlike the host of a match.
fn probe_host(text: &str) -> Result<String, Wrong> {
    let bare = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(text, |(host, _)| host);
    scalar::parse_host(bare)?;
    Ok(text.to_owned())
}
