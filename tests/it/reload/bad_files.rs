//! What may lie where the file was: reloaded by command, by signal and by `server.watch`. Nothing hangs, nothing changes, and the
//! next good file is applied.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::json;

use super::export;
use crate::process::wait_for;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

/// Puts something else there.
type Spoil = fn(&Path, &str);

const SPOILT: &[(&str, Spoil)] = &[
    ("nothing", |path, _| fs::remove_file(path).unwrap()),
    ("an empty file", |path, _| fs::write(path, "").unwrap()),
    ("a bomb", |path, text| {
        let mut bomb = "a: &a0 [x, x]\n".to_owned();
        for n in 1..40 {
            bomb += &format!("b{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1);
        }
        fs::write(path, bomb + text).unwrap();
    }),
    ("brackets without an end", |path, text| fs::write(path, format!("{text}\nx: {}", "[".repeat(500_000))).unwrap()),
    ("half a character", |path, text| fs::write(path, [text.as_bytes(), b"# caf\xc3"].concat()).unwrap()),
    ("a NUL byte", |path, text| fs::write(path, text.replacen("apps:", "apps:\0", 1)).unwrap()),
    ("100 MB", |path, text| {
        fs::write(path, text).unwrap();
        File::options().write(true).open(path).unwrap().set_len(100 << 20).unwrap();
    }),
    ("a pipe", |path, _| {
        fs::remove_file(path).unwrap();
        mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
    }),
    ("a directory", |path, _| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("a socket", |path, _| {
        fs::remove_file(path).unwrap();
        drop(UnixListener::bind(path).unwrap());
    }),
    ("a link to an endless device", |path, _| {
        fs::remove_file(path).unwrap();
        symlink("/dev/zero", path).unwrap();
    }),
    ("a link to itself", |path, _| {
        fs::remove_file(path).unwrap();
        symlink(path, path).unwrap();
    }),
];

/// As an editor does it, whatever is there now.
fn put(tidegate: &Tidegate, text: &str) {
    let (path, draft) = (tidegate.folder().join("tidegate.yaml"), tidegate.folder().join("draft"));
    fs::write(&draft, text).unwrap();
    if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
        fs::remove_dir(&path).unwrap();
    }
    fs::rename(draft, path).unwrap();
}

fn failed(tidegate: &Tidegate) -> f64 {
    tidegate.metrics().sum("tidegate_config_reloads_total", &[("result", "failed")])
}

#[test]
fn whatever_lies_where_the_file_was_changes_nothing_and_holds_nobody_up() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let (text, path, before) = (tidegate.read("tidegate.yaml"), tidegate.folder().join("tidegate.yaml"), export(&tidegate));
    for (what, spoil) in SPOILT {
        spoil(&path, &text);
        let begun = Instant::now();
        let (status, told) = tidegate.admin_post("/api/v1/reload", &json!({ "force": true }));
        assert_eq!(status, 400, "{what}: {told}");
        assert!(told["problems"][0]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{what}: {told}");
        let count = failed(&tidegate);
        tidegate.signal(Signal::HUP);
        wait_for(&format!("{what}: the signal is heard"), SOON, || failed(&tidegate) > count);
        let status = tidegate.cli(&["status"]).expect_code(0).stdout;
        assert!(status.contains("changed since it was applied") || status.contains("cannot be read"), "{what}: {status}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
        assert_eq!(export(&tidegate), before, "{what}");
        tidegate.browser().get("/").expect_status(200);
        put(&tidegate, &text);
        assert_eq!(tidegate.admin_post("/api/v1/reload", &json!({})).1["result"], "unchanged", "{what}");
    }
    println!("{} kinds of bad files: nothing changed", SPOILT.len());
}

#[test]
fn a_watched_file_may_become_anything_and_the_next_good_one_is_applied() {
    let a1 = backend("v1", "a1");
    let file = |weight| {
        let watched = "server: {grace_period: 5s, threads: 2, watch: true}";
        Shop::new("cookie").process(watched).weighted_release("v1", &[(&a1, weight)])
    };
    let tidegate = file(1).start();
    let (text, path) = (tidegate.read("tidegate.yaml"), tidegate.folder().join("tidegate.yaml"));
    for (weight, (what, spoil)) in (2..).zip(SPOILT) {
        let count = failed(&tidegate);
        spoil(&path, &text);
        // Nothing at all, and a link to nothing, may be a step of an editor: nobody is told.
        if !matches!(*what, "nothing" | "a link to itself") {
            wait_for(&format!("{what}: it is told"), SOON, || failed(&tidegate) > count);
        }
        put(&tidegate, &text.replace("weight: 1", &format!("weight: {weight}")));
        wait_for(&format!("{what}: the next one is applied"), SOON, || export(&tidegate).contains(&format!("weight: {weight}\n")));
        tidegate.browser().get("/").expect_status(200);
    }
}

#[test]
fn permissions_that_are_given_back_are_noticed() {
    let a1 = backend("v1", "a1");
    let file = |weight| {
        let watched = "server: {grace_period: 5s, threads: 2, watch: true}";
        Shop::new("cookie").process(watched).weighted_release("v1", &[(&a1, weight)])
    };
    let tidegate = file(1).start();
    let path = tidegate.folder().join("tidegate.yaml");
    let text = tidegate.read("tidegate.yaml").replace("weight: 1", "weight: 2");
    let draft = tidegate.folder().join("draft");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, Permissions::from_mode(0o000)).unwrap();
    fs::rename(&draft, &path).unwrap();
    // Root may read it all the same.
    if fs::read(&path).is_err() {
        wait_for("it is told", SOON, || failed(&tidegate) > 0.0);
        assert!(export(&tidegate).contains("weight: 1\n"));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    wait_for("it is applied", SOON, || export(&tidegate).contains("weight: 2\n"));
}
