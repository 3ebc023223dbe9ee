//! Who edits the file: one to three slips or good ideas at a time, while all others are at work.

use std::sync::Arc;

use super::Simulation;
use crate::model::change::{Change, NewApp, reload};
use crate::model::event::Owner;
use crate::model::settings::{AppSpec, Balance, Current, Failover};
use crate::model::sketch;

impl Simulation {
    /// Edits one app's part of the file, and reloads.
    pub(super) fn edit(&mut self) {
        let mut next = self.file.clone();
        let place = self.dice.below(next.len());
        for _ in 0..1 + self.dice.below(3) {
            self.edit_app(&mut next[place]);
        }
        let secrets = self.world.view.apps.iter().map(|app| (Arc::clone(&app.keyring), Arc::clone(&app.hash)));
        let apps = next.iter().zip(secrets).map(|(spec, (keyring, hash))| NewApp { spec: spec.clone(), keyring, hash, memory: None });
        let force = self.dice.below(4) == 0;
        let reload = reload::Reload { applied: self.file.clone(), next: apps.collect(), force, serving: true };
        if self.order(&Change::Reload(reload), Owner::Config) {
            self.file = next;
        }
    }

    fn edit_app(&mut self, app: &mut AppSpec) {
        let release = self.dice.below(app.releases.len());
        let backend = self.dice.below(app.releases[release].backends.len());
        let backends = &mut app.releases[release].backends;
        let what = self.dice.below(10);
        match what {
            0 => backends[backend].weight = self.dice.below(4) as u32,
            1..4 => backends[backend].address.port = 50_000 + self.dice.below(4) as u16 + 10 * backend as u16 + 100 * release as u16,
            4 if backends.len() > 1 => drop(backends.remove(backend)),
            5 => {
                self.next_name += 1;
                backends.push(sketch::backend(&format!("f{}", self.next_name), 1, false, 60_000 + (self.next_name % 5_000) as u16));
            }
            6 if app.releases.len() > 1 && app.current != Current::Release(app.releases[release].name.clone()) => {
                app.releases.remove(release);
            }
            7 => {
                self.next_name += 1;
                let (n, mut port) = (self.next_name, 30_000 + (self.next_name % 5_000) as u16);
                app.releases.push(sketch::release(&format!("f{n}:f{n}b1"), &mut port));
            }
            8 if self.dice.below(4) == 0 => app.current = Current::ByHealth,
            8 => app.current = Current::Release(app.releases[release].name.clone()),
            _ => {
                app.settings.balance = [Balance::LeastSessions, Balance::RoundRobin, Balance::Consistent][self.dice.below(3)];
                app.settings.failover = [Failover::Temporary, Failover::Off][self.dice.below(2)];
            }
        }
    }

    /// As the shell does it at a verdict.
    pub(super) fn retire(&mut self, app: &str, release: &str, backend: &str) {
        let found = self.world.view.app(app).and_then(|app| app.release(release));
        if found.is_some_and(|r| r.backends.iter().any(|b| b.left.is_some() && b.spec.name == backend)) {
            let (app, release, backend) = (app.to_owned(), release.to_owned(), backend.to_owned());
            self.order(&Change::Retire { app, release, backend }, Owner::Controller);
        }
    }
}
