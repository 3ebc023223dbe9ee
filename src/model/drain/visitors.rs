//! Who came by this proxy since a drain began.
//!
//! Configured keys (`session.keys`) are how several proxies share pins, so where there are some, this one may be the standby of a pair:
//! its count is zero because the people are elsewhere. And when they come here, they do not all come in the first second.

use std::sync::Arc;

use super::confidence::Watched;
use crate::model::backend::Backend;
use crate::model::target::Target;
use crate::model::time::Time;
use crate::model::view::{App, View};

/// Of the apps that a drain covers.
#[derive(Clone, Debug, Default)]
pub(super) struct Visitors(Vec<Met>);

#[derive(Clone, Debug)]
struct Met {
    app: Arc<str>,
    /// Visits before the drain.
    before: u64,
    /// Whether somebody came since.
    visited: bool,
    /// Since when people come.
    since: Option<Time>,
}

impl Visitors {
    /// For a drain that begins now. Where people come by, they have been watched for as long as they do.
    pub(super) fn new(backends: &[(Arc<App>, Arc<Backend>)], now: Time) -> Visitors {
        let mut visitors = Visitors::default();
        for (app, _) in backends {
            app.tally.observe_visits(app.settings.session.idle_timeout, now);
            visitors.add(app, app.tally.attended_since(now));
        }
        visitors
    }

    /// For a drain of a process before this one.
    pub(super) fn unmet(view: &View, target: &Target) -> Visitors {
        let mut visitors = Visitors::default();
        for (app, _) in &target.backends(view) {
            visitors.add(app, None);
        }
        visitors
    }

    fn add(&mut self, app: &App, since: Option<Time>) {
        if !self.0.iter().any(|met| met.app == app.name) {
            self.0.push(Met { app: Arc::clone(&app.name), before: app.tally.visits(), visited: false, since });
        }
    }

    /// Looks whether somebody has come.
    pub(super) fn observe(&mut self, backends: &[(Arc<App>, Arc<Backend>)], now: Time) {
        for (app, _) in backends {
            // A reload put it under the drain.
            self.add(app, None);
            for met in self.0.iter_mut().filter(|met| met.app == app.name && !met.visited && app.tally.visits() > met.before) {
                met.visited = true;
                met.since.get_or_insert(now);
            }
        }
    }

    /// Since when the ledger of that app has met whoever is alive.
    pub(super) fn watched(&self, app: &App) -> Watched {
        if app.settings.session.keys.is_empty() {
            return Watched::Always;
        }
        let met = self.0.iter().find(|met| met.app == app.name && met.visited);
        met.and_then(|met| met.since).map_or(Watched::Never, Watched::Since)
    }
}
