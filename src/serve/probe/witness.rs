//! Idle connections to a backend, those of its last two passed probes: no process outlives its connections' end, and no connection
//! outlives its process.
//!
//! Servers close idle connections too, after a time that they do not tell and some keep to the second only (Tomcat looks once a second).
//! But so ends one after the other, each at its age; with the process both end at once. So a backend that closes sooner than the next
//! probe comes is simply no help, and neither is one that froze for so long that both are overdue when it thaws.

use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

/// Two connections of one process end within this; probes are much further apart.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A server may close an idle connection so much later than another one: Tomcat looks once in one or two seconds, and then closes all
/// that are overdue at once.
const CLUMSY: Duration = Duration::from_secs(2);

/// So many connections in a row must have outlived the one after them before an age means anything: a starved server, too, closes one or
/// two of its connections late.
const HABIT: u32 = 3;

/// An idle connection, and since when it is.
type Idle = (Stream, Instant);

/// What is known by idle connections.
#[derive(Default)]
pub(super) struct Witness {
    younger: Option<Idle>,
    older: Option<Idle>,
    /// The greatest age at which one was still open.
    oldest: Duration,
    /// How many reached such an age.
    outlived: u32,
    /// The least age at which one ended alone: the server closes idle connections, and not much sooner than this.
    closes_at: Option<Duration>,
    /// Whether the one from before the present absence was answered after it.
    pub(super) survived: bool,
}

impl Witness {
    /// A connection of now takes the place of the younger one, and that the place of the older one, which was open until now.
    pub(super) fn relieve(&mut self, connection: Stream) {
        let younger = self.younger.replace((connection, Instant::now()));
        let Some(younger) = younger else { return };
        if let Some((_, since)) = self.older.replace(younger) {
            self.oldest = self.oldest.max(since.elapsed());
            self.outlived = self.outlived.saturating_add(1);
        }
    }

    /// A connection from before, to be asked.
    pub(super) fn take(&mut self) -> Option<Stream> {
        self.younger.take().or_else(|| self.older.take()).map(|(connection, _)| connection)
    }

    /// Waits for the end of a connection; true if that is the process's end. For ever where there is none. Dropped halfway, it says the
    /// same when it is called again: what has ended stays ended.
    pub(super) async fn ended(&mut self) -> bool {
        let ended = both_ends(&mut self.younger, &mut self.older).await;
        if ended.0.is_some() {
            self.younger = None;
        }
        if ended.1.is_some() {
            self.older = None;
        }
        match ended {
            (Some(End::At(younger)), Some(End::At(_))) => self.outlived >= HABIT && is_untimely(younger, self.oldest, self.closes_at),
            (Some(End::At(age)), None) | (None, Some(End::At(age))) => {
                self.closes_at = Some(self.closes_at.map_or(age, |least| least.min(age)));
                false
            }
            _ => false,
        }
    }
}

/// Of both connections, once one has ended and the other had a moment to follow.
async fn both_ends(younger: &mut Option<Idle>, older: &mut Option<Idle>) -> (Option<End>, Option<End>) {
    let (younger, older) = (end_of(younger), end_of(older));
    tokio::pin!(younger, older);
    tokio::select! {
        end = &mut younger => (Some(end), timeout(AT_ONCE, older).await.ok()),
        end = &mut older => (timeout(AT_ONCE, younger).await.ok(), Some(end)),
    }
}

/// How an idle connection ended.
enum End {
    /// At this age.
    At(Duration),
    /// It spoke unasked, and is none to rely on any more.
    Unasked,
}

async fn end_of(idle: &mut Option<Idle>) -> End {
    let Some((connection, since)) = idle else { return std::future::pending().await };
    let read = connection.read(&mut [0]).await;
    if read.is_ok_and(|read| read > 0) { End::Unasked } else { End::At(since.elapsed()) }
}

/// Whether a connection of that age would not have been closed for its age.
fn is_untimely(age: Duration, oldest: Duration, closes_at: Option<Duration>) -> bool {
    match closes_at {
        None => age + AT_ONCE < oldest,
        // By and by it closes two at once.
        Some(least) => age + CLUMSY + AT_ONCE < least,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use pingora_core::protocols::l4::stream::Stream as Socket;
    use tokio::net::{TcpListener, TcpStream};

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (theirs.expect("it came").0, Box::new(Socket::from(ours.expect("it listens"))))
    }

    /// Probes every 400 ms, of which each keeps its connection; the backend closes those of these numbers, so long after the last
    /// one came, and what is to be heard of it within a second.
    async fn check(probes: usize, closes: &[(usize, u64)], expected: Option<bool>) {
        let (mut witness, mut theirs) = (Witness::default(), Vec::new());
        for n in 0..probes {
            let (their_end, ours) = pair().await;
            theirs.push(Some(their_end));
            witness.relieve(ours);
            if n + 1 < probes {
                assert!(timeout(Duration::from_millis(400), witness.ended()).await.is_err(), "nothing has ended yet");
            }
        }
        let heard = async {
            tokio::select! {
                untimely = witness.ended() => Some(untimely),
                () = tokio::time::sleep(Duration::from_secs(3)) => None,
            }
        };
        let closing = async {
            let mut passed = 0;
            for (n, after) in closes {
                tokio::time::sleep(Duration::from_millis(after - passed)).await;
                passed = *after;
                drop(theirs.get_mut(*n).expect("it was opened").take());
            }
        };
        let (heard, ()) = tokio::join!(heard, closing);
        assert_eq!(heard, expected, "{probes} probes, {closes:?}");
    }

    #[tokio::test]
    async fn both_connections_end_with_the_process_and_one_after_the_other_with_their_age() {
        check(5, &[(3, 50), (4, 50)], Some(true)).await;
        check(5, &[(4, 50), (3, 50)], Some(true)).await;
        // Its timer is due for the older one, whatever others have outlived by its clumsiness.
        check(5, &[(3, 50)], Some(false)).await;
        // Too early to know how old they may become.
        check(1, &[(0, 50)], Some(false)).await;
        check(2, &[(0, 50), (1, 50)], Some(false)).await;
        check(4, &[(2, 50), (3, 50)], Some(false)).await;
        // It froze: both are older than any before.
        check(5, &[(3, 1500), (4, 1500)], Some(false)).await;
        check(4, &[], None).await;
    }

    #[tokio::test]
    async fn what_was_not_listened_to_until_the_end_is_heard_again() {
        let mut witness = Witness::default();
        let mut theirs = Vec::new();
        for _ in 0..5 {
            let (their_end, ours) = pair().await;
            theirs.push(their_end);
            witness.relieve(ours);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        drop(theirs.remove(3));
        assert!(timeout(AT_ONCE / 2, witness.ended()).await.is_err(), "it waits for the other one");
        drop(theirs);
        assert!(witness.ended().await, "both have ended");
    }

    #[test]
    fn a_server_that_closes_by_age_is_believed_only_when_it_is_far_too_early() {
        let check = |age: u64, oldest: u64, closes_at: Option<u64>, expected: bool| {
            let millis = Duration::from_millis;
            assert_eq!(is_untimely(millis(age), millis(oldest), closes_at.map(millis)), expected, "{age} {oldest} {closes_at:?}");
        };
        check(1_000, 4_000, None, true);
        check(3_950, 4_000, None, false);
        // Tomcat, which looks once in one or two seconds and then closes both.
        check(850, 2_200, Some(900), false);
        check(850, 2_200, Some(2_700), false);
        check(850, 9_000, Some(3_100), true);
    }
}
