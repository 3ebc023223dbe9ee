//! The status page: `/`, what belongs to it, and the stream that keeps it up to date.
//!
//! It only shows. Its buttons are orders to the API like any other, with the token, so nothing here can change anything.
//!
//! | module | holds |
//! |---|---|
//! | `facts` | what is shown: the status document, and what that has no place for |
//! | `words` | figures as sentences |
//! | `html`, `app`, `drain` | templates |
//! | `cells` | what changes by itself, for page and stream alike |
//! | `curve` | sessions per release over time |
//! | `live` | the stream |

mod app;
mod cells;
mod curve;
mod drain;
mod facts;
mod html;
mod live;
mod words;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;

use super::Admin;
use super::access::Reader;
pub use live::Sight;
pub(super) use live::live;

const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = concat!(include_str!("assets/theme.js"), include_str!("assets/page.js"));
const ORDERS: &str = include_str!("assets/orders.js");
const ICON: &str = include_str!("assets/favicon.svg");

/// Tells one version of the page from another: an open page loads itself again when that has changed.
static BUILD: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), STYLE, SCRIPT, ORDERS, ICON).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// Of `/`.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// What an open page lacks. It has the figures, so it may share a page that another one has just got.
    structure: Option<String>,
}

/// Who must show the token to read, and has not, gets the form for it and nothing else.
pub(super) async fn page(State(admin): State<Arc<Admin>>, Query(wanted): Query<Wanted>, reader: Reader) -> Html<String> {
    Html(match (reader, wanted.structure) {
        (Reader::Stranger, _) => html::sign_in(),
        (Reader::Admitted, None) => html::page(&admin.sight.facts(&admin)).1,
        (Reader::Admitted, Some(structure)) => admin.sight.page(&admin, &structure).to_string(),
    })
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    asset(&headers, "text/css; charset=utf-8", STYLE)
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    asset(&headers, "text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn orders(headers: HeaderMap) -> Response {
    asset(&headers, "text/javascript; charset=utf-8", ORDERS)
}

pub(super) async fn icon(headers: HeaderMap) -> Response {
    asset(&headers, "image/svg+xml", ICON)
}

/// Kept by browsers, and asked for again at each visit: an upgrade must not leave an old script with a new page.
fn asset(headers: &HeaderMap, kind: &'static str, content: &'static str) -> Response {
    let tag = format!("\"{}\"", *BUILD);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let fresh = known.is_some_and(|tags| tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    let mut response = if fresh { StatusCode::NOT_MODIFIED.into_response() } else { content.into_response() };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
