//! The process that is to be replaced: it starts the other one, hands over step by step, and takes everything back when that fails.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::link::{Hearer, Item, Presence, Teller};
use super::newcomer::{Newcomer, Program, Rendezvous, waits};
use super::wire::{Line, Message, Offer, PROTOCOL, Word};
use crate::model::event::Owner;
use crate::serve::control::Control;
use crate::serve::keeping::Keeping;
use crate::serve::operator::Door;
use crate::serve::state::StateLock;
use crate::serve::supervisor::{self, News};
use crate::serve::transport::{ListenerHandle, Stop};

/// How long one look at it takes, so that its end is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// As often as the thread that writes takes notes.
const TURN: Duration = Duration::from_millis(50);

/// Inits of containers. Each ends with the one process that it started, whatever else runs by then.
const INITS: [&str; 5] = ["tini", "tini-static", "docker-init", "dumb-init", "catatonit"];

fn container_ends_with_us() -> bool {
    let init = || std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    std::process::id() == 1 || (std::os::unix::process::parent_id() == 1 && INITS.contains(&init().trim()))
}

/// Why the old process serves on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// One is under way.
    #[error("an upgrade is under way already")]
    Busy,
    /// The process before it has not finished.
    #[error("the process before this one still finishes exchanges, at most for its grace period")]
    Early,
    /// The process stops.
    #[error("this process is stopping")]
    Stopping,
    /// The first process of a container, or the one that its init waits for.
    #[error("the container would end with this process: start a container with the new version instead")]
    First,
    /// The program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said why it cannot serve.
    #[error("the new process refused: {0}")]
    Refused(String),
    /// It ended.
    #[error("the new process ended {when} ({status}); its own words are in the log")]
    Ended {
        /// Which step it was at.
        when: &'static str,
        /// How.
        status: ExitStatus,
    },
    /// It said nothing for too long.
    #[error("the new process said nothing for {} s {when}, and was killed", .waited.as_secs())]
    Silent {
        /// Which step it was at.
        when: &'static str,
        /// For so long.
        waited: Duration,
    },
    /// The line to it broke, or it talks nonsense.
    #[error("the line to the new process failed {when}: {source}")]
    Line {
        /// Which step it was at.
        when: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Everything that is handed over, and the means.
pub struct Predecessor {
    /// The one door.
    pub control: Arc<Control>,
    /// The state.
    pub keeping: Arc<Keeping>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerHandle>,
    /// The admin address as configured, and its socket.
    pub door: Arc<Door>,
    /// Where the socket of the hand-over is.
    pub directory: PathBuf,
    /// Of this process.
    pub stop: Stop,
    /// What is started.
    pub program: Program,
    /// How far it is.
    pub progress: Progress,
}

/// How far an upgrade is.
#[derive(Default)]
pub struct Progress {
    state: Mutex<State>,
    settled: Condvar,
    /// This process is to stop: no successor is waited for.
    abandoned: AtomicBool,
}

#[derive(Default)]
enum State {
    #[default]
    Serving,
    HandingOver,
    /// To be told until the end.
    HandedOver(Link),
}

/// What goes on after the hand-over, until the last exchange is over.
struct Link {
    items: Sender<Item>,
    line: Line,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Predecessor {
    /// Replaces this process. Blocks until the other one serves, or has failed; answers its process id. Afterwards this process is
    /// to be stopped.
    ///
    /// # Errors
    /// [`UpgradeError`]: this process serves on, as if nothing had been.
    pub fn upgrade(&self) -> Result<u32, UpgradeError> {
        {
            let mut state = self.lock();
            if !matches!(*state, State::Serving) {
                return Err(UpgradeError::Busy);
            }
            if self.stop.draining() || self.progress.abandoned.load(Ordering::Acquire) {
                return Err(UpgradeError::Stopping);
            }
            if self.control.is_frozen() || self.control.withholds_verdicts() {
                return Err(UpgradeError::Early);
            }
            if container_ends_with_us() {
                return Err(UpgradeError::First);
            }
            *state = State::HandingOver;
        }
        self.control.freeze(true);
        log::info!("upgrade: starting {}", self.program.path.display());
        let outcome = self.hand_over();
        let (state, told) = match outcome {
            Ok((pid, link)) => {
                log::info!("upgrade: process {pid} serves; this one finishes what it has");
                supervisor::tell(News::Successor(pid));
                (State::HandedOver(link), Ok(pid))
            }
            Err(error) => {
                self.control.overlap.end();
                self.control.freeze(false);
                log::error!("upgrade failed: {error}; this process serves on");
                self.control.note(Owner::Operator, "tidegate", format!("upgrade failed: {error}"));
                (State::Serving, Err(error))
            }
        };
        *self.lock() = state;
        self.progress.settled.notify_all();
        told
    }

    /// This process is to stop: a successor that is not there yet is given up. Blocks until it is clear whether there is one.
    pub fn abandon(&self) {
        self.progress.abandoned.store(true, Ordering::Release);
        let mut state = self.lock();
        while matches!(*state, State::HandingOver) {
            state = self.progress.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether another process has taken over.
    pub fn handed_over(&self) -> bool {
        matches!(*self.lock(), State::HandedOver(_))
    }

    /// Tells the other process the last of what happened here. To be called when no exchange is left.
    pub fn farewell(&self) {
        let State::HandedOver(Link { items, line, over, threads }) = std::mem::take(&mut *self.lock()) else { return };
        // What the last exchange brought about.
        self.keeping.source().overhear();
        over.store(true, Ordering::Release);
        if items.send(Item::End).is_err() {
            log::debug!("upgrade: the new process is told no more");
        }
        let mut threads = threads.into_iter();
        // The one that tells ends when everything is told; the one that hears, when the line is hung up.
        threads.next().map_or(Ok(()), JoinHandle::join).unwrap_or_else(|_| log::error!("telling the new process failed"));
        line.hang_up();
        threads.for_each(|thread| thread.join().unwrap_or_else(|_| log::error!("hearing the new process failed")));
    }

    fn hand_over(&self) -> Result<(u32, Link), UpgradeError> {
        let socket = Rendezvous::open(&self.directory).map_err(|source| UpgradeError::Line { when: "before it was started", source })?;
        let longest = self.control.reloads.applied().config.server.upgrade_timeout;
        let mut child =
            self.program.start(&socket.path).map_err(|source| UpgradeError::Start { program: self.program.path.clone(), source })?;
        let stream = self.meet(&socket, &mut child, longest)?;
        let line = Line::new(stream);
        let when = "while it started";
        let broke = |source| UpgradeError::Line { when, source };
        line.patience(Some(LOOK)).map_err(broke)?;
        let mut ear = Ear { line: line.split().map_err(broke)?, hearer: Hearer::default(), control: Arc::clone(&self.control) };
        match self.expect(&mut ear, &mut child, longest, when)? {
            Word::Hello { protocol: PROTOCOL, version } => log::info!("upgrade: version {version} is here"),
            Word::Hello { protocol, version } => {
                return Err(UpgradeError::Refused(format!("version {version} hands over by protocol {protocol}, this one by {PROTOCOL}")));
            }
            other => return Err(broke(nonsense(&other))),
        }
        let (items, heard) = self.keeping.source().listen();
        let keeping = Arc::clone(&self.keeping);
        self.control.overlap.answers(items.clone(), Arc::new(move || keeping.tell_now()));
        let mut mouth = line.split().map_err(broke)?;
        self.offer(&mut mouth).map_err(broke)?;
        let (control, stop) = (Arc::clone(&self.control), self.stop.clone());
        let teller = named().spawn(move || {
            let mut teller = Teller::new(mouth);
            let told = teller.tell_all(&control.view(), control.now());
            // An exchange that waits or connects again could enter a backend that is fenced over there: only who is in a tunnel stays
            // where he is.
            let presence = || match stop.is_closing() {
                false => Presence::Serves,
                true if stop.connections() == control.tunnels.tunnels() => Presence::Quiet,
                true => Presence::Closes,
            };
            if let Err(error) = told.and_then(|()| teller.run(&control, &heard, Some(&presence))) {
                log::debug!("upgrade: nobody is told any more: {error}");
            }
        });
        let teller = teller.map_err(broke)?;
        let when = "before it was ready";
        match self.expect(&mut ear, &mut child, longest, when)? {
            Word::Ready => {}
            other => return Err(UpgradeError::Line { when, source: nonsense(&other) }),
        }
        // From here on until it serves nothing is written down.
        self.door.pause(true);
        let lock = self.keeping.end();
        match self.let_serve(&items, lock.as_ref(), &mut ear, &mut child, longest) {
            Ok(()) => {
                self.door.leave_to_successor();
                self.control.overlap.asks();
                let over = Arc::default();
                // It serves, whatever becomes of these.
                let helpers = [ear.go_on(), self.overhear(&over)].into_iter();
                let helpers = helpers.filter_map(|thread| thread.map_err(|error| log::error!("upgrade: no thread: {error}")).ok());
                let threads = std::iter::once(teller).chain(helpers).collect();
                Ok((child.let_go(), Link { items, line, over, threads }))
            }
            Err(error) => {
                // Before anything else: it may have begun to write.
                drop(child);
                line.hang_up();
                self.door.pause(false);
                if let Some(lock) = lock {
                    self.keep_again(lock);
                }
                Err(error)
            }
        }
    }

    /// The lock may name the other process as its owner by now.
    fn keep_again(&self, mut lock: StateLock) {
        if let Err(error) = lock.name_owner(self.door.asked()) {
            log::warn!("the lock of the state directory does not name its owner: {error}");
        }
        self.keeping.begin_again(lock);
    }

    fn let_serve(
        &self,
        items: &Sender<Item>,
        lock: Option<&StateLock>,
        ear: &mut Ear,
        child: &mut Newcomer,
        longest: Duration,
    ) -> Result<(), UpgradeError> {
        let when = "before it served";
        let broke = |source| UpgradeError::Line { when, source };
        let lock: Option<OwnedFd> = lock.map(|lock| lock.as_fd().try_clone_to_owned()).transpose().map_err(broke)?;
        let go = Item::Word(Word::Go, lock.into_iter().collect());
        items.send(go).map_err(|_| broke(io::ErrorKind::BrokenPipe.into()))?;
        match self.expect(ear, child, longest, when)? {
            Word::Serving => Ok(()),
            other => Err(broke(nonsense(&other))),
        }
    }

    /// Waits for a word, and looks now and then whether there is still somebody to say it.
    fn expect(&self, ear: &mut Ear, child: &mut Newcomer, longest: Duration, when: &'static str) -> Result<Word, UpgradeError> {
        let until = Instant::now() + longest;
        loop {
            match ear.line.hear() {
                Ok(Some(Message::Word(Word::Refused { why }))) => return Err(UpgradeError::Refused(why)),
                Ok(Some(message)) => {
                    if let Some(word) = ear.heed(message) {
                        return Ok(word);
                    }
                }
                Err(error) if waits(&error) => {}
                Err(source) if !ended(&source) => return Err(UpgradeError::Line { when, source }),
                // It hangs up a moment before it ends; how it ended says more.
                Ok(None) | Err(_) => {
                    let soon = Instant::now() + Duration::from_secs(2);
                    while Instant::now() < soon {
                        if let Some(status) = child.ended() {
                            return Err(UpgradeError::Ended { when, status });
                        }
                        thread::park_timeout(LOOK);
                    }
                    return Err(UpgradeError::Line { when, source: io::ErrorKind::UnexpectedEof.into() });
                }
            }
            self.look_after(child, when, until, longest)?;
        }
    }

    /// Whether it still makes sense to wait for a word.
    fn look_after(&self, child: &mut Newcomer, when: &'static str, until: Instant, longest: Duration) -> Result<(), UpgradeError> {
        if self.progress.abandoned.load(Ordering::Acquire) {
            return Err(UpgradeError::Stopping);
        }
        if let Some(status) = child.ended() {
            return Err(UpgradeError::Ended { when, status });
        }
        if Instant::now() > until {
            return Err(UpgradeError::Silent { when, waited: longest });
        }
        Ok(())
    }

    fn meet(&self, socket: &Rendezvous, child: &mut Newcomer, longest: Duration) -> Result<UnixStream, UpgradeError> {
        let when = "while it started";
        let until = Instant::now() + longest;
        loop {
            let called = socket.look().map_err(|source| UpgradeError::Line { when, source })?;
            if let Some(stream) = called {
                return Ok(stream);
            }
            self.look_after(child, when, until, longest)?;
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn offer(&self, line: &mut Line) -> io::Result<()> {
        let gone = || io::Error::other("a listener is closed");
        let sockets = self.listeners.iter().map(|listener| listener.socket().ok_or_else(gone)).collect::<Result<Vec<_>, _>>()?;
        let mut beside: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        beside.push(self.door.socket());
        let documents = self.keeping.source().scribe.all().into_iter();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
        let offer = Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            directory: std::fs::canonicalize(&self.directory)?,
            clock: self.control.clock().origin(),
            listeners: self.listeners.iter().map(|listener| listener.asked_address().to_string()).collect(),
            admin: self.door.asked().to_owned(),
            documents: documents.map(|(name, bytes)| (name, text(bytes))).collect(),
        };
        line.say_with(&Word::Offer(Box::new(offer)), &beside)
    }

    /// Takes notes, since the thread that did so to write them has ended.
    fn overhear(&self, over: &Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
        let (source, over) = (Arc::clone(self.keeping.source()), Arc::clone(over));
        named().spawn(move || {
            while !over.load(Ordering::Acquire) {
                source.overhear();
                thread::park_timeout(TURN);
            }
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.progress.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the line that hears.
struct Ear {
    line: Line,
    hearer: Hearer,
    control: Arc<Control>,
}

impl Ear {
    /// Takes to heart what is said at any time; gives back what is said once.
    fn heed(&mut self, message: Message) -> Option<Word> {
        match message {
            Message::Sessions(message) => {
                if let Err(why) = self.hearer.sessions(&self.control.view(), &message, self.control.now()) {
                    log::warn!("upgrade: the new process told nonsense: {why}");
                }
            }
            Message::Word(Word::Places(places)) => self.hearer.places(&self.control.view(), &places),
            Message::Word(Word::Ask(number)) => self.control.overlap.answer(number),
            Message::Word(Word::Heard(number)) => self.control.overlap.heard(number),
            Message::Word(word) => return Some(word),
        }
        None
    }

    /// What the new process learns matters here as long as a connection is left.
    fn go_on(mut self) -> io::Result<JoinHandle<()>> {
        named().spawn(move || {
            loop {
                match self.line.hear() {
                    Ok(Some(message)) => {
                        if let Some(word) = self.heed(message) {
                            log::warn!("upgrade: {word:?} was not due");
                        }
                    }
                    Err(error) if waits(&error) => {}
                    Ok(None) | Err(_) => {
                        self.control.overlap.end();
                        return;
                    }
                }
            }
        })
    }
}

fn named() -> thread::Builder {
    thread::Builder::new().name("upgrade".to_owned())
}

fn nonsense(word: &Word) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{word:?} was not due"))
}

fn ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
