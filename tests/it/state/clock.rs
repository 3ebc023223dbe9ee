//! Wall clocks that are set by an hour or a day, between two runs and during one: nobody is dropped, nobody lives for ever.
//!
//! The wall clock is faked; the time since boot is not, since nobody can set that.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{at_home, users};
use crate::process::{require_file, wait_until_equal};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

const JUMPS: [&str; 4] = ["+1h", "-1h", "+1d", "-1d"];

/// What makes a process see another wall clock.
fn library() -> String {
    require_file("/usr/bin/faketime", "faketime");
    let architectures = fs::read_dir("/usr/lib").expect("it is there").flatten();
    let library: Option<PathBuf> = architectures.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    library.expect("the package faketime brings it").display().to_string()
}

fn start_again(tidegate: &mut Tidegate, clock: &[(&str, &str)]) {
    let library = library();
    let mut environment = vec![("LD_PRELOAD", library.as_str()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    environment.extend(clock);
    tidegate.start_again_in(&environment);
}

/// Whether the process believes that it is so many hours later than it is.
fn is_ahead_by(tidegate: &Tidegate, hours: i64) -> bool {
    let applied = tidegate.metrics().sum("tidegate_config_last_reload_success_timestamp_seconds", &[]) as i64;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
    (applied - now - hours * 3600).abs() < 600
}

fn wait_for_the_end(tidegate: &Tidegate, what: &str) {
    let live = || tidegate.sessions("shop", "v1").live;
    wait_until_equal(&format!("{what}: whoever is silent for an idle timeout is gone"), SOON * 2, &0, live);
}

#[test]
fn a_clock_that_was_set_between_two_runs_drops_nobody_and_keeps_nobody_for_ever() {
    // At once: each waits for an idle timeout.
    std::thread::scope(|scope| {
        for jump in JUMPS {
            scope.spawn(move || ["cookie", "learn"].into_iter().for_each(|pin| between_two_runs(jump, pin)));
        }
    });
    println!("clock set by {JUMPS:?} between two runs and back, cookie and learn: 0 of 80 sessions dropped, none immortal");
}

fn between_two_runs(jump: &str, pin: &str) {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let what = format!("{pin}, {jump}");
    let mut tidegate = Shop::new(pin).session("idle_timeout: 15s").release("v1", &[&a1, &a2]).start();
    let mut users = users(&tidegate, 10);
    assert!(tidegate.stop().success());
    start_again(&mut tidegate, &[("FAKETIME", jump)]);
    let hours = jump[..2].parse::<i64>().unwrap() * if jump.ends_with('d') { 24 } else { 1 };
    assert!(is_ahead_by(&tidegate, hours), "{what}: the clock is faked");
    assert_eq!(tidegate.sessions("shop", "v1").live, 10, "{what}");
    assert_eq!(at_home(&mut users), 10, "{what}");
    // And back, by a crash.
    tidegate.kill();
    tidegate.start_again();
    assert!(is_ahead_by(&tidegate, 0), "{what}");
    assert_eq!(tidegate.sessions("shop", "v1").live, 10, "{what}, and back");
    assert_eq!(at_home(&mut users), 10, "{what}, and back");
    if jump.starts_with('-') {
        wait_for_the_end(&tidegate, &what);
    }
}

#[test]
fn a_clock_that_is_set_during_a_run_changes_nothing() {
    for pin in ["cookie", "learn"] {
        let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let mut tidegate = Shop::new(pin).session("idle_timeout: 15s").release("v1", &[&a1, &a2]).start();
        assert!(tidegate.stop().success());
        let clock = tidegate.folder().join("clock");
        fs::write(&clock, "+0").unwrap();
        start_again(&mut tidegate, &[("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()), ("FAKETIME_NO_CACHE", "1")]);
        let mut all = users(&tidegate, 10);
        for jump in JUMPS {
            fs::write(&clock, jump).unwrap();
            crate::process::delay(Duration::from_millis(300)); // three turns of the controller
            assert_eq!(tidegate.sessions("shop", "v1").live, 10, "{pin}, {jump}");
            assert_eq!(at_home(&mut all), 10, "{pin}, {jump}");
        }
        let mut late = users(&tidegate, 2);
        fs::write(&clock, "+0").unwrap();
        assert_eq!((at_home(&mut all), at_home(&mut late)), (10, 2), "{pin}");
        wait_for_the_end(&tidegate, pin);
    }
    println!("clock set by {JUMPS:?} during a run, cookie and learn: 0 of 20 sessions dropped, none immortal");
}
