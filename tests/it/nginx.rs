//! nginx from Debian: one of the balancers that people come from.
//!
//! It has no drain of its own, so it is only what stood there before.

use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Scratch, free_port, require_file, wait_for};

const PROGRAM: &str = "/usr/sbin/nginx";

/// A running nginx.
pub struct Nginx {
    port: u16,
    _process: Process, // before the scratch directory: it must end first
    _scratch: Scratch,
}

/// As the whole file: `http` is what stands within that section. Nothing outside `folder` is touched.
pub fn whole_file(folder: &str, http: &str) -> String {
    let spools = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {folder}/{kind};\n")).concat();
    format!("pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{spools}{http}}}\n")
}

impl Nginx {
    /// What stands within the `http` section; it listens on 8080 there.
    pub fn start(http: &str) -> Nginx {
        require_file(PROGRAM, "nginx");
        let port = free_port();
        let scratch = Scratch::new("nginx");
        let folder = scratch.path().display().to_string();
        let listen = "listen 8080;";
        assert!(http.contains(listen), "{http}");
        let http = http.replace(listen, &format!("listen 127.0.0.1:{port};"));
        let file = scratch.write("nginx.conf", &whole_file(&folder, &http));
        let mut command = Command::new(PROGRAM);
        command.args(["-g", "daemon off;", "-e", "stderr", "-p", &folder, "-c"]).arg(file);
        let mut process = Process::start("nginx", command, &scratch.path().join("nginx.log"));
        wait_for("nginx accepts", Duration::from_secs(10), || {
            process.assert_running();
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Nginx { port, _process: process, _scratch: scratch }
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }
}
