//! What of the process around the apps may change while it runs, and what needs an upgrade. Prepared, not done.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::Rejected;
use crate::config::scalar::format_duration;
use crate::config::{Config, Listener, Server};
use crate::model::change::reload::Line;
use crate::model::change::{Refused, RefusedKind};
use crate::serve::access_log::{AccessLog, Redirection};
use crate::serve::transport::{ListenerHandle, PreparedCertificates, TlsSpec};

/// What is ready to be published.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    pub(super) certificates: Vec<PreparedCertificates>,
    pub(super) redirection: Option<Redirection>,
    pub(super) lines: Vec<Line>,
    pub(super) refusals: Vec<Refused>,
}

impl Preparation {
    fn line(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.lines.push(Line { at: at.into(), what: what.into(), live: 0 });
    }

    fn needs_upgrade(&mut self, what: impl Into<String>) {
        let remedy = "that needs an upgrade: tidegate upgrade; or take it out of the file, and reload the rest";
        self.refusals.push(Refused { kind: RefusedKind::Conflict, what: what.into(), remedy: remedy.to_owned() });
    }
}

/// Certificates are read even where no line of the file has changed: their own files may have (certbot).
pub(super) fn prepare(old: &Config, new: &Config, listeners: &[ListenerHandle], log: Option<&AccessLog>) -> Result<Preparation, Rejected> {
    let mut prepared = Preparation::default();
    fixed(&mut prepared, old, new);
    let unusable = |error: &dyn std::fmt::Display| Rejected::Unusable(error.to_string());
    for listener in &new.listeners {
        let Some(tls) = &listener.tls else { continue };
        let spec = TlsSpec { certificates: tls.certificates.iter().map(|c| (c.certificate.clone(), c.key.clone())).collect() };
        for handle in listeners.iter().filter(|handle| handle.asked_address() == listener.address) {
            let Some(certificates) = handle.prepare_certificates(&spec).map_err(|error| unusable(&error))? else { continue };
            if certificates.differ() {
                prepared.line(format!("listener {}", listener.address), "other certificates");
            }
            prepared.certificates.push(certificates);
        }
    }
    if old.trusted_proxies != new.trusted_proxies {
        prepared.line("trusted_proxies", "changed");
    }
    // Each is looked up when its time comes.
    let times = |server: &Server| {
        [
            ("server.grace_period", server.grace_period),
            ("server.lame_duck", server.lame_duck),
            ("server.upgrade_timeout", server.upgrade_timeout),
        ]
    };
    for ((key, was), (_, is)) in times(&old.server).into_iter().zip(times(&new.server)).filter(|(was, is)| was != is) {
        prepared.line(key, format!("{} -> {}", format_duration(was), format_duration(is)));
    }
    if old.server.watch != new.server.watch {
        prepared.line("server.watch", format!("{} -> {}", old.server.watch, new.server.watch));
    }
    match (&old.server.access_log, &new.server.access_log, log) {
        (Some(before), Some(after), Some(log)) if before != after => {
            prepared.redirection = Some(log.prepare(after).map_err(|error| unusable(&error))?);
            prepared.line("server.access_log", "changed");
        }
        (None, Some(_), _) | (Some(_), None, _) => prepared.needs_upgrade("server.access_log is switched on or off"),
        _ => {}
    }
    Ok(prepared)
}

/// What was decided once, when the process began.
fn fixed(prepared: &mut Preparation, old: &Config, new: &Config) {
    // Whoever adds a key decides here which of the two it is.
    let Config { server, listeners: _, admin: _, state: _, trusted_proxies: _, apps: _ } = new;
    let Server { threads: _, grace_period: _, lame_duck: _, upgrade_timeout: _, header_timeout: _, access_log: _, watch: _ } = server;
    let addresses = |listeners: &[Listener]| listeners.iter().map(|l| l.address).collect::<HashSet<SocketAddr>>();
    let (before, after) = (addresses(&old.listeners), addresses(&new.listeners));
    for listener in new.listeners.iter().filter(|l| !before.contains(&l.address)) {
        prepared.needs_upgrade(format!("listener {} is new", listener.address));
    }
    for listener in old.listeners.iter().filter(|l| !after.contains(&l.address)) {
        prepared.needs_upgrade(format!("listener {} is gone", listener.address));
    }
    for listener in &new.listeners {
        let same = old.listeners.iter().find(|l| l.address == listener.address);
        if same.is_some_and(|same| same.tls.is_some() != listener.tls.is_some()) {
            prepared.needs_upgrade(format!("listener {}: tls is switched on or off", listener.address));
        }
    }
    if old.admin != new.admin {
        prepared.needs_upgrade("admin is changed");
    }
    if old.state != new.state {
        let remedy = "sessions and keys are there: stop this process, move the directory, and start it again";
        let what = "state is changed".to_owned();
        prepared.refusals.push(Refused { kind: RefusedKind::Conflict, what, remedy: remedy.to_owned() });
    }
    if old.server.threads != new.server.threads {
        prepared.needs_upgrade(format!("server.threads: {} -> {}", old.server.threads, new.server.threads));
    }
    if old.server.header_timeout != new.server.header_timeout {
        let [was, is] = [old, new].map(|config| format_duration(config.server.header_timeout));
        prepared.needs_upgrade(format!("server.header_timeout: {was} -> {is}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAIN: &str = "listeners: [{address: \"127.0.0.1:1\"}, {address: \"127.0.0.1:2\"}]\napps: {shop: {releases: {v1: {backends: {a1: 127.0.0.1:9}}}}}\n";

    fn check(edit: fn(&mut Config), expected: &[&str]) {
        let old = crate::config::parse(PLAIN, "x").expect("a good file");
        let mut new = old.clone();
        edit(&mut new);
        let prepared = prepare(&old, &new, &[], None).expect("nothing is opened");
        let told = prepared.refusals.iter().map(|r| r.what.clone()).chain(prepared.lines.iter().map(|l| format!("+ {} {}", l.at, l.what)));
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_needs_an_upgrade_is_said_and_the_rest_is_applied() {
        check(|_| (), &[]);
        check(|new| new.listeners.reverse(), &[]);
        check(|new| drop(new.listeners.pop()), &["listener 127.0.0.1:2 is gone"]);
        check(|new| new.listeners[0].address.set_port(3), &["listener 127.0.0.1:3 is new", "listener 127.0.0.1:1 is gone"]);
        check(
            |new| new.listeners[0].tls = Some(crate::config::ListenerTls { certificates: Vec::new() }),
            &["listener 127.0.0.1:1: tls is switched on or off"],
        );
        check(|new| new.state.directory = "/elsewhere".into(), &["state is changed"]);
        check(|new| new.admin.token_file = Some("/t".into()), &["admin is changed"]);
        check(|new| new.server.access_log = None, &["server.access_log is switched on or off"]);
        check(|new| new.server.header_timeout = Duration::from_secs(1), &["server.header_timeout: 10s -> 1s"]);
        check(|new| new.server.grace_period = Duration::from_secs(1), &["+ server.grace_period 30s -> 1s"]);
        check(|new| new.server.lame_duck = Duration::from_secs(1), &["+ server.lame_duck 0s -> 1s"]);
        check(|new| new.server.upgrade_timeout = Duration::from_secs(7), &["+ server.upgrade_timeout 30s -> 7s"]);
        check(|new| new.server.watch = true, &["+ server.watch false -> true"]);
        check(|new| new.trusted_proxies.push("10.0.0.0/8".parse().expect("a network")), &["+ trusted_proxies changed"]);
    }
}
