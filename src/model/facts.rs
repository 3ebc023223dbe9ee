//! What a request says of itself, read once: which session it carries and where its pin, in whichever of the four ways,
//! says it belongs. Reading changes nothing; whether any of it is followed is for `decide`.

use super::decide::PinClaim;
use super::identity::{Carrier, Identity, identify, route_suffix, split_prefix};
use super::ledger::{Found, Standing};
use super::pin::{KnownPin, VerifiedPin};
use super::reason::PinResult;
use super::session_key::SessionKey;
use super::settings::PinMode;
use super::time::Time;
use super::view::App;

/// What a request says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The key of the session id it carries; of several, the one that lives.
    pub key: Option<SessionKey>,
    /// What carried the id.
    pub carrier: Option<Carrier>,
    /// What the ledger knows of it.
    pub session: Option<Found>,
    /// Where it says it belongs.
    pub pin: PinClaim,
    /// Whether its pin cookie should be written anew: an old key signed it, or its last-seen is old.
    pub refresh: bool,
}

impl Facts {
    /// Reads a request's cookies, path and query; `header` looks up the session header and is asked only if the app has one.
    pub fn read<'a>(
        app: &App,
        cookies: impl IntoIterator<Item = &'a [u8]>,
        header: impl FnOnce(&str) -> Option<&'a [u8]>,
        path: &'a [u8],
        query: Option<&'a [u8]>,
        now: Time,
    ) -> Facts {
        let mode = app.settings.session.pin;
        let pin_cookie = (mode == PinMode::Cookie).then_some(&*app.pin_cookie);
        let identity = identify(&app.names, pin_cookie, cookies, header, path, query);
        let (verified, fault) = verify(app, &identity);
        let chosen = choose(app, &identity, verified.as_deref(), now);
        let mut facts = Facts {
            key: chosen.map(|c| c.key),
            carrier: identity.carrier,
            session: chosen.and_then(|c| c.session),
            pin: PinClaim::None,
            refresh: false,
        };
        facts.pin = match mode {
            PinMode::Learn => PinClaim::None,
            PinMode::Route => chosen.and_then(|c| route_suffix(c.id)).map_or(PinClaim::None, |route| by_route(app, route)),
            PinMode::Prefix => chosen.and_then(|c| c.route).map_or(PinClaim::None, |route| by_route(app, route)),
            PinMode::Cookie => match verified {
                Some(pin) => {
                    facts.refresh = pin.needs_refresh(now, app.settings.session.idle_timeout);
                    by_cookie(app, &pin, chosen)
                }
                None => fault.map_or(PinClaim::None, PinClaim::Fault),
            },
        };
        facts
    }
}

/// One id of a request.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    id: &'a [u8],
    route: Option<&'a [u8]>,
    key: SessionKey,
    session: Option<Found>,
}

/// Of several ids the first that lives; else the one the pin is bound to; else the first. Duplicates happen when the
/// application moved its cookie to another Path, and the client sends both.
fn choose<'a>(app: &App, identity: &Identity<'a>, pin: Option<&VerifiedPin>, now: Time) -> Option<Candidate<'a>> {
    let mut best: Option<Candidate<'a>> = None;
    let several = identity.ids.as_slice().len() > 1;
    for value in identity.ids.as_slice() {
        let (route, id) = match app.settings.session.pin {
            PinMode::Prefix => known_prefix(app, value),
            _ => (None, *value),
        };
        let key = app.hash.key(id);
        let candidate = Candidate { id, route, key, session: app.ledger.find(key, now) };
        let live = candidate.session.is_some_and(|found| matches!(found.standing, Standing::Live { .. }));
        if live {
            return Some(candidate);
        }
        let bound = || several && pin.is_some_and(|pin| app.keyring.is_bound(pin, id));
        if best.is_none() || bound() {
            best = Some(candidate);
        }
    }
    best
}

/// An id without HAProxy's prefix, if it has one that names a backend. Others stay whole: they came before us.
pub fn known_prefix<'a>(app: &App, value: &'a [u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    match split_prefix(value) {
        Some((route, id)) if route_slot(app, route).is_some() => (Some(route), id),
        _ => (None, value),
    }
}

/// The slot of a route.
pub fn route_slot(app: &App, route: &[u8]) -> Option<u32> {
    app.by_route.get(std::str::from_utf8(route).ok()?).copied()
}

fn by_route(app: &App, route: &[u8]) -> PinClaim {
    match route_slot(app, route) {
        Some(slot) => PinClaim::Backend { slot, issued: None, seen: None, bound: true },
        None => PinClaim::Fault(PinResult::Unknown),
    }
}

/// The pin cookie that the facts were read from, for an answer that writes it anew.
pub fn held_pin(app: &App, identity: &Identity<'_>) -> Option<KnownPin> {
    verify(app, identity).0
}

/// Of several pins the one that speaks of an id of this request, else one from before there was a session; of equals the
/// latest issued. Several happen when the application set its cookie for several domains.
fn verify(app: &App, identity: &Identity<'_>) -> (Option<KnownPin>, Option<PinResult>) {
    let several = identity.pins.as_slice().len() > 1;
    let bound = |pin: &VerifiedPin| identity.ids.as_slice().iter().any(|id| app.keyring.is_bound(pin, id));
    let rank = |pin: &VerifiedPin| (several && bound(pin), pin.binding.is_none(), pin.issued, pin.seen);
    let (mut best, mut fault) = (None::<KnownPin>, None);
    for value in identity.pins.as_slice() {
        match app.keyring.recall(&app.name, value) {
            Ok(pin) if best.as_ref().is_none_or(|held| rank(&pin) > rank(held)) => best = Some(pin),
            Ok(_) => {}
            Err(wrong) => fault = Some(wrong.result()),
        }
    }
    (best, fault)
}

fn by_cookie(app: &App, pin: &KnownPin, chosen: Option<Candidate<'_>>) -> PinClaim {
    let bound = match (pin.binding, chosen) {
        (None, _) => false,
        (Some(_), Some(Candidate { id, key, .. })) if pin.is_bound_to(key, |pin| app.keyring.is_bound(pin, id)) => true,
        // Bound to a session that this request does not carry: once a session exists, such a pin is none.
        (Some(_), _) => return PinClaim::None,
    };
    let known_at = chosen.and_then(|c| c.session).map(|found| found.slot);
    match app.pinned_slot(pin.release(), pin.backend(), pin.issued, known_at) {
        Some(slot) => PinClaim::Backend { slot, issued: Some(pin.issued), seen: Some(pin.seen), bound },
        None => PinClaim::Fault(PinResult::Unknown),
    }
}

#[cfg(test)]
mod tables;
