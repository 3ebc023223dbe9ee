//! A drain as an object: who left, who is left, and the proof that nobody is.
//!
//! "Unknown is not zero": a count of zero ends a drain only when the ledger is confident, and only through a fence, behind
//! which nothing is in flight and nothing can come in. A session born in between opens the drain again.

mod confidence;
mod deadline;
mod memory;
mod outlook;
mod pace;
#[cfg(test)]
mod race;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod tables;
mod visitors;

use std::sync::Arc;

pub use self::confidence::{Doubt, Watched, doubt};
pub use self::outlook::Outlook;
pub use self::pace::Pace;

use self::visitors::Visitors;

use super::admission::{Health, ReleaseState};
use super::backend::Backend;
use super::event::Owner;
use super::ledger::EndReason;
use super::settings::DrainThen;
use super::target::Target;
use super::time::Time;
use super::view::{App, View};

/// A drain of a release, a backend, or everything on a host.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Written `d7`.
    pub id: u64,
    /// What empties.
    pub target: Target,
    /// Who began it.
    pub owner: Owner,
    /// When.
    pub started: Time,
    /// Live sessions when it began.
    pub initial: u64,
    /// Empty by then.
    pub deadline: Option<Time>,
    /// What the deadline does.
    pub then: DrainThen,
    /// Where it stands.
    pub state: DrainState,
    /// When it reached its verdict.
    pub finished: Option<Time>,
    /// What it had come to at its verdict: what happens there afterwards belongs to whoever serves there next.
    outcome: Option<Progress>,
    /// Of evictions, by app: each app has a rate of its own.
    paces: Vec<(Arc<str>, Pace)>,
    /// Who came by since it began.
    visitors: Visitors,
    /// Ends by reason before it began, to be subtracted; less than zero by what a process before had counted of it.
    before: [i64; EndReason::ALL.len()],
}

/// Where a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainState {
    /// Sessions are left, or nobody knows.
    Draining,
    /// None is left; the last exchanges leave.
    Fencing,
    /// Fenced: the proof.
    Drained,
    /// By the operator.
    Cancelled,
    /// Its target went back into service, or was stopped.
    Superseded,
}

impl DrainState {
    /// Every state.
    pub const ALL: [DrainState; 5] =
        [DrainState::Draining, DrainState::Fencing, DrainState::Drained, DrainState::Cancelled, DrainState::Superseded];

    /// As written in API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            DrainState::Draining => "draining",
            DrainState::Fencing => "fencing",
            DrainState::Drained => "drained",
            DrainState::Cancelled => "cancelled",
            DrainState::Superseded => "superseded",
        }
    }

    /// Whether it still runs.
    pub const fn runs(self) -> bool {
        matches!(self, DrainState::Draining | DrainState::Fencing)
    }
}

/// Who is left and who has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Touched on a foreground path of late.
    pub engaged: u64,
    /// Kept alive by pollers, or silent.
    pub kept_alive: u64,
    /// Newborns whose client has not come back yet.
    pub unconfirmed: u64,
    /// Exchanges under way.
    pub in_flight: u64,
    /// Ends since the drain began, in the order of [`EndReason::ALL`].
    pub ended: [u64; EndReason::ALL.len()],
    /// Whether a count of zero would be the truth.
    pub confident: bool,
    /// Backends it covers.
    pub backends: u64,
    /// Those of them that are down.
    pub down: u64,
}

impl Progress {
    /// Confirmed sessions left.
    pub fn remaining(&self) -> u64 {
        self.engaged + self.kept_alive
    }
}

/// What a step of a drain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Same,
    /// The count is zero: the release is to be shown as fencing.
    Fencing,
    /// A session appeared: back to draining.
    Reopened,
    /// Fenced and proven.
    Drained,
}

impl Drain {
    /// A drain that begins now.
    pub fn new(id: u64, target: Target, owner: Owner, view: &View, now: Time) -> Drain {
        let backends = target.backends(view);
        let (deadline, then) = backends
            .first()
            .map_or((None, DrainThen::Keep), |(app, _)| (app.settings.drain.deadline.map(|after| now + after), app.settings.drain.then));
        Drain {
            id,
            owner,
            started: now,
            initial: backends.iter().map(|(_, b)| b.live.counts.live()).sum(),
            deadline,
            then,
            state: DrainState::Draining,
            finished: None,
            outcome: None,
            paces: Vec::new(),
            visitors: Visitors::new(&backends, now),
            before: ended(&backends).map(u64::cast_signed),
            target,
        }
    }

    /// Who is left and who has gone; once it is over, what was so at the verdict.
    pub fn progress(&self, view: &View, now: Time) -> Progress {
        self.outcome.unwrap_or_else(|| self.measure(view, now))
    }

    /// The same at this moment, whether it is over or not.
    pub fn measure(&self, view: &View, now: Time) -> Progress {
        let backends = self.target.backends(view);
        // Before the counts: a stranger who becomes a session in between is seen as one of the two.
        let confident = self.confident(&backends, now);
        let sum = |pick: fn(&Backend) -> u64| backends.iter().map(|(_, b)| pick(b)).sum();
        Progress {
            engaged: sum(|b| b.live.counts.engaged()),
            kept_alive: sum(|b| b.live.counts.kept_alive()),
            unconfirmed: sum(|b| b.live.counts.unconfirmed()),
            in_flight: sum(|b| u64::from(b.live.gate.in_flight())),
            ended: self.ended(view),
            confident,
            backends: backends.len() as u64,
            down: backends.iter().filter(|(_, b)| b.live.gate.read().health == Health::Down).count() as u64,
        }
    }

    /// Why a count of zero would not be the truth yet, naming the backend where there are several; `None` when it would be.
    pub fn doubt(&self, view: &View, now: Time) -> Option<String> {
        let backends = self.target.backends(view);
        let (name, doubt) = backends.iter().find_map(|(app, b)| Some((&b.spec.name, self.doubt_of(app, b, now)?)))?;
        // That is no matter of a backend.
        let named = backends.len() > 1 && doubt != Doubt::Unvisited;
        Some(if named { format!("{name}: {doubt}") } else { doubt.to_string() })
    }

    /// Whether it would be over if people came by this proxy: another one, before which they are, may speak for both.
    pub fn stands_by(&self, view: &View, now: Time) -> bool {
        let backends = self.target.backends(view);
        let doubts: Vec<Doubt> = backends.iter().filter_map(|(app, b)| self.doubt_of(app, b, now)).collect();
        let empty = backends.iter().all(|(_, b)| b.sessions() == 0 && b.live.gate.in_flight() == 0);
        self.state.runs() && empty && !doubts.is_empty() && doubts.iter().all(|doubt| *doubt == Doubt::Unvisited)
    }

    fn doubt_of(&self, app: &App, backend: &Backend, now: Time) -> Option<Doubt> {
        doubt(app, backend, self.visitors.watched(app), now)
    }

    /// Moves on as far as the counts allow.
    pub fn step(&mut self, view: &View, now: Time) -> Step {
        if !self.state.runs() {
            return Step::Same;
        }
        let backends = self.target.backends(view);
        self.visitors.observe(&backends, now);
        let progress = self.progress(view, now);
        if progress.remaining() + progress.unconfirmed > 0 || !progress.confident {
            return self.reopen();
        }
        if self.state == DrainState::Draining {
            self.state = DrainState::Fencing;
            return Step::Fencing;
        }
        if progress.in_flight > 0 {
            return Step::Same;
        }
        // Only what this step closed may it open again: another drain's fence stays.
        let open: Vec<_> = backends.iter().map(|(_, b)| &b.live.gate).filter(|gate| !gate.read().fenced).collect();
        let fenced = open.iter().take_while(|gate| gate.fence()).count();
        // Behind the fence no exchange is in flight, so no session can be born and no stranger met: this is final.
        let left: u64 = backends.iter().map(|(_, b)| b.sessions()).sum();
        let proven = left == 0 && self.confident(&backends, now);
        if fenced == open.len() && proven {
            (self.state, self.finished, self.outcome) = (DrainState::Drained, Some(now), Some(progress));
            return Step::Drained;
        }
        for gate in open.iter().take(fenced) {
            gate.lift_fence();
        }
        if proven { Step::Same } else { self.reopen() }
    }

    /// Ends it without a proof. `view` is one in which its target still exists.
    pub fn finish(&mut self, state: DrainState, view: &View, now: Time) {
        let outcome = self.progress(view, now);
        (self.state, self.finished, self.outcome) = (state, Some(now), Some(outcome));
    }

    /// What the release of a release drain should be in; `None` for other targets.
    pub fn release_state(&self) -> Option<ReleaseState> {
        match (&self.target, self.state) {
            // Cancelled while it fenced, the release goes on losing its sessions: nobody proves that the last one has gone.
            (Target::Release(..), DrainState::Draining | DrainState::Cancelled) => Some(ReleaseState::Draining),
            (Target::Release(..), DrainState::Fencing) => Some(ReleaseState::Fencing),
            (Target::Release(..), DrainState::Drained) => Some(ReleaseState::Drained),
            _ => None,
        }
    }

    /// Of a target that has gone nothing is known, and unknown is not zero.
    fn confident(&self, backends: &[(Arc<App>, Arc<Backend>)], now: Time) -> bool {
        !backends.is_empty() && backends.iter().all(|(app, backend)| self.doubt_of(app, backend, now).is_none())
    }

    fn reopen(&mut self) -> Step {
        if self.state == DrainState::Fencing {
            self.state = DrainState::Draining;
            return Step::Reopened;
        }
        Step::Same
    }
}

fn ended(backends: &[(Arc<App>, Arc<Backend>)]) -> [u64; EndReason::ALL.len()] {
    let mut sums = [0; EndReason::ALL.len()];
    for (_, backend) in backends {
        for (sum, reason) in sums.iter_mut().zip(EndReason::ALL) {
            *sum += backend.live.counts.ended(reason);
        }
    }
    sums
}
