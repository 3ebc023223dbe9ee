//! A stateful application in a process of its own, which can be killed and stopped like any other. It writes down every order before
//! it answers, in a file that outlives it.
//!
//! `/` counts in the session, `POST /order?id=N` is written down, `/health` is for probes. Its memory is gone with the process.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Scratch, free_port, wait_for};

const PROGRAM: &str = r#"
import asyncio, os, sys

port, name, orders = int(sys.argv[1]), sys.argv[2], os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sessions = {}


def page(head):
    cookies = [c.strip() for l in head if l.lower().startswith("cookie:") for c in l[7:].split(";")]
    known = [c[11:] for c in cookies if c.startswith("JSESSIONID=") and c[11:] in sessions]
    fields, key = "", known[0] if known else os.urandom(12).hex() + "." + name
    if not known:
        fields = f"Set-Cookie: JSESSIONID={key}; Path=/; HttpOnly\r\n"
    sessions[key] = sessions.get(key, 0) + 1
    return fields, f"backend={name} session={'known' if known else 'new'} counter={sessions[key]}\n"


class App(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.got = transport, b""

    def data_received(self, data):
        self.got += data
        while True:
            head, end, rest = self.got.partition(b"\r\n\r\n")
            if not end:
                return
            head = head.decode("latin1").split("\r\n")
            length = sum(int(l[15:]) for l in head if l.lower().startswith("content-length:"))
            if len(rest) < length:
                return
            self.got = rest[length:]
            method, target = head[0].split(" ")[:2]
            fields, body = "", "fine\n"
            if method == "POST":
                os.write(orders, (target + "\n").encode())
            elif target != "/health":
                fields, body = page(head)
            self.transport.write(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}".encode())


async def main():
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port, backlog=64)
    await server.serve_forever()


asyncio.run(main())
"#;

/// The running application.
pub struct Outside {
    name: String,
    port: u16,
    process: Process,
    scratch: Scratch,
}

impl Outside {
    /// Starts it on a free port.
    pub fn start(name: &str) -> Outside {
        let scratch = Scratch::new(name);
        let port = free_port();
        let process = launch(&scratch, name, port);
        Outside { name: name.to_owned(), port, process, scratch }
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// On loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As a backend line of the configuration.
    pub fn line(&self) -> String {
        format!("{}: \"{}\"", self.name, self.address())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// kill -9, and at once another one under the same name.
    pub fn restart(&mut self) {
        self.kill();
        self.process = launch(&self.scratch, &self.name, self.port);
    }

    /// The process, for its signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// How often each order arrived.
    pub fn orders(&self) -> HashMap<String, usize> {
        let mut orders = HashMap::new();
        let file = std::fs::read_to_string(orders_of(&self.scratch)).unwrap_or_default();
        for order in file.lines() {
            *orders.entry(order.to_owned()).or_default() += 1;
        }
        orders
    }
}

fn orders_of(scratch: &Scratch) -> PathBuf {
    scratch.path().join("orders")
}

fn launch(scratch: &Scratch, name: &str, port: u16) -> Process {
    let program = scratch.write("app.py", PROGRAM);
    let mut command = Command::new("python3");
    command.arg(program).arg(port.to_string()).arg(name).arg(orders_of(scratch));
    let mut process = Process::start(name, command, &scratch.path().join("log"));
    wait_for(&format!("{name} listens"), Duration::from_secs(20), || {
        process.assert_running();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    process
}
