//! The operator's side: API, metrics and health of the process itself, on an address of its own.
//!
//! It shares the snapshot with the request path and nothing else, so that a busy proxy can be operated and a busy operator does not
//! slow the proxy. Every order goes through [`Control`]; nothing here changes a backend, release or session by itself.
//!
//! | module | holds |
//! |---|---|
//! | [`access`](Access) | token and `Host` check |
//! | `order`, `reload` | handlers that change something |
//! | `tell` | handlers that do not |
//! | `document` | from the snapshot to the shapes of [`crate::api`] |
//! | [`metrics`] | every metric once |
//! | `page` | the status page |

mod access;
mod document;
mod fault;
mod listen;
pub mod metrics;
mod order;
mod page;
mod reload;
mod tell;
#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::sync::watch;

use self::fault::Fault;
use crate::api;
use crate::model::view::App;
use crate::serve::control::Control;
use crate::serve::reload::Reloader;

pub use crate::serve::date::rfc3339;
pub use access::{Access, Token};
pub(crate) use document::drain as drain_document;
pub use listen::AdminListener;
use listen::Pausable;
pub use page::Sight;

/// Largest body of an order: a staged release with a thousand backends fits.
const BODY_MAX: usize = 64 * 1024;

/// On every answer. The page may load its own style, script and icon and talk to this process: nothing else, and nothing inline.
const SHIELDS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Longest wait for answers under way when the process stops.
const LEAVING: Duration = Duration::from_secs(3);

/// Answers what would happen to a request of `app` with that path and those headers (name, value); the app exists.
pub type Explain = dyn Fn(&str, &str, &[(String, String)]) -> api::ExplainReport + Send + Sync;
/// Writes the effective configuration as YAML.
pub type Export = dyn Fn() -> String + Send + Sync;

/// Replaces this process by another one; blocks until that one serves or has failed. Answers its process id, or why not.
pub type Upgrade = dyn Fn() -> Result<u32, String> + Send + Sync;

/// Waits until everything that happened before is written down, or says why it cannot be.
pub type Flush = dyn Fn() -> Result<(), String> + Send + Sync;

/// What the handlers work with.
pub struct Admin {
    /// The one door to the snapshot.
    pub control: Arc<Control>,
    /// Applies the configuration file.
    pub reloader: Arc<Reloader>,
    /// Whether `/readyz` says so: false while starting and stopping.
    pub ready: Arc<AtomicBool>,
    /// Whether the process has been told to stop: it then ends when the exchanges under way do.
    pub stopping: Arc<AtomicBool>,
    /// The request path's own view of a request.
    pub explain: Box<Explain>,
    /// The configuration's way back to YAML.
    pub export: Box<Export>,
    /// Before an order is confirmed.
    pub flush: Box<Flush>,
    /// A new process in place of this one.
    pub upgrade: Box<Upgrade>,
    /// True when the process stops: event streams end, idle connections close.
    pub stop: watch::Receiver<bool>,
    /// True while nobody is accepted, since another process may be about to answer here.
    pub paused: watch::Receiver<bool>,
    /// What open status pages share.
    pub sight: Sight,
}

/// Serves until `admin.stop` says true and the exchanges under way have ended, or had [`LEAVING`] to do so.
///
/// # Errors
/// Accepting failed for good.
pub async fn serve(listener: AdminListener, access: Access, admin: Arc<Admin>) -> io::Result<()> {
    let (stop, late, paused) = (stopped(admin.stop.clone()), stopped(admin.stop.clone()), admin.paused.clone());
    let router = router(access, admin);
    let serving = async move {
        match listener {
            AdminListener::Tcp(listener) => axum::serve(Pausable::new(listener, paused), router).with_graceful_shutdown(stop).await,
            AdminListener::Unix(listener, _file) => axum::serve(Pausable::new(listener, paused), router).with_graceful_shutdown(stop).await,
        }
    };
    tokio::select! {
        served = serving => served,
        // A client that began a request and never ends it must not keep the process alive.
        () = async { late.await; tokio::time::sleep(LEAVING).await } => Ok(()),
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone will never say stop; the process is ending anyway.
    if stop.wait_for(|stop| *stop).await.is_err() {
        log::debug!("the stop signal of the admin address has no sender");
    }
}

fn router(access: Access, admin: Arc<Admin>) -> Router {
    let v1 = Router::new()
        .route("/status", get(tell::status))
        .route("/apps/{app}/promote", post(order::promote))
        .route("/apps/{app}/rollback", post(order::rollback))
        .route("/apps/{app}/releases", post(order::stage))
        .route("/apps/{app}/releases/{release}/stop", post(order::stop))
        .route("/apps/{app}/releases/{release}", delete(order::remove))
        .route("/apps/{app}/sessions", get(tell::sessions))
        .route("/drains", get(tell::drains).post(order::drain))
        .route("/drains/{id}", get(tell::drain).delete(order::cancel))
        .route("/intent", post(order::intent))
        .route("/evict", post(order::evict))
        .route("/lost", post(order::lost))
        .route("/explain", post(order::explain))
        .route("/export", get(tell::export))
        .route("/events", get(tell::events))
        .route("/reload", post(reload::reload))
        .route("/upgrade", post(order::upgrade));
    let v1 = v1.layer(from_fn_with_state(Arc::clone(&admin), written_down));
    Router::new()
        .route("/", get(page::page))
        .route("/live", get(page::live))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/orders.js", get(page::orders))
        .route("/favicon.svg", get(page::icon))
        .route("/healthz", get(tell::healthz))
        .route("/readyz", get(tell::readyz))
        .route("/metrics", get(tell::prometheus))
        .nest("/api/v1", v1)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(access, guard))
        .with_state(admin)
}

/// Before every handler the access check, after it the headers that keep answers out of caches and frames.
async fn guard(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let checked = access.check(request.method(), request.uri(), request.headers());
    let mut response = match checked {
        Ok(reader) => {
            request.extensions_mut().insert(reader);
            plain_words(next.run(request).await)
        }
        Err(fault) => fault.into_response(),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in SHIELDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An order that is confirmed survives this process: whoever was told that a release was promoted goes on to stop the other one.
async fn written_down(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let response = next.run(request).await;
    if !changes || !response.status().is_success() {
        return response;
    }
    match tokio::task::spawn_blocking(move || (admin.flush)()).await {
        Ok(Ok(())) => response,
        Ok(Err(why)) => {
            // It was done all the same, and is written down as soon as that is possible.
            log::warn!("an order was carried out that cannot be written down yet: {why}");
            response
        }
        Err(panic) => Fault::new(StatusCode::INTERNAL_SERVER_ERROR, panic.to_string(), "see the log").into_response(),
    }
}

/// The framework's own refusals (a body that is too large, a path that is no UTF-8) get our form.
fn plain_words(response: Response) -> Response {
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    match response.status() {
        status if !status.is_client_error() || json => response,
        StatusCode::PAYLOAD_TOO_LARGE => {
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {BODY_MAX} bytes"), "send less: orders are small")
                .into_response()
        }
        status => Fault::new(status, "the request cannot be read", "check path, query and body").into_response(),
    }
}

fn unknown_path(uri: Uri) -> impl Future<Output = Response> {
    let remedy = "the API is below /api/v1/ (see the manual, section Admin API); also /metrics, /healthz, /readyz";
    let fault = Fault::not_found(format!("there is nothing at {}", uri.path()), remedy);
    async { fault.into_response() }
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let what = format!("{method} does not work on {}", uri.path());
    let remedy = "GET asks, POST orders, DELETE cancels or removes: see the manual, section Admin API";
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, what, remedy).into_response()
}

fn known_app(admin: &Admin, name: &str) -> Result<Arc<App>, Fault> {
    let view = admin.control.view();
    view.app(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = view.apps.iter().map(|app| &*app.name).collect();
        Fault::not_found(format!("app '{name}' does not exist"), format!("apps are: {}", known.join(", ")))
    })
}
