//! A user of the load: cookies, and what the session should show next.
//!
//! After a failure nobody knows whether the application counted the request: the next answer may show either.

use super::{Kind, Outcome};
use crate::client::HOST;
use crate::cookies::Jar;

/// One user with one session.
#[derive(Default)]
pub(super) struct User {
    jar: Jar,
    session: Option<Session>,
}

struct Session {
    backend: String,
    counter: u64,
    /// Requests since then whose fate the application alone knows.
    unsure: u64,
}

impl User {
    /// Users of one task.
    pub(super) fn several(count: usize) -> Vec<User> {
        std::iter::repeat_with(User::default).take(count).collect()
    }

    /// The value of `Cookie`, empty for none.
    pub(super) fn cookies(&self, target: &str) -> String {
        let sent = self.jar.matching(HOST, target, false);
        sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
    }

    /// Takes the answer, and says what is wrong with it. After a loss the new session is the user's: one loss counts once.
    pub(super) fn judge(&mut self, request: &str, outcome: Outcome) -> Option<(Kind, String)> {
        let (status, cookies, body) = match outcome {
            Outcome::Answered(status, cookies, body) => (status, cookies, body),
            Outcome::Failed(kind, seen) => return self.unsure(kind, seen),
        };
        let target = request.split(' ').nth(1).unwrap_or_default();
        for cookie in &cookies {
            self.jar.store(HOST, target, false, cookie);
        }
        if !(200..300).contains(&status) {
            return self.unsure(Kind::Status(status), body.chars().take(120).collect());
        }
        let word = |name: &str| body.split_whitespace().filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name);
        let counter = word("counter").and_then(|(_, counter)| counter.parse::<u64>().ok());
        let (Some(counter), Some((_, backend)), Some((_, kind))) = (counter, word("backend"), word("session")) else {
            return self.unsure(Kind::Garbage, body.chars().take(120).collect());
        };
        let new = Session { backend: backend.to_owned(), counter, unsure: 0 };
        let old = self.session.replace(new)?;
        let next = old.counter + 1..=old.counter + 1 + old.unsure;
        let wrong = if kind != "known" {
            Kind::NewSession
        } else if old.backend != backend {
            Kind::Moved
        } else if !next.contains(&counter) {
            Kind::WrongValue
        } else {
            return None;
        };
        Some((wrong, format!("counter {next:?} on {} was expected, not {}", old.backend, body.trim())))
    }

    fn unsure(&mut self, kind: Kind, seen: String) -> Option<(Kind, String)> {
        if let Some(session) = &mut self.session {
            session.unsure += 1;
        }
        Some((kind, seen))
    }
}
