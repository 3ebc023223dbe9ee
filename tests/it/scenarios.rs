//! Stories that break balancers in use today, each told through the real binary before scripted backends.
//!
//! Most run once per pin mode, all modes at the same time: what differs between them is only what carries the pin.
//! Time is never slept away: a test that needs an idle timeout to pass watches the count of sessions fall.

mod identity;
mod leaving;
mod serving;

use crate::client::Browser;
use crate::origin::Origin;
use crate::process::wait_for;
use crate::shop::PINS;
use crate::tidegate::{SOON, Tidegate};

/// Tells the story for each pin mode, at once; a panic names the mode by its thread.
pub fn each_pin(story: impl Fn(&str) + Sync) {
    of_pins(&PINS, story);
}

pub fn of_pins(pins: &[&str], story: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for pin in pins {
            let story = &story;
            std::thread::Builder::new()
                .name(format!("pin {pin}"))
                .spawn_scoped(scope, move || story(pin))
                .expect("a thread can be started");
        }
    });
}

/// A user whose session is confirmed (two requests so far) and lives on this backend.
pub fn user_on(tidegate: &Tidegate, backend: &str) -> Browser {
    let mut elsewhere = Vec::new(); // they stay until the end: else the next one would come to the same backend
    for _ in 0..20 {
        let mut user = tidegate.browser();
        if user.get("/").expect_status(200).word("backend") != backend {
            elsewhere.push(user);
            continue;
        }
        let again = user.get("/");
        assert_eq!(again.word("backend"), backend);
        assert_eq!(again.number("counter"), 2);
        for other in &mut elsewhere {
            other.get("/logout"); // so that they are not counted
        }
        return user;
    }
    panic!("none of 20 new users came to {backend}");
}

/// Clicks with `keeper`, whose session must stay, until only `live` sessions of v1 are left.
pub fn keep_clicking_until_v1_has(tidegate: &Tidegate, keeper: &mut Browser, live: u64) {
    wait_for(&format!("v1 has {live} live sessions"), SOON, || {
        assert_eq!(keeper.get("/peek").word("session"), "known");
        tidegate.sessions("shop", "v1").live == live
    });
}

/// The `Cookie` field of the last request that a backend got for that path; empty without one.
pub fn cookie_received(origin: &Origin, path: &str) -> String {
    let requests = origin.requests_to(path);
    let last = requests.last().unwrap_or_else(|| panic!("no request for {path} arrived"));
    let fields: Vec<&str> = last.head.fields_named("cookie").collect();
    assert!(fields.len() <= 1, "several Cookie fields: {fields:?}");
    fields.concat()
}

/// A counter of v1.
pub fn counted(tidegate: &Tidegate, metric: &str, labels: &[(&str, &str)]) -> u64 {
    let mut all = vec![("app", "shop"), ("release", "v1")];
    all.extend(labels);
    tidegate.metrics().sum(metric, &all) as u64
}
