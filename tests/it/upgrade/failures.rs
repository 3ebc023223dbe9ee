//! Upgrades that come to nothing: the old process serves on, nobody notices, and the command says why.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::actor::{STEPS, Step, THENS, Then, script};
use super::{is_gone, owner, takes_orders, upgrade, wait_until_quiet};
use crate::fate::{Fate, Plan};
use crate::origin::Origin;
use crate::process::{delay, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate, binary};

/// Each step may take so long; a real process on a busy machine needs less.
const PROCESS: &str = "server: {grace_period: 60s, threads: 2, upgrade_timeout: 8s}";

/// Puts a script where the program was.
pub fn put(tidegate: &Tidegate, script: &str) {
    let (path, fresh) = (tidegate.program(), tidegate.folder().join("fresh"));
    fs::write(&fresh, script).expect("its directory is writable");
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("its own file");
    fs::rename(fresh, path).expect("the same directory");
}

/// Puts the binary of this build there again.
fn put_back(tidegate: &Tidegate) {
    fs::remove_file(tidegate.program()).ok();
    symlink(binary(), tidegate.program()).expect("a link");
}

fn shop(a1: &Origin, a2: &Origin) -> Shop {
    Shop::new("learn").process(PROCESS).patient_probes().release("v1", &[a1, a2])
}

fn start(a1: &Origin, a2: &Origin) -> (Tidegate, Fate) {
    let tidegate = Tidegate::start_replaceable(&shop(a1, a2).yaml());
    for backend in ["a1", "a2"] {
        tidegate.wait_for_backend("shop", "v1", backend, "health", "up");
    }
    let load = Fate::start(tidegate.port(), Plan { users: 3, ..Plan::mixed() });
    load.go_on_for(100);
    (tidegate, load)
}

/// Fails for that reason, and changes nothing.
#[track_caller]
fn fails(tidegate: &Tidegate, load: &Fate, why: &str) {
    let before = owner(tidegate);
    let said = tidegate.cli(&["upgrade"]).expect_code(1);
    assert!(said.stderr.contains(why), "{why}: {}", said.stderr);
    assert!(said.stderr.contains("this process serves on"), "{why}: {}", said.stderr);
    assert!(tidegate.read("tidegate.log").contains("this process serves on"), "{why}");
    assert_eq!(owner(tidegate), before, "{why}");
    assert!(!is_gone(before), "{why}");
    // Orders are taken, and somebody new is kept.
    assert!(takes_orders(tidegate), "{why}");
    load.go_on_for(50);
    assert_eq!(load.so_far().failures.len(), 0, "{why}: {}", load.so_far());
}

/// After all that: a good upgrade works, and nobody has noticed anything.
#[track_caller]
fn ends_well(mut tidegate: Tidegate, load: Fate) {
    put_back(&tidegate);
    let old = owner(&tidegate);
    upgrade(&tidegate);
    wait_until_quiet(&tidegate);
    load.go_on_for(100);
    let report = load.stop();
    println!("{report}");
    report.assert_clean();
    wait_for("the old one is gone", SOON, || is_gone(old));
    tidegate.wait_for_end();
    let live = tidegate.sessions("shop", "v1").live;
    assert!(live > 0);
    // Not written down by whoever was to be, it would be gone now.
    delay(Duration::from_millis(500));
    let new = owner(&tidegate);
    super::signal(new, rustix::process::Signal::KILL);
    wait_for("it is gone", SOON, || is_gone(new));
    tidegate.start_again();
    assert_eq!(tidegate.sessions("shop", "v1").live, live);
}

#[test]
fn a_program_that_cannot_run_replaces_nobody() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let (tidegate, load) = start(&a1, &a2);
    fs::remove_file(tidegate.program()).unwrap();
    fails(&tidegate, &load, "tidegate cannot be started: No such file");
    put(&tidegate, "#!/bin/sh\n");
    fs::set_permissions(tidegate.program(), fs::Permissions::from_mode(0o644)).unwrap();
    fails(&tidegate, &load, "cannot be started: Permission denied");
    put(&tidegate, "no program at all");
    fails(&tidegate, &load, "cannot be started: Exec format error");
    put(&tidegate, "#!/bin/sh\nexit 3\n");
    fails(&tidegate, &load, "the new process ended while it started (exit status: 3)");
    put(&tidegate, "#!/bin/sh\nkill -SEGV $$\n");
    fails(&tidegate, &load, "the new process ended while it started (signal: 11");
    put(&tidegate, "#!/bin/sh\nexec sleep 600\n");
    fails(&tidegate, &load, "the new process said nothing for 8 s while it started, and was killed");
    ends_well(tidegate, load);
}

#[test]
fn a_configuration_that_cannot_be_served_replaces_nobody() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let (tidegate, load) = start(&a1, &a2);
    let good = |shop: Shop| shop.yaml();
    tidegate.write_config(&good(shop(&a1, &a2)).replace("pin: learn", "pin: lern"));
    fails(&tidegate, &load, "lern");
    tidegate.write_config(&good(Shop::new("learn").process(PROCESS).patient_probes().release("v1", &[&a1])));
    fails(&tidegate, &load, "live session");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listeners = format!("listeners: [{{address: \"127.0.0.1:{}\"}}, {{address: \"{address}\"}}]", tidegate.port());
    tidegate.write_config(&good(shop(&a1, &a2).process(&listeners)));
    fails(&tidegate, &load, &format!("cannot listen on {address}"));
    tidegate.write_config(&good(shop(&a1, &a2).process("state: {directory: @folder/elsewhere}")));
    fails(&tidegate, &load, "an upgrade keeps it");
    assert!(!tidegate.folder().join("elsewhere").exists(), "nothing is made there");
    fs::remove_file(tidegate.folder().join("tidegate.yaml")).unwrap();
    fails(&tidegate, &load, "tidegate.yaml");
    tidegate.write_config(&good(shop(&a1, &a2)));
    ends_well(tidegate, load);
}

#[test]
fn a_new_process_that_fails_at_any_step_replaces_nobody() {
    std::thread::scope(|scope| {
        for step in STEPS {
            scope.spawn(move || {
                let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
                let (tidegate, load) = start(&a1, &a2);
                for then in THENS {
                    put(&tidegate, &script(step, then));
                    let at = match step {
                        Step::Called => "while it started",
                        Step::Greeted => "before it was ready",
                        Step::Ready => "before it served",
                    };
                    let why = match then {
                        Then::Exits => format!("the new process ended {at} (exit status: 3)"),
                        Then::IsKilled => format!("the new process ended {at} (signal: 9"),
                        Then::Hangs => format!("the new process said nothing for 8 s {at}, and was killed"),
                        Then::Babbles => format!("the line to the new process failed {at}"),
                        Then::Errs => format!("the line to the new process failed {at}: Quiet was not due"),
                        Then::Refuses => "the new process refused: this is not my day".to_owned(),
                    };
                    fails(&tidegate, &load, &why);
                }
                ends_well(tidegate, load);
            });
        }
    });
}
