//! The sample app: a small shop counter that keeps its sessions in memory, as a servlet would.
//!
//! It knows nothing of tidegate, and does what makes deploys hard: every visitor gets a session with the first page, a login
//! changes the id, a logout deletes the cookie, silence ends the session, and a stop of the process would end them all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::page::{self, Page};

/// The name that Tomcat made famous.
pub(super) const SESSION_COOKIE: &str = "JSESSIONID";
/// A login form is shorter.
const LONGEST_FORM: usize = 4096;
/// Longest name of a user; the rest is cut.
const LONGEST_NAME: usize = 20;

/// One process of the sample app, or what would be one: it shares no memory with its neighbours.
pub(super) struct SampleApp {
    release: &'static str,
    backend: &'static str,
    idle_timeout: Duration,
    sessions: Mutex<HashMap<String, Remembered>>,
}

/// What the app remembers of a visitor.
#[derive(Clone)]
struct Remembered {
    user: Option<String>,
    counter: u64,
    seen: Instant,
}

/// A sample app that accepts connections; dropping it is pulling the plug.
pub(super) struct RunningApp {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl RunningApp {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RunningApp {
    fn drop(&mut self) {
        // The connections belong to the accepting task and end with it.
        self.accepting.abort();
    }
}

/// Starts a sample app on a loopback port that the kernel chooses.
///
/// # Errors
/// No port can be had.
pub(super) async fn start(release: &'static str, backend: &'static str, idle_timeout: Duration) -> io::Result<RunningApp> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let app = Arc::new(SampleApp { release, backend, idle_timeout, sessions: Mutex::default() });
    Ok(RunningApp { address, accepting: tokio::spawn(accept(listener, app)) })
}

async fn accept(listener: TcpListener, app: Arc<SampleApp>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&app)));
                }
                // Out of file descriptors, most likely: some will come free.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, app: Arc<SampleApp>) {
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        log::debug!("sample app: {error}");
    }
}

impl SampleApp {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let id = session_id(&head.headers);
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/health") => plain(StatusCode::OK, "up\n"),
            (&Method::GET, "/") => self.visit(&head, id, |_| {}),
            (&Method::POST, "/click") => self.visit(&head, id, |session| session.counter += 1),
            (&Method::POST, "/login") => match Limited::new(body, LONGEST_FORM).collect().await {
                Ok(form) => self.login(&head, id, user_name(&form.to_bytes())),
                Err(_) => plain(StatusCode::BAD_REQUEST, "this is no login form\n"),
            },
            (&Method::POST, "/logout") => self.logout(&head, id),
            _ => plain(StatusCode::NOT_FOUND, "nothing here\n"),
        }
    }

    /// Finds or makes the session, changes it and shows it.
    fn visit(&self, head: &Parts, id: Option<String>, change: impl FnOnce(&mut Remembered)) -> Response<Full<Bytes>> {
        let mut sessions = self.sessions();
        let known = id.filter(|id| sessions.contains_key(id));
        let (id, fresh) = known.map_or_else(|| (new_id(), true), |id| (id, false));
        let session = sessions.entry(id.clone()).or_insert_with(Remembered::new);
        session.seen = Instant::now();
        change(session);
        let shown = session.clone();
        drop(sessions);
        self.show(head, &shown, fresh.then(|| cookie(&id)))
    }

    /// The id changes with a login, so that an id planted beforehand is worth nothing; the counter goes along.
    fn login(&self, head: &Parts, id: Option<String>, user: String) -> Response<Full<Bytes>> {
        let mut sessions = self.sessions();
        let mut session = id.and_then(|id| sessions.remove(&id)).unwrap_or_else(Remembered::new);
        session.user = Some(user);
        session.seen = Instant::now();
        let id = new_id();
        sessions.insert(id.clone(), session.clone());
        drop(sessions);
        self.show(head, &session, Some(cookie(&id)))
    }

    fn logout(&self, head: &Parts, id: Option<String>) -> Response<Full<Bytes>> {
        if let Some(id) = id {
            self.sessions().remove(&id);
        }
        let gone = Remembered::new();
        self.show(head, &gone, Some(format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")))
    }

    /// JSON for the simulated users; for a browser the page, after a POST by way of a redirect so that "reload" repeats nothing.
    fn show(&self, head: &Parts, session: &Remembered, set_cookie: Option<String>) -> Response<Full<Bytes>> {
        let page = Page {
            release: self.release.to_owned(),
            backend: self.backend.to_owned(),
            user: session.user.clone(),
            counter: session.counter,
        };
        let accepts = |kind: &str| head.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains(kind));
        let mut response = if accepts("application/json") {
            let mut response = Response::new(Full::from(page.json()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        } else if head.method == Method::POST {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
            response
        } else {
            let mut response = Response::new(Full::from(page::html(&page, self.idle_timeout)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(cookie) = set_cookie.and_then(|line| HeaderValue::try_from(line).ok()) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }

    /// The sessions that are not over.
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.seen.elapsed() < self.idle_timeout);
        sessions
    }
}

impl Remembered {
    fn new() -> Remembered {
        Remembered { user: None, counter: 0, seen: Instant::now() }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

fn cookie(id: &str) -> String {
    format!("{SESSION_COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax")
}

fn session_id(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, id)| id.to_owned())
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes for as long as it runs");
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `name=...` of a login form. Only what needs no escaping anywhere is kept.
fn user_name(form: &[u8]) -> String {
    let form = String::from_utf8_lossy(form);
    let value = form.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or_default();
    let name: String = value.replace('+', " ").chars().filter(|c| c.is_ascii_alphanumeric() || *c == ' ').take(LONGEST_NAME).collect();
    if name.trim().is_empty() { "guest".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_escaping() {
        let check = |form: &str, expected: &str| assert_eq!(user_name(form.as_bytes()), expected, "{form}");
        check("name=ada", "ada");
        check("x=1&name=Ada+L", "Ada L");
        check("name=<b>ada</b>", "badab");
        check("name=", "guest");
        check("name=+++", "guest");
        check("", "guest");
        check("name=abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrst");
    }

    #[test]
    fn the_session_cookie_is_found_among_others() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, line.parse().unwrap());
            }
            assert_eq!(session_id(&headers).as_deref(), expected, "{lines:?}");
        };
        check(&["a=1; JSESSIONID=77; b=2"], Some("77"));
        check(&["a=1", "JSESSIONID=77"], Some("77"));
        check(&["XJSESSIONID=77"], None);
        check(&[], None);
    }

    #[test]
    fn silence_ends_a_session_and_a_login_keeps_the_counter() {
        let app = |idle_timeout| SampleApp { release: "v1", backend: "a1", idle_timeout, sessions: Mutex::default() };
        let head = Request::builder().header(ACCEPT, "application/json").body(()).unwrap().into_parts().0;
        let id = |response: &Response<Full<Bytes>>| {
            let line = response.headers().get(SET_COOKIE)?.to_str().ok()?;
            Some(line.split_once('=')?.1.split_once(';')?.0.to_owned())
        };
        let patient = app(Duration::from_secs(60));
        let first = id(&patient.visit(&head, None, |s| s.counter += 1)).unwrap();
        let second = id(&patient.login(&head, Some(first.clone()), "ada".to_owned())).unwrap();
        assert_ne!(first, second);
        assert_eq!(patient.sessions().get(&second).map(|s| s.counter), Some(1));
        assert!(id(&patient.visit(&head, Some(second), |_| {})).is_none(), "a known id is kept");
        assert!(id(&patient.visit(&head, Some(first), |_| {})).is_some(), "the id from before the login is worth nothing");
        let forgetful = app(Duration::ZERO);
        let first = id(&forgetful.visit(&head, None, |_| {})).unwrap();
        assert!(id(&forgetful.visit(&head, Some(first), |_| {})).is_some());
    }
}
