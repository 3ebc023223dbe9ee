//! One admin address and the way to ask it: HTTP/1.1 over TCP or a Unix socket, one connection for each question.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Failure, args::Ask};
use crate::api;

/// A process that does not take a connection in this time is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// A promotion may wait five seconds for a first probe; listing a million sessions takes a while too.
const ANSWER: Duration = Duration::from_secs(60);
/// An upgrade ends by itself: each of its three steps may take `server.upgrade_timeout`, an hour at most.
const UPGRADE: Duration = Duration::from_secs(4 * 3600);
/// Where `tidegate run` has its token unless told otherwise, in the order in which it looks too.
pub(super) const DEFAULT_TOKENS: [&str; 2] = ["./tidegate-state/token", crate::api::PACKAGED_TOKEN];

/// One admin address.
#[derive(Clone, Debug)]
pub struct Client {
    /// As given.
    pub url: String,
    place: Place,
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// HOST:PORT.
    Tcp(String),
    Unix(PathBuf),
}

impl Client {
    /// The addresses that `ask` names, with its token.
    ///
    /// # Errors
    /// A URL that cannot be used, or a token file that cannot be read.
    pub fn all(ask: &Ask) -> Result<Vec<Client>, Failure> {
        let urls: Vec<&str> = ask.admin.iter().map(|url| url.trim()).filter(|url| !url.is_empty()).collect();
        let mut given = given_tokens(ask, urls.len())?;
        let mut clients: Vec<Client> = Vec::new();
        for url in urls {
            let place = place(url)?;
            if clients.iter().any(|client| client.place == place) {
                return Err(Failure::usage(format!("--admin names {url} twice")));
            }
            // A token found by chance is shown to this machine only.
            let token = given.next().flatten().or_else(|| place.is_local().then(found_token).flatten());
            clients.push(Client { url: url.to_owned(), place, token });
        }
        if clients.is_empty() { Err(Failure::usage("--admin names no address")) } else { Ok(clients) }
    }

    /// Asks and reads the answer.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.parsed(&self.text(Method::GET, path, Bytes::new()).await?)
    }

    /// Orders and reads the answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(order).map_err(|error| Failure::error(error.to_string()))?;
        self.parsed(&self.text(Method::POST, path, body.into()).await?)
    }

    /// Deletes and reads the answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.parsed(&self.text(Method::DELETE, path, Bytes::new()).await?)
    }

    /// The answer as it is.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn text(&self, method: Method, path: &str, body: Bytes) -> Result<String, Failure> {
        let whole = async { self.body(self.send(method, path, body).await?).await };
        let longest = if path.ends_with("/upgrade") { UPGRADE } else { ANSWER };
        timeout(longest, whole).await.map_err(|_| self.unreachable("no answer in time"))?
    }

    /// Hands each line of an endless answer to `line` as it comes.
    ///
    /// # Errors
    /// As [`Client::get`]; the end of the answer is none.
    pub async fn lines(&self, path: &str, mut line: impl FnMut(&str)) -> Result<(), Failure> {
        let mut body = self.send(Method::GET, path, Bytes::new()).await?;
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(&error.to_string()))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let whole: Vec<u8> = rest.drain(..=end).collect();
                line(String::from_utf8_lossy(&whole).trim_end());
            }
        }
        Ok(())
    }

    fn parsed<T: DeserializeOwned>(&self, text: &str) -> Result<T, Failure> {
        serde_json::from_str(text).map_err(|error| Failure::error(format!("{} does not answer like a tidegate: {error}", self.url)))
    }

    /// The body of a success; anything else is a refusal.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.host());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| Failure::error(format!("{path}: {error}")))?;
        let response = match &self.place {
            Place::Tcp(address) => self.exchange(self.connected(TcpStream::connect(address)).await?, request).await?,
            Place::Unix(path) => self.exchange(self.connected(UnixStream::connect(path)).await?, request).await?,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let text = self.body(response.into_body()).await?;
        Err(refusal(&self.url, status, &text))
    }

    async fn connected<S>(&self, connect: impl Future<Output = io::Result<S>>) -> Result<S, Failure> {
        match timeout(CONNECT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(&plain(&error))),
            Err(_) => Err(self.unreachable("no connection in time")),
        }
    }

    async fn exchange<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<http::Response<Incoming>, Failure>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| self.unreachable(&error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the answer; what went wrong on it reaches us through the sender.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }

    async fn body(&self, body: Incoming) -> Result<String, Failure> {
        let bytes = body.collect().await.map_err(|error| self.unreachable(&error.to_string()))?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn unreachable(&self, why: &str) -> Failure {
        let (error, remedy) = (format!("cannot reach tidegate at {}: {why}", self.url), "is `tidegate run` up? use --admin URL".to_owned());
        let message = format!("{error}; {remedy}");
        let refusal = Some(Box::new(api::Error { error, remedy, problems: Vec::new() }));
        Failure { lost_contact: true, refusal, ..Failure::error(message) }
    }

    fn host(&self) -> &str {
        match &self.place {
            Place::Tcp(address) => address,
            Place::Unix(_) => "localhost",
        }
    }
}

impl Place {
    fn is_local(&self) -> bool {
        match self {
            Place::Unix(_) => true,
            Place::Tcp(address) => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

fn place(url: &str) -> Result<Place, Failure> {
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.starts_with('/') {
            return Ok(Place::Unix(path.into()));
        }
        return Err(Failure::usage(format!("--admin {url}: write an absolute path, such as unix:/run/tidegate/admin.sock")));
    }
    let rest = match url.split_once("://") {
        None => url,
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(Failure::usage(format!("--admin {url}: the admin address speaks http, not {scheme}"))),
    };
    let address = rest.trim_end_matches('/');
    let bad = address.is_empty() || address.contains(['/', '@', '?', '#', ' ']);
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.ends_with(':'))
        .and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(_) if !bad => Ok(Place::Tcp(address.to_owned())),
        _ => Err(Failure::usage(format!("--admin {url}: write http://HOST:PORT or unix:/PATH"))),
    }
}

/// A token for each address: every machine has made its own, unless somebody has given them the same.
fn given_tokens(ask: &Ask, addresses: usize) -> Result<std::vec::IntoIter<Option<String>>, Failure> {
    let files = &ask.token_file;
    if files.len() > 1 && files.len() != addresses {
        let what = format!("--token-file names {} files for {addresses} addresses", files.len());
        return Err(Failure::usage(format!("{what}: name one for all, or one for each in the same order")));
    }
    let read =
        |path: &PathBuf| read_token(path).map_err(|error| Failure::error(format!("token file {}: {}", path.display(), plain(&error))));
    let mut tokens: Vec<Option<String>> = files.iter().map(|path| read(path).map(Some)).collect::<Result<_, _>>()?;
    if tokens.len() < 2 {
        let of_environment = || std::env::var("TIDEGATE_TOKEN").ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        tokens = vec![tokens.pop().unwrap_or_else(of_environment); addresses];
    }
    Ok(tokens.into_iter())
}

/// The token of a process on this machine, where nobody said where it is.
fn found_token() -> Option<String> {
    DEFAULT_TOKENS.iter().find_map(|path| read_token(Path::new(path)).ok())
}

fn read_token(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

/// Without "(os error 111)".
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn refusal(url: &str, status: StatusCode, text: &str) -> Failure {
    let gone = status == StatusCode::NOT_FOUND;
    let Ok(refused) = serde_json::from_str::<api::Error>(text) else {
        return Failure::error(format!("{url} does not answer like a tidegate (status {status}); use --admin URL"));
    };
    let lines: Vec<String> = refused.problems.iter().map(super::screen::problem).collect();
    let words = match lines.as_slice() {
        [] => format!("{}; {}", refused.error, refused.remedy),
        lines => format!("{}:\n{}", refused.error, lines.join("\n")),
    };
    Failure { not_found: gone, refusal: Some(Box::new(refused)), ..Failure::error(words) }
}

/// A name as one segment of a path (RFC 3986 §2.3).
pub fn segment(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let check = |url: &str, expected: Option<Place>| assert_eq!(place(url).ok(), expected, "{url}");
        let tcp = |address: &str| Some(Place::Tcp(address.to_owned()));
        check("http://127.0.0.1:9180", tcp("127.0.0.1:9180"));
        check("http://127.0.0.1:9180/", tcp("127.0.0.1:9180"));
        check("proxy.example:9180", tcp("proxy.example:9180"));
        check("http://[::1]:9180", tcp("[::1]:9180"));
        check("unix:/run/x.sock", Some(Place::Unix("/run/x.sock".into())));
        check("unix:///run/x.sock", Some(Place::Unix("/run/x.sock".into())));
        for bad in [
            "",
            "https://127.0.0.1:9180",
            "http://127.0.0.1",
            "http://:9180",
            "http://a:1/api",
            "http://u@a:1",
            "unix:x.sock",
            "http://a:port",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_token_found_by_chance_stays_on_this_machine() {
        let check = |url: &str, expected: bool| assert_eq!(place(url).unwrap().is_local(), expected, "{url}");
        check("http://127.0.0.1:9180", true);
        check("http://localhost:9180", true);
        check("http://[::1]:9180", true);
        check("unix:/run/x.sock", true);
        check("http://10.0.0.5:9180", false);
        check("http://localhost.example:9180", false);
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        let check = |name: &str, expected: &str| assert_eq!(segment(name), expected);
        check("v41", "v41");
        check("v4.1_b-c~", "v4.1_b-c~");
        check("a/b?c d", "a%2Fb%3Fc%20d");
        check("ü", "%C3%BC");
    }

    #[test]
    fn a_refusal_shows_the_remedy_of_the_process() {
        let check = |status, text: &str, expected: &str| {
            assert_eq!(refusal("http://a:1", StatusCode::from_u16(status).unwrap(), text).message, expected);
        };
        check(404, r#"{"error":"app 'shap' does not exist","remedy":"apps are: shop"}"#, "app 'shap' does not exist; apps are: shop");
        check(502, "<html>", "http://a:1 does not answer like a tidegate (status 502 Bad Gateway); use --admin URL");
    }
}
