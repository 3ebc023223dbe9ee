//! Who may change the snapshot: one door for startup, commands and the controller.
//!
//! Changes are computed and published under one lock, so two commands never build on the same view; requests read the
//! snapshot without it.

mod evictions;
mod lives;
mod memory;
mod reload;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

use self::evictions::Eviction;
pub use self::memory::{DrainBook, EvictionMemory};
use super::clock::Clock;
use super::forecasts::Forecasts;
use super::history::History;
use super::open_tunnels::OpenTunnels;
use super::reload::Reloads;
use super::state::WriteFailures;
use super::upgrade::overlap::Overlap;
use super::webhook::ReportTally;
use crate::model::change::{Applied, Change, Refused, RefusedKind, apply};
use crate::model::deadline::announce_deadlines;
use crate::model::drain::{Drain, DrainState, Outlook, Step};
use crate::model::event::{Event, Owner};
use crate::model::settings::DrainThen;
use crate::model::target::Target;
use crate::model::time::Time;
use crate::model::view::{App, Release, View};

/// Events kept for those who ask later: a busy day of deployments.
const EVENTS_KEPT: usize = 1000;
/// Finished drains kept for `tidegate wait` and the status document.
const DRAINS_KEPT: usize = 100;

/// How a drain can end.
const VERDICTS: [DrainState; 3] = [DrainState::Drained, DrainState::Cancelled, DrainState::Superseded];

/// The snapshot and everything that changes it.
pub struct Control {
    view: ArcSwap<View>,
    clock: Clock,
    inner: Mutex<Inner>,
    generation: AtomicU64,
    frozen: AtomicBool,
    withheld: AtomicBool,
    forecasts: Forecasts,
    news: broadcast::Sender<Event>,
    /// WebSockets, for drains that close those that outlive their session.
    pub tunnels: OpenTunnels,
    /// The other process, during an upgrade.
    pub overlap: Overlap,
    /// Reports of verdicts, by what became of them.
    pub reports: ReportTally,
    /// The file that was applied last, and what became of reloads.
    pub reloads: Reloads,
    /// Sessions per release over the last hour.
    pub history: History,
    /// Attempts to write the state that failed.
    pub write_failures: WriteFailures,
}

#[derive(Default)]
struct Inner {
    drains: VecDeque<Drain>,
    last_drain: u64,
    evictions: Vec<Eviction>,
    /// The same in words, also while they are worked off.
    evicting: Vec<EvictionMemory>,
    events: VecDeque<Event>,
    /// Drains that are over, in the order of [`VERDICTS`]; outlives the drains that are kept.
    finished: [u64; VERDICTS.len()],
}

impl Inner {
    fn finished(&mut self, verdict: DrainState) {
        for (count, state) in self.finished.iter_mut().zip(VERDICTS) {
            *count += u64::from(state == verdict);
        }
    }
}

/// How a new drain ends, where it differs from the app's settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrainOrder {
    /// Empty after this time.
    pub deadline: Option<Duration>,
    /// What the deadline does.
    pub then: Option<DrainThen>,
}

impl Control {
    /// An empty snapshot.
    pub fn new(clock: Clock) -> Control {
        let (news, _) = broadcast::channel(256);
        Control {
            view: ArcSwap::from_pointee(View::default()),
            clock,
            inner: Mutex::default(),
            generation: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
            withheld: AtomicBool::new(false),
            forecasts: Forecasts::default(),
            news,
            tunnels: OpenTunnels::default(),
            overlap: Overlap::default(),
            reports: ReportTally::default(),
            reloads: Reloads::default(),
            history: History::default(),
            write_failures: WriteFailures::default(),
        }
    }

    /// The snapshot of this moment.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The same for a moment's look, without counting it: not to be kept.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// The clock behind it.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes and publishes a change; returns the drains that it began or found running on its targets.
    ///
    /// # Errors
    /// [`Refused`]: nothing was changed.
    pub fn apply(&self, change: &Change, owner: Owner, order: DrainOrder) -> Result<Vec<u64>, Refused> {
        let mut inner = self.lock();
        self.thawed()?;
        self.apply_locked(&mut inner, change, owner, order)
    }

    /// While another process takes over, what it was handed must stay true: no order is taken, and drains do not move on. Sessions
    /// and health go on changing.
    pub fn freeze(&self, frozen: bool) {
        // Under the lock: whoever holds it finishes an order that was taken before.
        let _order = self.lock();
        self.frozen.store(frozen, Ordering::Release);
    }

    /// While another process may still let somebody in, no drain is fenced here: its gates are not these.
    pub fn withhold_verdicts(&self, withheld: bool) {
        self.withheld.store(withheld, Ordering::Release);
    }

    /// Whether the process before has not finished.
    pub fn withholds_verdicts(&self) -> bool {
        self.withheld.load(Ordering::Acquire)
    }

    /// Whether another process takes over, or the one before has not finished.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// # Errors
    /// Another process is taking over.
    fn thawed(&self) -> Result<(), Refused> {
        if !self.is_frozen() {
            return Ok(());
        }
        Err(Refused::new(RefusedKind::Conflict, "an upgrade is under way", "nothing was changed: try again in a few seconds"))
    }

    fn apply_locked(&self, inner: &mut Inner, change: &Change, owner: Owner, order: DrainOrder) -> Result<Vec<u64>, Refused> {
        let (now, before) = (self.now(), self.view());
        let applied = apply(&before, change, owner, now)?;
        Ok(self.publish(inner, &before, &applied, change, owner, order, now))
    }

    #[expect(clippy::too_many_arguments, reason = "what a change is, and the moment at which it was computed under the lock")]
    fn publish(
        &self,
        inner: &mut Inner,
        before: &View,
        applied: &Applied,
        change: &Change,
        owner: Owner,
        order: DrainOrder,
        now: Time,
    ) -> Vec<u64> {
        applied.commit(|view| self.view.store(Arc::new(view)));
        for event in &applied.events {
            self.record(inner, event.clone());
        }
        for (app, slots) in &applied.evict {
            app.ledger.evict(slots, None, usize::MAX, now);
        }
        self.supersede(inner, &applied.superseded, before, owner, now);
        let drains = self.follow_drains(inner, applied, change, owner, order, now);
        self.changed();
        drains
    }

    /// Ends the drains of these targets; `before` is the view in which those that were removed still are.
    fn supersede(&self, inner: &mut Inner, targets: &[Target], before: &View, owner: Owner, now: Time) {
        for target in targets {
            let mut over = Vec::new();
            for drain in inner.drains.iter_mut().filter(|d| d.state.runs() && d.target == *target) {
                drain.finish(DrainState::Superseded, before, now);
                over.push(drain.id);
            }
            for id in over {
                inner.finished(DrainState::Superseded);
                let what = format!("drain d{id} is over: what it was to empty serves again, or is closed");
                self.record(inner, Event { at: now, owner, target: target.to_string().into(), what });
            }
        }
    }

    fn follow_drains(&self, inner: &mut Inner, applied: &Applied, change: &Change, owner: Owner, order: DrainOrder, now: Time) -> Vec<u64> {
        let view = self.view();
        let mut ids = Vec::new();
        // A promotion that has happened already, given again by a script that is run again: what it set going is attached to, or
        // begun anew where the former drain was cancelled.
        let again = match change {
            Change::Promote { app, .. } | Change::Rollback { app, .. } if applied.drains.is_empty() => emptying(&view, app),
            _ => None,
        };
        for target in applied.drains.iter().chain(&again) {
            if let Some(running) = inner.drains.iter_mut().find(|d| d.state.runs() && d.target == *target) {
                // The same order again may bring another deadline; what it does not say stays.
                running.ends_by(order.deadline, order.then, &view, now);
                ids.push(running.id);
                continue;
            }
            inner.last_drain += 1;
            let mut drain = Drain::new(inner.last_drain, target.clone(), owner, &view, now);
            drain.ends_by(order.deadline, order.then, &view, now);
            ids.push(drain.id);
            let what = format!("drain d{} begins with {} live sessions", drain.id, drain.initial);
            self.record(inner, Event { at: now, owner, target: target.to_string().into(), what });
            inner.drains.push_back(drain);
        }
        announce_deadlines(&inner.drains, &view);
        let finished = inner.drains.iter().filter(|d| !d.state.runs()).count();
        if finished > DRAINS_KEPT
            && let Some(oldest) = inner.drains.iter().position(|d| !d.state.runs())
        {
            inner.drains.remove(oldest);
        }
        ids
    }

    fn record(&self, inner: &mut Inner, event: Event) {
        log::info!("{}: {} ({})", event.target, event.what, event.owner.as_str());
        if inner.events.len() == EVENTS_KEPT {
            inner.events.pop_front();
        }
        inner.events.push_back(event.clone());
        self.generation.fetch_add(1, Ordering::Release);
        // Nobody listening is no error.
        drop(self.news.send(event));
    }

    /// Something that is to be remembered changed without an event.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds an event of the shell's own, such as a change of health.
    pub fn note(&self, owner: Owner, target: &str, what: impl Into<String>) {
        let event = Event { at: self.now(), owner, target: target.into(), what: what.into() };
        self.record(&mut self.lock(), event);
    }

    /// All drains that are remembered, oldest first.
    pub fn drains(&self) -> Vec<Drain> {
        self.lock().drains.iter().cloned().collect()
    }

    /// One drain.
    pub fn drain(&self, id: u64) -> Option<Drain> {
        self.lock().drains.iter().find(|d| d.id == id).cloned()
    }

    /// What a drain that runs may expect, at most a second old.
    pub fn outlook(&self, drain: &Drain) -> Outlook {
        self.forecasts.of(drain, &self.view(), self.now())
    }

    /// Drains that are over so far, by verdict.
    pub fn finished(&self) -> [(DrainState, u64); VERDICTS.len()] {
        let mut finished = VERDICTS.map(|verdict| (verdict, 0));
        for ((_, to), count) in finished.iter_mut().zip(self.lock().finished) {
            *to = count;
        }
        finished
    }

    /// Ends a drain without bringing its target back: for a backend or host, `serve` does that.
    ///
    /// # Errors
    /// [`Refused`] when it does not exist or has ended.
    pub fn cancel(&self, id: u64) -> Result<Drain, Refused> {
        let now = self.now();
        let mut inner = self.lock();
        self.thawed()?;
        let Some(drain) = inner.drains.iter_mut().find(|d| d.id == id) else {
            let what = format!("drain 'd{id}' does not exist");
            return Err(Refused { kind: RefusedKind::NotFound, what, remedy: "see tidegate status".to_owned() });
        };
        if !drain.state.runs() {
            let what = format!("drain 'd{id}' has ended: {}", drain.state.as_str());
            return Err(Refused { kind: RefusedKind::Conflict, what, remedy: "none needed".to_owned() });
        }
        drain.finish(DrainState::Cancelled, &self.view(), now);
        let drain = drain.clone();
        inner.finished(DrainState::Cancelled);
        let change = match (&drain.target, drain.release_state()) {
            // One that stops while it fences leaves no half-closed release behind.
            (Target::Release(app, release), Some(state)) => Change::Settle { app: app.clone(), release: release.clone(), state },
            // A cancelled drain of a backend or host is over in every respect: they take new sessions again.
            (target, _) => {
                let wanted_by = inner.drains.iter().filter(|d| d.state.runs()).map(|d| d.target.clone()).collect();
                Change::GiveBack { target: target.clone(), wanted_by }
            }
        };
        self.apply_locked(&mut inner, &change, Owner::Operator, DrainOrder::default())?;
        let target = drain.target.to_string();
        let what = match drain.target {
            // A release returns to service by promotion only: it goes on losing its sessions, but nobody waits for the last one.
            Target::Release(..) => {
                format!(
                    "drain d{id} cancelled; it still takes no new sessions: promote it to serve again, or begin anew: tidegate drain {target}"
                )
            }
            _ => format!("drain d{id} cancelled"),
        };
        let event = Event { at: now, owner: Owner::Operator, target: target.into(), what };
        self.record(&mut inner, event);
        Ok(drain)
    }

    /// The event log, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.iter().cloned().collect()
    }

    /// The events from now on.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.news.subscribe()
    }

    /// The controller's turn, several times a second: expiries and drains.
    pub fn tick(&self) {
        let now = self.now();
        self.history.observe(&self.snapshot(), now);
        for app in &self.view().apps {
            app.ledger.sweep(now);
            app.tally.observe_visits(app.settings.session.idle_timeout, now);
            // Only against a backend's own count is it asked who left the count of late.
            for backend in app.backends.iter().flatten().filter(|_| app.settings.session.count_probe.is_some()) {
                backend.live.counts.sample(app.settings.session.idle_timeout, now);
            }
        }
        for (backend, count) in self.tunnels.close_outliving(&self.view(), now) {
            self.note(Owner::Controller, &backend, format!("tunnels closed whose session is over: {count}"));
        }
        if self.frozen.load(Ordering::Acquire) {
            return;
        }
        self.work_off_evictions();
        self.meet_deadlines(now);
        if self.withheld.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.lock();
        let mut settled = Vec::new();
        let view = self.view();
        for drain in inner.drains.iter_mut().filter(|d| d.state.runs()) {
            let step = drain.step(&view, now);
            if step != Step::Same {
                settled.push((drain.clone(), step));
            }
        }
        for (drain, step) in settled {
            self.settled(&mut inner, &drain, step, now);
        }
        announce_deadlines(&inner.drains, &self.view());
    }

    /// Walks over ledgers, and therefore on copies of the drains: nobody waits for its lock meanwhile.
    fn meet_deadlines(&self, now: Time) {
        let view = self.view();
        let mut due: Vec<Drain> = self.lock().drains.iter().filter(|d| d.state.runs() && d.deadline.is_some()).cloned().collect();
        for drain in &mut due {
            drain.meet_deadline(&view, now);
        }
        let mut inner = self.lock();
        for met in due {
            if let Some(drain) = inner.drains.iter_mut().find(|d| d.id == met.id) {
                drain.keep_pace(met);
            }
        }
    }

    fn settled(&self, inner: &mut Inner, drain: &Drain, step: Step, now: Time) {
        if let (Target::Release(app, release), Some(state)) = (&drain.target, drain.release_state()) {
            let change = Change::Settle { app: app.clone(), release: release.clone(), state };
            if let Err(refused) = self.apply_locked(inner, &change, Owner::Controller, DrainOrder::default()) {
                log::warn!("drain d{}: {}", drain.id, refused.what);
            }
        }
        if step == Step::Drained {
            inner.finished(DrainState::Drained);
            self.retire(inner, &drain.target);
        }
        let what = match step {
            Step::Same => return,
            Step::Fencing => format!("drain d{}: no session left, the last exchanges leave", drain.id),
            Step::Reopened => format!("drain d{}: a session appeared, draining goes on", drain.id),
            Step::Drained => format!("drain d{}: drained and fenced after {} s", drain.id, now.since(drain.started).as_secs()),
        };
        self.record(inner, Event { at: now, owner: Owner::Controller, target: drain.target.to_string().into(), what });
    }
}

/// The release that was current before the present one, while it still loses its sessions.
fn emptying(view: &View, app: &str) -> Option<Target> {
    let app = view.app(app)?;
    // After a rollback that is the one that failed, whatever else was promoted before.
    if let Some(left) = &app.rolled_back_from {
        return app.release(left).filter(|release| release.state.emptying()).map(|release| target_of(app, release));
    }
    let former = app.releases.iter().filter(|release| app.current.as_ref() != Some(&release.name));
    let latest = former.max_by_key(|release| (release.promoted, release.since))?;
    latest.state.emptying().then(|| target_of(app, latest))
}

fn target_of(app: &App, release: &Release) -> Target {
    Target::Release(app.name.to_string(), release.name.to_string())
}

#[cfg(test)]
mod tests;
