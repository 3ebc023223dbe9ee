//! An idle connection to a backend, that of its last passed probe: no process outlives its connections' end, and no connection
//! outlives its process.
//!
//! Servers close idle connections too, after a time that they do not tell. But such an end comes at an age that no connection has
//! outlived before; an end at a younger age is the process's. So a backend that closes after every answer is simply no help.

use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// Two timers of the same length end within this.
const SLACK: Duration = Duration::from_millis(50);

/// What is known by idle connections.
#[derive(Default)]
pub(super) struct Witness {
    connection: Option<(Stream, Instant)>,
    /// The greatest age at which one was still open.
    oldest: Duration,
    /// Whether the one from before the present absence was answered after it.
    pub(super) survived: bool,
}

impl Witness {
    /// A younger connection takes the place of the one before, which was open until now.
    pub(super) fn relieve(&mut self, connection: Stream) {
        if let Some((_, since)) = self.connection.replace((connection, Instant::now())) {
            self.oldest = self.oldest.max(since.elapsed());
        }
    }

    /// The connection, to be asked.
    pub(super) fn take(&mut self) -> Option<Stream> {
        self.connection.take().map(|(connection, _)| connection)
    }

    /// Waits for the end of the connection; true if that is the process's end. For ever where there is none.
    pub(super) async fn ended(&mut self) -> bool {
        let Some((connection, since)) = &mut self.connection else { return std::future::pending().await };
        // Whatever it says unasked, it is no connection to rely on any more.
        if connection.read(&mut [0]).await.is_ok_and(|read| read > 0) {
            self.connection = None;
            return false;
        }
        let age = since.elapsed();
        self.connection = None;
        is_untimely(age, self.oldest)
    }
}

/// Whether a connection of that age would not have been closed for its age.
fn is_untimely(age: Duration, oldest: Duration) -> bool {
    age + SLACK < oldest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_at_an_age_that_others_have_outlived_is_the_process_s() {
        let check = |age: u64, oldest: u64, expected| {
            assert_eq!(is_untimely(Duration::from_millis(age), Duration::from_millis(oldest)), expected, "{age} ms, oldest {oldest} ms");
        };
        check(500, 2200, true);
        check(2149, 2200, true);
        // It closes idle connections after 2 s, and probes come every 2 s, more or less.
        check(2000, 1990, false);
        check(2000, 2040, false);
        // Never outlived anything: it closes after each answer.
        check(0, 0, false);
    }
}
