//! What the state file is filled from, and who else listens: during an upgrade the other process is told of the same notes.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::control::Control;
use super::remembered::Scribe;
use super::state::{Keeper, StateError, StateFile, StateLock, StateSource};
use super::upgrade::link::Item;
use crate::model::ledger::Notes;
use crate::model::time::Time;
use crate::model::view::{App, View};

/// Everything that is to be kept, and the thread that does so.
pub struct Keeping {
    source: Arc<Source>,
    keeper: Mutex<Option<Keeper>>,
}

/// What is to be kept.
pub struct Source {
    control: Arc<Control>,
    /// Documents.
    pub scribe: Scribe,
    listener: Mutex<Option<Sender<Item>>>,
    /// Whoever takes notes passes them on before somebody else takes more.
    taking: Mutex<()>,
}

impl Keeping {
    /// Nothing is written until [`Keeping::begin`].
    pub fn new(control: Arc<Control>, scribe: Scribe) -> Keeping {
        let source = Arc::new(Source { control, scribe, listener: Mutex::default(), taking: Mutex::default() });
        Keeping { source, keeper: Mutex::default() }
    }

    /// Begins to write. `anew`: what is in the file of sessions may be wrong.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn begin(&self, file: StateFile, anew: bool) -> std::io::Result<()> {
        let source: Arc<dyn StateSource> = Arc::clone(&self.source) as _;
        *self.lock() = Some(Keeper::start(file, source, self.source.control.write_failures.clone(), anew)?);
        Ok(())
    }

    /// Begins to write again, after [`Keeping::end`].
    ///
    /// # Errors
    /// [`StateError`], in words.
    pub fn begin_again(&self, lock: StateLock) -> Result<(), String> {
        let (file, _) = StateFile::open(lock, self.source.control.now()).map_err(|error: StateError| error.to_string())?;
        self.begin(file, true).map_err(|error| error.to_string())
    }

    /// Writes everything and closes the file; the lock is the caller's, `None` when nothing was being written.
    pub fn end(&self) -> Option<StateLock> {
        let keeper = self.lock().take()?;
        let (lock, outcome) = keeper.stop();
        if let Err(why) = outcome {
            log::error!("{why}");
        }
        lock
    }

    /// The same as the last thing that this process does: the next one knows that nothing is missing.
    pub fn end_in_order(&self) {
        if self.lock().is_some() {
            self.source.scribe.end_in_order();
            drop(self.end());
        }
    }

    /// Waits until everything that happened before is on its way to the disk. Where another process writes, that one does.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn flush(&self) -> Result<(), String> {
        self.lock().as_ref().map_or(Ok(()), Keeper::flush)
    }

    /// What is kept.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn lock(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// All that happens in the ledgers from now on, and words that are to be said in between.
    pub fn listen(&self) -> (Sender<Item>, Receiver<Item>) {
        let (items, heard) = channel();
        *self.listener() = Some(items.clone());
        (items, heard)
    }

    /// Nobody listens any more.
    pub fn stop_listening(&self) {
        *self.listener() = None;
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.listener().is_some()
    }

    /// One turn of nobody's writing: what the thread that writes would do, without it.
    pub fn overhear(&self) {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        for app in &self.control.view().apps {
            self.overheard(app, &app.ledger.take_notes(self.control.now()));
        }
        self.all_overheard();
    }

    fn listener(&self) -> MutexGuard<'_, Option<Sender<Item>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, item: impl FnOnce() -> Item) {
        let mut listener = self.listener();
        // One that has gone hears nothing.
        if listener.as_ref().is_some_and(|items| items.send(item()).is_err()) {
            *listener = None;
        }
    }
}

impl StateSource for Source {
    fn now(&self) -> Time {
        self.control.now()
    }

    fn view(&self) -> Arc<View> {
        self.control.view()
    }

    fn documents(&self, all: bool) -> Vec<(String, Vec<u8>)> {
        self.scribe.documents(all)
    }

    fn overheard(&self, app: &App, notes: &Notes) {
        self.tell(|| Item::Notes(Arc::clone(&app.name), notes.clone()));
    }

    fn all_overheard(&self) {
        self.tell(|| Item::Turn);
    }

    fn failed(&self, why: Option<&str>) {
        for app in &self.control.view().apps {
            app.ledger.set_unsaved(why.is_some());
        }
    }
}
