//! What the client sees: public paths, and its pin. The application's own cookies pass as they are.

use http::header::{CACHE_CONTROL, CONTENT_LOCATION, HOST, HeaderName, HeaderValue, LOCATION, REFRESH, SET_COOKIE, TRANSFER_ENCODING};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::client::Client;
use super::context::{Exchange, PinChange};
use super::request_head::split_query;
use crate::model::decide::PinClaim;
use crate::model::identity::{News, PinAttributes, delete_pin_cookie, identify, insert_prefix, news, set_pin_cookie};
use crate::model::path_map::{PathMap, PublicSide};
use crate::model::pin::{Pin, VerifiedPin};
use crate::model::reason::Reason;
use crate::model::settings::{PinMode, PinOn};
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
        let (Some(app), Some(claim)) = (exchange.app.clone(), &exchange.claim) else { return Ok(()) };
        let pin_cookie = match app.settings.session.pin {
            PinMode::Cookie if !exchange.ignored => self.pin_cookie(session, &app, response, exchange),
            PinMode::Prefix => {
                prefix_cookies(&app, response, &claim.forward.backend.spec.route)?;
                None
            }
            _ => None,
        };
        if exchange.mapped.is_some()
            && let Some(path) = &claim.release.path
        {
            let public = session.req_header().uri.path().get(..exchange.prefix).unwrap_or("/");
            let map = PathMap::new(public, path);
            map_locations(&map, session, response, &exchange.client, &claim.forward.backend.spec.address.to_string())?;
            edit_values(response, &SET_COOKIE, |line| map.set_cookie_to_public(line).into_owned())?;
        }
        if let Some(line) = pin_cookie {
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

    /// The line that sets or deletes the pin, if this answer is to carry one.
    fn pin_cookie(&self, session: &Session, app: &App, response: &ResponseHeader, exchange: &Exchange) -> Option<String> {
        let (facts, claim) = (exchange.facts?, exchange.claim.as_ref()?);
        let now = self.control.now();
        let at_first = app.settings.session.pin_on == PinOn::FirstResponse;
        let pinned_here = matches!(facts.pin, PinClaim::Backend { slot, .. } if slot == claim.forward.backend.slot);
        let change = match exchange.pin_change {
            PinChange::AsDue if exchange.reason == Some(Reason::StandIn) => return None,
            PinChange::AsDue if facts.key.is_some() && !claim.forward.strip => {
                let bound = pinned_here && facts.pin.signed();
                if exchange.stay.is_none() || (bound && !facts.refresh) {
                    return None;
                }
                PinChange::SameSession
            }
            PinChange::AsDue if at_first && (!pinned_here || facts.refresh) => PinChange::AsDue,
            PinChange::AsDue => return None,
            other => other,
        };
        if cacheable(response) {
            return None;
        }
        let held = held_pin(session, app);
        let over = if exchange.client.secure(session) { PinAttributes::OVER_TLS } else { PinAttributes::OVER_PLAIN };
        let name = &*app.pin_cookie;
        let lines = || response.headers.get_all(SET_COOKIE).iter().map(|line| line.as_bytes());
        let header = app.names.header.as_deref().and_then(|name| response.headers.get(name)).map(|value| value.as_bytes());
        let request = session.req_header();
        let path = exchange.mapped.as_deref().map_or(request.uri.path().as_bytes(), |mapped| split_query(mapped).0);
        let told = news(lines(), header, &app.names, path, now);
        if change == PinChange::Delete {
            let attributes = match (&held, &told) {
                (Some(pin), _) => pin.attributes(),
                (None, News::Deleted(deletion)) => PinAttributes::beside(&deletion.cookie, now),
                _ => over,
            };
            return Some(delete_pin_cookie(name, &attributes));
        }
        let (binding, attributes) = match (change, &told) {
            (PinChange::NewSession, News::Set(new)) => {
                let attributes = new.cookie.as_ref().map_or(over, |cookie| PinAttributes::beside(cookie, now));
                (app.keyring.binding(new.id), attributes)
            }
            (PinChange::SameSession, _) => {
                let attributes = held.as_ref().map_or(over, VerifiedPin::attributes);
                (request_id_binding(session, app, exchange), attributes)
            }
            _ => (None, held.as_ref().map_or(over, VerifiedPin::attributes)),
        };
        // A pin that stays where it was keeps its issue time: where ledger and pin disagree, the later issued wins.
        let stays = pinned_here && change != PinChange::NewSession;
        let issued = held.filter(|_| stays).map_or(now, |pin| pin.issued);
        let backend = &claim.forward.backend;
        let pin = Pin { release: &backend.release, backend: &backend.spec.name, binding, issued, seen: now, attributes };
        let text = app.keyring.sign(&app.name, &pin);
        Some(set_pin_cookie(name, &text, &attributes, now))
    }
}

/// The latest valid pin that the request carries.
fn held_pin(session: &Session, app: &App) -> Option<VerifiedPin> {
    let identity = identity(session, app);
    let pins = identity.pins.as_slice().iter().filter_map(|value| app.keyring.verify(&app.name, value).ok());
    pins.max_by_key(|pin| (pin.issued, pin.seen))
}

/// The binding of the id that the request carries; of several, the one that the facts chose.
fn request_id_binding(session: &Session, app: &App, exchange: &Exchange) -> Option<[u8; 16]> {
    let chosen = exchange.facts?.key?;
    let ids = identity(session, app).ids;
    let id = ids.as_slice().iter().find(|id| app.hash.key(id) == chosen)?;
    app.keyring.binding(id)
}

fn identity<'a>(session: &'a Session, app: &App) -> crate::model::identity::Identity<'a> {
    let request = session.req_header();
    let cookies = request.headers.get_all(http::header::COOKIE).iter().map(|value| value.as_bytes());
    let header = |name: &str| request.headers.get(name).map(|value| value.as_bytes());
    let (path, query) = (request.uri.path().as_bytes(), request.uri.query().map(str::as_bytes));
    identify(&app.names, Some(&app.pin_cookie), cookies, header, path, query)
}

/// Answers that caches may share must not carry anybody's pin (RFC 9111 §3.5, §5.2.2; RFC 8246).
fn cacheable(response: &ResponseHeader) -> bool {
    let mut directives = response.headers.get_all(CACHE_CONTROL).iter().flat_map(|v| v.as_bytes().split(|&b| b == b','));
    directives.any(|directive| {
        let name = directive.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
        [b"public".as_slice(), b"s-maxage", b"immutable"].iter().any(|known| name.eq_ignore_ascii_case(known))
    })
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
