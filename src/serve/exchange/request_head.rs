//! What the backend sees: no pins, no dead session, its own path, and who asks. Written after Pingora has taken out hop-by-hop
//! fields, so that a client cannot make our fields vanish by naming them in `Connection`.

use http::header::{COOKIE, HOST, HeaderValue};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::context::Exchange;
use crate::model::facts::route_slot;
use crate::model::identity::{Carrier, CookieEdit, CookieField, Prefixed, edit_cookies, without_path_parameter, without_query_parameter};
use crate::model::settings::PinMode;
use crate::model::view::{App, View};

impl Gateway {
    pub(super) fn write_request_head(&self, session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
        let (Some(claim), Some(app)) = (&exchange.claim, &exchange.app) else {
            return Error::e_explain(ErrorType::InternalError, "no backend was claimed");
        };
        let strip = claim.forward.strip;
        if request.headers.contains_key(COOKIE) {
            write_cookies(&self.control.snapshot(), app, request, strip)?;
        }
        write_target(app, request, exchange, strip)?;
        remove_ours(request);
        write_client(session, request, exchange)?;
        if let Some(id) = &exchange.request_id {
            request.insert_header("X-Request-Id", id.clone())?;
        }
        request.insert_header("X-Tidegate-Release", claim.release.label.clone())?;
        if let Some(newest) = app.newest() {
            request.insert_header("X-Tidegate-Current", newest.label.clone())?;
        }
        if claim.forward.backend.emptying() {
            request.insert_header("X-Tidegate-State", HeaderValue::from_static("draining"))?;
        }
        Ok(())
    }
}

fn write_cookies(view: &View, app: &App, request: &mut RequestHeader, strip: bool) -> Result<()> {
    let is_app = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| view.app(name).is_some());
    let is_route = |route: &[u8]| route_slot(app, route).is_some();
    let prefixed = (app.settings.session.pin == PinMode::Prefix).then_some(Prefixed { cookies: &app.names.cookies, is_route: &is_route });
    let edit = CookieEdit { is_app: &is_app, dead: if strip { &app.names.cookies } else { &[] }, prefixed };
    let mut fields = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let edited = match (fields.next(), fields.next()) {
        (Some(one), None) => edit_cookies(std::iter::once(one), &edit),
        _ => {
            let all: Vec<&[u8]> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            edit_cookies(all.iter().copied(), &edit)
        }
    };
    match edited {
        CookieField::Unchanged => {}
        CookieField::Removed => {
            request.remove_header(&COOKIE);
        }
        CookieField::Replaced(value) => {
            let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(value));
            request.insert_header("Cookie", value.map_err(|e| Error::because(ErrorType::InvalidHTTPHeader, "cookie", e))?)?;
        }
    }
    Ok(())
}

/// The backend's own path, and no dead id in path, query or header.
fn write_target(app: &App, request: &mut RequestHeader, exchange: &Exchange, strip: bool) -> Result<()> {
    let carrier = exchange.facts.and_then(|facts| facts.carrier).filter(|_| strip);
    let dead_in_target = matches!(carrier, Some(Carrier::Path | Carrier::Query));
    if let (Some(Carrier::Header), Some(header)) = (carrier, &app.names.header) {
        request.remove_header(header.as_str());
    }
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

/// Fields that only we may write.
fn remove_ours(request: &mut RequestHeader) {
    let foreign = |name: &http::HeaderName| name.as_str().starts_with("x-tidegate-");
    if !request.headers.keys().any(foreign) {
        return;
    }
    let ours: Vec<http::HeaderName> = request.headers.keys().filter(|name| foreign(name)).cloned().collect();
    for name in ours {
        request.remove_header(&name);
    }
}

/// Fields by which applications let themselves be told who asks; from a stranger they are lies (RFC 7239 §8.1).
const FORGED: [&str; 5] = ["forwarded", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-ssl", "x-real-ip"];

fn write_client(session: &Session, request: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
    let client = &exchange.client;
    let peer = client.peer_text();
    let former = if client.trusted { request.headers.get("x-forwarded-for") } else { None };
    let chain = match former {
        Some(_) => {
            let mut chain = Vec::with_capacity(64);
            for value in request.headers.get_all("x-forwarded-for") {
                chain.extend_from_slice(value.as_bytes());
                chain.extend_from_slice(b", ");
            }
            chain.extend_from_slice(peer.as_bytes());
            HeaderValue::from_maybe_shared(bytes::Bytes::from(chain))
                .map_err(|e| Error::because(ErrorType::InvalidHTTPHeader, "x-forwarded-for", e))?
        }
        None => peer,
    };
    if !client.trusted {
        for name in FORGED {
            request.remove_header(name);
        }
    }
    request.insert_header("X-Forwarded-For", chain)?;
    if !(client.trusted && request.headers.contains_key("x-forwarded-proto")) {
        request.insert_header("X-Forwarded-Proto", HeaderValue::from_static(if client.tls { "https" } else { "http" }))?;
    }
    if !(client.trusted && request.headers.contains_key("x-forwarded-host")) {
        // The authority first, as routing does (RFC 9112 §3.2.2).
        let authority = session.req_header().uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let host = authority.or_else(|| request.headers.get(HOST).cloned());
        match host {
            Some(host) => request.insert_header("X-Forwarded-Host", host)?,
            None => drop(request.remove_header("x-forwarded-host")),
        }
    }
    Ok(())
}
