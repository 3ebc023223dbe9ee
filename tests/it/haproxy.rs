//! HAProxy from Debian: the known-good proxy with which clients and backends are tried.
//!
//! A client that fails here has a bug of its own; only what passes here may accuse tidegate.

use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Scratch, free_port, require_file, wait_for};

/// A running HAProxy that inserts its own cookie.
pub struct HaProxy {
    port: u16,
    _process: Process, // before the scratch directory: it must end first
    _scratch: Scratch,
}

impl HaProxy {
    /// Balances over `(name, address)` with `cookie SRV insert indirect nocache`.
    pub fn with_cookie_insert(backends: &[(&str, String)]) -> HaProxy {
        require_file("/usr/sbin/haproxy", "haproxy");
        let port = free_port();
        let scratch = Scratch::new("haproxy");
        let mut config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout tunnel 1h\n\
             listen it\n bind 127.0.0.1:{port}\n balance roundrobin\n cookie SRV insert indirect nocache\n"
        );
        for (name, address) in backends {
            config += &format!(" server {name} {address} cookie {name}\n");
        }
        let file = scratch.write("haproxy.cfg", &config);
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(file);
        let mut process = Process::start("haproxy", command, &scratch.path().join("haproxy.log"));
        wait_for("HAProxy accepts", Duration::from_secs(10), || {
            process.assert_running();
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        HaProxy { port, _process: process, _scratch: scratch }
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }
}
