//! When the answer of a draining backend is not the client's: the user's session is gone there, so the request is sent once
//! more, where new clients go (DESIGN.md §6, ends b, c and e).
//!
//! A live session is never replayed: it is at home on the backend that answered, whatever the answer is. And only a draining
//! backend's answer is ever discarded, because a serving one may well begin a new session for whoever comes back.

use http::Method;

use super::admission::Admission;
use super::backend::Backend;
use super::decide::{Decision, Forward, Question, decide};
use super::facts::Facts;
use super::ledger::{Ledger, Standing};
use super::routes::under;
use super::settings::{DrainSettings, MovePoint, NotMine};
use super::time::Time;
use super::view::App;
use super::visit::Heard;

/// What a request is about, as far as a drain asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Errand {
    /// It changes nothing (RFC 9110 §9.2.1: GET, HEAD, OPTIONS, TRACE), so it may be sent once more.
    #[default]
    Read,
    /// It may change something.
    Write,
    /// A move point that changes nothing, such as `GET /login`: its user carries no state, and is moved before it is sent.
    Arrival,
    /// A move point that may change something, such as `POST /logout`: once it is answered its user carries no state.
    Farewell,
}

impl Errand {
    /// Of a request for `path`, as the client wrote it; a path parameter does not count.
    pub fn of(method: &Method, path: &str, drain: &DrainSettings) -> Errand {
        let is_here = |point: &MovePoint| point.path == path.split(';').next().unwrap_or_default();
        let is_move_point = drain.move_points.iter().any(|point| point.method == method.as_str() && is_here(point));
        match (method.is_safe(), is_move_point) {
            (true, false) => Errand::Read,
            (false, false) => Errand::Write,
            (true, true) => Errand::Arrival,
            (false, true) => Errand::Farewell,
        }
    }

    /// Whether it may change something.
    pub fn writes(self) -> bool {
        matches!(self, Errand::Write | Errand::Farewell)
    }

    /// Whether an answer of that status ends what its user had on this backend. An error says that the farewell was none.
    pub fn parts(self, backend: &Backend, status: u16) -> bool {
        self == Errand::Farewell && (200..400).contains(&status) && backend.emptying()
    }
}

/// Why a request is sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayCause {
    /// A draining backend made a new session for an id that was not live.
    NewSession,
    /// A draining backend said by contract (`not_mine`) that the session is not there, and did nothing.
    NotMine,
}

impl ReplayCause {
    /// Every cause, in declaration order: the discriminant is the index.
    pub const ALL: [ReplayCause; 2] = [ReplayCause::NewSession, ReplayCause::NotMine];

    /// The label `cause` of `tidegate_replays_total`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReplayCause::NewSession => "new_session",
            ReplayCause::NotMine => "not_mine",
        }
    }
}

/// Whether an answer's head is the backend's word for "this session is not here".
pub fn disowns<'a>(word: &NotMine, status: u16, field: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
    word.status.contains(status)
        || word.header.as_deref().is_some_and(|name| field(name).is_some())
        || word.location.as_deref().is_some_and(|start| field("location").is_some_and(|to| to.starts_with(start.as_bytes())))
}

/// A request that was answered, as far as it matters whether it is sent once more.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// What it said of itself when it was decided.
    pub facts: &'a Facts,
    /// Where it went.
    pub forward: &'a Forward,
    /// What it is about.
    pub errand: Errand,
    /// Its path, as the client wrote it.
    pub path: &'a str,
    /// Whether the answer [disowns](disowns) the session.
    pub disowned: bool,
    /// What the answer says of sessions.
    pub heard: Heard,
}

impl Answered<'_> {
    /// Why it is to be sent once more; `None` passes the answer on.
    pub fn replay(&self, ledger: &Ledger, drain: &DrainSettings, now: Time) -> Option<ReplayCause> {
        if !self.forward.backend.emptying() || self.lives(ledger, now) {
            return None;
        }
        if self.disowned {
            return Some(ReplayCause::NotMine);
        }
        // An id that was taken out on the way cannot have been replaced: this backend was the last resort.
        let brought = self.facts.key.filter(|_| !self.forward.strip)?;
        let is_new = matches!(self.heard, Heard::Set(set, _) if set != brought);
        let is_barred = || drain.no_replay.iter().any(|prefix| under(prefix, self.path));
        (is_new && !self.errand.writes() && !is_barred()).then_some(ReplayCause::NewSession)
    }

    /// Whether its session lived when it was decided, or lives by now: a parallel exchange may have brought it to life.
    fn lives(&self, ledger: &Ledger, now: Time) -> bool {
        let live = |standing| matches!(standing, Standing::Live { .. });
        self.facts.session.is_some_and(|found| live(found.standing))
            || self.facts.key.and_then(|key| ledger.find(key, now)).is_some_and(|found| live(found.standing))
    }
}

/// Where a disowned request goes: to whoever takes new sessions, or nowhere. Asked before the first answer is discarded.
pub fn elsewhere(app: &App, question: &Question<'_>) -> Option<Forward> {
    debug_assert!(question.disowned, "asked for a replay");
    match decide(app, question) {
        Decision::Forward(forward) if forward.need == Admission::Everyone => Some(forward),
        _ => None,
    }
}

#[cfg(test)]
mod tables;
