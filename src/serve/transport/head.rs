//! Watches the bytes of one request head go by, and knows when it has taken too long.
//!
//! Pingora's read timeout starts again with every byte, so a client that drips one byte a minute holds a connection for
//! hours. This deadline is for the whole head. It ends at the blank line; the body has other limits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Where the head of the request that is being read stands.
#[derive(Debug, Default)]
pub(super) struct HeadWatch {
    /// `None`: no head is awaited.
    reading: Option<Reading>,
    /// Something was read that belongs to no watched head: a body, or the next request.
    beyond: bool,
    /// First byte of the last head seen.
    first: Option<u8>,
}

#[derive(Debug)]
struct Reading {
    due: Due,
    line: Line,
    /// Made only when the reader must wait: most heads come whole in one read.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// By when a head must be whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// By then.
    At(Instant),
    /// This long after it was found incomplete: for a head whose first bytes have just come. Most are whole with them, and need
    /// no look at the clock.
    Within(Duration),
}

impl Due {
    /// Fixed from the first time that it is asked for.
    fn fix(&mut self) -> Instant {
        let at = match *self {
            Due::At(at) => at,
            Due::Within(long) => Instant::now() + long,
        };
        *self = Due::At(at);
        at
    }
}

/// What the last bytes were, as far as the end of the head depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing but line ends so far: allowed before a request line (RFC 9112 §2.2), and not the end of a head.
    Before,
    /// Within a line.
    Inside,
    /// Right after a line feed.
    Start,
    /// A carriage return right after a line feed.
    StartCr,
}

impl HeadWatch {
    /// A new head is awaited.
    pub(super) fn begin(&mut self, due: Due) {
        self.reading = Some(Reading { due, line: Line::Before, alarm: None });
        self.beyond = false;
    }

    /// No head is awaited any more, or none that could be watched.
    pub(super) fn end(&mut self) {
        self.reading = None;
        self.beyond = true;
    }

    /// Whether the last request may have carried a body: any method but GET and HEAD. A guess, good enough for courtesy.
    pub(super) fn may_have_body(&self) -> bool {
        self.first.is_some_and(|byte| !matches!(byte, b'G' | b'H'))
    }

    /// Whether anything was read since [`HeadWatch::begin`] that came after the head.
    pub(super) fn has_read_beyond(&self) -> bool {
        self.beyond
    }

    /// These bytes have come. Returns true if they came too late and the head is still not whole.
    pub(super) fn observe(&mut self, bytes: &[u8]) -> bool {
        let Some(reading) = &mut self.reading else {
            self.beyond |= !bytes.is_empty();
            return false;
        };
        // Most heads come whole in one read and end with it: then nothing needs to be looked at octet by octet.
        if reading.line == Line::Before
            && bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic())
            && ends_with_its_first_blank_line(bytes)
        {
            self.first = bytes.first().copied();
            self.reading = None;
            self.beyond = false;
            return false;
        }
        for (index, byte) in bytes.iter().enumerate() {
            if reading.line == Line::Before && !matches!(byte, b'\r' | b'\n') {
                self.first = Some(*byte);
            }
            reading.line = match (reading.line, byte) {
                (Line::Before, b'\r' | b'\n') => Line::Before,
                (Line::Start | Line::StartCr, b'\n') => {
                    self.reading = None;
                    self.beyond = index + 1 < bytes.len();
                    return false;
                }
                (_, b'\n') => Line::Start,
                (Line::Start, b'\r') => Line::StartCr,
                _ => Line::Inside,
            };
        }
        Instant::now() >= reading.due.fix()
    }

    /// Ready when the head is overdue; otherwise the task is woken when it will be.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(reading) = &mut self.reading else {
            return Poll::Pending;
        };
        let deadline = reading.due.fix();
        reading.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx)
    }

    /// Whether something of the awaited head has come: then the client is owed a word (408), otherwise it is only idle.
    pub(super) fn has_begun(&self) -> bool {
        let line = self.reading.as_ref().map(|reading| reading.line);
        line.is_some_and(|line| line != Line::Before)
    }
}

fn ends_with_its_first_blank_line(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        rest = rest.get(end + 1..).unwrap_or_default();
        match rest {
            [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] => return after.is_empty(),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces one by one: after how many was the head whole, and did anything come after it?
    fn check(pieces: &[&str], whole_after: Option<usize>, beyond: bool) {
        let mut watch = HeadWatch::default();
        watch.begin(Due::At(Instant::now() + Duration::from_secs(60)));
        let mut whole = None;
        for (index, piece) in pieces.iter().enumerate() {
            assert!(!watch.observe(piece.as_bytes()));
            if watch.reading.is_none() && whole.is_none() {
                whole = Some(index + 1);
            }
        }
        let found = (whole, watch.has_read_beyond());
        assert_eq!(found, (whole_after, beyond), "{pieces:?}");
    }

    #[tokio::test]
    async fn a_head_ends_at_its_first_blank_line() {
        check(&["GET / HTTP/1.0\r\n\r\n"], Some(1), false);
        check(&["GET / HTTP/1.0\n\n"], Some(1), false);
        check(&["GET / HTTP/1.1\r\nHost: a\r\n", "\r\n"], Some(2), false);
        check(&["GET / HTTP/1.1\r", "\n\r", "\n"], Some(3), false);
        check(&["GET / HTTP/1.1\r\nHost: a\r\n\r\nbody"], Some(1), true);
        check(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "b"], Some(1), true);
        check(&["GET / HTTP/1.1\r\nHost: a\r\n"], None, false);
        check(&["GET / HTTP/1.1\r\n\rx\n"], None, false);
        // Blank lines before the request line do not end anything, or they would switch the deadline off.
        check(&["\r\n\r\n", "GET / HTTP/1.1\r\n", "\r\n"], Some(3), false);
        check(&["\n\n\n\n"], None, false);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_head_is_overdue_however_often_it_drips() {
        let mut watch = HeadWatch::default();
        watch.begin(Due::Within(Duration::from_secs(30)));
        let mut late_after = None;
        for second in 0..60 {
            if watch.observe(b"x") {
                late_after = Some(second);
                break;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(late_after, Some(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_woken_at_the_deadline() {
        let mut watch = HeadWatch::default();
        let start = Instant::now();
        watch.begin(Due::At(start + Duration::from_secs(30)));
        std::future::poll_fn(|cx| watch.poll_overdue(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        assert!(!watch.has_begun());
    }
}
