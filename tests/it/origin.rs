//! A scriptable stateful application in this process: it keeps sessions in memory, as the applications do that tidegate
//! is made for, and knows exactly which ones it has.
//!
//! Like Tomcat it never takes an id that it did not make: an unknown id gets a new session. "Restart" means the same
//! port and an empty memory. "Paused" means what SIGSTOP does: the kernel accepts, nobody answers.
//!
//! | path | does |
//! |---|---|
//! | `/`, `/page` | counts in the session, which is made if there is none |
//! | `/peek` | touches the session if there is one, makes none |
//! | `/hold` | the same, and answers only after [`Origin::let_go`] |
//! | `/login` | renames the session (makes one if there is none) |
//! | `/logout?path=` | ends the session and deletes the cookie, with another Path if told |
//! | `/replace` | ends the session and makes another: deletion and new cookie in one answer |
//! | `/redirect?to=` | 302 to that place |
//! | `/headers` | the received head, verbatim |
//! | `/body` | the received body, verbatim |
//! | `/status?code=` | that status |
//! | `/events?count=&every=` | server-sent events |
//! | `/echo` | WebSocket echo |
//! | `/health` | the settable status, and in `X-Instance` which life this is; never recorded |
//! | `/health/enable`, `/health/disable` | set it to 200 or 503 |
//! | `/count` | `{"sessions": n}`, all that it would honour |
//! | `/die` | breaks all connections and refuses new ones |
//!
//! `ms=` on any of them delays the answer after the session was looked at.

mod pages;

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::pages::Reply;
use crate::http::{self, Head, Unstated, query_value};
use crate::process::{delay, free_port, wait_for_some};
use crate::websocket::{self, Frame};

const DAY_ZERO: &str = "Thu, 01 Jan 1970 00:00:10 GMT";

/// What the application calls itself and how it handles sessions.
#[derive(Debug, Clone)]
pub struct OriginSpec {
    /// Shown on every page, so that a test sees where it is.
    pub release: String,
    /// Likewise.
    pub backend: String,
    /// The session cookie.
    pub cookie: String,
    /// Its Path.
    pub cookie_path: String,
    /// Its Domain, if any.
    pub cookie_domain: Option<String>,
    /// Written behind the id after a dot, as Tomcat's jvmRoute.
    pub route: Option<String>,
    /// The application's own timeout; sessions silent for longer are unknown to it.
    pub idle_timeout: Option<Duration>,
    /// Where all pages are; the empty string for the root.
    pub prefix: String,
}

impl OriginSpec {
    /// `JSESSIONID` at `/`, no route, sessions that never end by themselves.
    pub fn new(release: &str, backend: &str) -> OriginSpec {
        OriginSpec {
            release: release.to_owned(),
            backend: backend.to_owned(),
            cookie: "JSESSIONID".to_owned(),
            cookie_path: "/".to_owned(),
            cookie_domain: None,
            route: None,
            idle_timeout: None,
            prefix: String::new(),
        }
    }

    /// Another session cookie.
    pub fn with_cookie(mut self, name: &str) -> OriginSpec {
        name.clone_into(&mut self.cookie);
        self
    }

    /// All pages below that path, and the cookie too.
    pub fn below(mut self, prefix: &str) -> OriginSpec {
        prefix.clone_into(&mut self.prefix);
        prefix.clone_into(&mut self.cookie_path);
        self
    }

    /// Appends the backend's name to its ids.
    pub fn with_route(mut self) -> OriginSpec {
        self.route = Some(self.backend.clone());
        self
    }

    /// Forgets sessions that were silent for so long.
    pub fn with_idle_timeout(mut self, timeout: Duration) -> OriginSpec {
        self.idle_timeout = Some(timeout);
        self
    }

    fn set_cookie(&self, value: &str) -> String {
        let domain = self.cookie_domain.as_ref();
        let domain = domain.map_or_else(String::new, |domain| format!("; Domain={domain}"));
        format!("{}={value}; Path={}{domain}; HttpOnly", self.cookie, self.cookie_path)
    }

    fn deletion(&self, path: &str) -> String {
        let domain = self.cookie_domain.as_ref();
        let domain = domain.map_or_else(String::new, |domain| format!("; Domain={domain}"));
        format!("{}=; Path={path}{domain}; Max-Age=0; Expires={DAY_ZERO}", self.cookie)
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The head, verbatim in `head.raw`.
    pub head: Head,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Stay {
    counter: u64,
    last_seen: Instant,
}

struct Shared {
    spec: OriginSpec,
    sessions: Mutex<HashMap<String, Stay>>,
    requests: Mutex<Vec<Recorded>>,
    canned: Mutex<HashMap<String, String>>,
    health: AtomicU16,
    probes: AtomicUsize,
    lives: AtomicUsize,
    running: Gate,
    let_go: Gate,
    serving: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    listener: Mutex<Option<TcpListener>>,
}

/// Where threads wait until it is open.
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn new(is_open: bool) -> Gate {
        Gate { is_open: Mutex::new(is_open), opened: Condvar::new() }
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn close(&self) {
        *self.is_open.lock().unwrap() = false;
    }

    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

/// The running application. Ends on drop.
pub struct Origin {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts it on a free port.
    pub fn start(spec: OriginSpec) -> Origin {
        let shared = Shared {
            spec,
            sessions: Mutex::default(),
            requests: Mutex::default(),
            canned: Mutex::default(),
            health: AtomicU16::new(200),
            probes: AtomicUsize::new(0),
            lives: AtomicUsize::new(1),
            running: Gate::new(true),
            let_go: Gate::new(false),
            serving: AtomicBool::new(false),
            connections: Mutex::default(),
            listener: Mutex::default(),
        };
        let mut origin = Origin { shared: Arc::new(shared), port: free_port(), acceptor: None };
        origin.listen();
        origin
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        &self.shared.spec.backend
    }

    /// `127.0.0.1:port`, as the configuration wants it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Breaks all connections and refuses new ones; the sessions stay in memory.
    pub fn stop(&mut self) {
        self.shared.close();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor never panics");
        }
    }

    /// Listens again on the same port with the same memory: a network that came back.
    pub fn listen(&mut self) {
        let port = self.port;
        let bound = wait_for_some("the port can be bound", Duration::from_secs(5), || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        let kept = bound.try_clone().expect("a socket can be duplicated");
        *self.shared.listener.lock().unwrap() = Some(kept);
        self.shared.serving.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.acceptor = Some(std::thread::spawn(move || shared.accept(&bound)));
    }

    /// Ends and begins anew under the same name and port, with an empty memory.
    pub fn restart(&mut self) {
        self.stop();
        self.shared.sessions.lock().unwrap().clear();
        self.shared.lives.fetch_add(1, Ordering::SeqCst);
        self.listen();
    }

    /// Refuses new connections, keeps those that are open, and its memory: a full backlog, or a firewall that rejects. Ends with
    /// [`Origin::listen`].
    pub fn refuse(&mut self) {
        self.shared.close_listener();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor never panics");
        }
    }

    /// Accepts, stays silent.
    pub fn pause(&self) {
        self.shared.running.close();
    }

    /// Answers what has been waiting, and everything after it.
    pub fn resume(&self) {
        self.shared.running.open();
    }

    /// Answers all requests for `/hold`, the waiting ones and those to come.
    pub fn let_go(&self) {
        self.shared.let_go.open();
    }

    /// What `/health` answers from now on.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::SeqCst);
    }

    /// How often `/health` was asked.
    pub fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// Answers a path with these bytes, whatever the session; the connection stays open.
    pub fn answer(&self, path: &str, response: &str) {
        let mut canned = self.shared.canned.lock().unwrap();
        canned.insert(path.to_owned(), response.to_owned());
    }

    /// The ids it would honour now.
    pub fn live_sessions(&self) -> Vec<String> {
        let mut sessions = self.shared.sessions.lock().unwrap();
        self.shared.purge(&mut sessions);
        sessions.keys().cloned().collect()
    }

    /// Forgets one session without telling anybody, as an application's own timeout does.
    pub fn forget(&self, id: &str) {
        self.shared.sessions.lock().unwrap().remove(id);
    }

    /// All requests so far but probes.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Those for this path, whatever their query.
    pub fn requests_to(&self, path: &str) -> Vec<Recorded> {
        let mut requests = self.requests();
        requests.retain(|request| request.head.word(1).split(['?', ';']).next() == Some(path));
        requests
    }

    /// Forgets the recorded requests.
    pub fn clear_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.close();
        self.resume();
        self.let_go();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(kept) = stream.try_clone() else {
                return;
            };
            let mut connections = self.connections.lock().unwrap();
            // Under the lock: `close` says so before it takes the lock to break what is there.
            if !self.serving.load(Ordering::SeqCst) {
                return;
            }
            connections.push(kept);
            drop(connections);
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                // A client or proxy that goes away is no news.
                shared.serve(&stream).ok();
                // `connections` has a handle too: dropping ours alone would not close the connection.
                stream.shutdown(Shutdown::Both).ok();
            });
        }
    }

    fn close(&self) {
        self.serving.store(false, Ordering::SeqCst);
        self.close_listener();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.shutdown(Shutdown::Both).ok(); // the peer may have closed it first
        }
    }

    fn close_listener(&self) {
        if let Some(listener) = self.listener.lock().unwrap().take() {
            // Wakes the acceptor, whose own handle then goes and frees the port.
            rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).ok();
        }
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut out = stream.try_clone()?;
        let mut input = BufReader::new(stream.try_clone()?);
        while let Some(head) = Head::read(&mut input)? {
            if head.says("expect", "100-continue") {
                out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let body = http::read_body(&mut input, &head, Unstated::Empty)?;
            let method = head.word(0).to_owned();
            let target = head.word(1).to_owned();
            let path = target.split(['?', ';']).next().unwrap_or_default();
            let path = match path.strip_prefix(self.spec.prefix.as_str()) {
                Some("") => "/",
                Some(path) if path.starts_with('/') => path,
                _ => "/unknown",
            };
            if path != "/health" {
                let recorded = Recorded { head: head.clone(), body: body.clone() };
                self.requests.lock().unwrap().push(recorded);
            }
            self.running.wait();
            let canned = self.canned.lock().unwrap().get(path).cloned();
            match (canned, path) {
                (Some(bytes), _) => out.write_all(bytes.as_bytes())?,
                (None, "/echo") => return self.echo(&head, &mut input, &mut out),
                (None, "/events") => self.events(&head, &target, &mut out)?,
                (None, "/die") => {
                    self.close();
                    return Ok(());
                }
                (None, _) => {
                    let reply = self.reply(path, &target, &head, &body);
                    if let Some(ms) = query_value(&target, "ms").and_then(|ms| ms.parse().ok()) {
                        delay(Duration::from_millis(ms));
                    }
                    if path == "/hold" {
                        self.let_go.wait();
                    }
                    self.running.wait();
                    reply.write(&mut out, &method)?;
                }
            }
            if head.says("connection", "close") {
                break;
            }
        }
        Ok(())
    }

    fn echo(&self, head: &Head, input: &mut BufReader<TcpStream>, out: &mut TcpStream) -> io::Result<()> {
        if !head.says("upgrade", "websocket") {
            return Reply::new(426, "upgrade").write(out, "GET");
        }
        let accept = websocket::accept_value(head.field("sec-websocket-key").unwrap_or_default());
        write!(
            out,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )?;
        while let Frame::Text(text) = websocket::read(input)? {
            self.running.wait();
            self.known_session(head, head.word(1));
            websocket::write_text(out, &text, false)?;
        }
        websocket::write_close(out, false)
    }

    fn events(&self, head: &Head, target: &str, out: &mut TcpStream) -> io::Result<()> {
        let number = |name| query_value(target, name).and_then(|value| value.parse::<u64>().ok());
        let count = number("count").unwrap_or(u64::MAX);
        let every = Duration::from_millis(number("every").unwrap_or(20));
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for event in 1..=count {
            self.known_session(head, target);
            let text = format!("data: {event}\n\n");
            write!(out, "{:x}\r\n{text}\r\n", text.len())?;
            delay(every);
        }
        out.write_all(b"0\r\n\r\n")
    }
}
