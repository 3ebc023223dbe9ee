//! What must hold: at every decision, at every entry, at every session that opens, and after every step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Simulation;
use super::shell::Exchange;
use crate::model::admission::{Admission, ReleaseState};
use crate::model::decide::{Decision, Footing, PinClaim, Question};
use crate::model::drain::Drain;
use crate::model::facts::Facts;
use crate::model::ledger::{EndReason, Found, LossCause, Standing};
use crate::model::reason::Reason;
use crate::model::replay::{Errand, ReplayCause};
use crate::model::settings::Failover;
use crate::model::view::App;

/// Names under which a run counts what happened; each must happen in an ordinary run of all seeds.
pub(super) const MUST_HAPPEN: &[&str] = &[
    "pinned",
    "returned",
    "anonymous",
    "stand_in",
    "repinned",
    "moved_within",
    "moved",
    "move_point",
    "replayed",
    "new",
    "all_draining",
    "backup",
    "no_backend",
    "backend_down",
    "evicted",
    "new_session",
    "not_mine",
    "a tunnel",
    "a farewell",
    "waits",
    "claim failed",
    "connect refused",
    "promoted",
    "rolled back",
    "staged",
    "stopped",
    "removed",
    "reloaded",
    "refused reload",
    "retired",
    "refused order",
    "fencing",
    "reopened",
    "drained",
    "opened under when_all_draining",
    "opened by same-release failover",
    "opened for an id that was not known to be dead",
    "opened by an exchange that was decided before the drain",
    "forgotten and honoured: unconfirmed",
];

impl Simulation {
    /// A session that lives, or that its application still honours, goes to its backend while that admits known sessions.
    pub(super) fn decided(&mut self, client: usize, app: &App, facts: &Facts, question: &Question<'_>, decision: &Decision) {
        let (arrives, tried, waited) = (question.errand == Errand::Arrival, question.tried, question.waited);
        let went = match decision {
            Decision::Forward(forward) => Some((forward.backend.slot, forward.reason, forward.strip)),
            Decision::Refuse(reason, _) => {
                self.count(reason.as_str());
                None
            }
            Decision::Wait(..) => {
                self.require(!waited, || "it waits twice".to_owned());
                self.count("waits");
                None
            }
        };
        let reachable = |slot: u32| app.backend(slot).is_some_and(|b| b.admission() >= Admission::KnownSessions) && !tried.contains(&slot);
        // Where applications take any id, one id may live at two of them; then the later issued pin is right.
        let later =
            |than| self.lenient() && matches!(facts.pin, PinClaim::Backend { issued: Some(issued), bound: true, .. } if issued > than);
        let lives = |found: &Found| matches!(found.standing, Standing::Live { .. }) && reachable(found.slot) && !later(found.pinned);
        if let Some(found) = facts.session.filter(lives) {
            let moves = arrives && went.is_some_and(|(_, reason, strip)| reason == Reason::MovePoint && strip);
            let stays = moves || went == Some((found.slot, Reason::Pinned, false));
            self.require(stays, || format!("c{client}: a live session moves to {went:?}: {found:?} {:?}", facts.pin));
        }
        let Some(id) = self.id_of(client) else { return };
        let homes = self.honoured_by(self.clients[client].app, &id);
        let [(home, false)] = homes.as_slice() else { return };
        // A full ledger drops newborns and tombstones to make room.
        let knows_all = app.ledger.entries() < app.ledger.capacity() / 2 && !app.ledger.adoption_capped();
        let sent_away = facts.session.is_some_and(|found| match found.standing {
            Standing::Ended(EndReason::Evicted | EndReason::Lifetime | EndReason::Moved) => true,
            // By `rotation_within` an answer to an older id of it, long under way, speaks against the whole session.
            // Where applications take any id, what was under way at a restart makes the lost one there anew.
            Standing::Ended(EndReason::Lost) => app.settings.session.rotation_within.is_some() || self.lenient(),
            // A logout by an older id of it, long under way; or another request brought it back to life after its end.
            Standing::Ended(EndReason::Logout) => true,
            // One id at two applications, and the ledger follows one of them.
            _ => (app.settings.failover == Failover::Repin || self.lenient()) && found.slot != *home,
        });
        let repinned = app.settings.failover == Failover::Repin && matches!(facts.pin, PinClaim::Backend { slot, .. } if slot != *home);
        // Over by `max_lifetime` and forgotten, while a request of it is under way for hours.
        let outlived = app.settings.session.max_lifetime.is_some() && facts.session.is_none();
        // Known to the application by a request whose answer is still to be heard.
        let unheard = self.under_way.iter().any(|e| e.client == client && e.forward.backend.slot == *home && e.visit.counted().is_none());
        let left_behind = facts.session.is_none() && self.renamed.contains(&id);
        let leaves = arrives && went.is_some_and(|(_, reason, _)| reason == Reason::MovePoint);
        if reachable(*home) && knows_all && !leaves && !outlived && !sent_away && !repinned && !unheard && !left_behind {
            let stays = matches!(went, Some((slot, _, false)) if slot == *home);
            self.require(stays, || format!("c{client}: slot {home} honours {id}, it goes to {went:?}: {facts:?}"));
        }
    }

    /// What an answer says may not cost a session: the one that the client holds is live nowhere, nor is it known where the request
    /// was answered.
    pub(super) fn may_be_replayed(&mut self, exchange: &Exchange, app: &App, cause: ReplayCause) {
        let Some(id) = &exchange.brought else { return };
        let found = app.ledger.find(app.hash.key(id.as_bytes()), self.world.now);
        let lives = found.is_some_and(|found| matches!(found.standing, Standing::Live { .. }));
        self.require(!lives, || format!("{}: a live session is replayed: {found:?}", exchange.told()));
        let slot = exchange.forward.backend.slot;
        let honoured = self.honoured_by(exchange.app, id).iter().any(|&(at, guest)| at == slot && !guest);
        self.require(!honoured, || format!("{}: {id} is honoured where it is disowned", exchange.told()));
        let harmless = cause == ReplayCause::NotMine || !exchange.want.errand().writes();
        self.require(harmless, || format!("{} may change something, and is replayed", exchange.told()));
    }

    /// Nothing enters a fenced backend, and who is new enters only where everybody may.
    pub(super) fn gate_entered(&mut self, exchange: &Exchange) {
        let (gate, forward) = (exchange.forward.backend.live.gate.read(), &exchange.forward);
        self.require(!gate.fenced && !gate.state.gone(), || format!("{} enters a closed backend: {gate:?}", exchange.told()));
        self.require(gate.state != ReleaseState::Staged, || format!("{} enters a staged release", exchange.told()));
        let by_policy = forward.reason == Reason::AllDraining;
        let new = forward.footing == Footing::New && !by_policy;
        self.require(!new || gate.admission() == Admission::Everyone, || format!("{} is new and enters {gate:?}", exchange.told()));
        self.require(!by_policy || !exchange.anywhere_open, || format!("{}, and somebody is open", exchange.told()));
        self.require(!forward.strip || forward.footing == Footing::New, || format!("{}: stripped and known", exchange.told()));
    }

    /// A session opened in an application: on an emptying backend, for a reason that is counted.
    pub(super) fn opened(&mut self, exchange: &Exchange) {
        let backend = &exchange.forward.backend;
        if !backend.emptying() && !backend.live.gate.read().state.gone() {
            return;
        }
        let pinned = match exchange.facts.pin {
            PinClaim::Backend { slot, .. } => Some(slot),
            _ => None,
        };
        let home = exchange.facts.session.map(|found| found.slot).or(pinned).and_then(|slot| self.backends.get(&(exchange.app, slot)));
        let at_home = home.is_some_and(|home| home.release == backend.release);
        let known_dead = exchange.facts.session.is_some_and(|found| {
            matches!(found.standing, Standing::Ended(reason) if reason != EndReason::Unconfirmed) && found.slot == backend.slot
        });
        let cause = match exchange.forward.reason {
            _ if !exchange.emptying => "opened by an exchange that was decided before the drain",
            Reason::AllDraining => "opened under when_all_draining",
            Reason::StandIn | Reason::Repinned if at_home => "opened by same-release failover",
            Reason::StandIn | Reason::Repinned | Reason::Returned if !exchange.anywhere_open => "opened under when_all_draining",
            Reason::Pinned | Reason::Returned if !known_dead => "opened for an id that was not known to be dead",
            _ => self.fail(&format!("{} opens a session on an emptying backend", exchange.told())),
        };
        self.count(cause);
    }

    /// A drain's verdict is the truth: nobody is left, nothing is under way.
    pub(super) fn verdict(&mut self, drain: &Drain) {
        let progress = drain.measure(&self.world.view, self.world.now);
        let empty = progress.remaining() + progress.unconfirmed + progress.in_flight == 0 && progress.confident;
        self.require(empty, || format!("drained? {progress:?}"));
    }

    pub(super) fn check(&mut self) {
        for place in 0..self.world.view.apps.len() {
            let app = Arc::clone(&self.world.view.apps[place]);
            self.check_states(&app);
            self.check_counts(place, &app);
            self.check_fences(place, &app);
        }
    }

    /// Exactly one current release, unless by health; every gate and every pool follows its release.
    fn check_states(&self, app: &App) {
        let current: Vec<_> = app.releases.iter().filter(|r| r.state == ReleaseState::Current).map(|r| r.name.clone()).collect();
        let expected: Vec<_> = app.current.iter().cloned().collect();
        self.require(current == expected, || format!("current are {current:?}, not {expected:?}"));
        for release in &app.releases {
            for backend in &release.backends {
                let state = backend.live.gate.read().state;
                self.require(state == release.state, || format!("gate of {}/{}: {state:?}", release.name, backend.spec.name));
            }
        }
        let open = app.open.backends().iter().chain(app.backups.backends());
        let strange = open.into_iter().find(|b| !app.release(&b.release).is_some_and(|r| r.state.open()));
        self.require(strange.is_none(), || format!("{strange:?} is in a pool for new clients"));
    }

    /// Counts equal the ledger, the ledger's open exchanges equal those that entered it, and the gates' those under way.
    fn check_counts(&self, place: usize, app: &App) {
        let mut found: HashMap<u32, (u64, u64)> = HashMap::new();
        let (mut open, mut entries) = (0, 0);
        app.ledger.for_each(|record| {
            let counts = found.entry(record.found.slot).or_default();
            match record.found.standing {
                Standing::Live { confirmed: true } => counts.0 += 1,
                Standing::Live { confirmed: false } => counts.1 += 1,
                _ => {}
            }
            open += record.found.open as usize;
            entries += 1;
        });
        let here = || self.under_way.iter().filter(|exchange| exchange.app == place);
        let stays = here().filter(|exchange| exchange.visit.counted().is_some()).count();
        self.require(open == stays, || format!("{open} exchanges are open in the ledger of {}, {stays} have entered", app.name));
        self.require(entries <= app.ledger.capacity(), || format!("{entries} entries without aliases"));
        for (&(_, slot), backend) in self.backends.iter().filter(|((a, _), _)| *a == place) {
            let name = &backend.spec.name;
            let counts = &backend.live.counts;
            let counted = (counts.live(), counts.unconfirmed());
            let recounted = found.get(&slot).copied().unwrap_or_default();
            self.require(counted == recounted, || format!("{name} counts {counted:?}, its ledger has {recounted:?}"));
            let came = counts.born() + counts.adopted() + counts.arrived();
            let went: u64 = EndReason::ALL.into_iter().map(|reason| counts.ended(reason)).sum();
            self.require(came == counted.0 + counted.1 + went, || format!("{name}: {came} came, {went} went, {counted:?} are left"));
            let lost: u64 = LossCause::ALL.into_iter().map(|cause| counts.lost(cause)).sum();
            let ended = counts.ended(EndReason::Lost) + counts.ended(EndReason::Evicted);
            self.require(lost == ended, || format!("{name}: {lost} losses by cause, {ended} by reason"));
            let inside = here().filter(|exchange| Arc::ptr_eq(&exchange.forward.backend.live, &backend.live)).count();
            let in_flight = backend.live.gate.in_flight() as usize;
            self.require(in_flight == inside, || format!("{name}: {in_flight} in flight, {inside} under way"));
        }
    }

    /// A fence proves that nobody is left: behind it nothing is under way, and no client holds an id that an application there
    /// would honour and the ledger would send there.
    ///
    /// What remains are ids that the ledger gave up knowingly, each kind counted when it happens: unconfirmed ones whose client
    /// came back later than `confirm_within`, evicted ones, those past `max_lifetime`, those that moved elsewhere, unsigned ones met
    /// once only, those whose older name was logged out by a late answer, and those dropped from a ledger that was full.
    fn check_fences(&mut self, place: usize, app: &App) {
        let fenced: HashSet<u32> = app.backends.iter().flatten().filter(|b| b.live.gate.read().fenced).map(|b| b.slot).collect();
        if fenced.is_empty() {
            return;
        }
        for exchange in self.under_way.iter().filter(|exchange| exchange.app == place) {
            self.require(!fenced.contains(&exchange.forward.backend.slot), || format!("{} is behind a fence", exchange.told()));
        }
        for client in 0..self.clients.len() {
            let Some(id) = self.id_of(client).filter(|_| self.clients[client].app == place) else { continue };
            for (slot, guest) in self.honoured_by(place, &id) {
                if guest || !fenced.contains(&slot) {
                    continue;
                }
                let found = app.ledger.find(app.hash.key(id.as_bytes()), self.world.now);
                let given_up = match found.map(|found| (found.standing, found.slot == slot)) {
                    Some((Standing::Ended(EndReason::Unconfirmed), _)) => "forgotten and honoured: unconfirmed",
                    Some((Standing::Ended(EndReason::Evicted), _)) => "forgotten and honoured: evicted",
                    Some((Standing::Ended(EndReason::Lifetime), _)) => "forgotten and honoured: lifetime",
                    Some((Standing::Ended(EndReason::Moved), _)) => "forgotten and honoured: moved",
                    Some((Standing::Ended(EndReason::Logout), _)) => "forgotten and honoured: logout",
                    Some((Standing::Ended(EndReason::Lost), _)) if app.settings.session.rotation_within.is_some() || self.lenient() => {
                        "forgotten and honoured: taken for replaced"
                    }
                    Some((Standing::Candidate, _)) => "forgotten and honoured: candidate",
                    Some((_, false)) => "forgotten and honoured: elsewhere",
                    None if app.ledger.capacity() < 1000 => "forgotten and honoured: no room",
                    _ => self.fail(&format!("c{client} holds {id}, honoured behind the fence of slot {slot}: {found:?}")),
                };
                self.count(given_up);
            }
        }
    }
}
