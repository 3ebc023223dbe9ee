//! The process that takes over: it learns everything while the other one serves, says that it is ready, and serves when it is told to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::SOCKET_VARIABLE;
use super::link::{Hearer, Item, Teller};
use super::wire::{Line, Message, Offer, PROTOCOL, Word};
use crate::model::time::Time;
use crate::serve::control::Control;
use crate::serve::keeping::Keeping;
use crate::serve::remembered::Documents;
use crate::serve::state::StateLock;

/// For the other process to answer; it has started this one and waits for it.
const ANSWER: Duration = Duration::from_secs(30);
/// For everything to be told, and then for the word to serve.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the other process offers, and the line to it.
pub struct Succession {
    line: Line,
    offer: Offer,
    /// By configured address.
    listeners: Vec<(String, OwnedFd)>,
    admin: Option<OwnedFd>,
    turns: Option<Receiver<Turn>>,
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
        line.patience(Some(ANSWER))?;
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
        Ok(Some(Succession { line, offer, listeners, admin, turns: None }))
    }

    /// Says why nothing comes of it. The other process serves on.
    pub fn refuse(&mut self, why: &str) {
        if let Err(error) = self.line.say(&Word::Refused { why: why.to_owned() }) {
            log::debug!("nobody hears it: {error}");
        }
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
        self.line.patience(None)?;
        // Frozen until the other process is quiet.
        control.freeze(true);
        let (passed, turns) = sync_channel(4);
        let (ear, control) = (self.line.split()?, Arc::clone(control));
        thread::Builder::new().name("upgrade".to_owned()).spawn(move || hear(ear, &control, &passed))?;
        let told = self.turns.insert(turns).recv_timeout(PATIENCE);
        match told {
            Ok(Turn::Told) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process is gone, or said nothing in time")),
        }
    }

    /// Says that this process could serve, and waits to be told to. Answers the lock on the state directory.
    ///
    /// # Errors
    /// The other process is gone or wants it no more.
    pub fn ready(&mut self, directory: &Path, admin: &str) -> io::Result<StateLock> {
        self.line.say(&Word::Ready)?;
        let lost = || io::Error::new(io::ErrorKind::UnexpectedEof, "the other process is gone, or wants it no more");
        let turns = self.turns.as_ref().ok_or_else(lost)?;
        match turns.recv_timeout(PATIENCE) {
            Ok(Turn::Go(beside)) => StateLock::from_fd(beside.into_iter().next().ok_or_else(lost)?, directory, admin),
            _ => Err(lost()),
        }
    }

    /// Says that this process serves; from now on the other one is told of what happens here.
    ///
    /// # Errors
    /// The other process is gone: it was told too late.
    pub fn serving(mut self, control: &Arc<Control>, keeping: &Arc<Keeping>) -> io::Result<()> {
        let (items, heard) = keeping.source().listen();
        self.line.say(&Word::Serving)?;
        let (control, keeping, mouth) = (Arc::clone(control), Arc::clone(keeping), self.line.split()?);
        thread::Builder::new().name("upgrade".to_owned()).spawn(move || {
            let told = Teller::new(mouth).run(&control, &heard, None);
            keeping.source().stop_listening();
            log::debug!("the process before is told no more: {told:?}");
            drop::<std::sync::mpsc::Sender<Item>>(items);
        })?;
        Ok(())
    }
}

fn hear(mut ear: Line, control: &Arc<Control>, turns: &SyncSender<Turn>) {
    let mut hearer = Hearer::default();
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
            Ok(Some(Message::Word(Word::Quiet))) => control.freeze(false),
            Ok(Some(Message::Word(word))) => log::warn!("upgrade: {word:?} was not due"),
            Ok(None) | Err(_) => {
                // Its exchanges are over with it.
                drop(hearer);
                control.freeze(false);
                pass(Turn::Gone);
                return;
            }
        }
    }
}
