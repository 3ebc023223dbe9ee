//! Where a request goes: one pure function (DESIGN.md §5).
//!
//! `decide` answers for whatever a client or backend can cause; it never fails. It reads the gates and counts behind the
//! snapshot, so its answer holds for the moment; the claim that follows checks the admission again, and a request whose
//! claim fails is decided anew.

use std::sync::Arc;
use std::time::Duration;

use super::admission::{Admission, Health, Intent, ReleaseState};
use super::backend::Backend;
use super::balance::Draw;
use super::ledger::{EndReason, Found, Standing};
use super::reason::{PinResult, Reason};
use super::replay::Errand;
use super::settings::{Failover, PinMode, WhenAllDraining};
use super::time::Time;
use super::view::App;

/// How long after one request of an evicted user was told so, another one counts as sent before: the time in which a browser
/// acts on an answer.
const WORD_SPREADS: Duration = Duration::from_secs(1);

/// All that a decision depends on besides the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The present.
    pub now: Time,
    /// Whether the request carries a session id.
    pub has_id: bool,
    /// What the ledger knows of that id.
    pub session: Option<Found>,
    /// What the request says of where it belongs.
    pub pin: PinClaim,
    /// Slots whose connect failed for this request.
    pub tried: &'a [u32],
    /// Whether `failover_wait` has been waited.
    pub waited: bool,
    /// What it is about, as far as a drain asks.
    pub errand: Errand,
    /// Whether the backend that it was sent to before has disowned its session: the request is to be replayed.
    pub disowned: bool,
    /// Random bits.
    pub dice: u64,
    /// Stable hash of the client's address.
    pub client: u64,
}

/// What a request's pin says, whichever of the four ways carried it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinClaim {
    /// There is none, or it is bound to another session id.
    #[default]
    None,
    /// It cannot be used: forged, or naming what does not exist.
    Fault(PinResult),
    /// It names a backend.
    Backend {
        /// The backend.
        slot: u32,
        /// When the pin was issued; only a signed pin knows.
        issued: Option<Time>,
        /// When the session was last seen, to within idle_timeout/10; only a signed pin knows.
        seen: Option<Time>,
        /// Whether it is bound to the id that the request carries.
        bound: bool,
    },
}

impl PinClaim {
    /// Whether it proves that we ourselves pinned this session here.
    pub fn signed(&self) -> bool {
        matches!(self, PinClaim::Backend { issued: Some(_), bound: true, .. })
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum Decision {
    /// To this backend.
    Forward(Forward),
    /// Its backend is down: ask again after this long, or as soon as the backend is back.
    Wait(Arc<Backend>, Duration),
    /// Nowhere.
    Refuse(Reason, PinResult),
}

/// A way to a backend.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where to.
    pub backend: Arc<Backend>,
    /// What its gate must admit for the claim to hold.
    pub need: Admission,
    /// Why.
    pub reason: Reason,
    /// What became of the pin.
    pub pin: PinResult,
    /// Whether the dead session id is taken out of the request: its user is moved.
    pub strip: bool,
    /// How the request's session stands with this backend.
    pub footing: Footing,
    /// Whether it stands in for a backend that is down: the session stays where it is.
    pub stands_in: bool,
}

/// How the request's session stands with the backend it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footing {
    /// No session: the client is new there.
    New,
    /// Live in the ledger.
    Live,
    /// Not live in the ledger, but the application may know it.
    Unknown,
}

/// What the belongings of a client are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Live,
    Unknown,
    Expired,
    /// Of a life of its backend's process that is over, as is proven.
    Lost,
    Evicted,
    Anonymous,
}

/// Decides where a request of `app` goes.
pub fn decide(app: &App, q: &Question<'_>) -> Decision {
    let (belongs, pin) = belonging(app, q);
    if q.disowned {
        return disowned(app, q, belongs);
    }
    let Some((slot, claim)) = belongs else {
        return newcomer(app, q, Reason::New, pin, false);
    };
    if claim == Claim::Evicted && q.errand.writes() && owed_word(app, q) {
        return Decision::Refuse(Reason::Evicted, PinResult::Overridden);
    }
    let Some(backend) = app.backend(slot) else {
        return match claim {
            Claim::Anonymous => newcomer(app, q, Reason::New, PinResult::Lost, false),
            _ => dead(app, q, None, PinResult::Lost),
        };
    };
    let gate = backend.live.gate.read();
    let reachable = gate.admission() >= Admission::KnownSessions && !given_up(q, slot);
    let forward = |reason, footing| {
        // An anonymous client has nothing to lose: it enters only where everybody may, also if that changes before its claim.
        let need = if footing == Footing::New { Admission::Everyone } else { Admission::KnownSessions };
        Decision::Forward(Forward { backend: Arc::clone(backend), need, reason, pin, strip: false, footing, stands_in: false })
    };
    if q.errand == Errand::Arrival
        && matches!(claim, Claim::Live | Claim::Unknown | Claim::Expired)
        && reachable
        && backend.emptying()
        && let moved @ Decision::Forward(Forward { reason: Reason::MovePoint, .. }) =
            renewed(app, q, Some(backend), Some(Reason::MovePoint), pin)
    {
        return moved;
    }
    match claim {
        Claim::Evicted => dead(app, q, Some(backend), PinResult::Overridden),
        Claim::Lost => dead(app, q, Some(backend), PinResult::Lost),
        Claim::Live if reachable => forward(Reason::Pinned, Footing::Live),
        Claim::Unknown if reachable => forward(Reason::Returned, Footing::Unknown),
        // The ledger never overrules the application, except where the user would make a new session on a backend that is to
        // become empty, while somebody else takes new ones.
        Claim::Expired if reachable && backend.emptying() => match dead(app, q, Some(backend), PinResult::Expired) {
            Decision::Forward(elsewhere) if elsewhere.need < Admission::Everyone => forward(Reason::Returned, Footing::Unknown),
            moved => moved,
        },
        Claim::Expired if reachable => forward(Reason::Returned, Footing::Unknown),
        Claim::Expired => dead(app, q, Some(backend), PinResult::Expired),
        Claim::Anonymous if reachable && gate.admission() == Admission::Everyone => forward(Reason::Anonymous, Footing::New),
        Claim::Anonymous => {
            let pin = match gate {
                _ if gate.fenced || gate.state.gone() => PinResult::Lost,
                _ if !reachable && gate.state != ReleaseState::Staged => PinResult::Down,
                _ => PinResult::Overridden,
            };
            newcomer(app, q, Reason::New, pin, false)
        }
        // Nothing is known to live on a staged release: whatever names it is stale or invented.
        Claim::Live | Claim::Unknown if gate.state == ReleaseState::Staged => dead(app, q, None, PinResult::Unknown),
        Claim::Live | Claim::Unknown if gate.fenced || gate.state.gone() => dead(app, q, Some(backend), PinResult::Lost),
        Claim::Live | Claim::Unknown => absent(app, q, backend, claim),
    }
}

/// Whether this request tried that backend often enough: once, and once more after it waited for it.
fn given_up(q: &Question<'_>, slot: u32) -> bool {
    q.tried.iter().filter(|&&tried| tried == slot).count() > usize::from(q.waited)
}

/// The backend that the client belongs to, what that is worth, and what became of its pin.
fn belonging(app: &App, q: &Question<'_>) -> (Option<(u32, Claim)>, PinResult) {
    let (pin, none) = match q.pin {
        PinClaim::None => (None, PinResult::None),
        PinClaim::Fault(result) => (None, result),
        PinClaim::Backend { slot, issued, seen, bound } => (Some((slot, issued, seen, bound)), PinResult::Valid),
    };
    let Some(found) = q.session else {
        let Some((slot, issued, seen, bound)) = pin else { return (None, none) };
        if !q.has_id {
            return (Some((slot, Claim::Anonymous)), PinResult::Valid);
        }
        let expired = bound && seen.is_some_and(|seen| silent(app, q, seen));
        let restart = app.backend(slot).and_then(|backend| backend.live.lives.restart());
        if bound && restart.is_some_and(|restart| issued.is_some_and(|at| restart.outdates(at))) {
            return (Some((slot, Claim::Lost)), PinResult::Lost);
        }
        let claim = if expired { Claim::Expired } else { Claim::Unknown };
        return (Some((slot, claim)), if expired { PinResult::Expired } else { PinResult::Valid });
    };
    // Where ledger and pin disagree, the later issued wins. Only a signed pin has a time.
    let newer = pin
        .filter(|&(slot, issued, _, bound)| bound && slot != found.slot && issued.is_some_and(|at| at.as_secs() > found.pinned.as_secs()));
    let agrees = match pin {
        None => none,
        Some((slot, ..)) if slot == found.slot => PinResult::Valid,
        Some(_) => PinResult::Overridden,
    };
    let restart = app.backend(found.slot).and_then(|backend| backend.live.lives.restart());
    if newer.is_none() && restart.is_some_and(|restart| restart.took(&found)) {
        return (Some((found.slot, Claim::Lost)), PinResult::Lost);
    }
    match found.standing {
        Standing::Live { .. } => match newer {
            Some((slot, ..)) => (Some((slot, Claim::Live)), PinResult::Valid),
            None => (Some((found.slot, Claim::Live)), agrees),
        },
        Standing::Candidate => match pin.filter(|&(_, issued, _, bound)| bound && issued.is_some()) {
            Some((slot, ..)) => (Some((slot, Claim::Unknown)), PinResult::Valid),
            None => (Some((found.slot, Claim::Unknown)), agrees),
        },
        Standing::Ended(reason) => {
            if let Some((slot, ..)) = newer {
                return (Some((slot, Claim::Unknown)), PinResult::Valid);
            }
            let claim = match reason {
                // It was silent here alone. A pin is rewritten wherever its client goes: another proxy has seen it since.
                EndReason::Idle | EndReason::Unconfirmed
                    if pin.is_some_and(|(slot, _, seen, bound)| bound && slot == found.slot && seen_since(app, q, &found, seen)) =>
                {
                    Claim::Unknown
                }
                // It left the count because its client was slow to come back; the application still has it.
                EndReason::Unconfirmed if q.now.since(found.seen) <= app.settings.session.idle_timeout => Claim::Unknown,
                EndReason::Evicted => Claim::Evicted,
                _ => Claim::Expired,
            };
            (Some((found.slot, claim)), agrees)
        }
    }
}

/// Whether a session that a pin has seen at that time has been silent for too long since. A pin's last-seen lags by up to a tenth of
/// the timeout, because it is rewritten no more often.
fn silent(app: &App, q: &Question<'_>, seen: Time) -> bool {
    let idle = app.settings.session.idle_timeout;
    q.now.since(seen) > idle + idle / 10
}

/// Whether a pin's last-seen is later than all that the ledger has of the session, and recent. Pins keep whole seconds.
fn seen_since(app: &App, q: &Question<'_>, found: &Found, seen: Option<Time>) -> bool {
    seen.is_some_and(|seen| seen.as_secs() > found.seen.as_secs() && !silent(app, q, seen))
}

/// The backend of a session that may well live is not to be reached: `failover` says what happens.
fn absent(app: &App, q: &Question<'_>, home: &Arc<Backend>, claim: Claim) -> Decision {
    let settings = &app.settings;
    // Who is being maintained does not come back within seconds.
    if !q.waited && !settings.failover_wait.is_zero() && home.live.gate.read().intent != Intent::Maintain {
        return Decision::Wait(Arc::clone(home), settings.failover_wait);
    }
    let reason = match settings.failover {
        Failover::Off => return Decision::Refuse(Reason::BackendDown, PinResult::Down),
        Failover::Temporary => Reason::StandIn,
        Failover::Repin => Reason::Repinned,
    };
    let footing = if claim == Claim::Live { Footing::Live } else { Footing::Unknown };
    let stands_in = settings.failover == Failover::Temporary;
    let forward = |backend: &Arc<Backend>, need| {
        Decision::Forward(Forward { backend: Arc::clone(backend), need, reason, pin: PinResult::Down, strip: false, footing, stands_in })
    };
    if let Some(release) = app.release(&home.release) {
        let draw = draw(app, q);
        // The same stand-in for all requests of a user, or each of them would make a session somewhere else.
        let guest = Draw { dice: q.client, ..draw };
        let chosen =
            if stands_in { release.pool.any(Admission::Everyone, &guest, |_| true) } else { release.pool.choose(settings.balance, &draw) };
        if let Some(backend) = chosen {
            return forward(backend, Admission::Everyone);
        }
        // Same release first, also while it drains: its memory may be shared, and its code understands the cookie.
        if let Some(backend) = release.pool.any(Admission::KnownSessions, &draw, healthy) {
            return forward(backend, Admission::KnownSessions);
        }
    }
    match newcomer(app, q, reason, PinResult::Down, false) {
        // A backup or a draining backend is a stand-in here, not a new home.
        Decision::Forward(forward) => Decision::Forward(Forward { footing, reason, stands_in, ..forward }),
        other => other,
    }
}

/// A request whose answer is discarded, because its backend knows nothing of its session: a new client's from now on.
fn disowned(app: &App, q: &Question<'_>, belongs: Option<(u32, Claim)>) -> Decision {
    let home = belongs.and_then(|(slot, _)| app.backend(slot));
    let pin = if matches!(q.pin, PinClaim::Backend { .. }) { PinResult::Expired } else { PinResult::None };
    renewed(app, q, home, Some(Reason::Replayed), pin)
}

/// Whether the client of an evicted session is still to be told. Its pin goes with that answer, so whoever has one does not
/// know yet. Where pins are no cookies, requests under way when the first of them was told get the same answer: those within
/// [`WORD_SPREADS`].
fn owed_word(app: &App, q: &Question<'_>) -> bool {
    match q.session.and_then(|found| found.told_at) {
        None => true,
        Some(_) if app.settings.session.pin == PinMode::Cookie => q.pin.signed(),
        Some(told) => q.now.since(told) < WORD_SPREADS,
    }
}

/// A dead session: its id is taken out and its user is a new client, in the same release if a backend there takes new ones.
fn dead(app: &App, q: &Question<'_>, home: Option<&Arc<Backend>>, pin: PinResult) -> Decision {
    renewed(app, q, home, None, pin)
}

/// As [`dead`], for another reason than that if there is one.
fn renewed(app: &App, q: &Question<'_>, home: Option<&Arc<Backend>>, reason: Option<Reason>, pin: PinResult) -> Decision {
    if let Some(release) = home.and_then(|home| app.release(&home.release))
        && let Some(backend) = release.pool.choose(app.settings.balance, &draw(app, q))
    {
        let (backend, need) = (Arc::clone(backend), Admission::Everyone);
        return Decision::Forward(Forward {
            backend,
            need,
            reason: reason.unwrap_or(Reason::MovedWithin),
            pin,
            strip: true,
            footing: Footing::New,
            stands_in: false,
        });
    }
    newcomer(app, q, reason.unwrap_or(Reason::Moved), pin, true)
}

/// A new client: whoever takes new sessions, then draining backends if the policy says so, then backups, then nobody.
fn newcomer(app: &App, q: &Question<'_>, reason: Reason, pin: PinResult, strip: bool) -> Decision {
    let draw = draw(app, q);
    let forward = |backend: &Arc<Backend>, need, reason| {
        Decision::Forward(Forward { backend: Arc::clone(backend), need, reason, pin, strip, footing: Footing::New, stands_in: false })
    };
    if let Some(backend) = app.open.choose(app.settings.balance, &draw) {
        return forward(backend, Admission::Everyone, reason);
    }
    if app.settings.when_all_draining == WhenAllDraining::Serve {
        let draining = |b: &Backend| b.emptying() && healthy(b);
        let newest = app.newest();
        let first = newest.and_then(|release| release.pool.any(Admission::KnownSessions, &draw, draining));
        let others = || app.releases.iter().rev().find_map(|r| r.pool.any(Admission::KnownSessions, &draw, draining));
        if let Some(backend) = first.or_else(others) {
            return forward(backend, Admission::KnownSessions, Reason::AllDraining);
        }
    }
    match app.backups.choose(app.settings.balance, &draw) {
        Some(backend) => forward(backend, Admission::Everyone, Reason::Backup),
        None => Decision::Refuse(Reason::NoBackend, pin),
    }
}

fn healthy(backend: &Backend) -> bool {
    matches!(backend.live.gate.read().health, Health::Up | Health::Draining)
}

fn draw<'a>(app: &'a App, q: &Question<'a>) -> Draw<'a> {
    Draw { dice: q.dice, client: q.client, turns: &app.tally.turns, now: q.now, tried: q.tried, slow_start: app.settings.slow_start }
}

#[cfg(test)]
mod tables;
