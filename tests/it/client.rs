//! The test's HTTP/1.1 client: [`Wire`] for raw bytes, [`Browser`] for what a person does.
//!
//! Redirects are never followed. A request on a kept connection that the peer closed without a byte of answer is sent
//! once more on a new one, as browsers do; any other error is the test's to see.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::cookies::{Cookie, Jar};
use crate::http::{self, Head, Unstated};
use crate::websocket::{self, Frame};

/// The host that browsers ask for unless told otherwise.
pub const HOST: &str = "shop.test";
/// Long enough for a busy machine; a test that expects silence sets its own.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Start line and fields.
    pub head: Head,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A word of the body like `counter=3`, as `3`.
    pub fn value(&self, name: &str) -> Option<String> {
        self.text()
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    /// The same as a number; panics with the whole answer when it is not there.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.value(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no number {name} in {}\n{}", self.head.raw, self.text()))
    }

    /// The same as text; panics with the whole answer when it is not there.
    #[track_caller]
    pub fn word(&self, name: &str) -> String {
        self.value(name).unwrap_or_else(|| panic!("no {name}= in {}\n{}", self.head.raw, self.text()))
    }

    /// The values of all `Set-Cookie` fields whose cookie has this name.
    pub fn set_cookies(&self, name: &str) -> Vec<String> {
        self.head
            .fields_named("set-cookie")
            .filter(|value| value.split('=').next().map(str::trim) == Some(name))
            .map(str::to_owned)
            .collect()
    }

    /// Panics with the whole answer unless the status is this.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{}\n{}", self.head.raw, self.text());
        self
    }
}

/// One connection, byte by byte.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Connects to a port on loopback.
    pub fn connect(port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Wire { stream: BufReader::new(stream) })
    }

    /// Bounds every later read.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(timeout))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Says that nothing more will be sent, and still reads.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Reads a head, interim ones (1xx but 101) included. `Ok(None)`: closed before the first byte.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        Head::read(&mut self.stream)
    }

    /// Reads the final answer to a request of that method. `Ok(None)`: closed before the first byte.
    pub fn read_response(&mut self, method: &str) -> io::Result<Option<Response>> {
        let Some((status, head)) = self.read_final_head()? else {
            return Ok(None);
        };
        let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
        let body = if bodiless { Vec::new() } else { http::read_body(&mut self.stream, &head, Unstated::UntilClose)? };
        Ok(Some(Response { status, head, body }))
    }

    fn read_final_head(&mut self) -> io::Result<Option<(u16, Head)>> {
        loop {
            let Some(head) = self.read_head()? else {
                return Ok(None);
            };
            let status: u16 =
                head.word(1).parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("no status: {}", head.raw)))?;
            if !(100..200).contains(&status) || status == 101 {
                return Ok(Some((status, head)));
            }
        }
    }

    /// Reads one chunk of a chunked body, `None` at its end.
    pub fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let chunk = http::read_chunk(&mut self.stream)?;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Waits until the peer closes; what it still sends is returned.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Sends a WebSocket text message.
    pub fn send_text(&mut self, text: &str) -> io::Result<()> {
        websocket::write_text(self.stream.get_mut(), text, true)
    }

    /// Sends a WebSocket close frame.
    pub fn send_close(&mut self) -> io::Result<()> {
        websocket::write_close(self.stream.get_mut(), true)
    }

    /// Reads a WebSocket frame.
    pub fn read_frame(&mut self) -> io::Result<Frame> {
        websocket::read(&mut self.stream)
    }
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    chunk: Option<usize>,
    withheld: Vec<String>,
    cookie: Option<String>,
}

impl Call {
    /// Any method.
    pub fn new(method: &str, target: &str) -> Call {
        Call {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            chunk: None,
            withheld: Vec::new(),
            cookie: None,
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Call {
        Call::new("GET", target)
    }

    /// A POST with a body of known length.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Call {
        let mut call = Call::new("POST", target);
        call.body = body.into();
        call
    }

    /// Any method's body.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Call {
        self.body = body.into();
        self
    }

    /// Adds a field.
    pub fn field(mut self, name: &str, value: &str) -> Call {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks of that size instead of with its length.
    pub fn chunked(mut self, piece: usize) -> Call {
        self.chunk = Some(piece);
        self
    }

    /// Withholds a cookie of the jar, as `SameSite` does on a request from another site.
    pub fn without_cookie(mut self, name: &str) -> Call {
        self.withheld.push(name.to_owned());
        self
    }

    /// Sends exactly this `Cookie` value instead of the jar's; empty for none.
    pub fn cookie(mut self, value: &str) -> Call {
        self.cookie = Some(value.to_owned());
        self
    }

    fn write(&self, to: &mut impl Write, host: &str, jar: &Jar, secure: bool) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        let cookies = self.cookie.clone().unwrap_or_else(|| {
            let sent = jar.matching(host, &self.target, secure);
            let sent = sent.iter().filter(|c| !self.withheld.contains(&c.name));
            let pairs: Vec<String> = sent.map(|c| format!("{}={}", c.name, c.value)).collect();
            pairs.join("; ")
        });
        if !cookies.is_empty() {
            head += &format!("Cookie: {cookies}\r\n");
        }
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        if self.chunk.is_some() {
            head += "Transfer-Encoding: chunked\r\n";
        } else if !self.body.is_empty() || self.method == "POST" {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        to.write_all(head.as_bytes())?;
        match self.chunk {
            Some(piece) => http::write_chunked(to, &self.body, piece),
            None => to.write_all(&self.body),
        }
    }
}

/// A person's browser: cookies, one kept connection, no redirects. [`Browser::tab`] opens more connections.
pub struct Browser {
    port: u16,
    host: String,
    secure: bool,
    jar: Arc<Mutex<Jar>>,
    wire: Option<Wire>,
    timeout: Duration,
}

impl Browser {
    /// A fresh browser without cookies that talks to this port on loopback.
    pub fn new(port: u16) -> Browser {
        Browser { port, host: HOST.to_owned(), secure: false, jar: Arc::default(), wire: None, timeout: TIMEOUT }
    }

    /// Asks for another host.
    pub fn with_host(mut self, host: &str) -> Browser {
        self.host = host.to_owned();
        self
    }

    /// Behaves as if TLS ended before the proxy: `Secure` cookies are kept and sent.
    pub fn with_secure_cookies(mut self) -> Browser {
        self.secure = true;
        self
    }

    /// Bounds the wait for each read.
    pub fn with_timeout(mut self, timeout: Duration) -> Browser {
        self.timeout = timeout;
        self
    }

    /// Another tab: the same cookies, a connection of its own.
    pub fn tab(&self) -> Browser {
        Browser {
            port: self.port,
            host: self.host.clone(),
            secure: self.secure,
            jar: Arc::clone(&self.jar),
            wire: None,
            timeout: self.timeout,
        }
    }

    /// Another tab that talks to another port: the same cookies, since the host is the same.
    pub fn tab_before(&self, port: u16) -> Browser {
        Browser { port, ..self.tab() }
    }

    /// GET; panics with the reason when no answer comes.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.send_or_panic(Call::get(target))
    }

    /// POST; panics with the reason when no answer comes.
    #[track_caller]
    pub fn post(&mut self, target: &str, body: impl Into<Vec<u8>>) -> Response {
        self.send_or_panic(Call::post(target, body))
    }

    /// Any call; panics with the reason when no answer comes.
    #[track_caller]
    pub fn send_or_panic(&mut self, call: Call) -> Response {
        let what = format!("{} {}", call.method, call.target);
        self.send(call).unwrap_or_else(|error| panic!("{what}: no answer: {error}"))
    }

    /// Any call.
    pub fn send(&mut self, call: Call) -> io::Result<Response> {
        if let Some(wire) = self.wire.take() {
            // `None` or an error before the first byte: the kept connection was stale.
            match self.exchange(wire, &call) {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => {}
                Err(error) if is_reset(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let wire = self.connect()?;
        self.exchange(wire, &call)?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"))
    }

    fn exchange(&mut self, mut wire: Wire, call: &Call) -> io::Result<Option<Response>> {
        self.write(&mut wire, call)?;
        let Some(response) = wire.read_response(&call.method)? else {
            return Ok(None);
        };
        self.take_cookies(&call.target, &response.head);
        let unbounded = response.head.field("content-length").is_none()
            && !response.head.says("transfer-encoding", "chunked")
            && !matches!(response.status, 204 | 304)
            && call.method != "HEAD";
        if !response.head.says("connection", "close") && !unbounded {
            self.wire = Some(wire);
        }
        Ok(Some(response))
    }

    /// Sends on a connection of its own and reads only the head: for streams and tunnels.
    pub fn open(&mut self, call: &Call) -> io::Result<(Head, Wire)> {
        let mut wire = self.connect()?;
        self.write(&mut wire, call)?;
        let (_, head) = wire.read_final_head()?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"))?;
        self.take_cookies(&call.target, &head);
        Ok((head, wire))
    }

    /// Opens a WebSocket; panics with the answer unless it is 101.
    #[track_caller]
    pub fn websocket(&mut self, target: &str) -> Wire {
        let call = Call::get(target)
            .field("Connection", "Upgrade")
            .field("Upgrade", "websocket")
            .field("Sec-WebSocket-Version", "13")
            .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (head, wire) = self.open(&call).unwrap_or_else(|error| panic!("{target}: no answer to the upgrade: {error}"));
        assert_eq!(head.word(1), "101", "{}", head.raw);
        wire
    }

    /// The cookie jar, shared by all tabs.
    pub fn jar(&self) -> MutexGuard<'_, Jar> {
        self.jar.lock().expect("no tab panicked with the jar")
    }

    /// All cookies.
    pub fn cookies(&self) -> Vec<Cookie> {
        self.jar().all().to_vec()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies().into_iter().find(|cookie| cookie.name == name).map(|cookie| cookie.value)
    }

    /// Closes the kept connection.
    pub fn disconnect(&mut self) {
        self.wire = None;
    }

    fn connect(&self) -> io::Result<Wire> {
        let wire = Wire::connect(self.port)?;
        wire.set_timeout(self.timeout)?;
        Ok(wire)
    }

    fn write(&self, wire: &mut Wire, call: &Call) -> io::Result<()> {
        let jar = self.jar().clone();
        let mut bytes = Vec::new();
        call.write(&mut bytes, &self.host, &jar, self.secure)?;
        match wire.send(&bytes) {
            // The peer may have answered and closed before it read the body: read that answer.
            Err(error) if is_reset(&error) => Ok(()),
            sent => sent,
        }
    }

    fn take_cookies(&self, target: &str, head: &Head) {
        let mut jar = self.jar();
        for value in head.fields_named("set-cookie") {
            jar.store(&self.host, target, self.secure, value);
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
