//! The sections around the apps: process, listeners, admin, state.
//!
//! An admin address that others than this machine can reach needs a token; there is no way to say "without".

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Place, Wrong, quote};
use super::read::{Field, Section};
use super::{AccessLog, Admin, AdminAddress, Certificate, Config, Listener, ListenerTls, LogFormat, LogTarget, Server, State};
use super::{app, cores, scalar};

/// Bytes of a Unix socket's path that fit into `sun_path` with its final NUL.
const LONGEST_SOCKET_PATH: usize = 107;

/// The whole file.
pub(super) fn config(s: &mut Section) -> Config {
    let server = s.section("server", server);
    let listeners = listeners(s);
    let admin = s.section("admin", |admin_section| admin(admin_section, &listeners));
    let directory = s.section("state", |s| s.or("directory", None, |f| f.parsed(scalar::file_name).map(|name| Some(PathBuf::from(name)))));
    let of_service = || State::of_service(std::env::var_os("STATE_DIRECTORY").as_deref());
    let state = directory.map_or_else(of_service, |directory| State { directory });
    let trusted_proxies = s.or("trusted_proxies", Vec::new(), |f| f.set(|f| f.parsed(scalar::network)));
    let apps = app::apps(s);
    Config { server, listeners: listeners.into_iter().map(|(listener, _)| listener).collect(), admin, state, trusted_proxies, apps }
}

fn server(s: &mut Section) -> Server {
    let d = Server::default();
    Server {
        threads: s.optional("threads", None, |f| f.whole(1..=1024)).unwrap_or_else(cores),
        grace_period: s.or("grace_period", d.grace_period, |f| f.duration(Duration::ZERO..=hours(24))),
        lame_duck: s.or("lame_duck", d.lame_duck, |f| f.duration(Duration::ZERO..=hours(1))),
        upgrade_timeout: s.or("upgrade_timeout", d.upgrade_timeout, |f| f.duration(Duration::from_secs(1)..=hours(1))),
        header_timeout: s.or("header_timeout", d.header_timeout, |f| f.duration(Duration::from_millis(100)..=hours(1))),
        watch: s.or("watch", d.watch, Field::flag),
        access_log: s.optional("access_log", d.access_log, |f| f.section(access_log)),
    }
}

fn access_log(s: &mut Section) -> AccessLog {
    let target = |f: &Field| {
        let name = f.parsed(scalar::file_name)?;
        Some(match name.as_str() {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            _ => LogTarget::File(PathBuf::from(name)),
        })
    };
    AccessLog {
        path: s.or("path", LogTarget::default(), target),
        format: s.or("format", LogFormat::default(), |f| f.choice(&[("json", LogFormat::Json), ("combined", LogFormat::Combined)])),
    }
}

fn listeners(s: &mut Section) -> Vec<(Listener, Place)> {
    let mut good: Vec<(Listener, Place)> = Vec::new();
    s.required("listeners", |f| {
        f.not_empty("there is no listener", "add one: `- address: 0.0.0.0:8080`");
        f.list(|f| {
            f.section(|s| {
                let tls = s.optional("tls", None, |f| f.section(tls)?);
                let address = s.required("address", |f| f.parsed(scalar::socket_address))?;
                let place = s.place_of("address");
                if let Some((other, first)) = good.iter().find(|(l, _)| overlap(l.address, address)) {
                    let what = format!("{address} is taken by {} in line {}", other.address, first.line);
                    s.wrong_at("address", Wrong::new(what, "use another address or port"));
                }
                good.push((Listener { address, tls }, place));
                Some(())
            })
        })
    });
    good
}

fn tls(s: &mut Section) -> Option<ListenerTls> {
    let certificates = s.required("certificates", |f| {
        f.not_empty("there is no certificate", "add one: `- certificate: /etc/tidegate/shop.pem`");
        f.list(|f| {
            f.section(|s| {
                let certificate = s.required("certificate", Field::file);
                let key = s.optional("key", None, Field::file);
                Some(Certificate { certificate: PathBuf::from(certificate?.0), key: key.map(|(name, _)| PathBuf::from(name)) })
            })?
        })
    });
    Some(ListenerTls { certificates: certificates? })
}

fn admin(s: &mut Section, listeners: &[(Listener, Place)]) -> Admin {
    let address = s.or("address", Admin::default().address, |f| f.parsed(admin_address));
    let token_file = s.optional("token_file", None, |f| f.parsed(scalar::file_name).map(PathBuf::from));
    if let AdminAddress::Tcp(address) = address {
        if !address.ip().is_loopback() && token_file.is_none() {
            let what = format!("others can reach {address}, and no token is asked for");
            s.wrong_at("token_file", Wrong::new(what, "add `token_file: /etc/tidegate/token`, or listen on 127.0.0.1"));
        }
        if let Some((listener, first)) = listeners.iter().find(|(l, _)| overlap(l.address, address)) {
            let what = format!("{address} is taken by the listener {} in line {}", listener.address, first.line);
            s.wrong_at("address", Wrong::new(what, "use another port"));
        }
    }
    Admin { address, token_file }
}

fn admin_address(text: &str) -> Result<AdminAddress, Wrong> {
    let Some(path) = text.strip_prefix("unix:") else {
        return scalar::socket_address(text).map(AdminAddress::Tcp);
    };
    let wrong = |remedy: &str| Err(Wrong::new(format!("{} is not the address of a socket", quote(text)), remedy));
    if !path.starts_with('/') || path.chars().any(char::is_control) {
        return wrong("write an absolute path: unix:/run/tidegate/admin.sock");
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return wrong("use a path of at most 107 bytes");
    }
    Ok(AdminAddress::Unix(PathBuf::from(path)))
}

/// Whether the system would refuse to listen on both. `[::]` and an IPv4 address do not count: that depends on the system's settings.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() != 0 && a.port() == b.port() && same_ip
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}
