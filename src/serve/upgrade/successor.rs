//! The process that takes over: it learns everything while the other one serves, says that it is ready, and serves when it is told to.
//!
//! It has no timeouts: the other process watches the time, and kills this one before it hangs up. So a line that breaks means that
//! the other process is dead.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread;

use super::SOCKET_VARIABLE;
use super::link::{Hearer, Item, Teller};
use super::wire::{Line, Message, Offer, PROTOCOL, Word};
use crate::model::event::Owner;
use crate::model::time::Time;
use crate::serve::control::Control;
use crate::serve::keeping::Keeping;
use crate::serve::remembered::Documents;
use crate::serve::state::StateLock;

/// What the other process offers, and the line to it.
pub struct Succession {
    line: Line,
    offer: Offer,
    /// By configured address.
    listeners: Vec<(String, OwnedFd)>,
    admin: Option<OwnedFd>,
    turns: Option<Receiver<Turn>>,
    items: Option<Sender<Item>>,
}

/// What the thread that hears passes on.
enum Turn {
    Told,
    Go(Vec<OwnedFd>),
    Gone,
}

impl Succession {
    /// `None` unless another process started this one to be replaced by it.
    ///
    /// # Errors
    /// It cannot be reached, or does not hand over.
    pub fn from_environment() -> io::Result<Option<Succession>> {
        let Some(path) = std::env::var_os(SOCKET_VARIABLE) else { return Ok(None) };
        let mut line = Line::new(UnixStream::connect(path)?);
        line.say(&Word::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() })?;
        let offer = match line.word()? {
            Word::Offer(offer) if offer.protocol == PROTOCOL => *offer,
            other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an offer was due, not {other:?}"))),
        };
        let mut sockets = line.take_sockets();
        if sockets.len() != offer.listeners.len() + 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the sockets are not those of the offer"));
        }
        let admin = sockets.pop();
        let listeners = offer.listeners.iter().cloned().zip(sockets).collect();
        Ok(Some(Succession { line, offer, listeners, admin, turns: None, items: None }))
    }

    /// Says why nothing comes of it. The other process serves on.
    pub fn refuse(&mut self, why: &str) {
        if let Err(error) = self.line.say(&Word::Refused { why: why.to_owned() }) {
            log::debug!("nobody hears it: {error}");
        }
    }

    /// The version of the other process.
    pub fn version(&self) -> &str {
        &self.offer.version
    }

    /// Whether the state directory is the same one.
    ///
    /// # Errors
    /// It is not: there this process would go on from another state.
    pub fn same_directory(&self, directory: &Path) -> io::Result<()> {
        let there: &PathBuf = &self.offer.directory;
        // One that does not exist is another one.
        if std::fs::canonicalize(directory).is_ok_and(|here| here == *there) {
            return Ok(());
        }
        let what = format!(
            "its state.directory is {}, not {}; an upgrade keeps it: stop, move it, and start",
            there.display(),
            directory.display()
        );
        Err(io::Error::other(what))
    }

    /// When the clock of both began.
    pub fn clock_origin(&self) -> Time {
        self.offer.clock
    }

    /// As in the state file.
    pub fn documents(&self) -> Documents {
        self.offer.documents.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes())).collect()
    }

    /// The listening socket of a configured address.
    pub fn listener(&mut self, address: SocketAddr) -> Option<OwnedFd> {
        let index = self.listeners.iter().position(|(asked, _)| *asked == address.to_string())?;
        Some(self.listeners.swap_remove(index).1)
    }

    /// The socket of the admin address, if it is still the same one.
    pub fn admin(&mut self, address: &str) -> Option<OwnedFd> {
        self.admin.take().filter(|_| self.offer.admin == address)
    }

    /// Learns of every session, and goes on hearing of what happens to them.
    ///
    /// # Errors
    /// The other process is gone.
    pub fn learn(&mut self, control: &Arc<Control>) -> io::Result<()> {
        // Frozen until the other process is quiet.
        control.freeze(true);
        let (passed, turns) = sync_channel(4);
        let (ear, control) = (self.line.split()?, Arc::clone(control));
        thread::Builder::new().name("upgrade".to_owned()).spawn(move || hear(ear, &control, &passed))?;
        let told = self.turns.insert(turns).recv();
        match told {
            Ok(Turn::Told) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone")),
        }
    }

    /// Says that this process could serve, and waits to be told to. Answers the lock on the state directory.
    ///
    /// # Errors
    /// The other process is gone or wants it no more.
    pub fn ready(&mut self, directory: &Path, admin: &str) -> io::Result<StateLock> {
        self.line.say(&Word::Ready)?;
        let lost = || io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone");
        let turns = self.turns.as_ref().ok_or_else(lost)?;
        match turns.recv() {
            Ok(Turn::Go(beside)) => StateLock::from_fd(beside.into_iter().next().ok_or_else(lost)?, directory, admin),
            _ => Err(lost()),
        }
    }

    /// The other process is told of what happens here from now on, and asked. To be called before the first client is accepted.
    ///
    /// # Errors
    /// No thread or descriptor can be had.
    pub fn link(&mut self, control: &Arc<Control>, keeping: &Arc<Keeping>) -> io::Result<()> {
        let (items, heard) = keeping.source().listen();
        let told = Arc::clone(keeping);
        control.overlap.answers(items.clone(), Arc::new(move || told.tell_now()));
        control.overlap.asks();
        let (control, mouth) = (Arc::clone(control), self.line.split()?);
        thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            let told = Teller::new(mouth).run(&control, &heard, None);
            log::debug!("the process before is told no more: {told:?}");
        })?;
        self.items = Some(items);
        Ok(())
    }

    /// Says that this process serves. Nobody there to hear it is no reason to stop: the clients are here.
    pub fn serving(self, control: &Control, admin: &str) {
        let said = self.items.is_some_and(|items| items.send(Item::Word(Word::Serving, Vec::new())).is_ok());
        if !said {
            log::warn!("the process before ended during the hand-over");
        }
        // The other process leaves its socket's file to this one, which answers elsewhere now.
        if let Some(path) = self.offer.admin.strip_prefix("unix:").filter(|_| self.offer.admin != admin)
            && let Err(error) = std::fs::remove_file(path)
        {
            log::warn!("the former admin socket {path}: {error}");
        }
        let (from, to) = (&self.offer.version, env!("CARGO_PKG_VERSION"));
        control.note(Owner::Operator, "tidegate", format!("upgraded from {from} to {to}; process {} serves", std::process::id()));
    }
}

fn hear(mut ear: Line, control: &Arc<Control>, turns: &SyncSender<Turn>) {
    let mut hearer = Hearer::default();
    // Afterwards this process may be the old one of the next upgrade, which is none of this line's business.
    let mut quiet = false;
    let pass = |turn| turns.send(turn).unwrap_or_else(|_| log::debug!("nobody waits for the process before any more"));
    loop {
        let view = control.view();
        match ear.hear() {
            Ok(Some(Message::Word(Word::Places(places)))) => hearer.places(&view, &places),
            Ok(Some(Message::Sessions(message))) => {
                if let Err(why) = hearer.sessions(&view, &message, control.now()) {
                    log::warn!("upgrade: the process before told nonsense: {why}");
                }
            }
            Ok(Some(Message::Word(Word::UnderWay(counts)))) => hearer.under_way(&view, &counts),
            Ok(Some(Message::Word(Word::Uncounted { app, until }))) => hearer.uncounted(&view, &app, until),
            Ok(Some(Message::Word(Word::Told))) => pass(Turn::Told),
            Ok(Some(Message::Word(Word::Go))) => pass(Turn::Go(ear.take_sockets())),
            Ok(Some(Message::Word(Word::Ask(number)))) => control.overlap.answer(number),
            Ok(Some(Message::Word(Word::Heard(number)))) if !quiet => control.overlap.heard(number),
            Ok(Some(Message::Word(Word::Quiet))) if !quiet => {
                quiet = true;
                control.overlap.end();
                control.freeze(false);
            }
            Ok(Some(Message::Word(word))) => log::warn!("upgrade: {word:?} was not due"),
            Ok(None) | Err(_) => {
                // Its exchanges are over with it.
                drop(hearer);
                if !quiet {
                    control.overlap.end();
                    control.freeze(false);
                }
                pass(Turn::Gone);
                return;
            }
        }
    }
}
