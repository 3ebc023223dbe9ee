//! When a drain will be empty: at the latest if nobody clicks again, and in all likelihood.

use std::time::Duration;

use super::Drain;
use super::confidence::Doubt;
use crate::model::forecast::{Eta, TooFew, eta};
use crate::model::settings::DrainThen;
use crate::model::time::Time;
use crate::model::view::View;

/// What is to be expected of a drain, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// When it will be empty, and may say so.
    pub eta: Result<Eta, TooFew>,
    /// When the last session will have ended at the latest, if none is touched again; `None` when none is left.
    pub upper_bound: Option<Duration>,
}

impl Drain {
    /// Walks over the ledgers of its apps: to be asked once a second at most.
    pub fn outlook(&self, view: &View, now: Time) -> Outlook {
        let backends = self.target.backends(view);
        let (mut last, mut prospects, mut earliest) = (None, Ok(Vec::new()), Duration::ZERO);
        for (app, slots) in self.target.slots(view) {
            let future = app.ledger.future(&slots, now);
            last = last.max(future.last_end);
            earliest = earliest.max(future.newborns_until.map_or(Duration::ZERO, |until| until.since(now)));
            prospects = prospects.and_then(|mut all| {
                future.prospect.map(|prospect| {
                    all.push(prospect);
                    all
                })
            });
        }
        // A drain that is not confident does not end, whoever has gone.
        for (app, backend) in &backends {
            earliest = earliest.max(match self.doubt_of(app, backend, now) {
                Some(Doubt::Young { seen, idle_timeout, .. }) => idle_timeout.saturating_sub(seen),
                Some(Doubt::Strangers { left, .. }) => left,
                // And longer, by the time until somebody comes.
                Some(Doubt::Unvisited) => app.settings.session.idle_timeout,
                Some(Doubt::Full | Doubt::AdoptionCapped | Doubt::Unsaved | Doubt::Contradicted { .. }) | None => Duration::ZERO,
            });
        }
        // A deadline that came too late for the rate of evictions is missed: the last one goes when the rate allows.
        let evicted_by = self.deadline.filter(|_| self.then == DrainThen::Evict);
        let evicted_by = evicted_by.map(|deadline| deadline.since(now).max(self.eviction_span(view)));
        let within = |span: Duration| evicted_by.map_or(span, |by| span.min(by)).max(earliest);
        let eta = prospects.map(|prospects| {
            let Eta { p50, p90, p99 } = eta(&prospects);
            Eta { p50: within(p50), p90: within(p90), p99: within(p99) }
        });
        Outlook { eta, upper_bound: last.map(|end| end.since(now)) }
    }
}
