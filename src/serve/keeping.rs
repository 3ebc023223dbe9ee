//! What the state file is filled from, and who else listens: during an upgrade the other process is told of the same notes.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::control::Control;
use super::remembered::Scribe;
use super::state::{Keeper, StateError, StateFile, StateLock, StateSource};
use super::upgrade::link::Item;
use crate::model::ledger::Notes;
use crate::model::time::Time;
use crate::model::view::{App, View};

/// Between two attempts to open the file again.
const AGAIN: Duration = Duration::from_secs(1);

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
    /// One for each process that is told: after two upgrades in a row there may be two.
    listeners: Mutex<Vec<Sender<Item>>>,
    /// Whoever takes notes passes them on before somebody else takes more.
    taking: Mutex<()>,
}

impl Keeping {
    /// Nothing is written until [`Keeping::begin`].
    pub fn new(control: Arc<Control>, scribe: Scribe) -> Keeping {
        let source = Arc::new(Source { control, scribe, listeners: Mutex::default(), taking: Mutex::default() });
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

    /// Begins to write again, after [`Keeping::end`]: now or, where the file cannot be opened, as soon as it can. The directory stays
    /// this process's meanwhile, and no drain is confident.
    pub fn begin_again(self: &Arc<Self>, lock: StateLock) {
        let Err(why) = self.try_again(&lock) else { return };
        log::error!("{why}; what happens is not written down meanwhile; it is tried every second");
        self.source.failed(Some(&why));
        let keeping = Arc::clone(self);
        let retry = move || {
            while let Err(why) = keeping.try_again(&lock) {
                keeping.source.control.write_failures.count();
                keeping.source.failed(Some(&why));
                thread::park_timeout(AGAIN);
            }
            log::info!("the state is written down again");
        };
        if let Err(error) = thread::Builder::new().name("state".to_owned()).spawn(retry) {
            log::error!("nothing is written down any more: {error}");
        }
    }

    fn try_again(&self, lock: &StateLock) -> Result<(), String> {
        let lock = lock.duplicate().map_err(|error| error.to_string())?;
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

    /// Whoever listens is told of everything that happened up to now, before this returns.
    pub fn tell_now(&self) {
        match &*self.lock() {
            Some(keeper) => keeper.flush().unwrap_or_else(|why| log::debug!("told, but not written: {why}")),
            None => self.source.overhear(),
        }
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
    /// All that happens in the ledgers from now on, and words that are to be said in between; until the receiver is dropped.
    pub fn listen(&self) -> (Sender<Item>, Receiver<Item>) {
        let (items, heard) = channel();
        self.listeners().push(items.clone());
        (items, heard)
    }

    /// One turn of nobody's writing: what the thread that writes would do, without it.
    pub fn overhear(&self) {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        for app in &self.control.view().apps {
            self.overheard(app, &app.ledger.take_notes(self.control.now()));
        }
        self.all_overheard();
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Sender<Item>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, item: impl Fn() -> Item) {
        // One that has gone hears nothing.
        self.listeners().retain(|items| items.send(item()).is_ok());
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
