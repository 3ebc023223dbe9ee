//! What a simulated user sits at: a cookie jar and one kept connection.
//!
//! The jar keeps every cookie it is given and forgets those it is told to delete, by name alone: the sample app and tidegate
//! both set theirs for the whole of `/`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::page::Page;

/// Longer than any pause that tidegate may cause here; a person would have given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The sample app's JSON is much shorter.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A browser as far as the demo needs one.
pub(super) struct Browser {
    address: SocketAddr,
    jar: Jar,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// Why a user saw no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The proxy cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The answer is not one of the sample app.
    #[error("status {0}")]
    Status(u16),
    /// Nothing came.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silence,
    /// Something came.
    #[error("the answer cannot be read")]
    Unreadable,
}

impl Browser {
    /// A new browser without cookies.
    pub fn new(address: SocketAddr) -> Browser {
        Browser { address, jar: Jar::default(), connection: None }
    }

    /// Looks at the shop.
    ///
    /// # Errors
    /// [`Trouble`]: anything but a page of the sample app.
    pub async fn look(&mut self) -> Result<Page, Trouble> {
        self.ask(Method::GET, "/", String::new()).await
    }

    /// Sends a form.
    ///
    /// # Errors
    /// As [`Browser::look`].
    pub async fn send(&mut self, path: &str, form: String) -> Result<Page, Trouble> {
        self.ask(Method::POST, path, form).await
    }

    async fn ask(&mut self, method: Method, path: &str, form: String) -> Result<Page, Trouble> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form));
        let mut request = request.map_err(|_| Trouble::Unreadable)?;
        if let Some(cookies) = self.jar.line().and_then(|line| line.parse().ok()) {
            request.headers_mut().insert(COOKIE, cookies);
        }
        timeout(PATIENCE, self.exchange(request)).await.map_err(|_| Trouble::Silence)?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Page, Trouble> {
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await?;
        self.jar.keep(response.headers());
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await.map_err(|_| Trouble::Unreadable)?.to_bytes();
        self.connection = Some(connection);
        if status != 200 {
            return Err(Trouble::Status(status));
        }
        serde_json::from_slice(&body).map_err(|_| Trouble::Unreadable)
    }

    /// The kept connection when it is still open, else a new one: what every browser does.
    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                log::debug!("simulated user: {error}");
            }
        });
        Ok(connection)
    }
}

/// Cookies by name.
#[derive(Default)]
struct Jar(BTreeMap<String, String>);

impl Jar {
    fn line(&self) -> Option<String> {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok()) {
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let Some((name, value)) = pair.trim().split_once('=') else { continue };
            let deletes = |attribute: &str| {
                let (name, value) = attribute.trim().split_once('=').unwrap_or_default();
                name.eq_ignore_ascii_case("max-age") && value.parse::<i64>().is_ok_and(|seconds| seconds <= 0)
            };
            if attributes.split(';').any(deletes) {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_keeps_what_it_is_given_and_forgets_what_is_deleted() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let mut jar = Jar::default();
            for line in lines {
                let mut headers = HeaderMap::new();
                headers.append(SET_COOKIE, line.parse().unwrap());
                jar.keep(&headers);
            }
            assert_eq!(jar.line().as_deref(), expected, "{lines:?}");
        };
        check(&[], None);
        check(&["b=1; Path=/; HttpOnly", "a=2"], Some("a=2; b=1"));
        check(&["a=1", "a=2; Max-Age=60"], Some("a=2"));
        check(&["a=1", "a=; Path=/; max-age=0"], None);
        check(&["a=1", "b=2; Max-Age=-1"], Some("a=1"));
        check(&["nonsense"], None);
    }
}
