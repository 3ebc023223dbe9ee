//! A backend that is nothing but a function over a connection: for answers that no application should give.
//!
//! Each connection has a thread of its own and is closed when the function returns. Probes arrive there like everything else;
//! [`answer_ok`] is what they want.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::http::Head;

/// The listening backend. Accepts nobody after its drop.
pub struct Speaker {
    port: u16,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Speaker {
    /// Listens on a free port of loopback; `speak` gets each connection.
    pub fn start(speak: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Speaker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let (over, speak) = (Arc::clone(&ended), Arc::new(speak));
        let acceptor = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let speak = Arc::clone(&speak);
                std::thread::spawn(move || {
                    stream.set_nodelay(true).ok();
                    // A proxy that goes away is no news.
                    speak(&stream).ok();
                    stream.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Speaker { port, ended, acceptor: Some(acceptor) }
    }

    /// On loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As a backend line of the configuration.
    pub fn line(&self, name: &str) -> String {
        format!("{name}: \"127.0.0.1:{}\"", self.port)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// Reads heads until one is not a probe; probes are answered. `None` when the peer closed.
pub fn next_request(input: &mut BufReader<TcpStream>, mut out: &TcpStream) -> io::Result<Option<Head>> {
    while let Some(head) = Head::read(input)? {
        if head.word(1) != "/health" {
            return Ok(Some(head));
        }
        answer_ok(&mut out, "fine")?;
    }
    Ok(None)
}

/// A whole answer with that body.
pub fn answer_ok(out: &mut impl Write, body: &str) -> io::Result<()> {
    let length = body.len();
    out.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
}
