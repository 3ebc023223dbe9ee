//! A configuration as YAML again: what differs from the defaults, and what must be written.
//!
//! Reading the result gives an equal configuration. Comments, order of keys and notation of the file it came from are gone.

use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::app::{FAILOVER, THEN, WHEN_ALL_DRAINING};
use super::scalar::{format_duration, format_size};
use super::session::{BALANCE, PIN, PIN_ON};
use super::{Admin, Config, Listener, LogFormat, LogTarget, Server, State};
use crate::model::settings::{
    AppSpec, BackendSpec, CountFormat, CountProbe, Current, DrainSettings, HealthSettings, Limits, NotMine, Protocol, ReleaseSpec,
    SessionSettings, Settings, StatusSet, Timeouts,
};

/// The effective configuration in YAML.
pub fn export(config: &Config) -> String {
    let mut out = Out::default();
    out.section("server", server(&config.server));
    out.put("listeners", list(&config.listeners, listener));
    out.section("admin", admin(&config.admin));
    let usual = State::default();
    let mut state = Out::default();
    state.differs("directory", &config.state.directory, &usual.directory, |d| text(&d.display()));
    out.section("state", state);
    out.differs("trusted_proxies", &config.trusted_proxies, &Vec::new(), |nets| list(nets, text));
    let apps = config.apps.iter().map(|a| (text(&a.name), app(a).value())).collect();
    out.put("apps", Value::Mapping(apps));
    serde_yaml::to_string(&out.0).expect("texts, numbers, lists and mappings with text keys are always YAML")
}

/// A section under way.
#[derive(Default)]
struct Out(Mapping);

impl Out {
    fn put(&mut self, key: &str, value: Value) {
        self.0.insert(text(key), value);
    }

    fn differs<T: PartialEq>(&mut self, key: &str, value: &T, usual: &T, write: impl FnOnce(&T) -> Value) {
        if value != usual {
            self.put(key, write(value));
        }
    }

    fn nullable<T: PartialEq>(&mut self, key: &str, value: &Option<T>, usual: &Option<T>, write: impl FnOnce(&T) -> Value) {
        self.differs(key, value, usual, |v| v.as_ref().map_or(Value::Null, write));
    }

    fn section(&mut self, key: &str, section: Out) {
        if !section.0.is_empty() {
            self.put(key, section.value());
        }
    }

    fn value(self) -> Value {
        Value::Mapping(self.0)
    }
}

fn text<T: ToString + ?Sized>(value: &T) -> Value {
    Value::String(value.to_string())
}

fn list<T>(items: &[T], write: impl Fn(&T) -> Value) -> Value {
    Value::Sequence(items.iter().map(write).collect())
}

// A `&Vec`, since it is handed to `Out::differs` for a field of that type.
#[allow(clippy::ptr_arg)]
fn texts(items: &Vec<String>) -> Value {
    list(items, text)
}

fn time(duration: &Duration) -> Value {
    text(&format_duration(*duration))
}

/// The word for `value`; the readers use the same tables.
fn word<T: PartialEq>(choices: &[(&str, T)], value: &T) -> Value {
    choices.iter().find(|(_, v)| v == value).map_or(Value::Null, |(name, _)| text(name))
}

fn statuses(set: &StatusSet) -> Value {
    list(&set.0, |&(low, high)| if low == high { Value::from(low) } else { text(&format!("{low}-{high}")) })
}

fn server(s: &Server) -> Out {
    let d = Server::default();
    let mut out = Out::default();
    out.differs("threads", &s.threads, &d.threads, |n| Value::from(*n));
    out.differs("grace_period", &s.grace_period, &d.grace_period, time);
    out.differs("lame_duck", &s.lame_duck, &d.lame_duck, time);
    out.differs("upgrade_timeout", &s.upgrade_timeout, &d.upgrade_timeout, time);
    out.differs("header_timeout", &s.header_timeout, &d.header_timeout, time);
    out.differs("watch", &s.watch, &d.watch, |on| Value::Bool(*on));
    out.nullable("access_log", &s.access_log, &d.access_log, |log| {
        let mut out = Out::default();
        let target = match &log.path {
            LogTarget::Stdout => text("stdout"),
            LogTarget::Stderr => text("stderr"),
            LogTarget::File(path) => text(&path.display()),
        };
        out.put("path", target);
        out.put("format", text(if log.format == LogFormat::Json { "json" } else { "combined" }));
        out.value()
    });
    out
}

fn listener(l: &Listener) -> Value {
    let mut out = Out::default();
    out.put("address", text(&l.address));
    if let Some(tls) = &l.tls {
        let certificates = list(&tls.certificates, |c| {
            let mut out = Out::default();
            out.put("certificate", text(&c.certificate.display()));
            out.nullable("key", &c.key, &None, |k| text(&k.display()));
            out.value()
        });
        let mut tls = Out::default();
        tls.put("certificates", certificates);
        out.section("tls", tls);
    }
    out.value()
}

fn admin(a: &Admin) -> Out {
    let d = Admin::default();
    let mut out = Out::default();
    out.differs("address", &a.address, &d.address, text);
    out.nullable("token_file", &a.token_file, &d.token_file, |f| text(&f.display()));
    out
}

fn app(a: &AppSpec) -> Out {
    let mut out = Out::default();
    let matches = list(&a.matches, |m| {
        let mut out = Out::default();
        out.nullable("host", &m.host, &None, text);
        out.put("path", text(&m.path));
        out.value()
    });
    out.put("match", matches);
    settings(&a.settings, &mut out);
    let current = match &a.current {
        Current::Release(name) => text(name),
        Current::ByHealth => text("by_health"),
    };
    out.put("current", current);
    let releases = a.releases.iter().map(|r| (text(&r.name), release(r))).collect();
    out.put("releases", Value::Mapping(releases));
    out
}

fn settings(s: &Settings, out: &mut Out) {
    let d = Settings::default();
    out.section("session", session(&s.session));
    out.differs("balance", &s.balance, &d.balance, |b| word(&BALANCE, b));
    out.differs("when_all_draining", &s.when_all_draining, &d.when_all_draining, |w| word(&WHEN_ALL_DRAINING, w));
    out.differs("failover", &s.failover, &d.failover, |f| word(&FAILOVER, f));
    out.differs("failover_wait", &s.failover_wait, &d.failover_wait, time);
    out.section("health", health(&s.health));
    out.section("limits", limits(&s.limits));
    out.section("timeouts", timeouts(&s.timeouts));
    out.differs("streaming_paths", &s.streaming_paths, &d.streaming_paths, texts);
    out.differs("slow_start", &s.slow_start, &d.slow_start, time);
    out.section("drain", drain(&s.drain));
    out.section("not_mine", not_mine(&s.not_mine));
}

fn session(s: &SessionSettings) -> Out {
    let d = SessionSettings::default();
    let mut out = Out::default();
    out.differs("cookies", &s.cookies, &d.cookies, texts);
    out.nullable("path_parameter", &s.path_parameter, &d.path_parameter, text);
    out.nullable("query_parameter", &s.query_parameter, &d.query_parameter, text);
    out.nullable("header", &s.header, &d.header, text);
    out.differs("pin", &s.pin, &d.pin, |p| word(&PIN, p));
    out.differs("pin_on", &s.pin_on, &d.pin_on, |p| word(&PIN_ON, p));
    out.differs("idle_timeout", &s.idle_timeout, &d.idle_timeout, time);
    out.nullable("max_lifetime", &s.max_lifetime, &d.max_lifetime, time);
    out.differs("confirm_within", &s.confirm_within, &d.confirm_within, time);
    out.nullable("rotation_within", &s.rotation_within, &d.rotation_within, time);
    out.differs("engaged_within", &s.engaged_within, &d.engaged_within, time);
    out.differs("background_paths", &s.background_paths, &d.background_paths, texts);
    out.differs("max_entries", &s.max_entries, &d.max_entries, |n| Value::from(*n));
    let mut ignore = Out::default();
    ignore.differs("clients", &s.ignore.clients, &d.ignore.clients, |nets| list(nets, text));
    ignore.differs("user_agents", &s.ignore.user_agents, &d.ignore.user_agents, texts);
    out.section("ignore", ignore);
    out.differs("keys", &s.keys, &d.keys, |keys| {
        list(keys, |k| {
            let mut out = Out::default();
            out.put("id", text(&k.id));
            out.put("file", text(&k.file));
            out.value()
        })
    });
    out.nullable("count_probe", &s.count_probe, &d.count_probe, count_probe);
    out
}

fn count_probe(c: &CountProbe) -> Value {
    let mut out = Out::default();
    out.put("url_path", text(&c.url_path));
    out.nullable("user_file", &c.user_file, &None, text);
    match &c.format {
        CountFormat::Tomcat => out.put("tomcat", Value::Bool(true)),
        CountFormat::Json(path) => out.put("json", text(path)),
    }
    out.value()
}

fn health(h: &HealthSettings) -> Out {
    let d = HealthSettings::default();
    let mut out = Out::default();
    out.differs("tcp", &h.tcp, &d.tcp, |b| Value::Bool(*b));
    out.differs("path", &h.path, &d.path, text);
    out.differs("method", &h.method, &d.method, text);
    out.nullable("host", &h.host, &d.host, text);
    out.nullable("port", &h.port, &d.port, |n| Value::from(*n));
    out.differs("interval", &h.interval, &d.interval, time);
    out.differs("timeout", &h.timeout, &d.timeout, time);
    out.differs("rise", &h.rise, &d.rise, |n| Value::from(*n));
    out.differs("fall", &h.fall, &d.fall, |n| Value::from(*n));
    out.differs("ready", &h.ready, &d.ready, statuses);
    out.differs("drain", &h.drain, &d.drain, statuses);
    out.nullable("instance_header", &h.instance_header, &d.instance_header, text);
    out
}

fn limits(l: &Limits) -> Out {
    let d = Limits::default();
    let mut out = Out::default();
    out.nullable("max_connections", &l.max_connections, &d.max_connections, |n| Value::from(*n));
    let mut queue = Out::default();
    queue.differs("size", &l.queue_size, &d.queue_size, |n| Value::from(*n));
    queue.differs("timeout", &l.queue_timeout, &d.queue_timeout, time);
    out.section("queue", queue);
    let (mut budget, b) = (Out::default(), &l.retry_budget);
    budget.differs("percent", &b.percent, &d.retry_budget.percent, |n| Value::from(*n));
    budget.differs("least_per_second", &b.least_per_second, &d.retry_budget.least_per_second, |n| Value::from(*n));
    out.section("retry_budget", budget);
    out.nullable("max_body", &l.max_body, &d.max_body, |n| text(&format_size(*n)));
    out
}

fn timeouts(t: &Timeouts) -> Out {
    let d = Timeouts::default();
    let mut out = Out::default();
    out.differs("connect", &t.connect, &d.connect, time);
    out.differs("read", &t.read, &d.read, time);
    out.differs("write", &t.write, &d.write, time);
    out.differs("idle", &t.idle, &d.idle, time);
    out.differs("tunnel", &t.tunnel, &d.tunnel, time);
    out
}

fn drain(s: &DrainSettings) -> Out {
    let d = DrainSettings::default();
    let mut out = Out::default();
    out.nullable("deadline", &s.deadline, &d.deadline, time);
    out.differs("then", &s.then, &d.then, |t| word(&THEN, t));
    out.differs("evict_per_second", &s.evict_per_second, &d.evict_per_second, |n| Value::from(*n));
    out.nullable("tunnels", &s.tunnels, &d.tunnels, time);
    out.differs("move_points", &s.move_points, &d.move_points, |points| {
        list(points, |p| {
            let mut out = Out::default();
            out.put("method", text(&p.method));
            out.put("path", text(&p.path));
            out.value()
        })
    });
    out.differs("no_replay", &s.no_replay, &d.no_replay, texts);
    out.nullable("webhook", &s.webhook, &d.webhook, |webhook| text(&webhook.url));
    out.nullable("webhook_key_file", &s.webhook_key_file, &d.webhook_key_file, text);
    out
}

fn not_mine(n: &NotMine) -> Out {
    let d = NotMine::default();
    let mut out = Out::default();
    out.differs("status", &n.status, &d.status, statuses);
    out.nullable("header", &n.header, &d.header, text);
    out.nullable("location", &n.location, &d.location, text);
    out
}

fn release(r: &ReleaseSpec) -> Value {
    let mut out = Out::default();
    out.nullable("path", &r.path, &None, text);
    let backends = r.backends.iter().map(|b| (text(&b.name), backend(b))).collect();
    out.put("backends", Value::Mapping(backends));
    out.value()
}

fn backend(b: &BackendSpec) -> Value {
    let mut out = Out::default();
    out.put("address", text(&b.address));
    out.differs("route", &b.route, &b.name, text);
    out.differs("weight", &b.weight, &1, |n| Value::from(*n));
    out.differs("backup", &b.backup, &false, |f| Value::Bool(*f));
    out.nullable("max_connections", &b.max_connections, &None, |n| Value::from(*n));
    out.nullable("tls", &b.tls, &None, |tls| {
        let mut out = Out::default();
        out.nullable("server_name", &tls.server_name, &None, text);
        out.put("verify", Value::Bool(tls.verify));
        out.value()
    });
    out.differs("protocol", &b.protocol, &Protocol::Http1, |_| text("http2"));
    // Only an address: the short form.
    if out.0.len() == 1 { text(&b.address) } else { out.value() }
}
