//! Everybody reloads at once, while the file is replaced again and again: one after the other, and the last file is what runs.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::export;
use crate::process::wait_for;
use crate::shop::{Shop, backend};
use crate::tidegate::SOON;

/// Files, each with another weight.
const EDITS: u32 = 40;
const OPERATORS: usize = 50;

#[test]
fn reloads_from_everywhere_at_once_end_with_the_last_file_and_none_is_applied_twice() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let watched = "server: {grace_period: 5s, threads: 2, watch: true}";
    let tidegate = Shop::new("cookie").process(watched).weighted_release("v1", &[(&a1, 1), (&a2, 1)]).start();
    let text = tidegate.read("tidegate.yaml");
    let (path, draft) = (tidegate.folder().join("tidegate.yaml"), tidegate.folder().join("draft"));
    // Two places must change together: half a file would show.
    let write = |weight: u32| {
        fs::write(&draft, text.replace("weight: 1}", &format!("weight: {weight}}}"))).unwrap();
        fs::rename(&draft, &path).unwrap();
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut operators = Vec::new();
        for _ in 0..OPERATORS {
            operators.push(scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let (status, done) = tidegate.admin_post("/api/v1/reload", &json!({}));
                    assert_eq!(status, 200, "{done}");
                }
            }));
        }
        for weight in 2..=EDITS {
            write(weight);
            tidegate.signal(Signal::HUP);
            tidegate.admin_post("/api/v1/reload", &json!({}));
        }
        over.store(true, Ordering::SeqCst);
    });
    let last = |text: &str| text.matches(&format!("weight: {EDITS}\n")).count() == 2;
    wait_for("the last file runs", SOON, || last(&export(&tidegate)));
    let told = tidegate.cli(&["events", "--json"]).expect_code(0).stdout;
    let events: Value = serde_json::from_str(&told).unwrap();
    let mut before = 1;
    let steps = events.as_array().unwrap().iter().filter(|event| event["target"] == "shop/v1/a1");
    for what in steps.filter_map(|event| event["what"].as_str()?.strip_prefix("weight ")) {
        let (from, to) = what.split_once(" -> ").unwrap_or_else(|| panic!("{what}"));
        let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(from, before, "each goes on where the one before ended: {what}");
        assert!(to > from, "no file comes back: {what}");
        before = to;
    }
    assert_eq!(before, EDITS);
    let metrics = tidegate.metrics();
    let count = |result| metrics.sum("tidegate_config_reloads_total", &[("result", result)]);
    println!("{} reloads at once: {} applied, {} unchanged", count("applied") + count("unchanged"), count("applied"), count("unchanged"));
    assert_eq!((count("failed"), count("refused")), (0.0, 0.0));
    assert!(count("applied") <= f64::from(EDITS - 1));
    tidegate.browser().get("/").expect_status(200);
}
