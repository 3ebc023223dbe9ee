//! The documents of the state: what one process writes down besides sessions, and the next one goes on from.
//!
//! | document | holds |
//! |---|---|
//! | `apps` | releases, backends, intents, who is current |
//! | `drains` | drains that run, and the latest verdicts |
//! | `events` | the end of the event log |
//! | `histories` | what finished sessions have taught, for forecasts |
//! | `file` | the configuration that was applied last |
//! | `life` | whether the process before ended in order |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::control::{Control, DrainBook};
use crate::model::memory::{AppMemory, EventMemory};
use crate::model::time::Time;

/// What drains have counted is written at most so often; everything else whenever it changes.
const ENDS_EVERY: Duration = Duration::from_millis(200);
/// What finished sessions have taught changes once a minute.
const HISTORIES_EVERY: Duration = Duration::from_secs(60);

/// A process that lives writes at least every ten seconds, and one that was killed is soon started again. After a longer silence
/// nobody can tell a machine that was off from a disk that took nothing any more.
const SILENT: Duration = Duration::from_secs(30);

/// Document names and their bytes.
pub type Documents = BTreeMap<String, Vec<u8>>;

/// What a process before left.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// By name.
    pub apps: BTreeMap<String, AppMemory>,
    /// Drains.
    pub drains: DrainBook,
    /// The end of the event log.
    pub events: Vec<EventMemory>,
    /// By app.
    pub histories: BTreeMap<String, Taught>,
    /// The configuration that was applied last.
    pub file: Option<AppliedText>,
    /// How it ended.
    pub life: Life,
}

/// What finished sessions of an app have taught.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taught {
    /// Counts by kind and duration.
    pub rows: Vec<Vec<f64>>,
    /// Up to when.
    pub at: Time,
}

/// A configuration file's text, as it was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedText {
    /// The file.
    pub path: String,
    /// What it said.
    pub text: String,
    /// When it was applied.
    pub at: Time,
}

/// How a process ended, as far as it could say so itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// It had written everything down.
    pub ended_in_order: bool,
}

impl Remembered {
    /// Reads what was written; `None` where nothing was.
    ///
    /// # Errors
    /// Names the document that makes no sense.
    pub fn read(documents: &Documents) -> Result<Option<Remembered>, String> {
        if documents.is_empty() {
            return Ok(None);
        }
        Ok(Some(Remembered {
            apps: read(documents, "apps")?,
            drains: read(documents, "drains")?,
            events: read(documents, "events")?,
            histories: read(documents, "histories")?,
            file: read(documents, "file")?,
            life: read(documents, "life")?,
        }))
    }

    /// The same as documents, for the file: what was doubted or moved since it was read.
    pub fn documents(&self) -> Documents {
        let Remembered { apps, drains, events, histories, file, life } = self;
        let all = [
            ("apps", json(apps)),
            ("drains", json(drains)),
            ("events", json(events)),
            ("histories", json(histories)),
            ("file", json(file)),
            ("life", json(life)),
        ];
        all.into_iter().map(|(name, body)| (name.to_owned(), body)).collect()
    }

    /// Whom to doubt, by how the process before ended and when it last wrote.
    pub fn doubt(&mut self, written: Option<Time>, now: Time) {
        if self.life.ended_in_order {
            return;
        }
        let silent = written.map(|written| now.since(written));
        if silent.is_some_and(|silent| silent <= SILENT) {
            log::warn!("the process before did not end in order: births of its last tenth of a second may be missing");
            self.apps.values_mut().for_each(|app| app.doubt_births(now));
        } else {
            let span = silent.map_or_else(String::new, |silent| format!(" {} s ago", silent.as_secs()));
            log::warn!(
                "the process before did not end in order, and its last write was{span}: if its disk refused writes, what happened \
                 since is missing; no drain is confident before one idle timeout has passed"
            );
            self.apps.values_mut().for_each(|app| app.doubt_all(now));
        }
    }

    /// Moves all points in time, after the wall clock was set.
    pub fn shift(&mut self, shift: impl Fn(Time) -> Time) {
        self.apps.values_mut().for_each(|app| app.shift(&shift));
        self.drains.shift(&shift);
        self.events.iter_mut().for_each(|event| event.at = shift(event.at));
        self.histories.values_mut().for_each(|taught| taught.at = shift(taught.at));
        if let Some(file) = &mut self.file {
            file.at = shift(file.at);
        }
    }
}

fn read<D: DeserializeOwned + Default>(documents: &Documents, name: &str) -> Result<D, String> {
    let Some(bytes) = documents.get(name) else { return Ok(D::default()) };
    serde_json::from_slice(bytes).map_err(|fault| format!("document '{name}': {fault}"))
}

/// Writes the documents, each only when it has changed.
pub struct Scribe {
    control: Arc<Control>,
    file: Arc<dyn Fn() -> Option<AppliedText> + Send + Sync>,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    generation: Option<u64>,
    ends_at: Option<Instant>,
    histories_at: Option<Instant>,
    ended_in_order: bool,
    written: Documents,
}

impl Scribe {
    /// One that also writes down the applied configuration that `file` tells of.
    pub fn new(control: Arc<Control>, file: impl Fn() -> Option<AppliedText> + Send + Sync + 'static) -> Scribe {
        Scribe { control, file: Arc::new(file), desk: Mutex::default() }
    }

    /// All documents as they are now, without regard to what was written: for another process.
    pub fn all(&self) -> Documents {
        Scribe { control: Arc::clone(&self.control), file: Arc::clone(&self.file), desk: Mutex::default() }
            .documents(true)
            .into_iter()
            .collect()
    }

    /// The last words of a process that has written everything down.
    pub fn end_in_order(&self) {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).ended_in_order = true;
    }

    /// The documents that changed since the last call, or `all`.
    pub fn documents(&self, all: bool) -> Vec<(String, Vec<u8>)> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if all {
            *desk = Desk { ended_in_order: desk.ended_in_order, ..Desk::default() };
        }
        let (now, generation) = (Instant::now(), self.control.generation());
        let mut fresh = vec![("life", json(&Life { ended_in_order: desk.ended_in_order }))];
        let due = |at: Option<Instant>, every: Duration| at.is_none_or(|at| now.duration_since(at) >= every);
        // Before its documents are made: what changes meanwhile is looked at again.
        let changed = desk.generation.replace(generation) != Some(generation);
        if changed {
            // First: a reload publishes its apps and notes its file after that. Apps that know more than the file have the same edit
            // applied again, which changes nothing; a file that is ahead of its apps would lose it.
            fresh.push(("file", json(&(self.file)())));
            fresh.push(("apps", json(&self.control.remember_apps().into_iter().collect::<BTreeMap<_, _>>())));
            fresh.push(("events", json(&self.control.remember_events())));
        }
        if changed || due(desk.ends_at, ENDS_EVERY) && self.control.drains_run() {
            desk.ends_at = Some(now);
            fresh.push(("drains", json(&self.control.remember_drains())));
        }
        if due(desk.histories_at, HISTORIES_EVERY) || desk.ended_in_order {
            desk.histories_at = Some(now);
            fresh.push(("histories", json(&self.histories())));
        }
        fresh.retain(|(name, bytes)| desk.written.get(*name) != Some(bytes));
        let fresh: Vec<(String, Vec<u8>)> = fresh.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        desk.written.extend(fresh.iter().cloned());
        fresh
    }

    fn histories(&self) -> BTreeMap<String, Taught> {
        let taught = |app: &Arc<crate::model::view::App>| {
            let (history, at) = app.ledger.history();
            (app.name.to_string(), Taught { rows: history.rows(), at })
        };
        self.control.view().apps.iter().map(taught).collect()
    }
}

/// Of our own types, whose keys are strings: they can always be written.
fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests;
