//! HAProxy from Debian: the known-good proxy with which clients and backends are tried, and one to be compared with.
//!
//! A client that fails here has a bug of its own; only what passes here may accuse tidegate.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Scratch, free_port, require_file, wait_for};

/// HAProxy's own cookie, as its manual begins.
const COOKIE_INSERT: &str = "SRV insert indirect nocache";

/// A running HAProxy.
pub struct HaProxy {
    port: u16,
    _process: Process, // before the scratch directory: it must end first
    scratch: Scratch,
}

impl HaProxy {
    /// Balances over `(name, address)` with `cookie SRV insert indirect nocache`.
    pub fn with_cookie_insert(backends: &[(&str, String)]) -> HaProxy {
        HaProxy::with_cookie(COOKIE_INSERT, backends)
    }

    /// Balances over `(name, address)`, sticky by this argument of its `cookie` directive.
    pub fn with_cookie(cookie: &str, backends: &[(&str, String)]) -> HaProxy {
        let mut backend = format!("backend it\n balance roundrobin\n cookie {cookie}\n");
        for (name, address) in backends {
            backend += &format!(" server {name} {address} cookie {name}\n");
        }
        HaProxy::with_backend("it", &backend)
    }

    /// Serves the one backend of this text, which is called so.
    pub fn with_backend(name: &str, backend: &str) -> HaProxy {
        require_file("/usr/sbin/haproxy", "haproxy");
        let port = free_port();
        let scratch = Scratch::new("haproxy");
        let socket = scratch.path().join("admin");
        let config = format!(
            "global\n stats socket {} level admin\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout tunnel 1h\n\
             frontend public\n bind 127.0.0.1:{port}\n default_backend {name}\n{backend}",
            socket.display()
        );
        let file = scratch.write("haproxy.cfg", &config);
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(file);
        let mut process = Process::start("haproxy", command, &scratch.path().join("haproxy.log"));
        wait_for("HAProxy accepts", Duration::from_secs(10), || {
            process.assert_running();
            // The socket comes last.
            UnixStream::connect(&socket).is_ok() && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        HaProxy { port, _process: process, scratch }
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `set server NAME state STATE`: `ready`, `drain` or `maint`.
    pub fn set_state(&self, name: &str, state: &str) {
        let mut admin = UnixStream::connect(self.scratch.path().join("admin")).expect("HAProxy listens for its operator");
        let mut said = String::new();
        admin
            .write_all(format!("set server it/{name} state {state}\n").as_bytes())
            .and_then(|()| admin.shutdown(Shutdown::Write))
            .and_then(|()| admin.read_to_string(&mut said))
            .expect("HAProxy hears its operator");
        assert_eq!(said.trim(), "", "HAProxy refused: {name} {state}"); // it is silent when it obeys
    }
}
