//! The file that was applied last is remembered: a crash after a reload neither undoes it nor does it twice, and an edit from while
//! nobody was there is an edit like any other.

use std::time::Duration;

use serde_json::json;

use super::{applied, export, reload};
use crate::client::Call;
use crate::fate::{Fate, Plan};
use crate::origin::Origin;
use crate::process::{Scratch, delay, wait_for, wait_until_equal};
use crate::scenarios::user_on;
use crate::shop::{PINS, Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// Longer than it takes until everything is written.
const WRITTEN: Duration = Duration::from_secs(1);

fn crash(tidegate: &mut Tidegate) {
    delay(WRITTEN);
    tidegate.kill();
    tidegate.start_again();
}

fn differs(tidegate: &Tidegate) -> String {
    tidegate.admin_get("/api/v1/status")["differs"].to_string()
}

#[test]
fn a_backend_whose_address_was_changed_drains_on_after_a_crash_however_it_is_pinned() {
    for pin in PINS {
        let (old, new, a2) = (backend("v1", "a1"), backend("v1", "a1"), backend("v1", "a2"));
        let file = |origin| Shop::new(pin).release("v1", &[origin, &a2]);
        let mut tidegate = file(&old).start();
        let mut users: Vec<_> = (0..4).map(|_| user_on(&tidegate, "a1")).collect();
        // Written under the name that is about to pass to another address.
        crash(&mut tidegate);
        applied(&tidegate, &file(&new).yaml());
        let (text, away) = (export(&tidegate), super::away("a1", &old));
        crash(&mut tidegate);
        assert_eq!(export(&tidegate), text, "{pin}");
        assert!(!differs(&tidegate).contains("has changed"), "{pin}: {}", differs(&tidegate));
        assert_eq!(reload(&tidegate, &file(&new).yaml()).1["result"], "unchanged", "{pin}");
        assert_eq!(tidegate.backend("shop", "v1", &away, "intent"), "drain", "{pin}");
        assert_eq!(tidegate.drain(&format!("shop/v1/{away}"))["remaining"], 4, "{pin}");
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        new.clear_requests();
        for user in &mut users {
            assert_eq!(user.get("/").number("counter"), 3, "{pin}: the same session");
        }
        assert!(new.requests_to("/").is_empty(), "{pin}: nobody moved");
        let mut newcomer = user_on(&tidegate, "a1");
        assert_eq!((newcomer.get("/").number("counter"), new.live_sessions().len()), (3, 1), "{pin}: the name means the new address");
        // Taken back after the crash: the same memory under its own name again.
        applied(&tidegate, &file(&old).yaml());
        crash(&mut tidegate);
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        for user in &mut users {
            let page = user.get("/");
            assert_eq!((page.word("backend").as_str(), page.number("counter")), ("a1", 4), "{pin}");
        }
        assert_eq!(newcomer.get("/").number("counter"), 4, "{pin}: who was born meanwhile stays too");
    }
}

#[test]
fn after_a_crash_the_file_is_compared_with_the_one_that_was_applied_last() {
    let (a1, b1, c1) = (backend("v1", "a1"), backend("v2", "b1"), backend("v3", "c1"));
    let file = |weight| Shop::new("cookie").weighted_release("v1", &[(&a1, weight)]).release("v2", &[&b1]).yaml();
    let mut tidegate = Tidegate::start(&file(1));
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
    applied(&tidegate, &file(5));
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    tidegate.cli(&["stage", "shop", "v3", "--backend", &format!("c1={}", c1.address())]).expect_code(0);
    let states = |tidegate: &Tidegate| ["v1", "v2", "v3"].map(|release| tidegate.release_state("shop", release));
    let (text, before) = (export(&tidegate), states(&tidegate));
    for _ in 0..2 {
        crash(&mut tidegate);
        assert_eq!((export(&tidegate), states(&tidegate)), (text.clone(), before.clone()), "nothing was edited, and nothing changes");
        assert!(differs(&tidegate).contains("current is v2, the file says v1"), "{}", differs(&tidegate));
        assert!(!differs(&tidegate).contains("has changed"), "{}", differs(&tidegate));
    }
    assert_eq!(reload(&tidegate, &file(5)).1["result"], "unchanged");
    // An edit without effect is noted too.
    assert_eq!(reload(&tidegate, &format!("{}# by hand\n", file(5))).1["result"], "unchanged");
    crash(&mut tidegate);
    assert!(!differs(&tidegate).contains("has changed"), "{}", differs(&tidegate));
    assert_eq!((export(&tidegate), states(&tidegate)), (text, before));
}

#[test]
fn a_crash_in_the_middle_of_reloads_leaves_what_the_file_says() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let file = |weight| Shop::new("cookie").weighted_release("v1", &[(&a1, weight), (&a2, 1)]).yaml();
    let mut tidegate = Tidegate::start(&file(1));
    for weight in 2..=6 {
        applied(&tidegate, &file(weight));
        // At another point of the writer's tenth of a second each time.
        delay(Duration::from_millis(u64::from(weight) * 23));
        tidegate.kill();
        tidegate.start_again();
        assert!(export(&tidegate).contains(&format!("weight: {weight}\n")), "{weight}: {}", export(&tidegate));
        assert_eq!(reload(&tidegate, &file(weight)).1["result"], "unchanged");
    }
}

/// A process that took over, which no other handle of the test ends.
struct Successor(rustix::process::Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended by itself.
        rustix::process::kill_process(self.0, rustix::process::Signal::KILL).ok();
    }
}

#[test]
fn a_reload_right_after_an_upgrade_works() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let file = |weight| Shop::new("cookie").weighted_release("v1", &[(&a1, weight), (&a2, 1)]).patient_probes().yaml();
    let mut tidegate = Tidegate::start(&file(1));
    tidegate.wait_for_backend("shop", "v1", "a2", "health", "up");
    applied(&tidegate, &file(2));
    let load = Fate::start(tidegate.port(), Plan { websockets: 0, ..Plan::mixed() });
    load.go_on_for(50);
    let (status, done) = tidegate.admin_post("/api/v1/upgrade", &json!({}));
    assert_eq!(status, 200, "{done}");
    let pid = done["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).expect("a process");
    let _successor = Successor(pid);
    tidegate.write_config(&file(7));
    // The former process may still be asked, and says that it must not change anything.
    wait_for("the file is applied", SOON, || {
        let (status, told) = tidegate.admin_post("/api/v1/reload", &json!({}));
        assert!(status == 200 || told.to_string().contains("an upgrade is under way"), "{told}");
        status == 200
    });
    assert!(export(&tidegate).contains("weight: 7\n"), "{}", export(&tidegate));
    assert!(tidegate.wait_for_end().success());
    applied(&tidegate, &file(8));
    load.go_on_for(50);
    load.stop().assert_clean();
}

/// The answer that creates a session is under way while the address is changed: its pin must mean the memory that made it, also
/// before another proxy, which knows nothing but the pin.
#[test]
fn a_session_that_is_born_during_an_edit_of_the_address_is_found_by_another_proxy() {
    let keys = Scratch::new("late-pins");
    keys.write("key", "a key of more than thirty-two bytes, for two\n");
    let (old, new) = (backend("v1", "a1"), backend("v1", "a1"));
    let line = format!("keys: [{{id: key, file: \"{}/key\"}}]", keys.path().display());
    let file = |origin: &Origin| Shop::new("cookie").session(&line).release("v1", &[origin]);
    let pair = [file(&old).start(), file(&old).start()];
    let mut keeper = user_on(&pair[1], "a1"); // else the old address would be empty there, and gone
    let mut user = pair[0].browser();
    let born = std::thread::spawn(move || {
        let page = user.send(Call::get("/?ms=4000")).unwrap();
        (user, page)
    });
    wait_until_equal("the request is under way", SOON, &3, || old.requests_to("/").len());
    for proxy in &pair {
        let (status, done) = proxy.force_config(&file(&new).yaml());
        assert_eq!(status, 200, "{done}");
        proxy.wait_for_backend("shop", "v1", "a1", "health", "up");
    }
    assert!(!born.is_finished());
    let (user, page) = born.join().unwrap();
    page.expect_status(200);
    assert_eq!(user.tab_before(pair[1].port()).get("/").number("counter"), 2, "the same session");
    assert_eq!(keeper.get("/").number("counter"), 3);
}
