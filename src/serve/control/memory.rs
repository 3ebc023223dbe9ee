//! What the controller writes down for the process after this one, and how that one goes on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evictions::Eviction;
use super::{Control, DRAINS_KEPT, DrainOrder, Inner, VERDICTS};
use crate::model::change::{Change, NewApp, Refused};
use crate::model::drain::Drain;
use crate::model::event::{Event, Owner};
use crate::model::memory::{AppMemory, DrainMemory, EventMemory};
use crate::model::time::Time;

/// Events that are written down: as many as somebody reads.
const EVENTS_SAVED: usize = 200;

/// Drains, as they are written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainBook {
    /// The number of the last one.
    pub last: u64,
    /// Those that are over, by verdict.
    pub finished: BTreeMap<String, u64>,
    /// Those that run and the latest that are over, oldest first.
    pub drains: Vec<DrainMemory>,
    /// Evictions that were ordered and are under way.
    #[serde(default)]
    pub evictions: Vec<EvictionMemory>,
}

/// An eviction that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionMemory {
    /// As typed.
    pub target: String,
    /// One of those that the target concerns.
    pub app: String,
    /// Only sessions that are silent for so long.
    pub idle: Option<Duration>,
}

impl DrainBook {
    /// Moves all points in time, after the wall clock was set.
    pub fn shift(&mut self, shift: impl Fn(Time) -> Time) {
        for drain in &mut self.drains {
            drain.shift(&shift);
        }
    }
}

impl Control {
    /// Rises with every change of the snapshot, of a drain or of somebody's health.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a drain runs, whose ends are counted on and on.
    pub fn drains_run(&self) -> bool {
        self.lock().drains.iter().any(|drain| drain.state.runs())
    }

    /// How every app stands.
    pub fn remember_apps(&self) -> Vec<(String, AppMemory)> {
        self.view().apps.iter().map(|app| (app.name.to_string(), AppMemory::of(app))).collect()
    }

    /// How every drain stands.
    pub fn remember_drains(&self) -> DrainBook {
        // The lock first: a drain that is over has its verdict in the view that is read under it.
        let inner = self.lock();
        let view = self.view();
        let finished = VERDICTS.iter().zip(inner.finished).map(|(verdict, count)| (verdict.as_str().to_owned(), count));
        DrainBook {
            last: inner.last_drain,
            finished: finished.collect(),
            drains: inner.drains.iter().map(|drain| drain.remember(&view)).collect(),
            evictions: inner.evicting.clone(),
        }
    }

    /// The latest events, oldest first.
    pub fn remember_events(&self) -> Vec<EventMemory> {
        let inner = self.lock();
        let skipped = inner.events.len().saturating_sub(EVENTS_SAVED);
        inner.events.iter().skip(skipped).map(EventMemory::from).collect()
    }

    /// Goes on where a process before left off. To be called once, before anything else.
    ///
    /// # Errors
    /// What of the memory is not understood, or does not fit together; nothing is published then.
    pub fn recall(&self, apps: Vec<NewApp>, book: &DrainBook, events: Vec<EventMemory>) -> Result<(), String> {
        let mut inner = self.lock();
        let view = self.view();
        let drains = book.drains.iter().map(|drain| Drain::recall(drain, &view)).collect::<Result<Vec<_>, _>>()?;
        *inner = Inner {
            last_drain: drains.iter().map(|drain| drain.id).max().unwrap_or(0).max(book.last),
            drains: drains.into_iter().rev().take(DRAINS_KEPT * 2).rev().collect(),
            events: events.into_iter().map(Event::from).collect(),
            ..Inner::default()
        };
        for (count, verdict) in inner.finished.iter_mut().zip(VERDICTS) {
            *count = book.finished.get(verdict.as_str()).copied().unwrap_or(0);
        }
        let loaded = self.apply_locked(&mut inner, &Change::Load(apps), Owner::Config, DrainOrder::default());
        loaded.map_err(|Refused { what, .. }| what)?;
        let view = self.view();
        inner.evictions = book.evictions.iter().filter_map(|memory| Eviction::recall(memory, &view)).collect();
        inner.note_evictions();
        Ok(())
    }
}
