//! A process that plays the new one up to some step, and then does something that the real one never should.
//!
//! The program at tidegate's path is a script that runs this test binary again, with the part in a variable.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use tidegate::serve::upgrade::SOCKET_VARIABLE;
use tidegate::serve::upgrade::wire::{Line, Message, PROTOCOL, Word};

use crate::process::delay;

const PART: &str = "TIDEGATE_IT_PART";

/// How far it plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Called, said nothing.
    Called,
    /// Said hello and got the offer.
    Greeted,
    /// Was told of all sessions, said that it is ready, and was told to serve.
    Ready,
}

/// And then?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It ends with 3.
    Exits,
    /// It is killed.
    IsKilled,
    /// It does nothing more.
    Hangs,
    /// It sends bytes that are no message.
    Babbles,
    /// It says a word that is not due.
    Errs,
    /// It refuses in words.
    Refuses,
}

pub const STEPS: [Step; 3] = [Step::Called, Step::Greeted, Step::Ready];
pub const THENS: [Then; 6] = [Then::Exits, Then::IsKilled, Then::Hangs, Then::Babbles, Then::Errs, Then::Refuses];

/// The script that plays it.
pub fn script(step: Step, then: Then) -> String {
    let own = std::env::current_exe().expect("the test binary");
    format!("#!/bin/sh\n{PART}={step:?}:{then:?} exec {} --exact upgrade::actor::a_part_is_played_where_one_is_given\n", own.display())
}

/// Not a test but a part; without one there is nothing to do.
#[test]
fn a_part_is_played_where_one_is_given() {
    let Ok(part) = std::env::var(PART) else { return };
    let step = STEPS.into_iter().find(|step| part.starts_with(&format!("{step:?}:"))).expect("a step");
    let then = THENS.into_iter().find(|then| part.ends_with(&format!(":{then:?}"))).expect("an end");
    let path = PathBuf::from(std::env::var_os(SOCKET_VARIABLE).expect("started by tidegate"));
    let stream = UnixStream::connect(path).expect("the old process waits");
    let mut raw = stream.try_clone().expect("a descriptor");
    let mut line = Line::new(stream);
    if step >= Step::Greeted {
        line.say(&Word::Hello { protocol: PROTOCOL, version: "9.9.9".to_owned() }).expect("it listens");
        assert!(matches!(line.word().expect("an answer"), Word::Offer(_)));
    }
    if step >= Step::Ready {
        until(&mut line, &Word::Told);
        line.say(&Word::Ready).expect("it listens");
        until(&mut line, &Word::Go);
    }
    match then {
        Then::Exits => std::process::exit(3),
        Then::IsKilled => super::signal(std::process::id(), rustix::process::Signal::KILL),
        Then::Hangs => {}
        Then::Babbles => raw.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").expect("it listens"),
        Then::Errs => line.say(&Word::Quiet).expect("it listens"),
        Then::Refuses => line.say(&Word::Refused { why: "this is not my day".to_owned() }).expect("it listens"),
    }
    delay(Duration::from_secs(600));
}

fn until(line: &mut Line, word: &Word) {
    while line.hear().expect("a message").expect("a message") != Message::Word(word.clone()) {}
}
