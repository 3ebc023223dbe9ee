//! Backends for tests: real sockets that behave as told, and remember the requests they read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::model::settings::{Address, BackendSpec};
use crate::model::sketch::plain_backend;

/// A backend `a1` at this address, with defaults for the rest.
pub fn spec(address: SocketAddr) -> BackendSpec {
    plain_backend(Address { host: address.ip().to_string(), port: address.port() })
}

/// What a stub does with each connection.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Reads a request and writes these bytes, then closes.
    Answers(String),
    /// Writes these bytes, then one more every 0.3 s, for ever.
    Drips(String),
    /// Reads a request and writes nothing, for ever.
    Silent,
    /// Closes once it has read the request.
    Closes,
}

impl Manner {
    /// An answer with this status and an empty body.
    pub fn status(status: u16) -> Manner {
        Manner::Answers(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))
    }
}

/// A running stub; dropping it closes its socket.
pub struct Stub {
    pub address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Stub {
    /// On a free port of the loopback.
    pub async fn start(manner: Manner) -> Stub {
        Stub::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), manner)
    }

    /// On this socket.
    pub fn on(listener: TcpListener, manner: Manner) -> Stub {
        let address = listener.local_addr().expect("bound");
        let manner = Arc::new(Mutex::new(manner));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (m, r) = (Arc::clone(&manner), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let manner = m.lock().unwrap().clone();
                open.spawn(converse(stream, manner, Arc::clone(&r)));
            }
        });
        Stub { address, manner, requests, task }
    }

    /// From the next connection on.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Closes the socket; connections are refused once this returns.
    pub async fn stop(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.is_err_and(|e| e.is_cancelled()));
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, manner: Manner, requests: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    requests.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    // A prober that gave up is no fault of the stub: write errors end the conversation.
    match manner {
        Manner::Answers(bytes) => {
            stream.write_all(bytes.as_bytes()).await.ok();
            stream.shutdown().await.ok();
        }
        Manner::Drips(bytes) => {
            if stream.write_all(bytes.as_bytes()).await.is_err() {
                return;
            }
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        Manner::Silent => std::future::pending().await,
        Manner::Closes => {}
    }
}

/// A port on which nobody listens.
pub fn refused() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}
