//! Who may use the admin port: the bearer token, the `Host` header, and where an order comes from.
//!
//! The `Host` check is not about virtual hosts. A web page in an administrator's browser can point its own name at 127.0.0.1 (DNS
//! rebinding) and then reads what loopback may read without a token; the name it came by gives it away. An order
//! from a page of another origin is refused, too, though it would lack the token: no browser should be able to try tokens for a stranger.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};

use super::fault::Fault;
use crate::config::AdminAddress;

/// Bytes of a token that we make: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;
/// Shorter ones that people put into the file are refused: they would be guessed.
const SHORTEST_TOKEN: usize = 16;
/// A token file larger than this is another file.
const LARGEST_FILE: u64 = 4096;

/// The secret that every change needs.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Reads the token in `path`, or makes one there (mode 0600) when there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds no usable token; the message names the path.
    pub fn read_or_make(path: &Path) -> io::Result<Token> {
        match Token::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Token::make(path),
            other => other,
        }
        .map_err(|error| io::Error::new(error.kind(), format!("token file {}: {error}", path.display())))
    }

    fn read(path: &Path) -> io::Result<Token> {
        let mut text = String::new();
        let file = fs::File::open(path)?;
        // A group that may read it is somebody's decision: those who may deploy.
        if file.metadata()?.mode() & 0o027 != 0 {
            log::warn!("token file {} can be read or changed by others: chmod 640 it", path.display());
        }
        file.take(LARGEST_FILE).read_to_string(&mut text)?;
        let token = text.trim();
        let good = token.len() >= SHORTEST_TOKEN && token.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            let what = format!("write one line of at least {SHORTEST_TOKEN} letters and digits, or delete it and a token is made");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Token(token.into()))
    }

    fn make(path: &Path) -> io::Result<Token> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut secret = [0; TOKEN_BYTES];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let token: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        // `create_new`: two processes that start at once must not each believe in a token of their own.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match made {
            Ok(mut file) => file.write_all(format!("{token}\n").as_bytes())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Token::read(path),
            Err(error) => return Err(error),
        }
        log::info!("made an admin token in {}", path.display());
        Ok(Token(token.into()))
    }

    /// A token given by its text.
    pub fn from_text(text: &str) -> Token {
        Token(text.into())
    }

    /// Takes the same time however much of it is right.
    fn is(&self, given: &str) -> bool {
        self.0.len() == given.len() && openssl::memcmp::eq(self.0.as_bytes(), given.as_bytes())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The rules of one admin address.
#[derive(Clone, Debug)]
pub struct Access {
    token: Option<Token>,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Loopback,
    Unix,
    Public,
}

impl Access {
    /// The rules for `address`. Without a token nothing can be changed.
    ///
    /// # Errors
    /// The address can be reached by others and there is no token.
    pub fn new(address: &AdminAddress, token: Option<Token>) -> io::Result<Access> {
        let reach = match address {
            AdminAddress::Unix(_) => Reach::Unix,
            AdminAddress::Tcp(address) if address.ip().to_canonical().is_loopback() => Reach::Loopback,
            AdminAddress::Tcp(_) => Reach::Public,
        };
        if reach == Reach::Public && token.is_none() {
            let what =
                format!("admin address {address} can be reached by others and there is no token: set admin.token_file, or use 127.0.0.1");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(Access { token, reach })
    }

    /// Whether such a request may go on, and as whose.
    pub(super) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Reader, Fault> {
        let reads = *method == Method::GET || *method == Method::HEAD;
        // Orchestrators probe these under any name, and they tell nothing.
        if matches!(uri.path(), "/healthz" | "/readyz") {
            return Ok(Reader::Stranger);
        }
        if self.reach == Reach::Loopback {
            own_host(uri, headers)?;
        }
        if !reads {
            same_origin(headers)?;
        }
        // What the page is made of tells nothing, and a browser asks for it without the token.
        if reads && matches!(uri.path(), "/page.css" | "/page.js" | "/orders.js" | "/favicon.svg") {
            return Ok(Reader::Stranger);
        }
        // A token that is shown to the page is looked at wherever it comes from: so the page tells whether it is right.
        if reads && uri.path() == "/" && headers.contains_key(header::AUTHORIZATION) {
            return self.token_check(headers);
        }
        if reads && self.reach != Reach::Public {
            return Ok(Reader::Admitted);
        }
        // The page asks for the token itself.
        if reads && uri.path() == "/" {
            return Ok(Reader::Stranger);
        }
        self.token_check(headers)
    }

    fn token_check(&self, headers: &HeaderMap) -> Result<Reader, Fault> {
        let Some(token) = &self.token else {
            let remedy = "set admin.token_file to a path that this process can write, and restart";
            return Err(Fault::new(StatusCode::FORBIDDEN, "this process has no admin token, so it takes no orders", remedy));
        };
        match bearer(headers) {
            Some(given) if token.is(given) => Ok(Reader::Admitted),
            Some(_) => Err(Fault::new(
                StatusCode::UNAUTHORIZED,
                "the token is wrong",
                "use the one in admin.token_file: --token-file PATH, or TIDEGATE_TOKEN",
            )),
            None => {
                let remedy =
                    "send 'Authorization: Bearer TOKEN' with the content of admin.token_file: --token-file PATH, or TIDEGATE_TOKEN";
                Err(Fault::new(StatusCode::UNAUTHORIZED, "a token is needed", remedy))
            }
        }
    }
}

/// Whom the page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// May read what the API tells.
    Admitted,
    /// May read nothing but what everybody may.
    Stranger,
}

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Reader, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Reader::Stranger))
    }
}

/// Refuses an order that a browser sends for a page of another origin. Command lines send neither header (Fetch §3.1, Fetch Metadata §2).
fn same_origin(headers: &HeaderMap) -> Result<(), Fault> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    let own = text("host").unwrap_or_default();
    let host = |origin: &str| origin.split_once("://").map(|(_, host)| host.to_ascii_lowercase());
    let origin = text("origin").is_none_or(|origin| host(origin).is_some_and(|host| host == own.to_ascii_lowercase()));
    if site && origin {
        return Ok(());
    }
    let remedy = "give orders on this address's own page, or by the command line; a proxy in front must pass the Host header on";
    Err(Fault::new(StatusCode::FORBIDDEN, "the order comes from a page of another origin", remedy))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses a name other than `localhost`, in `Host` and in a request target of the absolute form alike.
fn own_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    let mut hosts = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?"));
    if hosts.all(is_own) && uri.host().is_none_or(is_own) {
        return Ok(());
    }
    let remedy = "use http://127.0.0.1:PORT or http://localhost:PORT (other names are refused against DNS rebinding)";
    Err(Fault::new(StatusCode::FORBIDDEN, "the Host header is neither an IP address nor localhost", remedy))
}

/// `localhost` or an IP literal, each with or without a port (RFC 9110 §7.2).
fn is_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    };
    host.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123";

    fn access(address: &str, token: Option<&str>) -> io::Result<Access> {
        let address = match address.strip_prefix("unix:") {
            Some(path) => AdminAddress::Unix(PathBuf::from(path)),
            None => AdminAddress::Tcp(address.parse().unwrap()),
        };
        Access::new(&address, token.map(Token::from_text))
    }

    #[test]
    fn a_public_address_without_a_token_is_refused() {
        let check =
            |address: &str, token: Option<&str>, fine: bool| assert_eq!(access(address, token).is_ok(), fine, "{address} {token:?}");
        check("127.0.0.1:9180", None, true);
        check("127.9.9.9:9180", None, true);
        check("[::1]:9180", None, true);
        check("[::ffff:127.0.0.1]:9180", None, true);
        check("unix:/run/x.sock", None, true);
        check("0.0.0.0:9180", None, false);
        check("[::]:9180", None, false);
        check("10.0.0.5:9180", None, false);
        check("0.0.0.0:9180", Some(SECRET), true);
    }

    #[test]
    fn every_change_needs_the_token_and_reading_does_where_others_can_reach() {
        let check = |address: &str, request: &str, authorization: &str, expected: u16| {
            let (method, path) = request.split_once(' ').unwrap();
            let mut headers = HeaderMap::new();
            if !authorization.is_empty() {
                headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
            }
            let access = access(address, Some(SECRET)).unwrap();
            let answer = access.check(&method.parse().unwrap(), &path.parse().unwrap(), &headers);
            let status = answer.err().map_or(200, |fault| axum::response::IntoResponse::into_response(fault).status().as_u16());
            assert_eq!(status, expected, "{address} {request} {authorization}");
        };
        let right = format!("Bearer {SECRET}");
        let (local, unix, public) = ("127.0.0.1:9180", "unix:/run/x.sock", "0.0.0.0:9180");
        for address in [local, unix, public] {
            for (authorization, expected) in [
                ("", 401),
                ("Bearer", 401),
                ("Bearer ", 401),
                ("Bearer wrong", 401),
                ("Bearer 0123456789abcdef0124", 401),
                ("Bearer 0123456789abcdef01234", 401),
                ("Basic 0123456789abcdef0123", 401),
                (&right, 200),
                ("bearer  0123456789abcdef0123", 200),
            ] {
                for method in ["POST", "DELETE", "PUT", "PATCH", "OPTIONS"] {
                    check(address, &format!("{method} /api/v1/drains"), authorization, expected);
                }
                let reading = if address == public { expected } else { 200 };
                for path in ["/api/v1/status", "/metrics"] {
                    check(address, &format!("GET {path}"), authorization, reading);
                    check(address, &format!("HEAD {path}"), authorization, reading);
                }
                for path in ["/healthz", "/readyz", "/page.css", "/page.js", "/orders.js", "/favicon.svg"] {
                    check(address, &format!("GET {path}"), authorization, 200);
                }
                // Without a token the page asks for it; a wrong one it is told of.
                check(address, "GET /", authorization, if authorization.is_empty() { 200 } else { expected });
                check(address, "GET /live", authorization, reading);
            }
        }
    }

    #[test]
    fn a_page_of_another_origin_gives_no_orders() {
        let check = |origin: Option<&str>, site: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "127.0.0.1:9180".parse().unwrap());
            headers.insert(header::AUTHORIZATION, format!("Bearer {SECRET}").parse().unwrap());
            for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let access = access("127.0.0.1:9180", Some(SECRET)).unwrap();
            let asked = |method: Method| access.check(&method, &Uri::from_static("/api/v1/evict"), &headers).is_ok();
            assert_eq!(asked(Method::POST), expected, "{origin:?} {site:?}");
            assert_eq!(asked(Method::DELETE), expected, "{origin:?} {site:?}");
            assert!(asked(Method::GET), "a link from a chat may be followed");
        };
        check(None, None, true);
        check(Some("http://127.0.0.1:9180"), Some("same-origin"), true);
        check(Some("http://127.0.0.1:9180"), None, true);
        check(None, Some("none"), true);
        check(Some("http://127.0.0.1:9181"), None, false);
        check(Some("http://localhost:9180"), None, false);
        check(Some("https://evil.example"), Some("cross-site"), false);
        check(Some("null"), None, false);
        check(None, Some("cross-site"), false);
        check(None, Some("same-site"), false);
        check(Some("http://127.0.0.1:9180"), Some("cross-site"), false);
    }

    #[test]
    fn only_admitted_readers_are_shown_more_than_the_form() {
        let check = |address: &str, authorization: Option<&str>, expected: Reader| {
            let mut headers = HeaderMap::new();
            if let Some(token) = authorization {
                headers.insert(header::AUTHORIZATION, token.parse().unwrap());
            }
            let reader = access(address, Some(SECRET)).unwrap().check(&Method::GET, &Uri::from_static("/"), &headers);
            assert_eq!(reader.unwrap(), expected, "{address} {authorization:?}");
        };
        let right = format!("Bearer {SECRET}");
        check("127.0.0.1:9180", None, Reader::Admitted);
        check("unix:/run/x.sock", None, Reader::Admitted);
        check("0.0.0.0:9180", None, Reader::Stranger);
        check("0.0.0.0:9180", Some(&right), Reader::Admitted);
    }

    #[test]
    fn without_a_token_nothing_can_be_changed() {
        let access = access("127.0.0.1:9180", None).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer ".parse().unwrap());
        assert!(access.check(&Method::POST, &Uri::from_static("/api/v1/evict"), &headers).is_err());
        assert!(access.check(&Method::GET, &Uri::from_static("/api/v1/status"), &headers).is_ok());
    }

    #[test]
    fn a_page_that_rebinds_its_name_to_loopback_reads_nothing() {
        let check = |host: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            let access = access("127.0.0.1:9180", None).unwrap();
            assert_eq!(access.check(&Method::GET, &Uri::from_static("/api/v1/status"), &headers).is_ok(), expected, "{host:?}");
        };
        for own in [
            None,
            Some(""),
            Some("localhost"),
            Some("LocalHost:9180"),
            Some("127.0.0.1:9180"),
            Some("[::1]:9180"),
            Some("[::1]"),
            Some("10.0.0.5"),
        ] {
            check(own, true);
        }
        for other in [
            "evil.example",
            "evil.example:9180",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9180",
            "[evil]:80",
            "a:b:c",
            "localhost@evil",
        ] {
            check(Some(other), false);
        }
        let access = access("127.0.0.1:9180", None).unwrap();
        assert!(access.check(&Method::GET, &Uri::from_static("http://evil.example/metrics"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_missing_token_is_made_for_the_owner_only_and_kept() {
        let directory = std::env::temp_dir().join(format!("tidegate-token-{}", std::process::id()));
        let path = directory.join("state/token");
        let made = Token::read_or_make(&path).unwrap();
        assert_eq!(made.0.len(), 2 * TOKEN_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Token::read_or_make(&path).unwrap().is(&made.0));
        for bad in ["", "short", "with a blank in between it\n", "0123456789abcdef\n0123456789abcdef"] {
            fs::write(&path, bad).unwrap();
            let error = Token::read_or_make(&path).unwrap_err().to_string();
            assert!(error.contains("state/token"), "{bad:?}: {error}");
        }
        assert!(Token::read_or_make(&directory.join("state/token/below")).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
