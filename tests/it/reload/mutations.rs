//! Slips of the keyboard: random mutations of a good file, reloaded under load. Each is applied whole or not at all.

use serde_json::json;
use tidegate::config::{Config, parse};

use super::export;
use super::load::under_load;
use crate::client::Call;
use crate::shop::{Shop, backend};
use crate::tidegate::Tidegate;

/// What a finger hits.
const SLIPS: &[u8] = b"abcxyz0123456789:{}[],-_ \n\"#";

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// A byte, a line or a value is not what it was.
fn mutated(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = dice.below(lines.len());
    match dice.below(6) {
        0 | 1 => {
            let mut bytes = text.as_bytes().to_vec();
            let place = dice.below(bytes.len());
            bytes[place] = SLIPS[dice.below(SLIPS.len())];
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        2 => drop(lines.remove(at)),
        3 => lines.insert(at, lines[at].clone()),
        4 => {
            let other = dice.below(lines.len());
            lines.swap(at, other);
        }
        _ => {
            let digits: Vec<usize> = lines[at].char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(place, _)| place).collect();
            if !digits.is_empty() {
                let place = digits[dice.below(digits.len())];
                lines[at].replace_range(place..=place, &dice.below(10).to_string());
            }
        }
    }
    lines.join("\n") + "\n"
}

/// An operator may order that requests fail: other hosts, other probes, shorter times. Such files prove nothing here.
fn orders_failures(good: &Config, config: &Config) -> bool {
    let shop = |config: &Config| config.apps.iter().find(|app| app.name == "shop").cloned();
    let (Some(good), Some(shop)) = (shop(good), shop(config)) else { return false };
    let (was, is) = (&good.settings, &shop.settings);
    let spec = |app: &tidegate::model::settings::AppSpec| {
        app.releases.iter().flat_map(|r| &r.backends).map(|b| (b.tls.clone(), b.protocol)).collect::<Vec<_>>()
    };
    good.matches != shop.matches
        || (&was.health, &was.limits, &was.timeouts, was.session.max_lifetime)
            != (&is.health, &is.limits, &is.timeouts, is.session.max_lifetime)
        || was.session.idle_timeout != is.session.idle_timeout
        || (was.not_mine != is.not_mine)
        || spec(&good).iter().any(|b| b.0.is_some())
        || config
            .apps
            .iter()
            .any(|app| app.name != "shop" && app.matches.iter().any(|m| m.host.is_none() || m.host.as_deref() == Some("shop.test")))
}

#[test]
fn a_mutated_file_is_applied_whole_or_not_at_all_and_no_request_fails() {
    let (a1, a2, b1, c1, c2) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"), backend("v1", "c1"), backend("v2", "c2"));
    let blog = format!(
        "  blog:\n    match:\n      - {{host: blog.test, path: /}}\n    balance: round_robin\n    slow_start: 10s\n    current: v1\n    releases:\n      v1:\n        backends:\n          c1: {{address: \"{}\", weight: 3}}\n      v2:\n        path: /blog-v2\n        backends:\n          c2: \"{}\"\n",
        c1.address(),
        c2.address()
    );
    let yaml = Shop::new("cookie").patient_probes().release("v1", &[&a1, &a2]).release("v2", &[&b1]).yaml() + &blog;
    let tidegate = Tidegate::start(&yaml);
    for (release, name) in [("v1", "a1"), ("v1", "a2"), ("v2", "b1")] {
        tidegate.wait_for_backend("shop", release, name, "health", "up");
    }
    tidegate.wait_for_backend("blog", "v1", "c1", "admission", "everyone");
    let text = tidegate.read("tidegate.yaml");
    let path = tidegate.folder().join("tidegate.yaml");
    let good = parse(&text, "good").unwrap();
    let rounds = if std::env::var_os("TIDEGATE_LONG").is_some() { 500 } else { 80 };
    let (mut dice, mut told) = (Dice(0x7469_6465), [0; 3]);
    let order = |force: bool| {
        let call = Call::post("/api/v1/reload", json!({ "force": force }).to_string()).field("Content-Type", "application/json");
        tidegate.admin(call)
    };
    let requests = under_load(&tidegate, 1_000, |load| {
        for round in 0..rounds {
            let file = loop {
                let file = mutated(&text, &mut dice);
                let wanted = parse(&file, "mutated");
                if wanted.as_ref().map_or(true, |config| !orders_failures(&good, config)) {
                    break file;
                }
            };
            let before = parse(&export(&tidegate), "before").unwrap();
            std::fs::write(&path, &file).unwrap();
            let answer = order(false);
            let after = parse(&export(&tidegate), "after").unwrap();
            if answer.status == 200 {
                let wanted = parse(&file, "mutated").unwrap();
                told[usize::from(wanted == good)] += 1;
                assert!(after == wanted, "round {round}, half applied:\n{file}\n{}", export(&tidegate));
            } else {
                told[2] += 1;
                assert!(after == before, "round {round}, half refused: {}\n{file}", answer.text());
            }
            std::fs::write(&path, &text).unwrap();
            if order(false).status != 200 {
                order(true).expect_status(200);
            }
            let so_far = load.so_far();
            assert!(so_far.failures.is_empty(), "round {round}: {so_far}\n{file}");
        }
    });
    let [applied, same, refused] = told;
    println!("{rounds} mutations: {applied} applied, {same} the same, {refused} refused; 0 half applied, 0 of {requests} requests failed");
    assert!(applied > 0 && refused > 0);
    assert_eq!(tidegate.metrics().sum("tidegate_sessions_ended_total", &[("reason", "evicted")]), 0.0);
}
