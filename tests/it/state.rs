//! What outlives a process: it is killed, stopped, its file damaged, its disk full, its clock set, its configuration edited meanwhile.
//!
//! Small by default; `TIDEGATE_LONG=1` takes the numbers that the project promises figures for.

mod clock;
mod crash;
mod damage;
pub(crate) mod disk;
mod edited;
mod kept;
mod refused;

use crate::client::Browser;
use crate::tidegate::Tidegate;

/// The first number, or with `TIDEGATE_LONG` the second one.
fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("TIDEGATE_LONG").is_some() { many } else { few }
}

/// That many users with a confirmed session, each with the backend where it lives.
fn users(tidegate: &Tidegate, count: usize) -> Vec<(Browser, String)> {
    let new = |_| {
        let mut user = tidegate.browser();
        user.get("/").expect_status(200);
        let answer = user.get("/");
        assert_eq!(answer.word("session"), "known");
        let home = answer.word("backend");
        (user, home)
    };
    (0..count).map(new).collect()
}

/// How many of them are still where they were, with the session that they had.
fn at_home(users: &mut [(Browser, String)]) -> usize {
    let stayed = |(user, home): &mut (Browser, String)| {
        user.disconnect();
        let answer = user.get("/peek").expect_status(200);
        answer.word("session") == "known" && answer.word("backend") == *home
    };
    users.iter_mut().map(stayed).filter(|stayed| *stayed).count()
}
