//! What two processes say to each other while one takes over from the other, on a Unix socket.
//!
//! A message is a kind, a length and a body, so that either end can tell a torn message from a short one. Listening sockets and the
//! lock travel beside a word as file descriptors; whoever gets them owns them.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};

use crate::model::time::Time;

/// Of the messages. Another one is refused before anything is handed over.
pub const PROTOCOL: u32 = 1;

/// Most sockets that one hand-over carries: what the kernel passes in one message.
pub const MOST_SOCKETS: usize = 250;

/// The other end has read nothing for so long: it never will.
const STUCK: Duration = Duration::from_secs(30);

/// Longest message: a document of a hundred thousand backends is shorter.
const LONGEST: usize = 256 << 20;

/// For the rest of a message whose beginning came: whoever writes it has nothing to wait for.
const MIDWAY: Duration = Duration::from_secs(10);

/// A body is read in pieces of this size: memory grows with what really comes.
const PIECE: usize = 1 << 20;

/// What is said, in the order of a hand-over that succeeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// New to old: here I am.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Its version, for people.
        version: String,
    },
    /// Old to new, with the sockets beside it: everything but sessions.
    Offer(Box<Offer>),
    /// Either way: backends that sessions are told of by number from now on.
    Places(Vec<Place>),
    /// Old to new: until when sessions of an app may live that found no room, or that were refused, and are told of by nobody.
    Uncounted {
        /// The app.
        app: String,
        /// As the ledger has it.
        until: [Time; 2],
    },
    /// Old to new: all sessions have been told of; what follows is news.
    Told,
    /// New to old: I could serve now.
    Ready,
    /// New to old: I cannot, and nothing has changed.
    Refused {
        /// For people.
        why: String,
    },
    /// Old to new, with the lock on the state directory beside it: the file is written and closed, the admin address is not
    /// answered any more. Serve.
    Go,
    /// New to old: I accept clients.
    Serving,
    /// Old to new: exchanges under way at these backends, by place; those not named have none.
    UnderWay(Vec<(u32, u32)>),
    /// Old to new: nobody is accepted here any more; what is under way ends, and no order of an operator can change for whom.
    Closing,
    /// Old to new: no connection is left that could bring another exchange.
    Quiet,
    /// Either way: somebody came whose session is unknown here. Tell everything up to now, then say [`Word::Heard`].
    Ask(u64),
    /// The answer, behind all that happened before the question.
    Heard(u64),
}

/// What the old process hands over besides sockets and sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Of the old process, for people.
    #[serde(default)]
    pub version: String,
    /// The state directory, absolute.
    pub directory: PathBuf,
    /// Wall time when the monotonic clock said zero: both processes tell the same time.
    pub clock: Time,
    /// As configured, one for each of the first sockets.
    pub listeners: Vec<String>,
    /// The admin address as configured; its socket is the last one.
    pub admin: String,
    /// As in the state file.
    pub documents: BTreeMap<String, String>,
}

/// A backend by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number.
    pub place: u32,
    /// Its app.
    pub app: String,
    /// Its release.
    pub release: String,
    /// Its name.
    pub backend: String,
}

/// A message as it comes.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// For whoever conducts the hand-over.
    Word(Word),
    /// Sessions of one app, in the form of `link`.
    Sessions(Vec<u8>),
}

const WORD: u8 = b'w';
const SESSIONS: u8 = b's';
const HEAD: usize = 5;

/// One end of the line. Reading and writing do not disturb each other.
#[derive(Debug)]
pub struct Line {
    stream: UnixStream,
    /// That came beside messages and were not taken yet.
    sockets: Vec<OwnedFd>,
}

impl Line {
    /// Over a connected socket, blocking.
    pub fn new(stream: UnixStream) -> Line {
        // Without it whoever writes to a process that was stopped would wait for ever, and nobody else could go on.
        if let Err(error) = stream.set_write_timeout(Some(STUCK)) {
            log::warn!("upgrade: a line without a bound: {error}");
        }
        Line { stream, sockets: Vec::new() }
    }

    /// A second handle on the same line, for another thread.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn split(&self) -> io::Result<Line> {
        Ok(Line::new(self.stream.try_clone()?))
    }

    /// How long one look for a message may wait, by whichever handle; `None` for ever.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn patience(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    /// Wakes whoever reads or writes on either end.
    pub fn hang_up(&self) {
        // One that is gone already is as good.
        self.stream.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    }

    /// Says a word.
    ///
    /// # Errors
    /// The other end is gone, or does not read.
    pub fn say(&mut self, word: &Word) -> io::Result<()> {
        let body = serde_json::to_vec(word).map_err(io::Error::other)?;
        self.send(WORD, &body)
    }

    /// Says a word with descriptors beside it.
    ///
    /// # Errors
    /// As [`Line::say`]; too many descriptors.
    pub fn say_with(&mut self, word: &Word, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        if sockets.len() > MOST_SOCKETS {
            return Err(io::Error::other(format!("{} listening sockets; at most {MOST_SOCKETS} can be handed over", sockets.len())));
        }
        let body = serde_json::to_vec(word).map_err(io::Error::other)?;
        let head = head(WORD, body.len())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::Error::other("the descriptors do not fit into one message"));
        }
        let sent = rustix::net::sendmsg(self.stream.as_fd(), &[IoSlice::new(&head)], &mut beside, SendFlags::NOSIGNAL)?;
        self.stream.write_all(head.get(sent..).unwrap_or_default())?;
        self.stream.write_all(&body)
    }

    /// Sends sessions.
    ///
    /// # Errors
    /// As [`Line::say`].
    pub fn sessions(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(SESSIONS, bytes)
    }

    /// Waits for the next message; `None` when the other end has hung up between two of them.
    ///
    /// # Errors
    /// Torn off in the middle, or nothing came in time ([`io::ErrorKind::WouldBlock`]).
    pub fn hear(&mut self) -> io::Result<Option<Message>> {
        let mut head = [0; HEAD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut head)];
        let received = rustix::net::recvmsg(self.stream.as_fd(), &mut buffers, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                self.sockets.extend(sockets);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        self.read_on(head.get_mut(received.bytes..).unwrap_or_default())?;
        self.rest(head).map(Some)
    }

    /// The descriptors that came beside the messages heard so far.
    pub fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }

    /// Waits for a word; sessions do not come at such a moment.
    ///
    /// # Errors
    /// As [`Line::hear`]; the end of the line is one here.
    pub fn word(&mut self) -> io::Result<Word> {
        match self.hear()? {
            Some(Message::Word(word)) => Ok(word),
            Some(Message::Sessions(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "sessions where a word was due")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn rest(&mut self, head: [u8; HEAD]) -> io::Result<Message> {
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let mut body = Vec::new();
        while body.len() < length {
            let had = body.len();
            body.resize(length.min(had + PIECE), 0);
            self.read_on(body.get_mut(had..).unwrap_or_default())?;
        }
        match kind {
            WORD => serde_json::from_slice(&body).map(Message::Word).map_err(io::Error::other),
            SESSIONS => Ok(Message::Sessions(body)),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of kind {other}"))),
        }
    }

    /// Fills `rest`, which belongs to a message that has begun: the patience of a look for one is no measure here.
    fn read_on(&self, mut rest: &mut [u8]) -> io::Result<()> {
        let mut since = Instant::now();
        while !rest.is_empty() {
            match (&self.stream).read(rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    rest = rest.get_mut(read..).unwrap_or_default();
                    since = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if since.elapsed() > MIDWAY {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "it stopped in the middle of a message"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&head(kind, body.len())?)?;
        self.stream.write_all(body)
    }
}

fn head(kind: u8, length: usize) -> io::Result<[u8; HEAD]> {
    let length = u32::try_from(length).ok().filter(|length| *length as usize <= LONGEST);
    let [a, b, c, d] = length.ok_or_else(|| io::Error::other("a message too long"))?.to_le_bytes();
    Ok([kind, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Line, Line) {
        let (a, b) = UnixStream::pair().expect("a pair of sockets");
        (Line::new(a), Line::new(b))
    }

    #[test]
    fn an_offer_carries_sockets_that_go_on_listening() {
        let (mut old, mut new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let offer = Offer { protocol: PROTOCOL, listeners: vec![address.to_string()], ..Offer::default() };
        let offer = Word::Offer(Box::new(offer));
        old.say_with(&offer, &[listener.as_fd()]).expect("sent");
        old.say(&Word::Told).expect("sent");
        assert_eq!(new.word().expect("received"), offer);
        let sockets = new.take_sockets();
        assert_eq!(sockets.len(), 1);
        assert_eq!(new.word().expect("received"), Word::Told);
        drop((listener, old));
        let taken: Vec<TcpListener> = sockets.into_iter().map(TcpListener::from).collect();
        assert_eq!(taken[0].local_addr().expect("its address"), address);
        std::net::TcpStream::connect(address).expect("somebody listens");
    }

    #[test]
    fn the_end_of_a_line_is_told_from_a_torn_message() {
        let (old, mut new) = pair();
        drop(old);
        assert_eq!(new.hear().expect("no error"), None);
        let (mut old, mut new) = pair();
        old.sessions(b"abc").expect("sent");
        old.stream.write_all(&[SESSIONS, 9, 0, 0, 0, b'x']).expect("sent");
        drop(old);
        assert_eq!(new.hear().expect("whole"), Some(Message::Sessions(b"abc".to_vec())));
        assert_eq!(new.hear().expect_err("torn").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_one_message() {
        let (mut old, mut new) = pair();
        new.patience(Some(Duration::from_millis(20))).expect("a socket");
        assert_eq!(new.hear().expect_err("nothing came").kind(), io::ErrorKind::WouldBlock);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let slow = std::thread::spawn(move || {
            for piece in [&[SESSIONS, 3, 0][..], &[0, 0, b'a'], b"bc"] {
                old.stream.write_all(piece).expect("sent");
                // Longer than the other end looks for a message.
                wait.recv_timeout(Duration::from_millis(200)).expect_err("nobody answers");
            }
        });
        let heard = loop {
            match new.hear() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                heard => break heard,
            }
        };
        assert_eq!(heard.expect("whole"), Some(Message::Sessions(b"abc".to_vec())));
        slow.join().expect("it wrote");
        drop(go_on);
    }

    #[test]
    fn nonsense_is_no_message() {
        for bytes in [&b"x\x01\0\0\0a"[..], b"w\x02\0\0\0{}", b"w\xff\xff\xff\xff", b"s\xff\xff\xff\xff"] {
            let (mut old, mut new) = pair();
            old.stream.write_all(bytes).expect("sent");
            drop(old);
            new.hear().expect_err("nonsense");
        }
    }
}
