//! The configuration of the demo, as a file would say it: one app, one release, ports of the kernel's choice, nothing logged.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::app::SESSION_COOKIE;
use super::pace::Pace;
use super::releases::OLD;
use crate::config::{Admin, AdminAddress, Config, Listener, Server, State};
use crate::model::settings::{
    Address, AppSpec, BackendSpec, Current, HealthSettings, Match, Protocol, ReleaseSpec, SessionSettings, Settings,
};

/// The app's name.
pub(super) const APP: &str = "shop";

/// Everything that `tidegate run` would read from its file.
pub(super) fn config(pace: &Pace, old: ReleaseSpec, directory: &Path) -> Config {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let session = SessionSettings {
        cookies: vec![SESSION_COOKIE.to_owned()],
        idle_timeout: pace.idle_timeout,
        confirm_within: pace.confirm_within,
        engaged_within: pace.engaged_within,
        ..SessionSettings::default()
    };
    let health = HealthSettings { path: "/health".to_owned(), interval: pace.probe_interval, ..HealthSettings::default() };
    let app = AppSpec {
        name: APP.to_owned(),
        matches: vec![Match { host: None, path: "/".to_owned() }],
        settings: Settings { session, health, ..Settings::default() },
        current: Current::Release(OLD.to_owned()),
        releases: vec![old],
    };
    Config {
        // A demo that was told to stop has nobody to wait for.
        server: Server { access_log: None, grace_period: pace.frame, ..Server::default() },
        listeners: vec![Listener { address: any, tls: None }],
        admin: Admin { address: AdminAddress::Tcp(any), token_file: Some(directory.join("token")) },
        state: State { directory: directory.join("state") },
        trusted_proxies: Vec::new(),
        apps: vec![app],
    }
}

/// A release with its backends, in the order of both lists.
pub(super) fn release(name: &str, backends: &[&str], addresses: &[SocketAddr]) -> ReleaseSpec {
    let backend = |(name, address): (&&str, &SocketAddr)| BackendSpec {
        name: (*name).to_owned(),
        address: Address { host: address.ip().to_string(), port: address.port() },
        route: (*name).to_owned(),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    };
    ReleaseSpec { name: name.to_owned(), path: None, backends: backends.iter().zip(addresses).map(backend).collect() }
}
