//! The harness tried on itself: scripted backend, client, Tomcat and HAProxy, without tidegate.
//!
//! When one of these fails, nothing that the other tests say is worth anything.

use std::time::Duration;

use crate::client::{Browser, Call, Wire};
use crate::haproxy::HaProxy;
use crate::origin::{Origin, OriginSpec};
use crate::process::wait_until_equal;
use crate::tomcat::{COOKIELESS, SHOP, Tomcat, TomcatSpec};
use crate::websocket::Frame;

fn origin() -> Origin {
    Origin::start(OriginSpec::new("v1", "a1"))
}

#[test]
fn an_origin_counts_in_a_session_and_renames_it_at_login() {
    let origin = origin();
    let mut browser = Browser::new(origin.port());
    assert_eq!(browser.get("/").number("counter"), 1);
    let first = browser.cookie("JSESSIONID").expect("a session cookie");
    assert_eq!(browser.get("/page").number("counter"), 2);
    assert_eq!(browser.get("/login").number("counter"), 2);
    let second = browser.cookie("JSESSIONID").expect("a session cookie");
    assert_ne!(first, second);
    assert_eq!(origin.live_sessions(), [second]);
    assert_eq!(browser.get("/").number("counter"), 3);
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn an_origin_never_takes_an_id_that_it_did_not_make() {
    let origin = origin();
    let mut browser = Browser::new(origin.port());
    let answer = browser.send_or_panic(Call::get("/").cookie("JSESSIONID=invented"));
    assert_eq!(answer.word("session"), "new");
    assert_eq!(answer.set_cookies("JSESSIONID").len(), 1);
    let id = answer.word("id");
    let both = format!("JSESSIONID=invented; JSESSIONID={id}");
    assert_eq!(browser.send_or_panic(Call::get("/").cookie(&both)).number("counter"), 2);
}

#[test]
fn a_logout_deletes_the_cookie_only_at_its_own_path() {
    let origin = origin();
    let mut browser = Browser::new(origin.port());
    browser.get("/");
    browser.get("/logout?path=/elsewhere");
    assert!(browser.cookie("JSESSIONID").is_some());
    assert!(origin.live_sessions().is_empty());
    browser.get("/");
    browser.get("/logout");
    assert_eq!(browser.cookie("JSESSIONID"), None);
    browser.get("/");
    let answer = browser.get("/replace");
    assert_eq!(answer.set_cookies("JSESSIONID").len(), 2);
    assert_eq!(browser.cookie("JSESSIONID"), Some(answer.word("id")));
}

#[test]
fn an_origin_forgets_sessions_after_its_own_timeout() {
    let spec = OriginSpec::new("v1", "a1").with_idle_timeout(Duration::from_millis(200));
    let origin = Origin::start(spec);
    let mut browser = Browser::new(origin.port());
    browser.get("/");
    wait_until_equal("the session is forgotten", Duration::from_secs(5), &0, || origin.live_sessions().len());
    assert_eq!(browser.get("/").word("session"), "new");
}

#[test]
fn an_origin_restarts_empty_under_the_same_port() {
    let mut origin = origin();
    let mut browser = Browser::new(origin.port());
    browser.get("/");
    origin.stop();
    assert!(browser.send(Call::get("/")).is_err());
    origin.listen();
    assert_eq!(browser.get("/").number("counter"), 2, "a network that came back");
    origin.restart();
    assert_eq!(browser.get("/").word("session"), "new");
    assert!(browser.send(Call::get("/die")).is_err());
    assert!(Wire::connect(origin.port()).is_err());
}

#[test]
fn a_paused_origin_accepts_and_stays_silent() {
    let origin = origin();
    origin.pause();
    let mut wire = Wire::connect(origin.port()).unwrap();
    wire.set_timeout(Duration::from_millis(200)).unwrap();
    wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(wire.read_response("GET").is_err());
    origin.resume();
    wire.set_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(wire.read_response("GET").unwrap().unwrap().status, 200);
    origin.set_health(503);
    assert_eq!(Browser::new(origin.port()).get("/health").status, 503);
    assert_eq!(origin.probes(), 2);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_held_request_is_answered_when_it_is_let_go() {
    let origin = origin();
    let browser = Browser::new(origin.port());
    let mut tab = browser.tab();
    let waiting = std::thread::spawn(move || tab.get("/hold").status);
    wait_until_equal("the request arrived", Duration::from_secs(5), &1, || origin.requests_to("/hold").len());
    assert!(!waiting.is_finished());
    origin.let_go();
    assert_eq!(waiting.join().unwrap(), 200);
}

#[test]
fn bodies_arrive_whole_however_they_are_framed() {
    let origin = origin();
    let mut browser = Browser::new(origin.port());
    let text = "0123456789".repeat(1000);
    assert_eq!(browser.post("/body", text.as_str()).text(), text);
    let chunked = Call::post("/body", text.as_str()).chunked(777);
    assert_eq!(browser.send_or_panic(chunked).text(), text);
    assert_eq!(origin.requests_to("/body").len(), 2);
    let head = browser.get("/headers").text();
    assert!(head.starts_with("GET /headers HTTP/1.1\r\nHost: shop.test\r\n"), "{head}");
    origin.answer("/odd", "HTTP/1.1 299 Odd\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: 0\r\n\r\n");
    let odd = browser.get("/odd").expect_status(299);
    assert_eq!(odd.head.fields_named("x-twice").collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn tunnels_and_event_streams_pass_through_haproxy() {
    let origin = origin();
    let proxy = HaProxy::with_cookie_insert(&[("a1", origin.address())]);
    let mut browser = Browser::new(proxy.port());
    let mut tunnel = browser.websocket("/echo");
    for text in ["one", "two"] {
        tunnel.send_text(text).unwrap();
        assert_eq!(tunnel.read_frame().unwrap(), Frame::Text(text.to_owned()));
    }
    tunnel.send_close().unwrap();
    assert_eq!(tunnel.read_frame().unwrap(), Frame::Closed);
    let (head, mut events) = browser.open(&Call::get("/events?count=3&every=1")).unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let mut text = Vec::new();
    while let Some(chunk) = events.read_chunk().unwrap() {
        text.extend(chunk);
    }
    assert_eq!(text, b"data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

#[test]
fn a_browser_keeps_its_session_on_real_tomcats_behind_haproxy() {
    let specs = ["a1", "a2"].map(|backend| TomcatSpec::new("v1", backend));
    let mut tomcats = Tomcat::start_all(specs);
    let backends = [("a1", tomcats[0].address()), ("a2", tomcats[1].address())];
    let proxy = HaProxy::with_cookie_insert(&backends);
    let mut users: Vec<Browser> = (0..6).map(|_| Browser::new(proxy.port())).collect();
    for user in &mut users {
        assert_eq!(user.get("/shop/index.jsp").number("counter"), 1);
        let at = user.get("/shop/login.jsp").expect_status(200);
        assert_eq!(at.number("counter"), 2);
        let again = user.get("/shop/index.jsp");
        assert_eq!(again.number("counter"), 3);
        assert_eq!(again.word("backend"), at.word("backend"));
        assert!(again.word("id").ends_with(&format!(".{}", at.word("backend"))));
    }
    let counted = || tomcats.iter().map(|t| t.manager_sessions(SHOP)).collect::<Vec<_>>();
    assert_eq!(counted(), [3, 3]);
    for user in &mut users {
        user.get("/shop/logout.jsp").expect_status(200);
        assert_eq!(user.cookie("JSESSIONID"), None);
    }
    assert_eq!(counted(), [0, 0]);
    a_cookieless_shop_carries_the_id_in_its_links(&tomcats[0]);
    a_paused_tomcat_keeps_its_sessions_and_a_restarted_one_does_not(&mut tomcats[0]);
}

fn a_cookieless_shop_carries_the_id_in_its_links(tomcat: &Tomcat) {
    let mut browser = Browser::new(tomcat.port());
    let link = browser.get("/plain/link.jsp").text().trim().to_owned();
    assert!(link.starts_with("index.jsp;jsessionid="), "{link}");
    let page = format!("/plain/{link}");
    assert_eq!(browser.get(&page).number("counter"), 1);
    assert_eq!(browser.get(&page).number("counter"), 2);
    assert!(browser.cookies().is_empty());
    assert_eq!(tomcat.manager_sessions(COOKIELESS), 1);
}

fn a_paused_tomcat_keeps_its_sessions_and_a_restarted_one_does_not(tomcat: &mut Tomcat) {
    let mut browser = Browser::new(tomcat.port()).with_timeout(Duration::from_millis(300));
    browser.get("/shop/index.jsp");
    tomcat.pause();
    assert!(browser.send(Call::get("/shop/health.jsp")).is_err());
    tomcat.resume();
    let mut patient = browser.tab().with_timeout(Duration::from_secs(30));
    assert_eq!(patient.get("/shop/index.jsp").number("counter"), 2);
    tomcat.restart();
    assert_eq!(patient.get("/shop/index.jsp").number("counter"), 1);
    assert_eq!(tomcat.manager_sessions(SHOP), 1);
    tomcat.kill();
    assert!(Wire::connect(tomcat.port()).is_err());
}
