//! The scripts of README run as they stand, but for addresses: typed into a shell, before a running tidegate.
//!
//! Left out are lines that never end (`run`, `--watch`, `--follow`), and what needs another machine (`ssh`) does nothing here. The few
//! blocks that cannot be typed at all are in [`NOT_TYPED`], and README says so.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::documents::{Document, documents, root};
use crate::origin::Origin;
use crate::process::{Scratch, delay, require_file, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate, binary};

/// By which the blocks are known that are typed here.
const TYPED: [&str; 9] = [
    "tidegate run -c conf/",
    "tidegate stage shop v2",
    "ssh $server systemctl restart",
    "tidegate events --follow",
    "openssl dgst -sha256 -hmac",
    "deploy/pipeline/deploy.sh shop v2",
    "--token-file lb1.token,lb2.token",
    "tidegate completions bash",
    "$RENEWED_LINEAGE/privkey.pem",
];

/// By which the others are known, and what README calls what is in them where it says what no test runs.
const NOT_TYPED: [(&str, &str); 6] = [
    ("cargo run --release -- demo", "cargo run --release -- demo"),
    ("tests/run\n", "tests/run"),
    ("cargo build --release", "cargo build --release"),
    ("apt install ./target/debian/", "apt install"),
    ("docker ", "docker"),
    ("kubectl ", "kubectl"),
];

fn readme() -> Document {
    documents().into_iter().find(|document| document.name == "README.md").expect("README is there")
}

/// The block of README that has this in it.
fn script(part: &str) -> String {
    assert!(TYPED.contains(&part), "{part} is not among those that are typed");
    let mut found = readme().blocks("sh").into_iter().filter(|block| block.text.contains(part));
    let block = found.next().unwrap_or_else(|| panic!("README has no script with {part}"));
    assert!(found.next().is_none(), "two scripts of README have {part}");
    block.text
}

#[test]
fn every_script_of_readme_is_typed_or_named_as_one_that_no_test_runs() {
    let readme = readme();
    let (_, said) = readme.text.split_once("No test runs ").expect("README says what no test runs");
    let (said, _) = said.split_once("\n\n").expect("a paragraph ends");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for block in readme.blocks("sh") {
        let typed = TYPED.iter().filter(|part| block.text.contains(*part)).count();
        let others: Vec<&str> = NOT_TYPED.iter().filter(|(part, _)| block.text.contains(part)).map(|(_, name)| *name).collect();
        assert_eq!(typed + others.len(), 1, "{}: typed {typed} times, and excepted as {others:?}", block.at);
        for name in others {
            assert!(said.contains(&format!("`{name}`")), "{}: README does not say that no test runs `{name}`", block.at);
        }
    }
}

/// What a shell says to it, with `tidegate` on its path; it must succeed.
fn typed(folder: &Scratch, asked: Option<&Tidegate>, script: &str) -> String {
    let programs = folder.path().join("bin");
    folder.write("bin/.keep", "");
    if !programs.join("tidegate").exists() {
        symlink(binary(), programs.join("tidegate")).expect("a link");
    }
    let mut shell = Command::new("bash");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
    shell.args(["-euc", script]).env("PATH", path).current_dir(folder.path());
    if let Some(tidegate) = asked {
        let token = std::fs::read_to_string(tidegate.folder().join("token")).expect("a token");
        shell.env("TIDEGATE_ADMIN", tidegate.admin_url()).env("TIDEGATE_TOKEN", token.trim());
    }
    let output = shell.output().expect("bash is there");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}");
    said
}

#[test]
fn the_scripts_of_readme_do_what_stands_beside_them() {
    let origins: Vec<Origin> = (1..=6).map(|number| backend("v1", &format!("a{number}"))).collect();
    let new = backend("v2", "b1");
    let shop = Shop::new("cookie").session("idle_timeout: 2s").session("confirm_within: 1s");
    let tidegate = shop.release("v1", &origins.iter().collect::<Vec<_>>()).start();
    let folder = Scratch::new("scripts");
    drop(user_on(&tidegate, "a1"));

    let watching = script("tidegate events --follow").replace(" --watch", "").replace(" --follow", "");
    let said = typed(&folder, Some(&tidegate), &watching);
    for part in ["shop", "v1", "a6", "new"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }

    let restarts = script("ssh $server systemctl restart");
    let said = typed(&folder, Some(&tidegate), &format!("ssh() {{ echo restarts $1; }}\ncurl() {{ :; }}\n{restarts}"));
    for server in ["a1", "a2", "a3", "a4", "a5", "a6"] {
        assert!(said.contains(&format!("restarts {server}")), "{said}");
        tidegate.wait_for_backend("shop", "v1", server, "admission", "everyone");
    }

    let deploy = script("tidegate stage shop v2");
    assert!(deploy.contains("b1=127.0.0.1:8082"), "{deploy}");
    typed(&folder, Some(&tidegate), &deploy.replace("127.0.0.1:8082", &new.address()));
    assert_eq!(tidegate.browser().get("/").word("release"), "v2");
    assert_eq!(tidegate.release_state("shop", "v1"), "stopped");
}

/// A command that README names in its text.
fn mentioned(command: &str) -> String {
    readme().words().into_iter().find(|word| word.starts_with(command)).unwrap_or_else(|| panic!("README names no {command}"))
}

#[test]
fn a_backup_of_a_running_state_holds_its_sessions() {
    require_file("/usr/bin/sqlite3", "sqlite3");
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("learn").release("v1", &[&a1]).start();
    let mut user = user_on(&tidegate, "a1");
    tidegate.wait_for_sessions("shop", "v1", 1, 0);
    // Somebody later: where they are, everything before is too.
    tidegate.browser().get("/").expect_status(200);
    let state = tidegate.folder().join("state");
    wait_for("the backup has both", SOON, || {
        let backup = format!("cd '{}'; {}", state.display(), mentioned("sqlite3"));
        typed(&Scratch::new("backup"), None, &backup);
        let counted = "select count(*) from sessions";
        typed(&Scratch::new("backup"), None, &format!("sqlite3 '{}/copy.db' '{counted}'", state.display())).trim() == "2"
    });
    tidegate.kill();
    for file in ["state.db-wal", "state.db-shm"] {
        std::fs::remove_file(state.join(file)).ok(); // there or not, it belongs to the original
    }
    std::fs::rename(state.join("copy.db"), state.join("state.db")).expect("the copy takes its place");
    tidegate.start_again();
    tidegate.wait_for_sessions("shop", "v1", 1, 1);
    assert_eq!(user.get("/").number("counter"), 3);
}

#[test]
fn the_files_that_readme_checks_are_fine_and_its_signature_is_the_one_that_is_sent() {
    require_file("/usr/bin/openssl", "openssl");
    let folder = Scratch::new("scripts");
    let minimal = std::fs::read_to_string(crate::examples::folder().join("minimal.yaml")).expect("it is there");
    folder.write("conf/minimal.yaml", &minimal);
    let check: String =
        script("tidegate run -c conf/").lines().filter(|line| !line.starts_with("tidegate run")).map(|line| format!("{line}\n")).collect();
    assert!(typed(&folder, None, &check).contains("fine"));

    typed(&folder, None, &mentioned("openssl rand -hex 32 > k1.key"));
    let key = std::fs::read_to_string(folder.path().join("k1.key")).expect("the key is made");
    assert_eq!(key.trim().len(), 64, "as many as a key must have");

    let signature = script("openssl dgst -sha256 -hmac");
    let (stamp, begins) =
        signature.split_once("X-Tidegate-Signature: t=").and_then(|(_, rest)| rest.split_once(",v1=")).expect("an example");
    let begins = begins.split("...").next().expect("its beginning");
    folder.write("body.json", "{\"id\":\"d7\"}");
    folder.write("tidegate-state/keys/shop.webhook", &"k".repeat(32));
    let said = typed(&folder, None, &format!("t={stamp}\n{signature}"));
    assert!(said.trim().rsplit(' ').next().is_some_and(|v1| v1.starts_with(begins)), "{said}");
}

/// A program on the path of what is [`typed`] there.
fn with_program(folder: &Scratch, name: &str, script: &str) {
    let file = folder.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn the_pipeline_of_readme_deploys_and_switches_the_old_processes_off() {
    require_file("/usr/bin/jq", "jq");
    require_file("/usr/bin/curl", "curl");
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    b1.answer("/shop/health", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let tidegate = Shop::new("cookie").session("idle_timeout: 2s").session("confirm_within: 1s").release("v1", &[&a1]).start();
    let folder = Scratch::new("scripts");
    symlink(root().join("deploy"), folder.path().join("deploy")).expect("a link");
    with_program(&folder, "ssh", "echo \"at $*\"");
    let deploy = script("deploy/pipeline/deploy.sh shop v2");
    assert!(deploy.contains("b1=10.0.0.12:8080"), "{deploy}");
    let said = typed(&folder, Some(&tidegate), &deploy.replace("10.0.0.12:8080", &b1.address()));
    assert!(said.contains("at old systemctl stop tomcat10"), "{said}");
    assert_eq!(b1.requests_to("/shop/health").len(), 1, "the smoke test");
    assert_eq!((tidegate.release_state("shop", "v1"), tidegate.release_state("shop", "v2")), ("stopped".into(), "current".into()));
}

#[test]
fn a_promotion_through_two_proxies_is_typed_as_readme_says() {
    let (a1, b1) = (backend("v41", "a1"), backend("v42", "b1"));
    let folder = Scratch::new("scripts");
    let key = folder.write("k1.key", &"0123456789abcdef".repeat(4));
    let shop = Shop::new("cookie").session(&format!("keys: [{{id: k1, file: \"{}\"}}]", key.display())).session("idle_timeout: 2s");
    let shop = shop.session("confirm_within: 1s").release("v41", &[&a1]).release("v42", &[&b1]);
    let proxies = [shop.start(), shop.start()];
    let mut promotion = script("--token-file lb1.token,lb2.token");
    for (proxy, name) in proxies.iter().zip(["lb1", "lb2"]) {
        let token = std::fs::read_to_string(proxy.folder().join("token")).expect("a token");
        folder.write(&format!("{name}.token"), &token);
        assert!(promotion.contains(&format!("http://{name}:9180")), "{promotion}");
        promotion = promotion.replace(&format!("http://{name}:9180"), &proxy.admin_url());
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A proxy that nobody visits would be taken for a standby.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                proxies.iter().for_each(|proxy| drop(proxy.browser().get("/")));
                delay(Duration::from_millis(200));
            }
        });
        typed(&folder, None, &promotion);
        over.store(true, Ordering::Relaxed);
    });
    for proxy in &proxies {
        assert_eq!((proxy.release_state("shop", "v41"), proxy.release_state("shop", "v42")), ("drained".into(), "current".into()));
    }
}

#[test]
fn completions_and_manual_pages_are_made_as_readme_says() {
    let folder = Scratch::new("scripts");
    folder.write("completions/.keep", "");
    let lines = script("tidegate completions bash");
    let lines = lines.replace("/usr/share/bash-completion/completions", "completions").replace("/usr/local/share/man/man1", "man1");
    assert!(!lines.contains("/usr/"), "{lines}");
    let said = typed(&folder, None, &format!("man() {{ cat; }}\n{lines}\ncomplete -p tidegate"));
    for part in [".TH TIDEGATE 1", ".TH TIDEGATE-PROMOTE 1", "-F _tidegate"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    for file in ["completions/tidegate", "man1/tidegate.1", "man1/tidegate-promote.1"] {
        assert!(folder.path().join(file).metadata().is_ok_and(|made| made.len() > 100), "{file}");
    }
}

#[test]
fn the_hook_of_certbot_hands_certificates_over_and_reloads() {
    let folder = Scratch::new("scripts");
    for file in ["live/shop/fullchain.pem", "live/shop/privkey.pem", "tidegate/.keep"] {
        folder.write(file, file);
    }
    with_program(&folder, "systemctl", "echo \"asked: $*\"");
    // The user of the package is not on this machine.
    let hook = script("$RENEWED_LINEAGE/privkey.pem").replace(" -o root -g tidegate", "").replace("/etc/tidegate", "tidegate");
    let said = typed(&folder, None, &format!("export RENEWED_LINEAGE=live/shop\n{hook}"));
    assert_eq!(said, "asked: reload tidegate\n");
    for (file, from) in [("shop.pem", "live/shop/fullchain.pem"), ("shop.key", "live/shop/privkey.pem")] {
        let file = folder.path().join("tidegate").join(file);
        assert_eq!(std::fs::read_to_string(&file).expect("it was handed over"), from);
        assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o640);
    }
}
