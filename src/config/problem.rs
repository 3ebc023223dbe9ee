//! What is wrong with a configuration: where, what, and what to do about it.
//!
//! `at` is a path in the YAML, not a file path; it is empty for problems of the file as a whole (syntax, size, encoding).

use crate::model::spelling::distance;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::{Deserialize, Serialize};

/// More problems than this are counted, not shown: a file of another program has as many as it has lines.
const SHOWN: usize = 500;

/// Characters of the operator's own text that a message repeats.
const QUOTED: usize = 60;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The name under which the file was given.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Path in the YAML, as in `apps.shop.releases.v42.backends.b1` or `listeners[0].address`.
    pub at: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Everything that is wrong with one file, sorted by line; never empty in an `Err`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The problem of a file that could not even be read.
    pub(super) fn one(file: &str, line: usize, wrong: Wrong) -> Problems {
        Problems(vec![Problem { file: file.to_owned(), line, at: String::new(), what: wrong.what, remedy: wrong.remedy }])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

/// What is wrong with one value, before anyone knows where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Wrong {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), remedy: remedy.into() }
    }
}

/// A place in the file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub line: usize,
    pub at: String,
}

/// Collects problems while the tree is walked, so that one mistake hides no other.
pub(super) struct Report {
    file: String,
    problems: RefCell<Vec<Problem>>,
    unshown: Cell<usize>,
}

impl Report {
    pub fn new(file: &str) -> Report {
        Report { file: file.to_owned(), problems: RefCell::default(), unshown: Cell::new(0) }
    }

    pub fn add(&self, place: &Place, wrong: Wrong) {
        self.add_with(place, || wrong);
    }

    /// Like [`Report::add`] for a problem that takes time to word: with a hundred thousand of them only the shown ones cost it.
    pub fn add_with(&self, place: &Place, wrong: impl FnOnce() -> Wrong) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < SHOWN {
            let (Place { line, at }, Wrong { what, remedy }) = (place.clone(), wrong());
            problems.push(Problem { file: self.file.clone(), line, at, what, remedy });
        } else {
            self.unshown.set(self.unshown.get() + 1);
        }
    }

    /// Problems so far, shown or not.
    pub fn count(&self) -> usize {
        self.problems.borrow().len() + self.unshown.get()
    }

    /// `value` when nothing was reported.
    pub fn finish<T>(self, value: T) -> Result<T, Problems> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|p| p.line);
        if self.unshown.get() > 0 {
            let line = problems.last().map_or(1, |p| p.line);
            let what = format!("{} more problems are not shown", self.unshown.get());
            problems.push(Problem { file: self.file, line, at: String::new(), what, remedy: "mend the ones above first".to_owned() });
        }
        Err(Problems(problems))
    }
}

/// The operator's text as a message may repeat it: in backquotes, without control characters, and short.
pub(super) fn quote(text: &str) -> String {
    format!("`{}`", clip(text))
}

/// `text` without control characters, and short.
pub(super) fn clip(text: &str) -> String {
    // Only what a terminal could act on is escaped; quotes and backslashes stay as they were typed.
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == QUOTED {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// The word of `known` nearest to `word`, if any is near enough to be meant: case, `-` and `_` are overlooked.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| -> Vec<char> { s.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect() };
    if word.len() > QUOTED {
        return None;
    }
    let wanted = plain(word);
    let near = wanted.len().max(3).div_ceil(3);
    known.into_iter().map(|k| (distance(&wanted, &plain(k)), k)).filter(|(d, _)| *d <= near).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_overlooks_case_and_hyphens_and_gives_up_when_nothing_is_near() {
        let known = ["idle_timeout", "max_lifetime", "pin", "pin_on"];
        let check = |word: &str, expected: Option<&str>| assert_eq!(nearest(word, known), expected, "{word}");
        check("idle-timeout", Some("idle_timeout"));
        check("idleTimeout", Some("idle_timeout"));
        check("idel_timeout", Some("idle_timeout"));
        check("timeout", None);
        check("pni", Some("pin"));
        check("pinon", Some("pin_on"));
        check("certificates", None);
        check("", None);
        check(&"x".repeat(1_000_000), None);
    }

    #[test]
    fn a_quoted_text_can_neither_flood_nor_steer_a_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(quote(text), expected);
        check("30s", "`30s`");
        check("a\u{1b}[31m\u{202e}b", "`a\\u{1b}[31m\\u{202e}b`");
        check("it's \"x\"", "`it's \"x\"`");
        check(&"y".repeat(100), &format!("`{}…`", "y".repeat(60)));
    }
}
