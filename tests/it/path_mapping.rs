//! A release whose own path differs from the public one: nobody outside ever sees it, and nothing inside breaks by it.

use std::io::{BufReader, Write};

use crate::client::{Browser, Call};
use crate::http::{Unstated, read_body};
use crate::shop::Shop;
use crate::speaker::{Speaker, next_request};
use crate::tidegate::Tidegate;
use crate::tomcat::{Context, Tomcat, TomcatSpec};

/// Answers with the target it got as the body, and with the fields that the request asks for in `Answer`, `|` between them.
fn mirror() -> Speaker {
    Speaker::start(|stream| {
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream);
        while let Some(head) = next_request(&mut input, stream)? {
            read_body(&mut input, &head, Unstated::Empty)?;
            let target = head.word(1);
            let mut text = "HTTP/1.1 200 OK\r\n".to_owned();
            for field in head.field("answer").unwrap_or_default().split('|').filter(|field| !field.is_empty()) {
                text += &format!("{field}\r\n");
            }
            text += &format!("Content-Length: {}\r\n\r\n{target}", target.len());
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    })
}

/// Two releases at two paths of one address, public below `/shop`.
fn start(speaker: &Speaker, public: &str) -> Tidegate {
    Shop::new("cookie")
        .below(public)
        .release_of("v41", vec![speaker.line("a1")])
        .at_path("/shop-v41")
        .release_of("v42", vec![speaker.line("b1")])
        .at_path("/shop-v42")
        .start()
}

#[test]
fn the_backend_gets_its_own_path() {
    let speaker = mirror();
    let tidegate = start(&speaker, "/shop");
    let check = |tidegate: &Tidegate, target: &str, expected: &str| {
        assert_eq!(tidegate.browser().get(target).expect_status(200).text(), expected, "{target}");
    };
    check(&tidegate, "/shop", "/shop-v41");
    check(&tidegate, "/shop/", "/shop-v41/");
    check(&tidegate, "/shop/page?x=/shop/1&y=%20", "/shop-v41/page?x=/shop/1&y=%20");
    check(&tidegate, "/shop?x=1", "/shop-v41?x=1");
    check(&tidegate, "/shop/shop/a%2Fb;v=1", "/shop-v41/shop/a%2Fb;v=1");
    check(&tidegate, "/shop//twice", "/shop-v41//twice");
    check(&tidegate, "/shop/a..b/...", "/shop-v41/a..b/...");
    tidegate.browser().get("/shopping").expect_status(404);
    tidegate.browser().get("/").expect_status(404);
    tidegate.cli(&["promote", "shop", "v42"]).expect_code(0);
    check(&tidegate, "/shop/page", "/shop-v42/page");
    let root = start(&speaker, "/");
    check(&root, "/", "/shop-v41/");
    check(&root, "/page?x=1", "/shop-v41/page?x=1");
}

#[test]
fn nobody_climbs_out_of_a_release() {
    let speaker = mirror();
    let tidegate = start(&speaker, "/shop");
    for target in [
        "/shop/../manager/html",
        "/shop/%2e%2e/manager",
        "/shop/.%2E/manager",
        "/shop/..;/manager",
        "/shop/..;x=1/manager",
        "/shop/a/../../manager",
        "/shop/a%2f..%2f..%2fmanager",
        "/shop/..\\manager",
        "/shop/..",
    ] {
        let answer = Browser::new(tidegate.port()).get(target);
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
}

/// Sends a request whose answer has that field, and expects the client to see it so.
fn check(browser: &mut Browser, field: &str, expected: &str) {
    let name = field.split(':').next().unwrap();
    let answer = browser.send_or_panic(Call::get("/shop/x").field("Answer", field)).expect_status(200);
    let seen: Vec<&str> = answer.head.fields_named(name).filter(|value| !value.starts_with("tidegate_shop=")).collect();
    assert_eq!(seen, [expected], "{field}");
}

#[test]
fn the_client_never_sees_the_path_of_a_release() {
    let speaker = mirror();
    let tidegate = start(&speaker, "/shop");
    let address = speaker.line("x");
    let address = address.split('"').nth(1).unwrap();
    let mut browser = tidegate.browser();
    let url = |start: &str, rest: &str| format!("{start}{address}{rest}");
    for name in ["Location", "Content-Location"] {
        let mut check = |value: &str, expected: &str| check(&mut browser, &format!("{name}: {value}"), expected);
        check("/shop-v41/next?x=1#top", "/shop/next?x=1#top");
        check("/shop-v41", "/shop");
        check("/shop-v410/next", "/shop-v410/next");
        check("next", "next");
        check("../other", "../other");
        check("?page=2", "?page=2");
        check("/elsewhere", "/elsewhere");
        check("http://shop.test/shop-v41/next", "http://shop.test/shop/next");
        check("http://shop.test/elsewhere", "http://shop.test/elsewhere");
        check("//shop.test/shop-v41/next", "//shop.test/shop/next");
        check(&url("http://", "/shop-v41/next"), "http://shop.test/shop/next");
        check("https://bank.test/shop-v41/next", "https://bank.test/shop-v41/next");
        check("//bank.test/shop-v41/next", "//bank.test/shop-v41/next");
    }
    check(&mut browser, "Refresh: 5; url=/shop-v41/next", "5; url=/shop/next");
    check(&mut browser, "Refresh: 5;URL='/shop-v41/next'", "5;URL='/shop/next'");
    check(&mut browser, "Refresh: 5; url=https://bank.test/shop-v41", "5; url=https://bank.test/shop-v41");
    check(&mut browser, "Refresh: 5", "5");
    check(&mut browser, "Set-Cookie: basket=1; Path=/shop-v41; HttpOnly", "basket=1; Path=/shop; HttpOnly");
    check(&mut browser, "Set-Cookie: basket=1; path=/shop-v41/admin", "basket=1; path=/shop/admin");
    check(&mut browser, "Set-Cookie: basket=1; Path=/", "basket=1; Path=/");
    check(&mut browser, "Set-Cookie: basket=/shop-v41", "basket=/shop-v41");
}

#[test]
fn two_releases_on_one_tomcat_share_a_public_path_and_no_session() {
    let contexts = ["/shop-v41", "/shop-v42"].map(|path| Context { path, cookies: true });
    let tomcat = Tomcat::start(TomcatSpec::new("both", "t1").with_contexts(&contexts));
    let backend = |name: &str| format!("{name}: {{address: \"{}\", route: {name}}}", tomcat.address());
    let tidegate = Shop::new("cookie")
        .below("/shop")
        .probed("/shop/health.jsp")
        .release_of("v41", vec![backend("a1")])
        .at_path("/shop-v41")
        .release_of("v42", vec![backend("b1")])
        .at_path("/shop-v42")
        .start();
    let mut old = tidegate.browser();
    for counter in 1..4 {
        assert_eq!(old.get("/shop/index.jsp").expect_status(200).number("counter"), counter);
    }
    let cookie = old.cookies().into_iter().find(|cookie| cookie.name == "JSESSIONID").expect("a session");
    assert_eq!(cookie.path, "/shop");
    assert_eq!(old.get("/shop").expect_status(302).head.field("location"), Some("/shop/"));
    tidegate.cli(&["promote", "shop", "v42"]).expect_code(0);
    let mut new = tidegate.browser();
    for counter in 1..4 {
        assert_eq!(new.get("/shop/index.jsp").expect_status(200).number("counter"), counter);
        assert_eq!(old.get("/shop/login.jsp").expect_status(200).number("counter"), counter + 3);
    }
    let counted = contexts.map(|context| tomcat.manager_sessions(context.path));
    assert_eq!(counted, [1, 1]);
    old.get("/shop/logout.jsp").expect_status(200);
    assert_eq!(old.cookie("JSESSIONID"), None, "the deletion is for the public path");
    tidegate.wait_for_sessions("shop", "v41", 0, 0);
    assert_eq!(old.get("/shop/index.jsp").number("counter"), 1, "a new session on v42");
    assert_eq!(contexts.map(|context| tomcat.manager_sessions(context.path)), [0, 2]);
}
