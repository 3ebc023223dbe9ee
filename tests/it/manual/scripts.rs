//! The scripts of README run as they stand, but for addresses: typed into a shell, before a running tidegate.
//!
//! Left out are lines that never end (`run`, `--watch`, `--follow`), and what the restart of a server needs besides tidegate (`ssh`,
//! `curl`) does nothing here.

use std::process::Command;

use super::documents::documents;
use crate::origin::Origin;
use crate::process::{Scratch, require_file, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate, binary};

/// The block of README that has this in it.
fn script(part: &str) -> String {
    let documents = documents();
    let readme = documents.iter().find(|document| document.name == "README.md").expect("README is there");
    let mut found = readme.blocks("sh").into_iter().filter(|block| block.text.contains(part));
    let block = found.next().unwrap_or_else(|| panic!("README has no script with {part}"));
    assert!(found.next().is_none(), "two scripts of README have {part}");
    block.text
}

/// What a shell says to it, with `tidegate` on its path; it must succeed.
fn typed(folder: &Scratch, asked: Option<&Tidegate>, script: &str) -> String {
    let programs = folder.path().join("bin");
    folder.write("bin/.keep", "");
    if !programs.join("tidegate").exists() {
        std::os::unix::fs::symlink(binary(), programs.join("tidegate")).expect("a link");
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
    let documents = documents();
    let readme = documents.iter().find(|document| document.name == "README.md").expect("README is there");
    readme.words().into_iter().find(|word| word.starts_with(command)).unwrap_or_else(|| panic!("README names no {command}"))
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
