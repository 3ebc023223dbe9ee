//! The transport with a proxy that decides nothing, a backend of fifty lines, and clients that speak byte by byte.
//!
//! Nothing here sleeps and hopes: a backend says when a request has arrived, and holds its answer until it is told.

mod http1;
mod http2;
mod lines;
mod stopping;
mod tls;
mod tunnels;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session as Exchange, http_proxy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::*;

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kept connections without a deadline that a test would meet.
const TIMES: LineTimes = LineTimes { connect: PATIENCE, read: PATIENCE, idle: PATIENCE };

/// Passes everything on to one backend.
struct Passing {
    backend: SocketAddr,
    lines: Arc<Lines>,
    times: LineTimes,
    /// Of the last exchange.
    line: Arc<Mutex<Option<Arc<Line>>>>,
    stop: Stop,
    exchanges: Arc<AtomicUsize>,
    tunnels: Arc<Mutex<Vec<TunnelHandle>>>,
}

struct Ctx {
    exchanges: Arc<AtomicUsize>,
    line: Option<Arc<Line>>,
    tunnel: Option<Tunnel>,
}

impl Drop for Ctx {
    fn drop(&mut self) {
        self.exchanges.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ProxyHttp for Passing {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        Ctx { exchanges: self.exchanges.clone(), line: None, tunnel: None }
    }

    async fn request_filter(&self, exchange: &mut Exchange, _: &mut Ctx) -> pingora_core::Result<bool> {
        if exchange.req_header().uri.path() == "/refused" {
            exchange.respond_error(403).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, exchange: &mut Exchange, ctx: &mut Ctx) -> pingora_core::Result<Box<HttpPeer>> {
        #[expect(clippy::disallowed_methods, reason = "from a SocketAddr: nothing to resolve")]
        let mut peer = HttpPeer::new(self.backend, false, String::new());
        if exchange.is_upgrade_req() {
            exchange.set_read_timeout(None);
            let tunnel = Tunnel::new();
            peer.group_key = tunnel.group_key();
            peer.options.custom_l4 = Some(tunnel.connector(Some(Duration::from_secs(5))));
            let client = exchange.as_downstream().stream();
            assert!(client.is_some_and(|client| tunnel.join(client)));
            self.tunnels.lock().unwrap().push(tunnel.handle());
            ctx.tunnel = Some(tunnel);
        } else {
            let line = self.lines.line(Place { address: self.backend, generation: 0 }, self.times);
            peer.options.custom_l4 = Some(line.clone());
            *self.line.lock().unwrap() = Some(line.clone());
            ctx.line = Some(line);
        }
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Exchange,
        _: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        _: Option<&pingora_core::protocols::Digest>,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        if let Some(tunnel) = &ctx.tunnel {
            tunnel.arm();
        }
        Ok(())
    }

    async fn upstream_request_filter(&self, exchange: &mut Exchange, request: &mut RequestHeader, _: &mut Ctx) -> pingora_core::Result<()> {
        let client = exchange.client_addr().expect("a client has an address");
        request.insert_header("x-client", client.to_string())?;
        Ok(())
    }

    async fn request_body_filter(
        &self,
        exchange: &mut Exchange,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        if let Some(tunnel) = &ctx.tunnel
            && end
            && !exchange.was_upgraded()
        {
            tunnel.body_ended();
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        exchange: &mut Exchange,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<()> {
        if let Some(line) = &ctx.line
            && !response.status.is_informational()
        {
            line.head_passed(&exchange.req_header().method, response);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Exchange,
        _: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora_core::Result<Option<Duration>> {
        if let (true, Some(line)) = (end, &ctx.line) {
            line.answered();
        }
        Ok(None)
    }

    async fn response_filter(&self, exchange: &mut Exchange, response: &mut ResponseHeader, _: &mut Ctx) -> pingora_core::Result<()> {
        if self.stop.draining() && !response.status.is_informational() {
            exchange.set_keepalive(None);
        }
        Ok(())
    }
}

/// A running transport before a running backend.
struct Stage {
    address: SocketAddr,
    handle: ListenerHandle,
    stop: Stop,
    exchanges: Arc<AtomicUsize>,
    tunnels: Arc<Mutex<Vec<TunnelHandle>>>,
    lines: Arc<Lines>,
    /// Of the last exchange.
    line: Arc<Mutex<Option<Arc<Line>>>>,
    /// A path per request that has reached the backend.
    arrivals: mpsc::UnboundedReceiver<String>,
    backend: Backend,
}

impl Stage {
    async fn new() -> Stage {
        Stage::with(TransportOptions::default(), None).await
    }

    async fn with(options: TransportOptions, tls: Option<TlsSpec>) -> Stage {
        let (backend, arrivals) = Backend::start().await;
        Stage::before(backend, arrivals, options, tls, (Lines::new(1), TIMES))
    }

    fn before(
        backend: Backend,
        arrivals: mpsc::UnboundedReceiver<String>,
        options: TransportOptions,
        tls: Option<TlsSpec>,
        (lines, times): (Arc<Lines>, LineTimes),
    ) -> Stage {
        let stop = Stop::new();
        let exchanges = Arc::new(AtomicUsize::new(0));
        let tunnels = Arc::default();
        let line = Arc::default();
        let proxy = Passing {
            backend: backend.address,
            lines: Arc::clone(&lines),
            times,
            line: Arc::clone(&line),
            stop: stop.clone(),
            exchanges: exchanges.clone(),
            tunnels: Arc::clone(&tunnels),
        };
        let proxy = Arc::new(http_proxy(&Arc::new(ServerConf::default()), proxy));
        let spec = ListenerSpec { address: "127.0.0.1:0".parse().unwrap(), tls };
        let listener = BoundListener::bind(&spec).unwrap();
        let address = listener.address();
        let runtime = Handle::current();
        let handles = serve(&runtime, vec![listener], proxy, options, stop.clone());
        let handle = handles.unwrap().remove(0);
        Stage { address, handle, stop, exchanges, tunnels, lines, line, arrivals, backend }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn arrived(&mut self, path: &str) {
        let arrived = tokio::time::timeout(PATIENCE, self.arrivals.recv());
        assert_eq!(arrived.await.unwrap().as_deref(), Some(path));
    }

    async fn run_stop(&self, grace_period: Duration) -> Stopped {
        let exchanges = self.exchanges.clone();
        let times = StopTimes { grace_period, ..StopTimes::default() };
        let count = move || exchanges.load(Ordering::SeqCst);
        self.stop.run(times, count).await
    }
}

/// Answers `GET /x` with `GET /x 0 from ADDRESS`, the number being the length of the request's body.
/// `/held` waits for [`Backend::release`]; `/big` has a mebibyte of body; an upgrade gets a 101 and `hello` in one write,
/// then its bytes back; `/mute` is upgraded but never reads.
#[derive(Clone)]
struct Backend {
    address: SocketAddr,
    held: Arc<Semaphore>,
}

impl Backend {
    async fn start() -> (Backend, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend { address: listener.local_addr().unwrap(), held: Arc::new(Semaphore::new(0)) };
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let serving = backend.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (backend, arrived) = (serving.clone(), arrived.clone());
                tokio::spawn(async move { drop(backend.serve(tcp, arrived).await) });
            }
        });
        (backend, arrivals)
    }

    fn release(&self) {
        self.held.add_permits(1);
    }

    async fn serve(&self, tcp: TcpStream, arrived: mpsc::UnboundedSender<String>) -> std::io::Result<()> {
        tcp.set_nodelay(true)?;
        let mut tcp = BufStream::new(tcp);
        loop {
            let head = read_head(&mut tcp).await?;
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap().to_owned());
            let mut body = vec![0; content_length(&head)];
            tcp.read_exact(&mut body).await?;
            drop(arrived.send(path.clone()));
            if field(&head, "upgrade").is_some() {
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
                tcp.write_all(answer).await?;
                tcp.flush().await?;
                if path == "/mute" {
                    std::future::pending::<()>().await;
                }
                return echo(tcp.into_inner()).await;
            }
            if path == "/held" {
                self.held.acquire().await.unwrap().forget();
            }
            let text = match path.as_str() {
                "/big" => "x".repeat(1 << 20),
                _ => {
                    let client = field(&head, "x-client").unwrap();
                    format!("{method} {path} {} from {client}", body.len())
                }
            };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            tcp.write_all(answer.as_bytes()).await?;
            tcp.flush().await?;
        }
    }
}

async fn echo(mut tcp: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let len = tcp.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        tcp.write_all(&buffer[..len]).await?;
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let found = lines.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

fn content_length(head: &str) -> usize {
    field(head, "content-length").map_or(0, |length| length.parse().unwrap())
}

/// An answer as the client sees it.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn closes(&self) -> bool {
        field(&self.head, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }

    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let reading = async {
        let head = read_head(stream).await.expect("a whole head");
        let mut body = vec![0; content_length(&head)];
        stream.read_exact(&mut body).await.expect("a whole body");
        let body = String::from_utf8(body).unwrap();
        Answer { head, body }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time")
}

async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    read_answer(stream).await
}

/// Reads to the end and returns what came; a reset counts as an end.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    if let Err(e) = tokio::time::timeout(PATIENCE, reading).await.expect("an end in time") {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
    }
    String::from_utf8(rest).unwrap()
}

/// Looks again and again until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let looking = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let looked = tokio::time::timeout(PATIENCE, looking).await;
    assert!(looked.is_ok(), "never so: {what}");
}
