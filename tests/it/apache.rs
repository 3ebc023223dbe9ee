//! Apache 2.4 from Debian with mod_proxy_balancer: one of the proxies to be compared with.
//!
//! Its package here is `apache2-bin`, which brings program and modules but no service: nothing starts on port 80.

use std::process::Command;
use std::time::Duration;

use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, require_file, wait_for};

const PROGRAM: &str = "/usr/sbin/apache2";
const MODULES: &str = "/usr/lib/apache2/modules";
const NEEDED: [&str; 7] = ["mpm_event", "authz_core", "proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "slotmem_shm"];
const PANEL: &str = "/balancer-manager";

/// A running Apache, sticky by the route in Tomcat's session id.
pub struct Apache {
    port: u16,
    backends: Vec<(String, String)>,
    _process: Process, // before the scratch directory: it must end first
    _scratch: Scratch,
}

impl Apache {
    /// Balances over `(route, address)` with `stickysession=JSESSIONID|jsessionid`.
    pub fn with_routes(backends: &[(&str, String)]) -> Apache {
        let mut lines = String::from("<Proxy balancer://it>\n");
        for (route, address) in backends {
            lines += &format!("  BalancerMember http://{address} route={route} upgrade=websocket\n");
        }
        lines += &format!("  ProxySet stickysession=JSESSIONID|jsessionid\n</Proxy>\nProxyPass {PANEL} !\nProxyPass / balancer://it/\n");
        let mut apache = Apache::with_lines(&lines);
        apache.backends = backends.iter().map(|(route, address)| ((*route).to_owned(), address.clone())).collect();
        apache
    }

    /// Balances as these lines say.
    pub fn with_lines(lines: &str) -> Apache {
        require_file(PROGRAM, "apache2-bin");
        let port = free_port();
        let scratch = Scratch::new("apache");
        let folder = scratch.path().display();
        let mut config = format!(
            "Listen 127.0.0.1:{port}\nServerName localhost\nServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n\
             ErrorLog {folder}/error.log\nKeepAliveTimeout 70\nMaxKeepAliveRequests 0\n"
        );
        for module in NEEDED {
            config += &format!("LoadModule {module}_module {MODULES}/mod_{module}.so\n");
        }
        // Started as root, it wants somebody else for its children.
        if rustix::process::getuid().is_root() {
            config += "User www-data\nGroup www-data\n";
        }
        config += &format!("<Location {PANEL}>\n  SetHandler balancer-manager\n</Location>\n{lines}");
        let file = scratch.write("apache.conf", &config);
        let mut command = Command::new(PROGRAM);
        command.arg("-DFOREGROUND").arg("-f").arg(file);
        let mut process = Process::start("apache", command, &scratch.path().join("apache.log"));
        wait_for("Apache accepts", Duration::from_secs(10), || {
            process.assert_running();
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Apache { port, backends: Vec::new(), _process: process, _scratch: scratch }
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets or clears a flag of a member (`N`: drain, `D`: disabled), as its operator does in the balancer-manager.
    pub fn set_flag(&self, route: &str, flag: char, set: bool) {
        let (_, address) = self.backends.iter().find(|(name, _)| name == route).expect("a member has this route");
        let mut operator = Browser::new(self.port).with_host("localhost");
        let panel = operator.get(PANEL).expect_status(200).text();
        let nonce = panel.split("nonce=").nth(1).and_then(|rest| rest.split(['"', '&', '\'']).next());
        let nonce = nonce.unwrap_or_else(|| panic!("no nonce in the balancer-manager:\n{panel}"));
        let form = format!("b=it&w=http://{address}&nonce={nonce}&w_status_{flag}={}", u8::from(set));
        let call = Call::post(PANEL, form)
            .field("Content-Type", "application/x-www-form-urlencoded")
            .field("Referer", &format!("http://localhost{PANEL}"));
        operator.send_or_panic(call).expect_status(200);
        let flags = self.flags(address);
        assert_eq!(flags.contains(flag_word(flag)), set, "{route} is {flags}");
    }

    /// The words of a member's status in the balancer-manager.
    fn flags(&self, address: &str) -> String {
        let panel = Browser::new(self.port).with_host("localhost").get(PANEL).expect_status(200).text();
        let row = panel.lines().find(|line| line.contains(&format!(">http://{address}<"))).unwrap_or_default();
        let cell = row.split("<td>").find(|cell| cell.contains("Init"));
        cell.unwrap_or_else(|| panic!("no status of {address}:\n{panel}")).to_owned()
    }
}

/// How the balancer-manager shows a flag.
fn flag_word(flag: char) -> &'static str {
    match flag {
        'N' => "Drn",
        'D' => "Dis",
        _ => panic!("flag {flag} is not used here"),
    }
}
