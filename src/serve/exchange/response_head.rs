//! What the client sees: public paths, and its pin. The application's own cookies pass as they are.

use http::header::{CACHE_CONTROL, CONTENT_LOCATION, HOST, HeaderName, HeaderValue, LOCATION, REFRESH, SET_COOKIE, TRANSFER_ENCODING};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::client::Client;
use super::context::Exchange;
use crate::model::identity::insert_prefix;
use crate::model::path_map::{PathMap, PublicSide};
use crate::model::settings::PinMode;
use crate::model::view::App;

impl Gateway {
    pub(super) fn write_response_head(&self, session: &mut Session, response: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
        if self.stop.draining() {
            session.as_downstream_mut().set_keepalive(None);
        }
        if session.req_header().version == http::Version::HTTP_10 && response.remove_header(&TRANSFER_ENCODING).is_some() {
            // It knows no chunks (RFC 9112 §6.1): the end of the connection is the end of the body.
            session.as_downstream_mut().set_keepalive(None);
        }
        let (Some(app), Some(claim)) = (&exchange.app, &exchange.claim) else { return Ok(()) };
        if app.settings.session.pin == PinMode::Prefix {
            prefix_cookies(app, response, &claim.forward.backend.spec.route)?;
        }
        if exchange.mapped.is_some()
            && let Some(path) = &claim.release.path
        {
            let public = session.req_header().uri.path().get(..exchange.prefix).unwrap_or("/");
            let map = PathMap::new(public, path);
            map_locations(&map, session, response, &exchange.client, &claim.forward.backend.spec.address.to_string())?;
            edit_values(response, &SET_COOKIE, |line| map.set_cookie_to_public(line).into_owned())?;
        }
        if let Some(line) = exchange.pin_line.take() {
            response.append_header("Set-Cookie", value(line.into_bytes())?)?;
            make_private(response)?;
        }
        if exchange.debug {
            let backend = &claim.forward.backend;
            let text = format!("{}/{} {}", backend.release, backend.spec.name, claim.forward.reason.as_str());
            response.insert_header("X-Tidegate-Decision", value(text.into_bytes())?)?;
        }
        Ok(())
    }
}

/// An answer that sets a pin is for one user.
fn make_private(response: &mut ResponseHeader) -> Result<()> {
    let has = |known: &[u8]| {
        let mut parts = response.headers.get_all(CACHE_CONTROL).iter().flat_map(|v| v.as_bytes().split(|&b| b == b','));
        parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(known))
    };
    if has(b"private") || has(b"no-store") {
        return Ok(());
    }
    response.append_header("Cache-Control", HeaderValue::from_static("private"))?;
    Ok(())
}

/// HAProxy's `backend~id` in the application's own cookies.
fn prefix_cookies(app: &App, response: &mut ResponseHeader, route: &str) -> Result<()> {
    let ours = |line: &[u8]| {
        let name = line.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
        app.names.cookies.iter().any(|known| known.as_bytes() == name)
    };
    if !response.headers.get_all(SET_COOKIE).iter().any(|line| ours(line.as_bytes())) {
        return Ok(());
    }
    edit_values(
        response,
        &SET_COOKIE,
        |line| if ours(line) { insert_prefix(line, route).unwrap_or_else(|| line.to_vec()) } else { line.to_vec() },
    )
}

fn map_locations(map: &PathMap, session: &Session, response: &mut ResponseHeader, client: &Client, backend: &str) -> Result<()> {
    let request = session.req_header();
    let host = request.headers.get(HOST).map(|value| value.as_bytes());
    let host = host.or_else(|| request.uri.authority().map(|a| a.as_str().as_bytes())).unwrap_or_default();
    let scheme: &[u8] = if client.secure(session) { b"https" } else { b"http" };
    let side = PublicSide { scheme, host, backend: backend.as_bytes() };
    for name in [&LOCATION, &CONTENT_LOCATION] {
        edit_values(response, name, |value| map.location_to_public(value, &side).into_owned())?;
    }
    edit_values(response, &REFRESH, |value| map.refresh_to_public(value, &side).into_owned())
}

/// Rewrites every value of a field, in order.
fn edit_values(response: &mut ResponseHeader, name: &HeaderName, edit: impl Fn(&[u8]) -> Vec<u8>) -> Result<()> {
    if !response.headers.contains_key(name) {
        return Ok(());
    }
    let edited: Vec<Vec<u8>> = response.headers.get_all(name).iter().map(|value| edit(value.as_bytes())).collect();
    response.remove_header(name);
    for text in edited {
        response.append_header(name, value(text)?)?;
    }
    Ok(())
}

fn value(text: Vec<u8>) -> Result<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).map_err(|e| Error::because(ErrorType::InvalidHTTPHeader, "response header", e))
}
