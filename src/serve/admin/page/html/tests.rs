//! The page as text: what is escaped, what is a cell, and what is shown in which state.

use std::collections::BTreeMap;

use super::*;
use crate::model::time::Time;
use crate::serve::admin::page::facts::AppFacts;

fn page(facts: &Facts) -> String {
    super::page(facts).1
}

fn status(change: impl FnOnce(&mut api::Status)) -> api::Status {
    let text = r#"{"version":"0.1.0","apps":{"shop":{"current":"v42","releases":{
      "v41":{"state":"draining","sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3},
      "backends":{"a1":{"address":"127.0.0.1:8081","intent":"serve","health":"up","admission":"known_sessions",
      "incarnation":1,"in_flight":5,"sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3}}}},
      "v42":{"state":"current","sessions":{"live":30,"engaged":30,"kept_alive":0,"unconfirmed":0},
      "backends":{"b1":{"address":"127.0.0.1:9081","intent":"serve","health":"up","admission":"everyone",
      "incarnation":1,"in_flight":0,"sessions":{"live":30,"engaged":30,"kept_alive":0,"unconfirmed":0}}}}}}},
      "drains":[{"id":"d7","target":"shop/v41","state":"draining","owner":"operator","started":"2026-11-20T10:00:00Z",
      "initial":40,"remaining":12,"progress":0.7,"confident":true,
      "eta_seconds":{"p50":420,"p90":1500,"p99":1790},"upper_bound_seconds":1795,"deadline":null,
      "ended":{"logout":20,"idle":8,"moved":0,"lost":0,"evicted":0},"verdict":null}]}"#;
    let mut status: api::Status = serde_json::from_str(text).unwrap();
    change(&mut status);
    status
}

fn facts(change: impl FnOnce(&mut api::Status)) -> Facts {
    let extra =
        AppFacts { rollback_to: Some("v41".to_owned()), draining_serve: true, evict_per_second: 50, ledger: (42, 1000), unsaved: false };
    Facts {
        status: status(change),
        now: Time::from_secs(1_795_176_000),
        host: "web1".to_owned(),
        ready: true,
        apps: BTreeMap::from([("shop".to_owned(), extra)]),
        events: Vec::new(),
        reload_fault: None,
        curves: Default::default(),
    }
}

fn release<'s>(status: &'s mut api::Status, name: &str) -> &'s mut api::ReleaseStatus {
    &mut status.apps.0[0].1.releases.0.iter_mut().find(|(n, _)| n == name).unwrap().1
}

/// Those that are not hidden.
fn buttons(html: &str) -> Vec<&str> {
    let offered = html.split("data-order=\"").skip(1).filter(|rest| !rest.split_once('>').unwrap().0.ends_with(" hidden"));
    offered.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn the_sentence_at_the_top_says_who_is_where() {
    let check = |change: fn(&mut api::Status), expected: &str| {
        let (_, cells) = skeleton(&facts(change));
        assert_eq!(cells.texts["shop.glance"], expected);
    };
    check(|_| {}, "v42 takes new sessions; 12 people finish on v41, likely done by 12:07–12:25.");
    check(|s| s.drains[0].eta_seconds.p50 = None, "v42 takes new sessions; 12 people finish on v41, done by 12:30 if nobody clicks again.");
    check(|s| release(s, "v41").sessions.live = 1, "v42 takes new sessions; 1 person finishes on v41, likely done by 12:07–12:25.");
    check(|s| release(s, "v41").sessions.live = 0, "v42 takes new sessions; nobody is left on v41 but 3 unconfirmed sessions.");
    fn doubted(s: &mut api::Status, live: u64, unconfirmed: u64) {
        (release(s, "v41").sessions.live, release(s, "v41").sessions.unconfirmed) = (live, unconfirmed);
        (s.drains[0].confident, s.drains[0].confidence) = (false, Some("seen for 8s of 30m".to_owned()));
    }
    let (told, why) = ("v42 takes new sessions;", "the count is not sure (seen for 8s of 30m).");
    for ((live, unconfirmed), expected) in [
        ((0, 0), format!("{told} no session seen on v41 yet; {why}")),
        ((0, 3), format!("{told} only 3 unconfirmed sessions seen on v41 yet; {why}")),
        ((1, 0), format!("{told} at least 1 person finishes on v41, likely done by 12:07–12:25.")),
    ] {
        let (_, cells) = skeleton(&facts(|s| doubted(s, live, unconfirmed)));
        assert_eq!(cells.texts["shop.glance"], expected);
    }
    let unwatched = |s: &mut api::Status| {
        doubted(s, 0, 0);
        s.drains.clear();
    };
    check(unwatched, "v42 takes new sessions; no session seen on v41 yet; the count is not sure (nothing watches it drain).");
    check(|s| release(s, "v41").state = "drained".to_owned(), "v42 takes new sessions; v41 is drained: it may be switched off.");
    let down = |s: &mut api::Status| release(s, "v42").backends.0[0].1.admission = "nobody".to_owned();
    check(down, "v42 is current, but none of its backends is open to new sessions; 12 people finish on v41, likely done by 12:07–12:25.");
    let by_health = |s: &mut api::Status| {
        s.apps.0[0].1.current = "by_health".to_owned();
        for (_, release) in &mut s.apps.0[0].1.releases.0 {
            release.state = "by_health".to_owned();
        }
    };
    check(by_health, "v42 takes new sessions, by its health.");
}

#[test]
fn every_cell_of_the_stream_stands_in_the_page_with_the_same_text() {
    let facts = facts(|_| {});
    let (structure, cells) = skeleton(&facts);
    let page = page(&facts);
    assert!(page.contains(&format!("data-structure=\"{structure}\"")));
    assert!(cells.texts.len() > 30 && cells.bars.len() == 1 && cells.blocks.len() >= 3, "{cells:?}");
    for (key, text) in &cells.texts {
        let begin = page.find(&format!("data-k=\"{key}\"")).unwrap_or_else(|| panic!("no {key} in the page"));
        let shown = page[begin..].split_once('>').unwrap().1.split_once('<').unwrap().0;
        assert_eq!(shown, html! { (text) }.0, "{key}");
    }
    for (key, markup) in &cells.blocks {
        let begin = page.find(&format!("data-b=\"{key}\"")).unwrap_or_else(|| panic!("no {key} in the page"));
        assert!(page[begin..].split_once('>').unwrap().1.starts_with(markup.as_str()), "{key}");
    }
    assert!(page.contains("data-v=\"d7.progress\" max=\"1\" value=\"0.7\""));
}

#[test]
fn figures_orders_and_health_leave_the_structure_alone() {
    let structure = |change: fn(&mut api::Status)| skeleton(&facts(change)).0;
    let before = structure(|_| {});
    assert_eq!(before, structure(|s| release(s, "v41").sessions.live = 3));
    assert_eq!(before, structure(|s| release(s, "v41").backends.0[0].1.health = "down".to_owned()));
    assert_eq!(before, structure(|s| (s.drains[0].remaining, s.drains[0].ended.lost, s.stopping) = (1, 1, true)));
    assert_eq!(before, structure(|s| s.differs.push("shop: current is v42, the file says v41".to_owned())));
    assert_eq!(before, structure(|s| release(s, "v41").state = "drained".to_owned()));
    assert_eq!(before, structure(|s| s.apps.0[0].1.current = "v41".to_owned()));
    assert_eq!(before, structure(|s| (s.drains[0].confident, s.drains[0].confidence) = (false, Some("seen for 8s of 30m".to_owned()))));
    let nowhere = |s: &mut api::Status| {
        let backend = &mut release(s, "v41").backends.0[0].1;
        (backend.intent, backend.health, backend.admission) = ("drain".to_owned(), "draining".to_owned(), "nobody".to_owned());
    };
    assert_eq!(before, structure(nowhere));
    let mut elsewhere = facts(|_| {});
    elsewhere.apps.get_mut("shop").unwrap().rollback_to = None;
    assert_eq!(before, skeleton(&elsewhere).0);
    assert_ne!(before, structure(|s| drop(release(s, "v41").backends.0.pop())));
    assert_ne!(before, structure(|s| s.drains.clear()));
}

#[test]
fn names_with_markup_stay_text() {
    // The configuration refuses such names; an address or an event may still hold anything.
    let evil = "<img src=x onerror=alert(1)>\"'&";
    let mut facts = facts(|s| {
        let backends = &mut release(s, "v42").backends.0;
        (backends[0].0, backends[0].1.address) = (evil.to_owned(), evil.to_owned());
        s.drains[0].confidence = Some(evil.to_owned());
        s.drains[0].confident = false;
        s.differs.push(evil.to_owned());
    });
    facts.events.push(api::Event { at: evil.to_owned(), owner: evil.to_owned(), target: evil.to_owned(), what: evil.to_owned() });
    facts.reload_fault = Some(("2026-11-20T11:00:00Z".to_owned(), evil.to_owned()));
    let page = page(&facts);
    assert!(!page.contains("<img"), "{page}");
    assert!(page.matches("&lt;img src=x onerror=alert(1)&gt;&quot;").count() > 8, "{page}");
}

#[test]
fn orders_are_offered_where_they_make_sense() {
    let check = |change: fn(&mut api::Status), expected: &[&str]| {
        let page = page(&facts(change));
        assert_eq!(buttons(&page), expected);
    };
    let of_b1 = ["drain shop/v42/b1", "maintain shop/v42/b1"];
    let of_v41 = ["promote shop/v41", "evict shop/v41", "stop shop/v41", "maintain shop/v41/a1", "evict shop/v41/a1"];
    check(|_| {}, &[["cancel d7", "rollback shop"].as_slice(), &of_b1, &of_v41].concat());
    let drained = |s: &mut api::Status| {
        release(s, "v41").state = "drained".to_owned();
        release(s, "v42").backends.0[0].1.intent = "drain".to_owned();
        s.drains.clear();
    };
    let of_b1 = ["serve shop/v42/b1", "maintain shop/v42/b1", "evict shop/v42/b1"];
    check(drained, &[["rollback shop"].as_slice(), &of_b1, &["promote shop/v41", "stop shop/v41", "maintain shop/v41/a1"]].concat());
}

#[test]
fn whatever_is_wrong_is_said_at_the_top() {
    let check = |change: fn(&mut api::Status), expected: &[&str]| {
        let (_, cells) = skeleton(&facts(change));
        let told: Vec<&str> = cells.blocks["problems"].split("<li>").skip(1).map(|li| li.split("</li>").next().unwrap()).collect();
        assert_eq!(told, expected);
    };
    check(|_| {}, &[]);
    check(|s| release(s, "v41").backends.0[0].1.health = "down".to_owned(), &["shop/v41: a1 is down (1 of 1 backend)"]);
    let meant = |s: &mut api::Status| {
        let backend = &mut release(s, "v41").backends.0[0].1;
        (backend.health, backend.intent) = ("down".to_owned(), "maintain".to_owned());
    };
    check(meant, &[]);
    let not_yet = |s: &mut api::Status| {
        let v41 = release(s, "v41");
        (v41.state, v41.backends.0[0].1.health) = ("staged".to_owned(), "down".to_owned());
    };
    check(not_yet, &[]);
    let colour = |s: &mut api::Status, live| {
        s.apps.0[0].1.current = "by_health".to_owned();
        for (_, release) in &mut s.apps.0[0].1.releases.0 {
            release.state = "by_health".to_owned();
        }
        let v41 = release(s, "v41");
        (v41.sessions.live, v41.sessions.unconfirmed, v41.backends.0[0].1.health) = (live, 0, "down".to_owned());
        v41.backends.0[0].1.admission = "nobody".to_owned();
    };
    let (_, idle) = skeleton(&facts(|s| colour(s, 0)));
    assert!(!idle.blocks["problems"].contains("v41"), "the idle colour is no fault: {}", idle.blocks["problems"]);
    assert_eq!(idle.texts["shop.glance"], "v42 takes new sessions, by its health; v41 is off, and no session is known there.");
    let (_, crashed) = skeleton(&facts(|s| colour(s, 1)));
    assert!(crashed.blocks["problems"].contains("shop/v41: a1 is down"), "{}", crashed.blocks["problems"]);
    let none = |s: &mut api::Status| release(s, "v42").backends.0[0].1.admission = "known_sessions".to_owned();
    let helps = "shop: no backend is open to new sessions; new clients go to those that drain (when_all_draining: serve)";
    check(none, &[helps]);
    let down = |s: &mut api::Status| {
        release(s, "v41").backends.0[0].1.admission = "nobody".to_owned();
        release(s, "v42").backends.0[0].1.admission = "nobody".to_owned();
    };
    check(down, &["shop: no backend is open to new sessions; new clients get 503"]);
    check(|s| s.drains[0].ended.lost = 2, &["shop/v41: 2 sessions were lost during drain d7"]);
    let mut failed = facts(|_| {});
    failed.reload_fault = Some(("2026-11-20T11:58:00Z".to_owned(), "no such file".to_owned()));
    failed.apps.get_mut("shop").unwrap().ledger = (950, 1000);
    let told = &skeleton(&failed).1.blocks["problems"];
    assert!(told.contains("The reload of 11:58:00 changed nothing: no such file"), "{told}");
    assert!(told.contains("the ledger holds 950 of 1000 entries"), "{told}");
}

#[test]
fn what_is_worst_is_seen_first_and_the_rest_is_folded() {
    let told = |apps: usize| {
        let (_, cells) = skeleton(&facts(|s| {
            release(s, "v41").backends.0[0].1.health = "down".to_owned();
            let one = s.apps.0[0].1.clone();
            s.apps.0.extend((1..apps).map(|n| (format!("app{n}"), one.clone())));
            s.apps.0.last_mut().unwrap().1.releases.0.remove(1);
            for drain in &mut s.drains {
                drain.ended.lost = 1;
            }
        }));
        cells.blocks["problems"].clone()
    };
    let few = told(4);
    assert!(
        few.starts_with("<ul aria-label=\"What is wrong\"><li>app3: no backend is open to new sessions; new clients get 503</li><li>shop/v41: 1 session was lost"),
        "{few}"
    );
    assert!(!few.contains("<details"), "{few}");
    assert!(told(20).contains("<summary>16 more</summary>"), "{}", told(20));
}

#[test]
fn many_backends_are_folded_into_a_line() {
    let page = page(&facts(|s| {
        let backends = &mut release(s, "v42").backends.0;
        let one = backends[0].1.clone();
        backends.extend((2..=30).map(|n| (format!("b{n}"), one.clone())));
        backends[3].1.health = "down".to_owned();
    }));
    assert!(page.contains("<summary><span data-k=\"shop/v42.backends\">30 backends: 29 up, 1 down; 30 take new sessions</span></summary>"));
    assert_eq!(page.matches("<details").count(), 1);
}

#[test]
fn an_empty_configuration_says_what_to_do() {
    let page = page(&facts(|s| {
        s.apps.0.clear();
        s.drains.clear();
    }));
    assert!(page.contains("No app is configured") && page.contains("tidegate reload"));
}

#[test]
fn the_form_for_signing_in_knows_nothing() {
    let form = sign_in();
    for secret in ["shop", env!("CARGO_PKG_VERSION"), "data-k", "data-order", "Event log"] {
        assert!(!form.contains(secret), "{secret}: {form}");
    }
    assert!(form.contains("<title>tidegate</title>") && page(&facts(|_| {})).contains("<title>tidegate web1</title>"));
    assert!(form.contains("id=\"token\"") && form.contains("data-signed-out"));
}

#[test]
fn nothing_is_inline() {
    for html in [page(&facts(|_| {})), sign_in()] {
        assert!(!html.contains(" style=") && !html.contains(" onclick=") && !html.contains("<style"), "{html}");
        assert_eq!(html.matches("<script").count(), 2);
        assert!(html.contains("<script src=\"/page.js\"></script><script src=\"/orders.js\" defer></script>"));
        assert!(!html.contains("http://") && !html.contains("https://"), "nothing is fetched from elsewhere");
    }
}

#[test]
fn no_two_parts_of_the_page_have_the_same_id() {
    let page = page(&facts(|s| {
        let one = s.apps.0[0].1.clone();
        s.apps.0.extend(["a-b", "a", "a-name"].map(|name| (name.to_owned(), one.clone())));
        s.apps.0[1].1.releases.0[0].0 = "c".to_owned();
        s.apps.0[2].1.releases.0[0].0 = "b-c".to_owned();
    }));
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let count = ids.len();
    assert!(count > 20, "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "{ids:?}");
}
