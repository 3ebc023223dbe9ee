//! What an answer says of its session: told to the ledger by the rules of the model, and turned into the client's next pin.

use std::sync::Arc;

use http::StatusCode;
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::context::{Exchange, Stay};
use super::replay::begin_anew;
use super::request_head::split_query;
use crate::model::decide::PinClaim;
use crate::model::facts::held_pin;
use crate::model::identity::{Identity, News, PinAttributes, delete_pin_cookie, identify, news, set_pin_cookie};
use crate::model::ledger::Standing;
use crate::model::pin::Pin;
use crate::model::replay::disowns;
use crate::model::settings::{PinMode, PinOn};
use crate::model::time::Time;
use crate::model::view::App;
use crate::model::visit::{Heard, PinChange, Visit};

impl Gateway {
    /// Fails, for Pingora to begin anew, when this answer is discarded.
    pub(super) fn hear_session_news(&self, session: &Session, response: &ResponseHeader, exchange: &mut Exchange) -> Result<()> {
        if exchange.claim.is_none() {
            return Ok(());
        }
        let Some(app) = exchange.app.take() else { return Ok(()) };
        let now = self.control.now();
        // Lines and path are both of the backend's side of a path mapping.
        let path = match &exchange.mapped {
            Some(mapped) => split_query(mapped).0,
            None => session.req_header().uri.path().as_bytes(),
        };
        let lines = response.headers.get_all(SET_COOKIE).iter().map(|line| line.as_bytes());
        let header = app.names.header.as_deref().and_then(|name| response.headers.get(name)).map(|value| value.as_bytes());
        let told = news(lines, header, &app.names, path, now);
        let field = |name: &str| response.headers.get(name).map(|value| value.as_bytes());
        let status = response.status.as_u16();
        let disowned = disowns(&app.settings.not_mine, status, field);
        let heard = match &told {
            News::Set(new) => Heard::Set(app.hash.key(new.id), u32::from(new.scope.0)),
            News::Deleted(deletion) => Heard::Deleted(u32::from(deletion.scope.0)),
            News::Nothing if disowned || response.status.is_server_error() => Heard::Failure,
            News::Nothing => Heard::Nothing,
        };
        // A tunnel that is open stays.
        if response.status != StatusCode::SWITCHING_PROTOCOLS && self.claim_elsewhere(session, exchange, &app, disowned, heard, now) {
            return Err(begin_anew());
        }
        let change = if exchange.ignored {
            // Pinned like everybody, counted by nobody.
            match told {
                News::Set(_) => PinChange::NewSession,
                News::Deleted(_) => PinChange::Delete,
                News::Nothing => PinChange::AsDue,
            }
        } else {
            let parts = || exchange.claim.as_ref().is_some_and(|claim| exchange.errand.parts(&claim.forward.backend, status));
            let hear = match response.status {
                StatusCode::SWITCHING_PROTOCOLS => Visit::hear_tunnel,
                _ if parts() => Visit::hear_farewell,
                _ => Visit::hear,
            };
            let former = exchange.visit.counted();
            let change = hear(&mut exchange.visit, &app.ledger, heard, now);
            if exchange.visit.counted() != former {
                // The former one, if there was one, is left by this.
                exchange.stay = Stay::of(&exchange.visit, &app.ledger, self.control.clock());
            }
            change
        };
        let change = if change == PinChange::AsDue { exchange.pin_change } else { change };
        if app.settings.session.pin == PinMode::Cookie {
            let view = self.control.snapshot();
            exchange.pin_line = pin_line(session, [&app, view.app(&app.name).unwrap_or(&app)], response, exchange, change, &told, now);
        }
        exchange.app = Some(app);
        Ok(())
    }
}

/// The line that sets or deletes the pin, if this answer is to carry one. The app as it was at the decision, and as it is
/// at present.
fn pin_line(
    session: &Session,
    [app, present]: [&App; 2],
    response: &ResponseHeader,
    exchange: &Exchange,
    change: PinChange,
    told: &News<'_>,
    now: Time,
) -> Option<String> {
    let (facts, claim) = (exchange.facts.as_ref()?, exchange.claim.as_ref()?);
    let here = matches!(facts.pin, PinClaim::Backend { slot, .. } if slot == claim.forward.backend.slot);
    let change = match change {
        PinChange::AsDue if claim.forward.stands_in => return None,
        PinChange::AsDue if facts.key.is_some() && !claim.forward.strip => {
            if here && facts.pin.signed() && !facts.refresh {
                return None;
            }
            // Bound to a name that is out of date by now, a pin would be worth nothing once its alias is forgotten.
            let found = app.ledger.find(facts.key?, now)?;
            if found.alias || !matches!(found.standing, Standing::Live { .. }) || exchange.stay.is_none() {
                return None;
            }
            PinChange::SameSession
        }
        PinChange::AsDue if app.settings.session.pin_on == PinOn::FirstResponse && !exchange.ignored && (!here || facts.refresh) => change,
        PinChange::AsDue => return None,
        other => other,
    };
    if cacheable(response) {
        return None;
    }
    let identity = identity(session, app);
    let held = held_pin(app, &identity);
    let over = if exchange.client.secure(session) { PinAttributes::OVER_TLS } else { PinAttributes::OVER_PLAIN };
    let kept = held.as_ref().map_or(over, |pin| pin.attributes());
    if change == PinChange::Delete {
        let attributes = match told {
            News::Deleted(deletion) if held.is_none() => PinAttributes::beside(&deletion.cookie, now),
            _ => kept,
        };
        return Some(delete_pin_cookie(&app.pin_cookie, &attributes));
    }
    // The attributes of the session cookie beside it, also where it is only renewed.
    let beside = match told {
        News::Set(new) => new.cookie.as_ref().map(|cookie| PinAttributes::beside(cookie, now)),
        _ => None,
    };
    let (binding, attributes) = match (change, told) {
        (PinChange::NewSession, News::Set(new)) => (app.keyring.binding(new.id), beside.unwrap_or(over)),
        (PinChange::SameSession, _) => {
            let chosen = facts.key?;
            let id = identity.ids.as_slice().iter().find(|id| app.hash.key(id) == chosen)?;
            (app.keyring.binding(id), beside.unwrap_or(kept))
        }
        _ => (None, kept),
    };
    // A pin that stays where it was keeps its issue time, and one for a session that was there is dated by the decision: where
    // ledger and pin disagree the later issued wins, and a slow answer must not outrank a later move.
    let backend = &claim.forward.backend;
    // A name that has passed to another address since the decision would mean that one from now on.
    let named = present.backend(backend.slot).filter(|present| Arc::ptr_eq(&present.live, &backend.live)).unwrap_or(backend);
    let issued = match (change, held.as_deref()) {
        (PinChange::NewSession, _) => present.issue_time(named, now),
        (_, Some(pin)) if here => pin.issued,
        _ => exchange.decided_at,
    };
    let pin = Pin { release: &backend.release, backend: &named.spec.name, binding, issued, seen: now, attributes };
    Some(set_pin_cookie(&app.pin_cookie, &app.keyring.sign(&app.name, &pin), &attributes, now))
}

/// The line that deletes the pin that a request brought, if it brought one.
pub(super) fn pin_deletion(session: &Session, app: &App) -> Option<String> {
    let held = held_pin(app, &identity(session, app)).filter(|_| app.settings.session.pin == PinMode::Cookie)?;
    Some(delete_pin_cookie(&app.pin_cookie, &held.attributes()))
}

fn identity<'a>(session: &'a Session, app: &App) -> Identity<'a> {
    let request = session.req_header();
    let cookies = request.headers.get_all(COOKIE).iter().map(|value| value.as_bytes());
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
