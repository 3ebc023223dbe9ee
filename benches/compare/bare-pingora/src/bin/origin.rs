//! The backends behind every proxy of compare.py: `origin ADDRESS...`, one thread, each address a backend `s1`, `s2`, ...
//!
//! It is fast because it is no web application: answers are made beforehand, and only what proxies send is understood (HTTP/1.1,
//! bodies with a length). `/1k` and `/64k` set no cookie; `/born` opens a new application session with every answer.
use std::cell::Cell;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer heads than this are a mistake of the bench.
const MAX_HEAD: usize = 16 * 1024;

struct Backend {
    name: String,
    one_kib: Vec<u8>,
    sixty_four_kib: Vec<u8>,
    /// Sessions opened by all backends; with the process's start it makes ids that no earlier run has used.
    sessions: Rc<Cell<u64>>,
    started: u64,
}

struct Request {
    head_length: usize,
    body_length: usize,
    path: String,
    close: bool,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve_all()))
}

async fn serve_all() -> Result<()> {
    let started = std::time::UNIX_EPOCH.elapsed().map_err(Error::other)?.as_micros() as u64;
    let sessions = Rc::new(Cell::new(0));
    for (position, address) in std::env::args().skip(1).enumerate() {
        let listener = TcpListener::bind(&address).await?;
        let name = format!("s{}", position + 1);
        let backend = Rc::new(Backend {
            one_kib: answer(&name, "", 1024),
            sixty_four_kib: answer(&name, "", 64 * 1024),
            sessions: sessions.clone(),
            started,
            name,
        });
        tokio::task::spawn_local(async move {
            loop {
                // Out of descriptors or a client gone already: the next accept tells.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::task::spawn_local(serve(client, backend.clone()));
            }
        });
    }
    std::future::pending().await
}

async fn serve(mut client: TcpStream, backend: Rc<Backend>) -> Result<()> {
    client.set_nodelay(true)?;
    let mut input = Vec::with_capacity(4096);
    loop {
        let request = loop {
            if let Some(request) = parse(&input)? {
                break request;
            }
            if client.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let end = request.head_length + request.body_length;
        while input.len() < end {
            if client.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        input.drain(..end);
        match request.path.as_str() {
            "/1k" => client.write_all(&backend.one_kib).await?,
            "/64k" => client.write_all(&backend.sixty_four_kib).await?,
            "/born" => client.write_all(&backend.born()).await?,
            _ => client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?,
        }
        if request.close {
            return Ok(());
        }
    }
}

impl Backend {
    fn born(&self) -> Vec<u8> {
        let number = self.sessions.get();
        self.sessions.set(number + 1);
        let cookie = format!("Set-Cookie: JSESSIONID={:016X}{number:016X}; Path=/; HttpOnly\r\n", self.started);
        answer(&self.name, &cookie, 1024)
    }
}

fn answer(backend: &str, fields: &str, body: usize) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: private\r\n";
    let mut bytes = format!("{head}X-Backend: {backend}\r\n{fields}Content-Length: {body}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    bytes
}

/// The request at the start of `input`, once its head is complete.
fn parse(input: &[u8]) -> Result<Option<Request>> {
    let Some(head_length) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|start| start + 4) else {
        return if input.len() > MAX_HEAD { Err(ErrorKind::InvalidData.into()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&input[..head_length]).map_err(|_| ErrorKind::InvalidData)?;
    let mut lines = head.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or(ErrorKind::InvalidData)?;
    let mut request = Request { head_length, body_length: 0, path: path.to_owned(), close: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            request.body_length = value.parse().map_err(|_| ErrorKind::InvalidData)?;
        } else if name.eq_ignore_ascii_case("connection") {
            request.close = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Error::new(ErrorKind::InvalidData, "a body without length"));
        }
    }
    Ok(Some(request))
}
