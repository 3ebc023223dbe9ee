//! What is around the clients: listeners that come and go, the admin address, the supervisor, containers.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use super::{is_gone, owner, upgrade, upgrade_by_signal, wait_until_quiet};
use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate, binary};

#[test]
fn an_upgrade_applies_what_a_reload_cannot() {
    let a1 = backend("v1", "a1");
    let shop = || Shop::new("cookie").release("v1", &[&a1]);
    let tidegate = Tidegate::start_replaceable(&shop().yaml());
    let mut user = tidegate.browser();
    user.get("/");
    let another = free_port();
    let both = format!("listeners: [{{address: \"127.0.0.1:{}\"}}, {{address: \"127.0.0.1:{another}\"}}]", tidegate.port());
    tidegate.write_config(&shop().process(&both).yaml());
    let refused = tidegate.cli(&["reload"]).expect_code(1);
    assert!(refused.stderr.contains("that needs an upgrade"), "{}", refused.stderr);
    let old = owner(&tidegate);
    upgrade(&tidegate);
    let mut tab = user.tab_before(another);
    assert_eq!(tab.get("/").number("counter"), 2, "the new listener");
    assert_eq!(user.get("/").number("counter"), 3, "the old one");
    wait_for("the old one is gone", SOON, || is_gone(old));
    wait_until_quiet(&tidegate);
    let one = format!("listeners: [{{address: \"127.0.0.1:{another}\"}}]");
    tidegate.write_config(&shop().process(&one).yaml());
    let old = owner(&tidegate);
    upgrade(&tidegate);
    assert_eq!(tab.get("/").number("counter"), 4);
    wait_for("the old one is gone", SOON, || is_gone(old));
    assert!(Browser::new(tidegate.port()).send(Call::get("/")).is_err(), "a listener that was taken out is closed");
    let status = tidegate.cli(&["export"]).expect_code(0).stdout;
    assert!(status.contains(&another.to_string()), "{status}");
}

#[test]
fn the_admin_address_may_be_a_unix_socket_or_change() {
    let a1 = backend("v1", "a1");
    let scratch = Scratch::new("unix");
    let folder = scratch.path().display();
    let (port, admin) = (free_port(), free_port());
    let write = |address: &str| {
        let around = format!(
            "listeners: [{{address: \"127.0.0.1:{port}\"}}]\nadmin: {{address: \"{address}\", token_file: {folder}/token}}\n\
             state: {{directory: {folder}/state}}\n"
        );
        scratch.write("tidegate.yaml", &(around + &Shop::new("cookie").release("v1", &[&a1]).yaml()));
    };
    let unix = format!("unix:{folder}/admin.sock");
    write(&unix);
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(scratch.path().join("tidegate.yaml"));
    let mut process = Process::start("tidegate", command, &scratch.path().join("tidegate.log"));
    process.has_heirs();
    let cli = |address: &str, words: &[&str]| {
        let token = format!("{folder}/token");
        let mut command = Command::new(binary());
        command.args(words).args(["--admin", address, "--token-file", &token]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // It answers a moment before it serves.
    let log = || std::fs::read_to_string(scratch.path().join("tidegate.log")).unwrap();
    wait_for("it serves", SOON, || log().contains("listening on"));
    assert_eq!(cli(&unix, &["upgrade"]), (Some(0), String::new()));
    assert_eq!(cli(&unix, &["status"]).0, Some(0), "right after");
    assert!(process.wait(SOON).success());
    assert_eq!(cli(&unix, &["status"]).0, Some(0), "the old one has left the socket's file");
    write(&format!("127.0.0.1:{admin}"));
    let tcp = format!("http://127.0.0.1:{admin}");
    let thawed = || cli(&unix, &["serve", "shop/v1/a1"]).0 == Some(0);
    wait_for("the first upgrade is over", SOON, thawed);
    assert_eq!(cli(&unix, &["upgrade"]), (Some(0), String::new()));
    assert_eq!(cli(&tcp, &["status"]).0, Some(0), "right after, at the new address");
    wait_for("the socket's file goes with its process", SOON, || !scratch.path().join("admin.sock").exists());
}

#[test]
fn a_supervisor_is_told_which_process_to_look_after() {
    let a1 = backend("v1", "a1");
    let scratch = Scratch::new("supervisor");
    let folder = scratch.path().display();
    let socket = UnixDatagram::bind(scratch.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let heard = || {
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).expect("a word in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let around = format!(
        "listeners: [{{address: \"127.0.0.1:{}\"}}]\nadmin: {{address: \"127.0.0.1:{}\"}}\nstate: {{directory: {folder}/state}}\n",
        free_port(),
        free_port()
    );
    scratch.write("tidegate.yaml", &(around + &Shop::new("cookie").release("v1", &[&a1]).yaml()));
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(scratch.path().join("tidegate.yaml")).env("NOTIFY_SOCKET", scratch.path().join("notify"));
    let mut process = Process::start("tidegate", command, &scratch.path().join("tidegate.log"));
    process.has_heirs();
    assert_eq!(heard(), "READY=1");
    process.signal(rustix::process::Signal::HUP);
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");
    process.signal(rustix::process::Signal::USR2);
    let successor = heard();
    let pid: u32 = successor.strip_prefix("MAINPID=").and_then(|rest| rest.strip_suffix("\nREADY=1")).expect(&successor).parse().unwrap();
    assert!(process.wait(SOON).success(), "without a STOPPING=1, which would be taken for the service's");
    super::signal(pid, rustix::process::Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    wait_for("it is gone", SOON, || is_gone(pid));
}

#[test]
fn a_container_does_not_end_by_an_upgrade() {
    crate::process::require_root();
    let a1 = backend("v1", "a1");
    for with_init in [false, true] {
        // Of its own: the processes of the other container may take a moment to go.
        let scratch = Scratch::new("container");
        let folder = scratch.path().display();
        let admin = free_port();
        let around = format!(
            "listeners: [{{address: \"127.0.0.1:{}\"}}]\nadmin: {{address: \"127.0.0.1:{admin}\", token_file: {folder}/token}}\n\
             state: {{directory: {folder}/state}}\n",
            free_port()
        );
        let config = scratch.write("tidegate.yaml", &(around + &Shop::new("cookie").release("v1", &[&a1]).yaml()));
        let run = format!("{} run -c {}", binary().display(), config.display());
        // An init like tini ends with the process it started; the shell that does so here goes by its name.
        let init = scratch.path().join("tini");
        std::fs::copy("/bin/sh", &init).unwrap();
        let first = if with_init { format!("{} -c '{run}; exit 0'", init.display()) } else { run };
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &format!("exec {first}")]);
        let mut process = Process::start("unshare", command, &scratch.path().join("tidegate.log"));
        wait_for("it answers", SOON, || {
            process.assert_running();
            Browser::new(admin).send(Call::get("/readyz")).is_ok_and(|answer| answer.status == 200)
        });
        let mut command = Command::new(binary());
        let url = format!("http://127.0.0.1:{admin}");
        command.args(["upgrade", "--admin", &url, "--token-file", &format!("{folder}/token")]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{first}: {said}");
        assert!(said.contains("the container would end with this process"), "{first}: {said}");
    }
}

#[test]
fn a_link_to_the_program_is_followed_anew() {
    let a1 = backend("v1", "a1");
    let tidegate = Tidegate::start_replaceable(&Shop::new("cookie").release("v1", &[&a1]).yaml());
    let elsewhere = tidegate.folder().join("next");
    let script = format!("#!/bin/sh\necho the next version\nexec {} \"$@\"\n", binary().display());
    super::failures::put(&tidegate, &script);
    std::fs::rename(tidegate.program(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, tidegate.program()).unwrap();
    upgrade_by_signal(&tidegate);
    assert!(tidegate.read("tidegate.log").contains("the next version"));
    wait_for("quiet", Duration::from_secs(30), || tidegate.cli(&["status"]).code == 0);
}

#[test]
fn another_token_counts_from_the_next_upgrade_on() {
    let a1 = backend("v1", "a1");
    let tidegate = Tidegate::start_replaceable(&Shop::new("cookie").release("v1", &[&a1]).yaml());
    let former = tidegate.read("token");
    let file = tidegate.folder().join("token");
    // Commands read the file each time.
    let is_obeyed = || tidegate.cli(&["serve", "shop/v1/a1"]).code == 0;
    assert!(is_obeyed());
    std::fs::write(&file, "another-token-of-enough-letters\n").unwrap();
    let reloads = || tidegate.metrics().sum("tidegate_config_reloads_total", &[]);
    let before = reloads();
    tidegate.signal(rustix::process::Signal::HUP);
    wait_for("it is reloaded", SOON, || reloads() > before);
    assert!(!is_obeyed(), "the process keeps the one that it began with");
    // By a signal: the command would be refused too.
    upgrade_by_signal(&tidegate);
    wait_for("the former process is gone", Duration::from_secs(30), is_obeyed);
    std::fs::write(&file, former).unwrap();
    assert!(!is_obeyed());
}
