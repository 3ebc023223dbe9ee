//! Sessions that no cookie carries, clients that are never counted, and ids that somebody invents.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::sync::Mutex;

use crate::client::Call;
use crate::http::{Unstated, query_value, read_body};
use crate::scenarios::{counted, of_pins, user_on};
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, next_request};
use crate::tidegate::Sessions;

/// An MCP server: `initialize` (no session header) gives an id, everything else needs one that this server made, and DELETE ends it.
pub fn mcp_server(name: &'static str) -> Speaker {
    let sessions = Mutex::new(HashMap::<String, u32>::new());
    Speaker::start(move |stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        while let Some(head) = next_request(&mut input, stream)? {
            read_body(&mut input, &head, Unstated::Empty)?;
            let mut sessions = sessions.lock().unwrap();
            let (status, field, text) = match head.field("mcp-session-id") {
                None => {
                    let id = format!("{name}-{}-{:x}", sessions.len(), std::ptr::from_ref(stream).addr());
                    sessions.insert(id.clone(), 1);
                    (200, format!("Mcp-Session-Id: {id}\r\n"), format!("backend={name} counter=1 id={id}"))
                }
                Some(id) if head.word(0) == "DELETE" => match sessions.remove(id) {
                    Some(_) => (204, String::new(), String::new()),
                    None => (404, String::new(), String::new()),
                },
                Some(id) => match sessions.get_mut(id) {
                    Some(counter) => {
                        *counter += 1;
                        (200, String::new(), format!("backend={name} counter={counter}"))
                    }
                    None => (404, String::new(), format!("backend={name} counter=0")),
                },
            };
            drop(sessions);
            write!(out, "HTTP/1.1 {status} OK\r\n{field}Content-Length: {}\r\n\r\n{text}", text.len())?;
        }
        Ok(())
    })
}

#[test]
fn a_session_in_a_header_stays_where_it_was_made() {
    of_pins(&["cookie", "learn"], |pin| {
        let servers = [mcp_server("a1"), mcp_server("a2")];
        let tidegate =
            Shop::new(pin).session("header: Mcp-Session-Id").release_of("v1", vec![servers[0].line("a1"), servers[1].line("a2")]).start();
        let mut sessions: Vec<(String, String)> = Vec::new();
        for _ in 0..8 {
            // Programs keep no cookies: the header alone must do.
            let begun = tidegate.browser().post("/mcp", "initialize").expect_status(200);
            assert_eq!(begun.head.field("mcp-session-id"), Some(begun.word("id").as_str()));
            sessions.push((begun.word("id"), begun.word("backend")));
        }
        for counter in 2..5 {
            for (id, home) in &sessions {
                let call = Call::post("/mcp", "call").field("mcp-session-id", id);
                let answer = tidegate.browser().send_or_panic(call).expect_status(200);
                assert_eq!((answer.word("backend"), answer.number("counter")), (home.clone(), counter), "{pin}");
            }
        }
        tidegate.wait_for_sessions("shop", "v1", 8, 0);
        for name in ["a1", "a2"] {
            assert_eq!(sessions.iter().filter(|(_, home)| home == name).count(), 4, "{pin}: evenly");
        }
    });
}

#[test]
fn a_session_in_the_query_stays_where_its_route_says_and_counts_once_it_comes_back() {
    let speakers = ["a1", "a2"].map(|name| {
        Speaker::start(move |stream| {
            let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
            while let Some(head) = next_request(&mut input, stream)? {
                let id = query_value(head.word(1), "PHPSESSID").unwrap_or("none");
                let text = format!("backend={name} id={id}");
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
            }
            Ok(())
        })
    });
    let tidegate = Shop::new("route")
        .session("cookies: []")
        .session("query_parameter: PHPSESSID")
        .release_of("v1", vec![speakers[0].line("a1"), speakers[1].line("a2")])
        .start();
    for home in ["a1", "a2", "a1", "a2"] {
        for user in 0..3 {
            let target = format!("/page?x=1&PHPSESSID=S{user}.{home}&y=2");
            let answer = tidegate.browser().get(&target).expect_status(200);
            assert_eq!((answer.word("backend"), answer.word("id")), (home.to_owned(), format!("S{user}.{home}")));
        }
    }
    tidegate.wait_for_sessions("shop", "v1", 6, 0);
    let encoded = tidegate.browser().get("/page?other=S0.a1").expect_status(200);
    assert_eq!(encoded.word("id"), "none");
    tidegate.wait_for_sessions("shop", "v1", 6, 0);
}

#[test]
fn monitors_keep_their_sessions_and_are_never_counted() {
    let (a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie")
        .process("trusted_proxies: [127.0.0.0/8]")
        .session("ignore: {clients: [10.9.0.0/16], user_agents: [\"kube-probe/*\", \"*Pingdom*\"]}")
        .release("v1", &[&a1, &a2])
        .start();
    let monitors =
        [("User-Agent", "kube-probe/1.29"), ("User-Agent", "Mozilla/5.0 (compatible; Pingdom.com_bot)"), ("X-Forwarded-For", "10.9.3.4")];
    for (name, value) in monitors {
        let mut browser = tidegate.browser();
        // A monitor that logs in needs its session like everybody.
        for counter in 1..4 {
            let answer = browser.send_or_panic(Call::get("/").field(name, value)).expect_status(200);
            assert_eq!(answer.number("counter"), counter, "{value}");
        }
    }
    assert_eq!(tidegate.sessions("shop", "v1"), Sessions::default());
    assert!(!a1.live_sessions().is_empty(), "the application made sessions for them");
    let _user = user_on(&tidegate, "a1");
    tidegate.wait_for_sessions("shop", "v1", 1, 0);
    let mut person = tidegate.browser();
    for _ in 0..2 {
        person.send_or_panic(Call::get("/").field("User-Agent", "my-kube-probe/1.0").field("X-Forwarded-For", "10.8.3.4"));
    }
    tidegate.wait_for_sessions("shop", "v1", 2, 0);
}

const MAX_ENTRIES: u64 = 10_000;
const INVENTED: usize = 20_000;
const ATTACKERS: usize = 8;

#[test]
fn invented_ids_fill_neither_the_ledger_nor_the_memory_and_end_no_session() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie")
        .patient_probes()
        .session(&format!("max_entries: {MAX_ENTRIES}"))
        .process("server: {grace_period: 5s, threads: 2, access_log: null}")
        .release("v1", &[&a1])
        .start();
    let mut users: Vec<_> = (0..50).map(|_| user_on(&tidegate, "a1")).collect();
    let attack = |from: usize, count: usize| {
        std::thread::scope(|scope| {
            for attacker in 0..ATTACKERS {
                let tidegate = &tidegate;
                scope.spawn(move || {
                    let mut browser = tidegate.browser();
                    for n in (from + attacker..from + count).step_by(ATTACKERS) {
                        let call = Call::get("/peek").cookie(&format!("JSESSIONID=INVENTED{n:024}.a1"));
                        // The second time it is adopted: for all we know it is somebody from before our start.
                        for _ in 0..1 + usize::from(n % 4 == 0) {
                            browser.send_or_panic(call.clone()).expect_status(200);
                        }
                    }
                });
            }
        });
        tidegate.resident_kib()
    };
    let before = attack(0, 1_000);
    let after = attack(1_000, INVENTED);
    let entries = tidegate.metrics().sum("tidegate_ledger_entries", &[]) as u64;
    assert!(entries <= MAX_ENTRIES, "{entries} entries");
    let live = tidegate.sessions("shop", "v1").live;
    assert!((50..=50 + MAX_ENTRIES / 10).contains(&live), "{live} live sessions; a tenth of the room may be adopted");
    assert!(after < before + 4 * 1024, "from {before} to {after} KiB");
    for user in &mut users {
        assert_eq!(user.get("/").number("counter"), 3, "a real session");
    }
    assert_eq!(counted(&tidegate, "tidegate_session_loss_total", &[]), 0);
    assert_eq!(counted(&tidegate, "tidegate_sessions_untracked_total", &[]), 0, "there is room for newborns");
}
