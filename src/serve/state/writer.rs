//! The thread that writes: every 50 ms one transaction with all that changed, so that no request ever waits for a disk.
//!
//! When a write fails, nothing is lost but time: tidegate serves on, and once the disk takes writes again everything is written
//! anew in one transaction. Notes of changes are therefore never put back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::file::{Batch, StateFile, UNCOUNTED, Uncounted};
use super::lock::StateLock;
use crate::model::ledger::{Ledger, Noted, Notes, Page, Record};
use crate::model::time::Time;
use crate::model::view::{App, View};

/// A birth, renaming or end is in the file after twice this time at the latest.
const TURN: Duration = Duration::from_millis(50);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two complaints about the same disk.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// So that after another boot the last write is not long ago, although nothing happened.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

const DIED: &str = "the writer of the state file died";

/// What is to be kept. Called by the writing thread alone.
pub trait StateSource: Send + Sync {
    /// The present.
    fn now(&self) -> Time;

    /// The apps with their ledgers and backends.
    fn view(&self) -> Arc<View>;

    /// Documents that changed since the last call, or all with `all`. What was given but could not be written is asked for
    /// again, with all others.
    fn documents(&self, all: bool) -> Vec<(String, Vec<u8>)>;

    /// What happened in an app's ledger, before it is stored.
    fn overheard(&self, _app: &App, _notes: &Notes) {}

    /// That was the last app of this turn.
    fn all_overheard(&self) {}

    /// Why nothing can be written, told at each attempt; `None` when it can again.
    fn failed(&self, why: Option<&str>);
}

/// Attempts to write that failed; outlives the writer.
#[derive(Clone, Debug, Default)]
pub struct WriteFailures(Arc<AtomicU64>);

impl WriteFailures {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// So far.
    pub fn total(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The thread that writes, and what others may ask of it.
pub struct Keeper {
    wishes: Arc<Wishes>,
    thread: Option<JoinHandle<(StateLock, Result<(), String>)>>,
}

#[derive(Default)]
struct Wishes {
    wished: Mutex<Wished>,
    changed: Condvar,
}

#[derive(Default)]
struct Wished {
    /// How often somebody asked for everything to be written.
    asked: u64,
    /// The last of these that was answered, and how.
    answered: u64,
    outcome: Option<String>,
    stop: bool,
    /// The writer is no more, and answers nobody.
    over: bool,
}

impl Keeper {
    /// Begins to write what `source` has. Ledgers that were not restored from the file are written whole; with `anew` all are.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(file: StateFile, source: Arc<dyn StateSource>, failures: WriteFailures, anew: bool) -> std::io::Result<Keeper> {
        let wishes = Arc::new(Wishes::default());
        let writer = Writer {
            file,
            source,
            wishes: Arc::clone(&wishes),
            failures,
            kept: HashMap::new(),
            rewrite: anew,
            all_documents: true,
            failing: false,
            complained: None,
            written: None,
            uncounted: Uncounted::default(),
        };
        let over = Over(Arc::clone(&wishes));
        let thread = Builder::new().name("state".to_owned()).spawn(move || {
            let _over = over;
            writer.run()
        })?;
        Ok(Keeper { wishes, thread: Some(thread) })
    }

    /// Waits until everything that happened before is on its way to the disk: it survives the end of this process.
    ///
    /// # Errors
    /// Why it could not be written.
    pub fn flush(&self) -> Result<(), String> {
        let mut wished = self.wishes.lock();
        wished.asked += 1;
        let mine = wished.asked;
        self.wishes.changed.notify_all();
        while wished.answered < mine && !wished.over {
            wished = self.wishes.changed.wait(wished).unwrap_or_else(PoisonError::into_inner);
        }
        if wished.answered < mine {
            return Err(DIED.to_owned());
        }
        wished.outcome.clone().map_or(Ok(()), Err)
    }

    /// Writes everything, brings it into one file and closes it. The lock is to be kept, dropped or handed over; without one
    /// the writer had died.
    ///
    /// # Errors
    /// Beside the lock: why the last of it could not be written.
    pub fn stop(mut self) -> (Option<StateLock>, Result<(), String>) {
        match self.end() {
            Some((lock, outcome)) => (Some(lock), outcome),
            None => (None, Err(DIED.to_owned())),
        }
    }

    fn end(&mut self) -> Option<(StateLock, Result<(), String>)> {
        self.wishes.lock().stop = true;
        self.wishes.changed.notify_all();
        self.thread.take()?.join().ok()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((_, Err(why))) = self.end() {
            log::error!("state file: {why}");
        }
    }
}

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, Wished> {
        self.wished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says so when the writer is gone, by a panic too: nobody may wait for it then.
struct Over(Arc<Wishes>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

struct Writer {
    file: StateFile,
    source: Arc<dyn StateSource>,
    wishes: Arc<Wishes>,
    failures: WriteFailures,
    /// By the name of the app.
    kept: HashMap<Arc<str>, Kept>,
    /// Everything is to be written anew: the last attempt failed.
    rewrite: bool,
    all_documents: bool,
    failing: bool,
    complained: Option<Instant>,
    written: Option<Instant>,
    /// As last given to the file.
    uncounted: Uncounted,
}

struct Kept {
    ledger: Arc<Ledger>,
    /// Numbers of its backends in the file, by slot.
    places: Vec<Option<i64>>,
    /// As of the turn before.
    app: Option<Arc<App>>,
}

/// What is to be written of one app.
struct Change {
    app: Arc<App>,
    notes: Notes,
    whole: bool,
}

impl Writer {
    fn run(mut self) -> (StateLock, Result<(), String>) {
        loop {
            let (asked, stop) = {
                let wait = if self.failing { AGAIN } else { TURN };
                let wished = self.wishes.lock();
                let idle = |wished: &mut Wished| wished.asked == wished.answered && !wished.stop;
                let (wished, _) = self.wishes.changed.wait_timeout_while(wished, wait, idle).unwrap_or_else(PoisonError::into_inner);
                (wished.asked, wished.stop)
            };
            let outcome = self.turn();
            {
                let mut wished = self.wishes.lock();
                wished.answered = asked;
                wished.outcome = outcome.clone().err();
            }
            self.wishes.changed.notify_all();
            if stop {
                let (lock, closed) = self.file.close();
                return (lock, outcome.and(closed.map_err(|error| error.to_string())));
            }
        }
    }

    fn turn(&mut self) -> Result<(), String> {
        let now = self.source.now();
        let mut documents = self.source.documents(self.all_documents);
        let (changes, gone) = self.changes(now);
        documents.extend(self.uncounted(&changes));
        let quiet = documents.is_empty() && gone.is_empty() && changes.iter().all(|change| !change.whole && change.notes.notes.is_empty());
        if quiet && !self.failing && self.written.is_some_and(|at| at.elapsed() < SIGN_OF_LIFE) {
            return Ok(());
        }
        if !self.file.knows_places() {
            self.kept.values_mut().for_each(|kept| kept.places.clear());
        }
        let kept = &mut self.kept;
        let written = self.file.write(now, |batch| {
            for (name, body) in &documents {
                batch.put_document(name, body)?;
            }
            for app in &gone {
                let number = batch.app(app)?;
                batch.delete_all_of(number)?;
            }
            for change in &changes {
                if let Some(kept) = kept.get_mut(&change.app.name) {
                    kept.write(change, batch, now)?;
                }
            }
            Ok(())
        });
        match written {
            Ok(()) => {
                self.succeeded(&gone);
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What happened since the last turn, and the apps that are no more.
    fn changes(&mut self, now: Time) -> (Vec<Change>, Vec<Arc<str>>) {
        let view = self.source.view();
        let mut changes = Vec::with_capacity(view.apps.len());
        for app in &view.apps {
            // One whose journal was kept before our first turn was restored from this file; any other that appears is in none.
            let restored = app.ledger.keep_journal() && self.written.is_none();
            let same = self.kept.get(&app.name).is_some_and(|kept| Arc::ptr_eq(&kept.ledger, &app.ledger));
            if !same {
                self.kept.insert(Arc::clone(&app.name), Kept { ledger: Arc::clone(&app.ledger), places: Vec::new(), app: None });
            }
            let notes = app.ledger.take_notes(now);
            self.source.overheard(app, &notes);
            let whole = self.rewrite || !(same || restored) || notes.overflowed;
            changes.push(Change { app: Arc::clone(app), notes, whole });
        }
        self.source.all_overheard();
        // Read again after the notes: a release may have come in between, and a session in it.
        let view = self.source.view();
        for change in &mut changes {
            if let Some(app) = view.app(&change.app.name).filter(|app| Arc::ptr_eq(&app.ledger, &change.app.ledger)) {
                change.app = Arc::clone(app);
            }
            if self.kept.get_mut(&change.app.name).is_some_and(|kept| kept.renamed(&change.app)) {
                change.whole = true;
            }
        }
        // They are let go of once the file has let go of them.
        let gone = self.kept.keys().filter(|name| view.app(name).is_none()).cloned().collect();
        (changes, gone)
    }

    /// Whether sessions are missing in the ledgers, if that has changed.
    fn uncounted(&mut self, changes: &[Change]) -> Option<(String, Vec<u8>)> {
        let until = |change: &Change| (change.app.name.to_string(), change.app.ledger.uncounted_until().map(|time| time.0));
        let uncounted: Uncounted = changes.iter().map(until).collect();
        if uncounted == self.uncounted && !self.all_documents {
            return None;
        }
        let body = serde_json::to_vec(&uncounted).unwrap_or_default();
        self.uncounted = uncounted;
        Some((UNCOUNTED.to_owned(), body))
    }

    fn succeeded(&mut self, gone: &[Arc<str>]) {
        if self.failing {
            log::info!("state file {}: written again, nothing is missing", self.file.path().display());
        }
        // A writer before this one may have failed.
        if self.failing || self.written.is_none() {
            self.source.failed(None);
        }
        self.kept.retain(|name, _| !gone.contains(name));
        (self.rewrite, self.all_documents, self.failing, self.complained) = (false, false, false, None);
        self.written = Some(Instant::now());
    }

    fn failed(&mut self, error: &rusqlite::Error) -> String {
        self.failures.0.fetch_add(1, Relaxed);
        (self.rewrite, self.all_documents, self.failing) = (true, true, true);
        let path = self.file.path().display();
        let why = format!("state file {path} cannot be written: {error}");
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            log::error!("{why}; a crash would forget what happens now: make room on the disk, and writable; it is tried every second");
        }
        self.source.failed(Some(&why));
        why
    }
}

impl Kept {
    /// Whether backends have other names than at the turn before, because their address left the file: their sessions are in the
    /// file under names that are somebody else's by now. At the first turn nobody knows what was renamed since that was written.
    fn renamed(&mut self, app: &Arc<App>) -> bool {
        let Some(before) = self.app.replace(Arc::clone(app)) else { return !app.former.is_empty() };
        let mut known = before.backends.iter().flatten().filter_map(|was| Some((was, app.backend(was.slot)?)));
        let renamed = !Arc::ptr_eq(&before, app) && known.any(|(was, is)| was.spec.name != is.spec.name);
        if renamed {
            self.places.clear();
        }
        renamed
    }

    fn write(&mut self, change: &Change, batch: &mut Batch<'_>, now: Time) -> rusqlite::Result<()> {
        let (app, ledger) = (&change.app, &change.app.ledger);
        if !change.whole && change.notes.notes.is_empty() {
            return Ok(());
        }
        let number = batch.app(&app.name)?;
        if change.whole {
            batch.delete_all_of(number)?;
            let (mut page, mut records) = (Some(Page::default()), Vec::new());
            while let Some(from) = page {
                records.clear();
                page = ledger.page(from, &mut records);
                for record in &records {
                    self.put(app, number, record, batch, now)?;
                }
            }
            return Ok(());
        }
        for (noted, _) in &change.notes.notes {
            match noted {
                Noted::Entry(record) => self.put(app, number, record, batch, now)?,
                Noted::Gone(key) => batch.delete_session(number, key)?,
                // Both names follow as entries.
                Noted::Renamed { .. } => {}
            }
        }
        Ok(())
    }

    fn put(&mut self, app: &App, number: i64, record: &Record, batch: &mut Batch<'_>, now: Time) -> rusqlite::Result<()> {
        match self.place(app, record.found.slot, batch)? {
            Some(place) => batch.put_session(number, place, &app.ledger.lasting(record, now)),
            // Of a backend that is no more: no run could restore it.
            None => batch.delete_session(number, &record.key),
        }
    }

    fn place(&mut self, app: &App, slot: u32, batch: &mut Batch<'_>) -> rusqlite::Result<Option<i64>> {
        let index = slot as usize;
        if let Some(Some(known)) = self.places.get(index) {
            return Ok(Some(*known));
        }
        let Some(backend) = app.backend(slot) else { return Ok(None) };
        let id = batch.place(&app.name, &backend.release, &backend.spec.name)?;
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = Some(id);
        }
        Ok(Some(id))
    }
}
