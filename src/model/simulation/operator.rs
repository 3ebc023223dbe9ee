//! Who else is at work: operators with commands, probes and crashes, and the controller.

use std::sync::Arc;
use std::time::Duration;

use super::Simulation;
use crate::model::admission::{Health, Intent, ReleaseState};
use crate::model::change::Change;
use crate::model::decide::Forward;
use crate::model::drain::{Drain, DrainState, Step};
use crate::model::event::Owner;
use crate::model::incarnation::Proof;
use crate::model::sketch;
use crate::model::target::Target;

impl Simulation {
    pub(super) fn meet_backends(&mut self) {
        for (place, app) in self.world.view.apps.iter().enumerate() {
            for backend in app.backends.iter().flatten() {
                self.backends.entry((place, backend.slot)).or_insert_with(|| Arc::clone(backend));
            }
        }
    }

    pub(super) fn begin_drains_of_start(&mut self, app: usize) {
        let app = Arc::clone(&self.world.view.apps[app]);
        for release in app.releases.iter().filter(|r| r.state == ReleaseState::Draining) {
            self.begin_drain(Target::Release(app.name.to_string(), release.name.to_string()), Owner::Config);
        }
    }

    fn begin_drain(&mut self, target: Target, owner: Owner) {
        if !self.drains.iter().any(|d| d.state.runs() && d.target == target) {
            let id = self.drains.len() as u64;
            self.drains.push(Drain::new(id, target, owner, &self.world.view, self.world.now));
        }
    }

    /// Somebody else is at work between decision and claim, more often than not on the very backend.
    pub(super) fn meddle(&mut self, forward: &Forward) {
        match self.dice.below(4) {
            0 => self.operator(),
            1 => drop(forward.backend.live.observe(Health::Draining, self.world.now)),
            2 => drop(forward.backend.live.observe(Health::Down, self.world.now)),
            _ => self.controller(),
        }
    }

    /// One of the commands, sensible or not.
    pub(super) fn operator(&mut self) {
        let place = self.dice.below(self.world.view.apps.len());
        let view = Arc::clone(&self.world.view.apps[place]);
        let app = view.name.to_string();
        let release = view.releases[self.dice.below(view.releases.len())].name.to_string();
        let force = self.dice.below(4) == 0;
        let change = match self.dice.below(28) {
            24.. => return self.edit(),
            0..6 => Change::Promote { app, release, from: None, force },
            6..8 => Change::Rollback { app, to: None, from: None, force },
            8..11 => self.stage(app),
            11 => Change::Stop { app, release, force },
            12..14 => Change::Remove { app, release },
            14..16 => return self.evict(),
            16 => return self.cancel(),
            17 => Change::Intent { target: Target::Release(app, release), intent: self.intent(), force },
            _ => Change::Intent { target: self.target(), intent: self.intent(), force },
        };
        self.order(&change, Owner::Operator);
    }

    fn stage(&mut self, app: String) -> Change {
        self.next_name += 1;
        let (n, mut port) = (self.next_name, 40_000 + self.dice.below(30) as u16);
        let backends: Vec<String> = (0..1 + self.dice.below(3)).map(|b| format!("s{n}b{b}")).collect();
        Change::Stage { app, release: sketch::release(&format!("s{n}:{}", backends.join(",")), &mut port) }
    }

    fn intent(&mut self) -> Intent {
        [Intent::Serve, Intent::Serve, Intent::Serve, Intent::Drain, Intent::Drain, Intent::Maintain][self.dice.below(6)]
    }

    fn target(&mut self) -> Target {
        let view = &self.world.view.apps[self.dice.below(self.world.view.apps.len())];
        let release = &view.releases[self.dice.below(view.releases.len())];
        let backend = &release.backends[self.dice.below(release.backends.len())];
        match self.dice.below(4) {
            0 => Target::Host(backend.spec.address.host.clone()),
            _ => Target::Backend(view.name.to_string(), release.name.to_string(), backend.spec.name.clone()),
        }
    }

    fn evict(&mut self) {
        let target = self.target();
        let idle = [None, Some(Duration::from_secs(60))][self.dice.below(2)];
        let limit = [1, 3, usize::MAX][self.dice.below(3)];
        for (app, backend) in target.backends(&self.world.view) {
            app.ledger.evict(&[backend.slot], idle, limit, self.world.now);
        }
        self.note(|| format!("evict {target}"));
    }

    fn cancel(&mut self) {
        let running: Vec<usize> = (0..self.drains.len()).filter(|&d| self.drains[d].state.runs()).collect();
        if running.is_empty() {
            return;
        }
        let cancelled = running[self.dice.below(running.len())];
        let drain = &mut self.drains[cancelled];
        drain.finish(DrainState::Cancelled, &self.world.view, self.world.now);
        let (target, state) = (drain.target.clone(), drain.release_state());
        let others = self.drains.iter().filter(|d| d.state.runs()).map(|d| d.target.clone()).collect();
        let change = match (target, state) {
            (Target::Release(app, release), Some(state)) => Change::Settle { app, release, state },
            (target, _) => Change::GiveBack { target, wanted_by: others },
        };
        self.order(&change, Owner::Operator);
    }

    /// Whether it was done.
    pub(super) fn order(&mut self, change: &Change, owner: Owner) -> bool {
        let told = match change {
            Change::Promote { app, release, .. } => format!("promote {app}/{release}"),
            Change::Rollback { app, .. } => format!("rollback {app}"),
            Change::Stage { app, release } => format!("stage {app}/{}", release.name),
            Change::Stop { app, release, .. } => format!("stop {app}/{release}"),
            Change::Remove { app, release } => format!("remove {app}/{release}"),
            Change::Intent { target, intent, .. } => format!("{} {target}", intent.as_str()),
            Change::GiveBack { target, .. } => format!("give back {target}"),
            Change::Settle { app, release, state } => format!("settle {app}/{release} {}", state.as_str()),
            Change::Load(_) => "load".to_owned(),
            Change::Reload(_) => "reload".to_owned(),
            Change::Retire { backend, .. } => format!("retire {backend}"),
        };
        let before = self.world.view.clone();
        match self.world.change(change, owner) {
            Err(refused) => {
                self.note(|| format!("{told}: refused, {}", refused.what));
                let named = !refused.what.is_empty() && !refused.remedy.is_empty();
                self.require(named, || format!("{told} was refused without a word"));
                self.count(if matches!(change, Change::Reload(_)) { "refused reload" } else { "refused order" });
                false
            }
            Ok(applied) => {
                self.note(|| told);
                self.count(match change {
                    Change::Promote { .. } => "promoted",
                    Change::Rollback { .. } => "rolled back",
                    Change::Stage { .. } => "staged",
                    Change::Stop { .. } => "stopped",
                    Change::Remove { .. } => "removed",
                    Change::Reload(_) => "reloaded",
                    Change::Retire { .. } => "retired",
                    _ => "other order",
                });
                self.meet_backends();
                for drain in self.drains.iter_mut().filter(|d| d.state.runs() && applied.superseded.contains(&d.target)) {
                    drain.finish(DrainState::Superseded, &before, self.world.now);
                }
                for target in applied.drains {
                    self.begin_drain(target, owner);
                }
                true
            }
        }
    }

    /// The timer: expiries, and every drain one step on.
    pub(super) fn controller(&mut self) {
        self.world.pass(Duration::ZERO);
        for nth in 0..self.drains.len() {
            let step = self.drains[nth].step(&self.world.view, self.world.now);
            if step == Step::Same {
                continue;
            }
            let drain = self.drains[nth].clone();
            self.note(|| format!("drain of {}: {step:?}", drain.target));
            self.count(match step {
                Step::Fencing => "fencing",
                Step::Reopened => "reopened",
                _ => "drained",
            });
            if step == Step::Drained {
                self.verdict(&drain);
            }
            if let (Step::Drained, Target::Backend(app, release, backend)) = (step, &drain.target) {
                self.retire(app, release, backend);
            }
            if let (Target::Release(app, release), Some(state)) = (&drain.target, drain.release_state()) {
                let change = Change::Settle { app: app.clone(), release: release.clone(), state };
                let settled = self.world.change(&change, Owner::Controller);
                self.require(settled.is_ok(), || format!("drain of {}: {settled:?}", drain.target));
            }
        }
    }

    /// Probes find this and that; processes and networks break and come back.
    pub(super) fn weather(&mut self) {
        let mut places: Vec<_> = self.backends.keys().copied().collect();
        places.sort_unstable();
        let place = places[self.dice.below(places.len())];
        let backend = Arc::clone(&self.backends[&place]);
        let application = self.applications.entry(place).or_default();
        let what = self.dice.below(24);
        match what {
            // The process dies, or only the way to it.
            0 | 1 => application.dead = true,
            2..8 => application.dead = false,
            _ => {}
        }
        let memory = if what == 0 || what == 2 {
            application.restart();
            ", its memory gone"
        } else {
            ""
        };
        let dead = application.dead;
        let health = match what {
            _ if dead => Health::Down,
            8 => Health::Down,
            9 => Health::Stalled,
            10 => Health::Draining,
            _ => Health::Up,
        };
        if what == 2 && self.dice.below(2) == 0 {
            // A proven restart: its sessions are lost, counted once.
            let app = Arc::clone(&self.world.view.apps[place.0]);
            backend.live.reborn(Proof::Operator, &app.ledger, place.1, self.world.now, self.world.now);
        }
        if health != Health::Down && backend.live.gate.read().health == Health::Down {
            backend.live.suspect();
        }
        backend.live.observe(health, self.world.now);
        self.note(|| format!("{}/{} is {}{memory}", backend.release, backend.spec.name, health.as_str()));
    }
}
