//! A way to a backend that can be broken while connections are open: whoever connects, and whoever sends, is reset.
//!
//! A reset is a close without lingering, and comes with the last handle's end: so nothing here shuts a client's connection down first.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const OPEN: u8 = 0;
const RESETS: u8 = 1;
const OVER: u8 = 2;

struct Way {
    to: u16,
    state: AtomicU8,
    listener: TcpListener,
}

impl Way {
    fn state(&self) -> u8 {
        self.state.load(Ordering::SeqCst)
    }
}

/// The way, listening on a port of its own.
pub struct Relay {
    way: Arc<Way>,
    port: u16,
}

impl Relay {
    /// Leads to that port of loopback.
    pub fn to(port: u16) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().expect("a bound socket has an address").port();
        let way = Arc::new(Way { to: port, state: AtomicU8::new(OPEN), listener });
        let accepting = Arc::clone(&way);
        std::thread::spawn(move || accept(&accepting));
        Relay { way, port: own }
    }

    /// As a backend line of the configuration.
    pub fn line(&self, name: &str) -> String {
        format!("{name}: \"127.0.0.1:{}\"", self.port)
    }

    /// From now on whoever connects, and whoever sends, is reset.
    pub fn reset(&self) {
        self.way.state.store(RESETS, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.way.state.store(OVER, Ordering::SeqCst);
        rustix::net::shutdown(&self.way.listener, rustix::net::Shutdown::Both).ok(); // wakes the acceptor
    }
}

fn accept(way: &Arc<Way>) {
    while let Ok((client, _)) = way.listener.accept() {
        match way.state() {
            OPEN => {
                let Ok(backend) = TcpStream::connect((Ipv4Addr::LOCALHOST, way.to)) else { continue };
                client.set_nodelay(true).ok();
                backend.set_nodelay(true).ok();
                let (client, backend) = (Arc::new(client), Arc::new(backend));
                let (way_there, way_back) = (Arc::clone(way), Arc::clone(way));
                let (from, to) = (Arc::clone(&client), Arc::clone(&backend));
                std::thread::spawn(move || copy(&way_there, &from, &to, true));
                std::thread::spawn(move || copy(&way_back, &backend, &client, false));
            }
            RESETS => reset(&client),
            _ => return,
        }
    }
}

/// Closing is a reset then.
fn reset(client: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).ok();
}

fn copy(way: &Way, mut from: &TcpStream, mut to: &TcpStream, from_client: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if way.state() == RESETS {
            let (client, backend) = if from_client { (from, to) } else { (to, from) };
            reset(client);
            backend.shutdown(Shutdown::Both).ok();
            client.shutdown(Shutdown::Read).ok(); // wakes the other direction; only the last one's end is the reset
            return;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    if way.state() != RESETS {
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    }
}
