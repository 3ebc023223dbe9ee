//! The status page as a browser fetches it: what is served under which policy, and that the stream tells what the page shows.
//!
//! What happens in a browser with it is tried with a real one: here what goes wrong on the way, elsewhere whole deploys.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::chromium;
use crate::client::{Browser, Call, Response, Wire};
use crate::process::wait_for_some;
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A browser before the admin address, without the token.
fn operator(tidegate: &Tidegate) -> Browser {
    let (_, port) = tidegate.admin_url().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.parse().unwrap())).unwrap();
    Browser::new(port).with_host(&format!("127.0.0.1:{port}"))
}

fn fetch(tidegate: &Tidegate, path: &str) -> Response {
    operator(tidegate).send_or_panic(Call::get(path)).expect_status(200)
}

/// An open page's stream, and what it has told so far.
struct Stream {
    wire: Wire,
    text: String,
    told: BTreeMap<String, Value>,
    structure: String,
}

impl Stream {
    fn open(tidegate: &Tidegate) -> Stream {
        let (head, wire) = operator(tidegate).open(&Call::get("/live")).unwrap();
        assert_eq!(head.field("content-type"), Some("text/event-stream"));
        wire.set_timeout(Duration::from_secs(20)).unwrap();
        let mut stream = Stream { wire, text: String::new(), told: BTreeMap::new(), structure: String::new() };
        stream.next().expect("a first frame");
        stream
    }

    /// The next frame; `None` when the stream has ended.
    fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let frame: Value = serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
                self.text = rest.to_owned();
                self.structure = frame["structure"].as_str().unwrap().to_owned();
                for kind in ["cells", "bars", "blocks", "offers"] {
                    for (key, value) in frame[kind].as_object().into_iter().flatten() {
                        self.told.insert(key.clone(), value.clone());
                    }
                }
                return Some(frame);
            }
            let chunk = self.wire.read_chunk().ok().flatten()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// Reads on until a cell has this text.
    fn reads(&mut self, key: &str, text: &str) {
        let what = format!("the stream says {key} = {text}");
        wait_for_some(&what, SOON, || {
            let there = self.told.get(key).is_some_and(|told| told == text);
            if !there {
                self.next().expect("the stream goes on");
            }
            there.then_some(())
        });
    }
}

/// The text of a cell in the page.
fn cell(page: &str, key: &str) -> String {
    let begin = page.find(&format!("data-k=\"{key}\"")).unwrap_or_else(|| panic!("no cell {key} in {page}"));
    page[begin..].split_once('>').unwrap().1.split_once('<').unwrap().0.to_owned()
}

#[test]
fn the_page_and_its_parts_are_served_under_a_strict_policy() {
    let a = backend("v41", "a1");
    let tidegate = Shop::new("cookie").release("v41", &[&a]).start();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/orders.js", "text/javascript; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let answer = fetch(&tidegate, path);
        assert!(!answer.body.is_empty(), "{path}");
        assert_eq!(answer.head.field("content-type"), Some(kind), "{path}");
        assert_eq!(answer.head.field("content-security-policy"), Some(POLICY), "{path}");
        assert_eq!(answer.head.field("cross-origin-opener-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.head.field("referrer-policy"), Some("no-referrer"), "{path}");
        let text = answer.text();
        assert!(path == "/favicon.svg" || !text.contains("http://") && !text.contains("https://"), "{path} fetches from elsewhere");
        let Some(tag) = answer.head.field("etag") else {
            assert_eq!((path, answer.head.field("cache-control")), ("/", Some("no-store")));
            continue;
        };
        assert_eq!(answer.head.field("cache-control"), Some("no-cache"), "{path}: asked for again after an upgrade");
        operator(&tidegate).send_or_panic(Call::get(path).field("If-None-Match", tag)).expect_status(304);
        operator(&tidegate).send_or_panic(Call::get(path).field("If-None-Match", "\"other\"")).expect_status(200);
    }
    // The shields are on refusals, too.
    let refused = operator(&tidegate).send_or_panic(Call::get("/nothing")).expect_status(404);
    assert_eq!(refused.head.field("content-security-policy"), Some(POLICY));
}

#[test]
fn the_stream_tells_what_the_page_shows_through_a_whole_deploy() {
    let (a, b) = (backend("v41", "a1"), backend("v42", "b1"));
    let mut tidegate = Shop::new("cookie").session("confirm_within: 2s").release("v41", &[&a]).release("v42", &[&b]).start();
    let mut stream = Stream::open(&tidegate);
    let before = stream.structure.clone();
    let mut user = user_on(&tidegate, "a1");
    stream.reads("shop/v41.live", "1");
    stream.reads("shop/v41/a1.live", "1");
    assert_eq!(stream.structure, before, "figures are no change of structure");

    let page = fetch(&tidegate, "/").text();
    assert!(page.contains(&format!("data-structure=\"{before}\"")), "page and stream agree on the structure");
    assert_eq!(cell(&page, "shop/v41/a1.live"), "1");
    assert_eq!(cell(&page, "shop/v41/a1.health"), "up");

    let intent = |intent: &str| {
        let (status, said) = tidegate.admin_post("/api/v1/intent", &json!({"target": "shop/v42/b1", "intent": intent, "force": true}));
        assert_eq!(status, 200, "{said}");
    };
    // It drains: at a first start nobody knows who may have been there before.
    stream.reads("shop/v42/b1", "maintain evict");
    intent("maintain");
    stream.reads("shop/v42/b1", "serve evict");
    intent("serve");
    stream.reads("shop/v42/b1", "maintain evict");
    assert_eq!(stream.structure, before, "orders are no change of structure");

    let (status, _) = tidegate.admin_post("/api/v1/apps/shop/promote", &serde_json::json!({"release": "v42"}));
    assert_eq!(status, 202);
    stream.reads("shop/v41.state", "draining");
    assert_ne!(stream.structure, before, "a drain has a card of its own");
    let id = tidegate.drain("shop/v41")["id"].as_str().unwrap().to_owned();
    stream.reads(&format!("{id}.remaining"), "1");
    assert_eq!(
        stream.told["shop.glance"].as_str().unwrap().split(',').next(),
        Some("v42 takes new sessions; at least 1 person finishes on v41")
    );
    let page = fetch(&tidegate, "/").text();
    assert_eq!(cell(&page, &format!("{id}.remaining")), "1");
    assert!(page.contains(&format!("data-order=\"cancel {id}\"")) && page.contains("data-order=\"rollback shop\""));

    user.get("/logout");
    stream.reads("shop/v41.live", "0");
    // Nobody has watched for long enough to know that there was only this one.
    assert_eq!(stream.told[&format!("{id}.progress")], Value::Null);
    assert_eq!(stream.told[&format!("{id}.percent")], "unknown");
    assert!(stream.told["shop.glance"].as_str().unwrap().contains("no session seen on v41 yet; the count is not sure"));

    tidegate.stop();
    assert!(std::iter::from_fn(|| stream.next()).count() < 60, "the stream ends with the process");
}

#[test]
fn an_order_from_a_page_of_another_origin_is_refused() {
    let (a, b) = (backend("v41", "a1"), backend("v42", "b1"));
    let tidegate = Shop::new("cookie").release("v41", &[&a]).release("v42", &[&b]).start();
    let own = tidegate.admin_url();
    let order = |name: &str, value: &str| {
        let call = Call::post("/api/v1/apps/shop/promote", "{\"release\":\"v42\"}").field("Content-Type", "application/json");
        let (_, port) = own.rsplit_once(':').unwrap();
        let token = tidegate.read("token");
        let call = call.field("Authorization", &format!("Bearer {}", token.trim())).field(name, value);
        Browser::new(port.parse().unwrap()).with_host(&format!("127.0.0.1:{port}")).send_or_panic(call)
    };
    for (name, value) in [("Origin", "https://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
        let refused = order(name, value).expect_status(403);
        let refused: Value = serde_json::from_slice(&refused.body).unwrap();
        assert!(refused["error"].as_str().unwrap().contains("another origin"), "{refused}");
        assert!(!refused["remedy"].as_str().unwrap().is_empty());
    }
    assert_eq!(tidegate.status("shop")["current"], "v41");
    order("Origin", &own).expect_status(202);
    assert_eq!(tidegate.status("shop")["current"], "v42");
}

#[test]
fn the_dialog_before_an_order_calls_nobody_gone_who_may_be_there() {
    chromium::drive("orders", json!({}), |asked, _| panic!("the script asks for {asked}"));
}

#[test]
fn the_page_stays_true_while_things_go_wrong_and_asks_no_more_than_it_must() {
    let (a, b) = (backend("v1", "a1"), backend("v2", "b1"));
    let shop = Shop::new("cookie").release("v1", &[&a]).release("v2", &[&b]);
    let tidegate = shop.start();
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
    let remote = shop.process("admin: {address: \"0.0.0.0:@admin\", token_file: @folder/token}").start();
    let page = |tidegate: &Tidegate| json!({"url": format!("{}/", tidegate.admin_url()), "token": tidegate.read("token").trim()});
    let mut given = page(&tidegate);
    given["remote"] = page(&remote);
    chromium::drive("upkeep", given, |asked, _| {
        let (status, said) = match asked {
            "promote" => tidegate.admin_post("/api/v1/apps/shop/promote", &json!({"release": "v2"})),
            intent => tidegate.admin_post("/api/v1/intent", &json!({"target": "shop/v2/b1", "intent": intent, "force": true})),
        };
        assert!((200..300).contains(&status), "{asked}: {said}");
        json!(true)
    });
}
