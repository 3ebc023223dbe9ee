//! A state file that was cut short or in which bits have changed, and the same for the log and the index beside it. (The mass of such
//! damage is done in process, beside the state file's code.)
//!
//! Each start either goes on with sessions where they were, or is refused with the way out and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::{rounds, users};
use crate::client::Browser;
use crate::process::delay;
use crate::shop::{Shop, backend};
use crate::tidegate::Tidegate;

const FILES: [&str; 3] = ["state.db", "state.db-wal", "state.db-shm"];

/// The files as a crash left them; empty where there is none.
struct Left {
    directory: PathBuf,
    files: [Vec<u8>; 3],
}

impl Left {
    fn of(directory: &Path) -> Left {
        Left { directory: directory.to_owned(), files: FILES.map(|name| fs::read(directory.join(name)).unwrap_or_default()) }
    }

    /// All as they were, but for one.
    fn put(&self, which: usize, damaged: &[u8]) {
        for (nth, (name, bytes)) in FILES.iter().zip(&self.files).enumerate() {
            let bytes = if nth == which { damaged } else { bytes };
            let path = self.directory.join(name);
            if bytes.is_empty() && nth != which {
                fs::remove_file(path).ok();
            } else {
                fs::write(path, bytes).expect("the directory is ours");
            }
        }
    }

    fn is_unchanged(&self, which: usize, damaged: &[u8]) -> bool {
        let same = |nth: usize| {
            fs::read(self.directory.join(FILES[nth])).unwrap_or_default() == *if nth == which { damaged } else { &self.files[nth] }
        };
        // The index is SQLite's own, and made anew whenever it does not fit.
        same(0) && same(1)
    }
}

/// Where the proxy would send each user by what it knows of their sessions; `None` for anywhere.
fn pinned(tidegate: &Tidegate, users: &[(Browser, String)]) -> Vec<Option<String>> {
    let asked = |(user, _): &(Browser, String)| {
        let cookie = format!("JSESSIONID={}", user.cookie("JSESSIONID").expect("a session"));
        let body = serde_json::json!({"app": "shop", "path": "/", "headers": {"cookie": cookie}});
        let (_, told) = tidegate.admin_post("/api/v1/explain", &body);
        let by_session = matches!(told["reason"].as_str().expect("a reason"), "pinned" | "returned");
        by_session.then(|| told["backend"].as_str().expect("a backend").rsplit('/').next().expect("a name").to_owned())
    };
    users.iter().map(asked).collect()
}

#[test]
fn a_damaged_file_is_gone_on_from_or_refused_with_the_way_out_and_moves_nobody() {
    let origins = ["a1", "a2", "a3"].map(|name| backend("v1", name));
    let mut tidegate = Shop::new("learn").release("v1", &[&origins[0], &origins[1], &origins[2]]).start();
    let users = users(&tidegate, 30);
    let homes: Vec<Option<String>> = users.iter().map(|(_, home)| Some(home.clone())).collect();
    delay(std::time::Duration::from_millis(500)); // written within 100 ms
    tidegate.kill();
    let crash = Left::of(&tidegate.folder().join("state"));
    tidegate.start_again();
    assert_eq!(pinned(&tidegate, &users), homes, "whole");
    assert!(tidegate.stop().success());
    let stop = Left::of(&tidegate.folder().join("state"));
    let mut dice = 1_u64;
    let mut below = |bound: usize| {
        // Knuth's multiplier; the high bits are good enough dice.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) as usize % bound.max(1)
    };
    let (mut restored, mut refused) = (0, 0);
    for round in 0..rounds(24, 240) {
        let left = if round % 3 == 0 { &crash } else { &stop };
        let which = if round % 3 == 0 { round / 3 % 3 } else { 0 };
        let mut damaged = left.files[which].clone();
        let at = below(damaged.len());
        let what = if round % 2 == 0 {
            damaged.truncate(at);
            format!("{} cut at {at}", FILES[which])
        } else {
            damaged[at] ^= 1 << below(8);
            format!("{}: a bit of byte {at}", FILES[which])
        };
        left.put(which, &damaged);
        match tidegate.try_start_again(&[]) {
            Ok(()) => {
                restored += 1;
                let wrong =
                    pinned(&tidegate, &users).into_iter().zip(&homes).filter(|(found, home)| found.is_some() && found != *home).count();
                assert_eq!(wrong, 0, "{what}");
                tidegate.kill();
            }
            Err(said) => {
                refused += 1;
                assert!(said.contains("state.db") && said.contains("mv ") && !said.contains("panicked"), "{what}: {said}");
                assert!(left.is_unchanged(which, &damaged), "{what}: left as it was");
            }
        }
    }
    println!("state file cut or a bit flipped, {} starts: {restored} went on, {refused} refused, 0 wrong pins", restored + refused);
    assert!(refused > 0 && restored > 0);
    // The way out, as the message says it.
    fs::write(tidegate.folder().join("state/state.db"), b"rubbish").unwrap();
    let said = tidegate.try_start_again(&[]).unwrap_err();
    let command = said.split("to start without it: ").nth(1).and_then(|rest| rest.split(';').next()).expect("a command");
    let words: Vec<&str> = command.split(' ').collect();
    assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{command}");
    tidegate.try_start_again(&[]).unwrap();
}
