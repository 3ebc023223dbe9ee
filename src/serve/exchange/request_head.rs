//! What the backend sees: no pins, no dead session, its own path, and who asks. Written after Pingora has taken out hop-by-hop
//! fields, so that a client cannot make our fields vanish by naming them in `Connection`.

use http::header::{COOKIE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::client::authority;
use super::context::Exchange;
use crate::model::facts::route_slot;
use crate::model::identity::{Carrier, CookieEdit, CookieField, Prefixed, edit_cookies, without_path_parameter, without_query_parameter};
use crate::model::settings::PinMode;
use crate::model::view::{App, View};
use crate::serve::date::rfc3339;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RELEASE: HeaderName = HeaderName::from_static("x-tidegate-release");
const CURRENT: HeaderName = HeaderName::from_static("x-tidegate-current");
const STATE: HeaderName = HeaderName::from_static("x-tidegate-state");

const DEADLINE: HeaderName = HeaderName::from_static("x-tidegate-deadline");

/// Fields that we add to a request, at most.
const ADDED: usize = 9;

/// Fields by which applications let themselves be told who asks; from a stranger they are lies (RFC 7239 §8.1).
const FORGED: [&str; 5] = ["forwarded", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-ssl", "x-real-ip"];

impl Gateway {
    pub(super) fn write_request_head(&self, session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
        let (Some(claim), Some(app)) = (&exchange.claim, &exchange.app) else {
            return Error::e_explain(ErrorType::InternalError, "no backend was claimed");
        };
        let strip = claim.forward.strip;
        let mut failed = None;
        edit(request, |head| {
            if head.headers.contains_key(COOKIE)
                && let Err(e) = write_cookies(&self.control.snapshot(), app, &mut head.headers, strip)
            {
                failed = Some(e);
            }
            if let (Some(Carrier::Header), Some(header)) = (dead_carrier(exchange, strip), &app.names.header) {
                head.headers.remove(header.as_str());
            }
            head.headers.reserve(ADDED);
            remove_foreign(&mut head.headers, exchange.client.trusted);
            write_client(session, &mut head.headers, exchange);
            if let Some(id) = exchange.request_id.value() {
                head.headers.insert(REQUEST_ID, id);
            }
            head.headers.insert(RELEASE, claim.release.label.clone());
            if let Some(newest) = app.newest() {
                head.headers.insert(CURRENT, newest.label.clone());
            }
            if claim.forward.backend.emptying() {
                head.headers.insert(STATE, HeaderValue::from_static("draining"));
                if let Some(at) = claim.forward.backend.live.deadline().and_then(|at| HeaderValue::from_str(&rfc3339(at)).ok()) {
                    head.headers.insert(DEADLINE, at);
                }
            }
        })?;
        match failed {
            Some(e) => Err(e),
            None => write_target(app, request, exchange, strip),
        }
    }
}

/// Readies the head of a request for all that follows: without the client's spelling of names, whose copy would cost every
/// request as much as the values do (names are not case-sensitive, RFC 9110 §5.1, and HAProxy sends them in lower case).
pub(super) fn unburden(request: &mut RequestHeader) -> Result<()> {
    // No room is made here for what we add: a copy of the head has room for its fields alone.
    edit(request, |_| ())
}

/// Edits the parts of a head. Pingora's own setters parse and copy each name.
fn edit(request: &mut RequestHeader, change: impl FnOnce(&mut Parts)) -> Result<()> {
    // What does not survive in a URI is kept beside it: absolute form, and octets that are no UTF-8.
    let usual = request.raw_path().first() == Some(&b'/') && request.raw_path_is_utf8();
    let target = (!usual).then(|| request.raw_path().to_vec());
    let blank = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut head = Parts::from(std::mem::replace(request, blank));
    change(&mut head);
    *request = RequestHeader::from(head);
    match target {
        Some(target) => request.set_raw_path(&target),
        None => Ok(()),
    }
}

/// What carried an id that is to be taken out.
fn dead_carrier(exchange: &Exchange, strip: bool) -> Option<Carrier> {
    exchange.facts.as_ref().filter(|_| strip)?.carrier
}

fn write_cookies(view: &View, app: &App, headers: &mut HeaderMap, strip: bool) -> Result<()> {
    let is_app = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| view.app(name).is_some());
    let is_route = |route: &[u8]| route_slot(app, route).is_some();
    let prefixed = (app.settings.session.pin == PinMode::Prefix).then_some(Prefixed { cookies: &app.names.cookies, is_route: &is_route });
    let edit = CookieEdit { is_app: &is_app, dead: if strip { &app.names.cookies } else { &[] }, prefixed };
    let mut fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let edited = match (fields.next(), fields.next()) {
        (Some(one), None) => edit_cookies(std::iter::once(one), &edit),
        _ => {
            let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            edit_cookies(all.iter().copied(), &edit)
        }
    };
    match edited {
        CookieField::Unchanged => {}
        CookieField::Removed => drop(headers.remove(COOKIE)),
        CookieField::Replaced(value) => {
            let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(value));
            headers.insert(COOKIE, value.map_err(|e| Error::because(ErrorType::InvalidHTTPHeader, "cookie", e))?);
        }
    }
    Ok(())
}

/// The backend's own path, and no dead id in path or query.
fn write_target(app: &App, request: &mut RequestHeader, exchange: &Exchange, strip: bool) -> Result<()> {
    let carrier = dead_carrier(exchange, strip);
    let dead_in_target = matches!(carrier, Some(Carrier::Path | Carrier::Query));
    if exchange.mapped.is_none() && !dead_in_target {
        return Ok(());
    }
    let target = match &exchange.mapped {
        Some(mapped) => mapped.to_vec(),
        None => request.uri.path_and_query().map_or("/", |t| t.as_str()).as_bytes().to_vec(),
    };
    let target = match (carrier, &app.names.path_parameter, &app.names.query_parameter) {
        (Some(Carrier::Path), Some(parameter), _) => {
            let (path, query) = split_query(&target);
            [&without_path_parameter(path, parameter), query].concat()
        }
        (Some(Carrier::Query), _, Some(parameter)) => {
            let (path, query) = split_query(&target);
            let rest = without_query_parameter(query.get(1..).unwrap_or_default(), parameter);
            if rest.is_empty() { path.to_vec() } else { [path, b"?", &rest].concat() }
        }
        _ => target,
    };
    request.set_raw_path(&target)
}

/// A target's path, and its query with the question mark.
pub(super) fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    let mark = target.iter().position(|&octet| octet == b'?').unwrap_or(target.len());
    target.split_at_checked(mark).unwrap_or((target, &[]))
}

/// Takes out what only we may say, and from strangers what they may not say of themselves.
fn remove_foreign(headers: &mut HeaderMap, trusted: bool) {
    let forged = |name: &str| !trusted && FORGED.contains(&name);
    let foreign = |name: &HeaderName| match name.as_str() {
        name if name.starts_with("x-") || name.starts_with("forwarded") => name.starts_with("x-tidegate-") || forged(name),
        _ => false,
    };
    if headers.keys().any(foreign) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| foreign(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

fn write_client(session: &Session, headers: &mut HeaderMap, exchange: &Exchange) {
    let client = &exchange.client;
    let peer = client.peer_text();
    let chain = if client.trusted && headers.contains_key(FORWARDED_FOR) {
        let mut chain = Vec::with_capacity(64);
        for value in headers.get_all(FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(peer.as_bytes());
        // Values joined by a comma are a value.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).unwrap_or(peer)
    } else {
        peer
    };
    headers.insert(FORWARDED_FOR, chain);
    if !(client.trusted && headers.contains_key(FORWARDED_PROTO)) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if client.tls { "https" } else { "http" }));
    }
    if !(client.trusted && headers.contains_key(FORWARDED_HOST)) {
        // The authority first, as routing does (RFC 9112 §3.2.2).
        let host = match authority(session.req_header()) {
            Some(authority) => HeaderValue::from_str(authority).ok(),
            None => headers.get(HOST).cloned(),
        };
        match host {
            Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
            None => drop(headers.remove(FORWARDED_HOST)),
        }
    }
}
