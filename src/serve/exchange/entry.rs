//! How an exchange gets in: the facts are read once, a decision is taken, and its backend is claimed. Deciding and claiming
//! are one step: the gate is entered first and the session counted after, so a fence that closes in between sees us.

use std::cell::Cell;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, COOKIE, USER_AGENT};
use pingora_core::Result;
use pingora_proxy::Session;

use super::Gateway;
use super::client::{Client, host};
use super::context::{Claim, Exchange, RequestId, Stay};
use super::patience::{Patience, QueueTurn};
use super::request_head::unburden;
use crate::model::backend::Backend;
use crate::model::balance::mix;
use crate::model::decide::{Decision, Footing, Forward, PinClaim, Question, decide};
use crate::model::facts::Facts;
use crate::model::gate::{ClaimError, InFlight};
use crate::model::ledger::Attention;
use crate::model::path_map;
use crate::model::reason::Reason;
use crate::model::replay::Errand;
use crate::model::routes::under;
use crate::model::settings::Ignore;
use crate::model::time::Time;
use crate::model::view::App;
use crate::model::visit::Visit;

/// A claim fails when a gate closes between decision and claim. Each failure needs another change of state in that
/// instant, so a handful of attempts is for ever.
const CLAIMS: usize = 8;

/// A gate that was passed.
pub(super) struct Inside {
    pub(super) in_flight: InFlight,
    pub(super) turn: Option<QueueTurn>,
    /// When.
    pub(super) now: Time,
}

impl Gateway {
    /// Reads the request: everything that can be known of it before a decision.
    pub(super) fn read(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Result<(), Reason>> {
        unburden(session.req_header_mut())?;
        exchange.client = Client::of(session, &self.trusted);
        exchange.request_id = request_id(session.req_header(), exchange.client.trusted);
        let view = self.control.snapshot();
        let request = session.req_header();
        let Some((app, prefix)) = view.route(host(session), request.uri.path()) else {
            return Ok(Err(Reason::NoApp));
        };
        let (app, prefix) = (Arc::clone(app), prefix.len());
        drop(view);
        exchange.prefix = prefix;
        exchange.max_body = app.settings.limits.max_body;
        exchange.ignored = ignored(&app.settings.session.ignore, exchange, request);
        exchange.debug = exchange.client.trusted && request.headers.get("x-tidegate-debug").is_some_and(|v| v == "1");
        if let Some(max) = exchange.max_body {
            let length = request.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
            if length.is_some_and(|length| length > max) {
                exchange.app = Some(app);
                return Ok(Err(Reason::BodyTooLarge));
            }
        }
        let now = self.control.now();
        exchange.decided_at = now;
        exchange.facts = Some(read_facts(&app, session, now));
        let request = session.req_header();
        exchange.errand = Errand::of(&request.method, request.uri.path(), &app.settings.drain);
        // Pingora has none of its own: a client that stops reading would hold its backend and its session for ever.
        session.as_downstream_mut().set_write_timeout(Some(app.settings.timeouts.write));
        exchange.app = Some(app);
        Ok(Ok(()))
    }

    /// Decides and claims where nothing has to be waited for and nothing was tried before: nearly always. `None` means that
    /// [`Gateway::claim`] must do it, whose future is too large to be carried along by every request.
    pub(super) fn claim_at_once(&self, session: &Session, exchange: &mut Exchange) -> Option<Result<(), Reason>> {
        let app = exchange.app.take()?;
        let question = question(exchange, exchange.facts.as_ref()?);
        let claimed = match decide(&app, &question) {
            Decision::Forward(forward) if forward.backend.max_connections.is_none() => {
                let in_flight = forward.backend.live.gate.claim(forward.need, None).ok();
                in_flight.map(|in_flight| {
                    self.entered(session, exchange, &app, forward, Inside { in_flight, turn: None, now: exchange.decided_at })
                })
            }
            _ => None,
        };
        exchange.app = Some(app);
        claimed
    }

    /// Whether it carries an id that only the other process of an upgrade may know, and nothing else says where it belongs.
    pub(super) fn may_be_known_elsewhere(&self, exchange: &Exchange) -> bool {
        self.control.overlap.is_asking()
            && exchange
                .facts
                .as_ref()
                .is_some_and(|facts| facts.key.is_some() && facts.session.is_none() && matches!(facts.pin, PinClaim::None))
    }

    /// Asks there first.
    pub(super) async fn claim_after_asking(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Result<(), Reason>> {
        self.control.overlap.catch_up().await;
        self.claim_again(session, exchange).await
    }

    /// Decides anew after the backend of the former claim could not be reached.
    pub(super) async fn claim_again(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Result<(), Reason>> {
        exchange.claim = None;
        exchange.stay = None;
        exchange.mapped = None;
        if let Some(app) = exchange.app.clone() {
            // Of an app that is gone, what was known of it still serves this exchange.
            self.look_again(session, exchange, &app);
        }
        self.claim(session, exchange).await
    }

    /// Decides and claims, waiting where that is asked for. The inner error is a refusal, the outer one a client that has gone.
    pub(super) async fn claim(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Result<(), Reason>> {
        let (Some(mut app), Some(mut facts)) = (exchange.app.clone(), exchange.facts) else { return Ok(Err(Reason::NoApp)) };
        let tried = exchange.tried;
        // The first full backend that a new client met since it last waited, and its place in the crowd.
        let (mut full, mut crowd) = (None, None);
        let mut claims = 0..CLAIMS;
        while claims.next().is_some() {
            let question = question(exchange, &facts);
            let decision = decide(&app, &question);
            if let Some(backend) = self.full_for(&app, &decision, &mut full, crowd.is_some()) {
                let Some(place) = crowd.take().or_else(|| self.queues.join_crowd(&app, &backend)) else {
                    return Ok(Err(Reason::QueueFull));
                };
                if !Patience::of(session).until_first(session, &place, app.settings.limits.queue_timeout).await? {
                    return Ok(Err(Reason::QueueTimeout));
                }
                crowd = Some(place);
                exchange.tried = tried;
                claims = 0..CLAIMS;
                let Some(anew) = self.look_again(session, exchange, &app) else { return Ok(Err(Reason::NoApp)) };
                (app, facts) = anew;
                continue;
            }
            let forward = match decision {
                Decision::Forward(forward) => forward,
                Decision::Refuse(reason, pin) => {
                    exchange.pin = pin;
                    app.tally.pinned(pin);
                    return Ok(Err(reason));
                }
                Decision::Wait(backend, longest) => {
                    exchange.waited = true;
                    Patience::of(session).until_admitted(session, &backend, longest).await?;
                    let Some(anew) = self.look_again(session, exchange, &app) else { return Ok(Err(Reason::NoApp)) };
                    (app, facts) = anew;
                    continue;
                }
            };
            // Whoever waits comes first.
            let claimed = match self.queues.is_awaited(&app, &forward.backend) {
                false => forward.backend.live.gate.claim(forward.need, forward.backend.max_connections),
                true => Err(ClaimError::Full),
            };
            match claimed {
                Ok(in_flight) => {
                    let turn = self.queues.turn(&app, &forward.backend);
                    return Ok(self.entered(session, exchange, &app, forward, Inside { in_flight, turn, now: self.control.now() }));
                }
                Err(ClaimError::Full) if forward.footing == Footing::New && exchange.tried.add(forward.backend.slot) => {
                    full.get_or_insert(forward.backend);
                }
                Err(ClaimError::Full) => match self.queue(session, exchange, &app, forward).await? {
                    Some(entered) => return Ok(entered),
                    None => {
                        let Some(anew) = self.look_again(session, exchange, &app) else { return Ok(Err(Reason::NoApp)) };
                        (app, facts) = anew;
                    }
                },
                Err(ClaimError::Closed) => {
                    let view = self.control.view();
                    let Some(fresh) = view.app(&app.name) else { return Ok(Err(Reason::NoApp)) };
                    app = Arc::clone(fresh);
                    facts = read_facts(&app, session, exchange.decided_at);
                    exchange.app = Some(Arc::clone(&app));
                    exchange.facts = Some(facts);
                }
            }
        }
        Ok(Err(Reason::NoBackend))
    }

    /// Much may have happened while it waited: to the app, and to this session. `None`: the app is gone.
    fn look_again(&self, session: &Session, exchange: &mut Exchange, app: &App) -> Option<(Arc<App>, Facts)> {
        let app = self.control.view().app(&app.name).cloned()?;
        exchange.decided_at = self.control.now();
        let facts = read_facts(&app, session, exchange.decided_at);
        exchange.app = Some(Arc::clone(&app));
        exchange.facts = Some(facts);
        Some((app, facts))
    }

    /// The backend that a new client is to wait for, because all are full or others wait already.
    fn full_for(&self, app: &App, decision: &Decision, full: &mut Option<Arc<Backend>>, is_waiting: bool) -> Option<Arc<Backend>> {
        match decision {
            decision if is_last_resort(decision) => full.take(),
            Decision::Forward(forward) if forward.footing == Footing::New && forward.backend.max_connections.is_some() && !is_waiting => {
                self.queues.crowded(app).then(|| Arc::clone(&forward.backend))
            }
            _ => None,
        }
    }

    /// A full backend keeps its own sessions waiting, in order. `None` means: decide again.
    async fn queue(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        app: &Arc<App>,
        forward: Forward,
    ) -> Result<Option<Result<(), Reason>>> {
        let limits = &app.settings.limits;
        let Some(place) = self.queues.join(app, &forward.backend) else { return Ok(Some(Err(Reason::QueueFull))) };
        let claim = || forward.backend.live.gate.claim(forward.need, forward.backend.max_connections);
        let waited = Patience::of(session).in_queue(session, &place, limits.queue_timeout, claim).await?;
        drop(place);
        match waited {
            Some(Ok(in_flight)) => {
                let turn = self.queues.turn(app, &forward.backend);
                Ok(Some(self.entered(session, exchange, app, forward, Inside { in_flight, turn, now: self.control.now() })))
            }
            Some(Err(_)) => Ok(None),
            None => Ok(Some(Err(Reason::QueueTimeout))),
        }
    }

    /// The gate is passed: the session's open exchange is counted.
    pub(super) fn entered(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        app: &Arc<App>,
        forward: Forward,
        inside: Inside,
    ) -> Result<(), Reason> {
        let Some(release) = app.release(&forward.backend.release).cloned() else { return Err(Reason::NoBackend) };
        if let Some(path) = &release.path {
            let request = session.req_header();
            let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
            let public = target.get(..exchange.prefix).unwrap_or("/");
            if public != &**path {
                match path_map::PathMap::new(public, path).to_backend(target.as_bytes()) {
                    Ok(mapped) => exchange.mapped = Some(mapped.into_owned().into_boxed_slice()),
                    Err(_) => return Err(Reason::BadPath),
                }
            }
        }
        exchange.reason = Some(forward.reason);
        exchange.pin = forward.pin;
        if let Some(facts) = exchange.facts.as_ref().filter(|_| !exchange.ignored) {
            let attention = attention(app, session.req_header().uri.path());
            (exchange.visit, exchange.pin_change) = Visit::begin(&app.ledger, facts, &forward, attention, exchange.decided_at, inside.now);
            exchange.stay = Stay::of(&exchange.visit, &app.ledger, self.control.clock());
        }
        exchange.claim = Some(Claim::new(forward, release, inside.in_flight, inside.turn));
        Ok(())
    }
}

pub(super) fn question<'a>(exchange: &'a Exchange, facts: &Facts) -> Question<'a> {
    Question {
        now: exchange.decided_at,
        has_id: facts.key.is_some(),
        session: facts.session,
        pin: facts.pin,
        tried: exchange.tried.as_slice(),
        waited: exchange.waited,
        errand: exchange.errand,
        disowned: exchange.disowned,
        dice: dice(),
        client: exchange.client.hash(),
    }
}

/// Whether a decision is for a time without healthy backends. Full ones are healthy: a new client waits for them, and opens no
/// session on a draining or a backup backend because of a rush.
fn is_last_resort(decision: &Decision) -> bool {
    match decision {
        Decision::Forward(forward) => matches!(forward.reason, Reason::AllDraining | Reason::Backup),
        Decision::Refuse(reason, _) => *reason == Reason::NoBackend,
        Decision::Wait(..) => false,
    }
}

/// Reads what a request says of itself.
pub(super) fn read_facts(app: &App, session: &Session, now: crate::model::time::Time) -> Facts {
    let request = session.req_header();
    let cookies = request.headers.get_all(COOKIE).iter().map(|value| value.as_bytes());
    let header = |name: &str| request.headers.get(name).map(|value| value.as_bytes());
    Facts::read(app, cookies, header, request.uri.path().as_bytes(), request.uri.query().map(str::as_bytes), now)
}

/// A trusted proxy's id, or a new one of 32 hexadecimal digits.
fn request_id(request: &pingora_http::RequestHeader, trusted: bool) -> RequestId {
    if trusted && let Some(id) = request.headers.get("x-request-id").filter(|id| id.len() <= 128) {
        return RequestId::Kept(id.clone());
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(dice()) << 64) | u128::from(dice());
    RequestId::Made(std::array::from_fn(|i| DIGITS.get(((bits >> (4 * (31 - i))) & 15) as usize).copied().unwrap_or(b'0')))
}

fn attention(app: &App, path: &str) -> Attention {
    let background = app.settings.session.background_paths.iter().any(|prefix| under(prefix, path));
    if background { Attention::Background } else { Attention::Foreground }
}

fn ignored(ignore: &Ignore, exchange: &Exchange, request: &pingora_http::RequestHeader) -> bool {
    if ignore.clients.iter().any(|net| net.contains(&exchange.client.address)) {
        return true;
    }
    if ignore.user_agents.is_empty() {
        return false;
    }
    let agent = request.headers.get(USER_AGENT).map(|value| value.as_bytes()).unwrap_or_default();
    ignore.user_agents.iter().any(|pattern| matches(pattern.as_bytes(), agent))
}

/// Whether `text` fits a pattern in which `*` stands for anything. Only the last star is ever tried again, so the work is
/// bounded by the product of both lengths, whatever a client sends.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(octet) if text.get(t) == Some(octet) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|octet| *octet == b'*'))
}

thread_local! {
    static DICE: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy the dice still roll; only their order could be guessed, and nothing secret depends on it.
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => std::process::id().into(),
    }
}

/// Random bits for balancing and request ids; not for secrets.
pub(super) fn dice() -> u64 {
    DICE.with(|state| {
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(state.get())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let check =
            |pattern: &str, text: &str, expected| assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        check("kube-probe/*", "kube-probe/1.29", true);
        check("kube-probe/*", "Mozilla kube-probe/1.29", false);
        check("*bot*", "Googlebot/2.1", true);
        check("*bot*", "Mozilla", false);
        check("*", "", true);
        check("curl", "curl", true);
        check("curl", "curl/8", false);
        check("*a*a*b", &"a".repeat(8192), false);
        check("a*b*c", "axxbxxbc", true);
        check("", "", true);
        check("", "x", false);
    }
}
