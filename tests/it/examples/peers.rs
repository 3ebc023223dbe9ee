//! Examples for those who come from HAProxy, Apache and nginx: the real ones stand before the same backends, people have sessions through
//! them, and then tidegate takes the public address.

use super::{AT_ROOT, BELOW_SHOP, Example, HOST, User, ends_when_they_leave, newcomers, wait_for_admission};
use crate::apache::Apache;
use crate::client::{Browser, Call};
use crate::haproxy::HaProxy;
use crate::manual::documents::documents;
use crate::nginx::Nginx;
use crate::origin::{Origin, OriginSpec};
use crate::tidegate::Tidegate;

const TOMCATS: [&str; 3] = ["tomcat1", "tomcat2", "tomcat3"];
const ADDRESSES: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];

fn named<'n>(names: &[&'n str], origins: &[Origin]) -> Vec<(&'n str, String)> {
    names.iter().copied().zip(origins.iter().map(Origin::address)).collect()
}

fn set_alive(origin: &Origin, alive: bool) {
    let status = if alive { "200 OK" } else { "404 Not Found" };
    origin.answer("/alive.txt", &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
}

/// Whoever had a session through the balancer before goes on in it through tidegate, with the cookie that it has.
fn move_over(known: &mut [User], tidegate: &Tidegate) {
    for user in known {
        user.moves_to(tidegate.port());
        user.click();
        user.click();
        assert_eq!(user.browser.cookies().len(), 1, "no cookie is added: {:?}", user.browser.cookies());
    }
}

#[test]
fn tidegate_takes_the_place_of_a_haproxy_that_prefixes_and_gives_it_back() {
    let mut origins = TOMCATS.map(|name| Origin::start(OriginSpec::new("v1", name).below("/shop")));
    origins.iter().for_each(|origin| set_alive(origin, true));
    let example = Example::of("haproxy-prefix.yaml").at(&named(&ADDRESSES, &origins));
    let haproxy = HaProxy::with_backend("shop", &example.replaces());
    let mut known = ["tomcat1", "tomcat2"].map(|home| User::on(haproxy.port(), BELOW_SHOP, home));
    let tidegate = example.start();
    wait_for_admission(&tidegate, &["v1/tomcat1", "v1/tomcat2", "v1/tomcat3"], "everyone");
    move_over(&mut known, &tidegate);
    // Both write it the same way, so the way back is open.
    let mut newcomer = User::on(tidegate.port(), BELOW_SHOP, "tomcat2");
    for port in [haproxy.port(), tidegate.port()] {
        newcomer.moves_to(port);
        newcomer.click();
    }
    let homes = newcomers(tidegate.port(), BELOW_SHOP, 9);
    assert!(!homes.contains(&"tomcat3".to_owned()), "a backup waits: {homes:?}");

    set_alive(&origins[0], false);
    wait_for_admission(&tidegate, &["v1/tomcat1"], "known_sessions");
    assert_eq!(newcomers(tidegate.port(), BELOW_SHOP, 4), ["tomcat2"; 4]);
    known[0].click();
    set_alive(&origins[0], true);
    wait_for_admission(&tidegate, &["v1/tomcat1"], "everyone");

    tidegate.write_config(&example.with("weight: 2", "weight: 0").0);
    tidegate.cli(&["reload"]).expect_code(0);
    assert_eq!(newcomers(tidegate.port(), BELOW_SHOP, 4), ["tomcat1"; 4]);
    known[1].click();
    origins[0].stop();
    tidegate.wait_for_backend("shop", "v1", "tomcat1", "health", "down");
    assert_eq!(newcomers(tidegate.port(), BELOW_SHOP, 2), ["tomcat3"; 2], "now the backup serves");
    known[1].click();
}

#[test]
fn a_haproxy_that_inserts_is_the_first_release_and_drains_like_any_other() {
    let origins = ["web1", "web2"].map(|name| Origin::start(OriginSpec::new("v1", name)));
    let haproxy = HaProxy::with_cookie_insert(&named(&["web1", "web2"], &origins));
    let mut known = ["web1", "web2"].map(|home| User::on(haproxy.port(), AT_ROOT, home));
    // One who clicks once before the promotion.
    let mut seldom = User::on(haproxy.port(), AT_ROOT, "web2");
    let example = Example::of("haproxy-insert.yaml").at(&named(&ADDRESSES[..2], &origins));
    let tidegate = example.with("10.0.0.5:8080", &format!("127.0.0.1:{}", haproxy.port())).start();
    wait_for_admission(&tidegate, &["haproxy/haproxy"], "everyone");
    tidegate.wait_for_backend("shop", "direct", "web1", "health", "up");
    tidegate.wait_for_backend("shop", "direct", "web2", "health", "up");
    for user in &mut known {
        user.moves_to(tidegate.port());
        // Unknown to tidegate, and not to HAProxy. The second click makes them known here too.
        user.click();
        user.click();
        assert!(user.browser.cookie("tidegate_shop").is_some(), "pinned: {:?}", user.browser.cookies());
    }
    tidegate.wait_for_sessions("shop", "haproxy", 2, 0);
    seldom.moves_to(tidegate.port());
    seldom.click();
    let mut promotion = tidegate.cli_in_background("promote", &["promote", "shop", "direct", "--wait"]);
    tidegate.wait_for_state("shop", "haproxy", "draining");
    let mut later = [User::on(tidegate.port(), AT_ROOT, "web1")];
    assert_eq!(later[0].browser.cookie("SRV"), None, "they never meet HAProxy");
    seldom.click();
    let staying: Vec<User> = known.into_iter().chain([seldom]).collect();
    ends_when_they_leave(&mut promotion, staying, &mut later);
    assert_eq!(tidegate.release_state("shop", "haproxy"), "drained");
    drop(haproxy);
    later[0].click();
    assert_eq!(User::new(tidegate.port(), AT_ROOT).clicks, 1);
}

#[test]
fn tidegate_takes_the_place_of_an_apache_with_routes() {
    let origins = TOMCATS.map(|name| Origin::start(OriginSpec::new("v1", name).with_route().below("/shop")));
    origins.iter().for_each(|origin| origin.answer("/", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let example = Example::of("apache.yaml").at(&named(&ADDRESSES, &origins));
    let apache = Apache::with_lines(&example.replaces());
    let mut known = ["tomcat1", "tomcat2"].map(|home| User::on(apache.port(), BELOW_SHOP, home));
    let tidegate = example.start();
    wait_for_admission(&tidegate, &["v1/tomcat1", "v1/tomcat2", "v1/tomcat3"], "everyone");
    move_over(&mut known, &tidegate);
    // The same session by a link, in a browser without cookies.
    let id = known[1].browser.cookie("JSESSIONID").expect("a session");
    assert!(id.ends_with(".tomcat2"), "{id}");
    let link = Call::get(&format!("/shop/page;jsessionid={id}"));
    let page = Browser::new(tidegate.port()).with_host(HOST).send_or_panic(link).expect_status(200);
    assert_eq!(page.word("backend"), "tomcat2");
    known[1].clicks += 1;
    let homes = newcomers(tidegate.port(), BELOW_SHOP, 9);
    let at = |name: &str| homes.iter().filter(|home| *home == name).count();
    assert_eq!((at("tomcat1"), at("tomcat2"), at("tomcat3")), (3, 6, 0), "loadfactor=2 and a hot standby");

    let [first, second] = known;
    let refused = tidegate.cli(&["maintain", "shop/v1/tomcat1"]).expect_code(1);
    assert!(refused.stderr.contains("1 live session"), "{}", refused.stderr);
    let mut drain = tidegate.cli_in_background("drain", &["drain", "shop/v1/tomcat1", "--wait"]);
    wait_for_admission(&tidegate, &["v1/tomcat1"], "known_sessions");
    assert_eq!(newcomers(tidegate.port(), BELOW_SHOP, 4), ["tomcat2"; 4]);
    ends_when_they_leave(&mut drain, vec![first], &mut [second]);
    tidegate.cli(&["maintain", "shop/v1/tomcat1"]).expect_code(0);
    tidegate.cli(&["serve", "shop/v1/tomcat1"]).expect_code(0);
    wait_for_admission(&tidegate, &["v1/tomcat1"], "everyone");
}

/// What a file says of each backend's weight: a line of the old balancer and the example's own; 1 where nothing is said.
fn weights(example: &Example, server: &str, key: &str) -> Vec<(String, [u64; 2])> {
    let file: serde_yaml::Value = serde_yaml::from_str(&example.0).expect("YAML");
    let backends = &file["apps"]["shop"]["releases"]["v1"]["backends"];
    let replaced = example.replaces();
    let lines = replaced.lines().filter(|line| line.trim_start().starts_with(server)).map(|line| {
        let words: Vec<&str> = line.split([' ', '=']).filter(|word| !word.is_empty()).collect();
        let after = |key: &str| words.iter().position(|word| *word == key).map(|at| words[at + 1]);
        let name = after("cookie").or_else(|| after("route")).expect("a pin").to_owned();
        let (theirs, ours) =
            (after(key).map_or(1, |weight| weight.parse().expect("a number")), backends[&name]["weight"].as_u64().unwrap_or(1));
        (name, [theirs, ours])
    });
    lines.collect()
}

#[test]
fn the_weights_of_an_example_stand_to_each_other_as_those_that_it_replaces() {
    for (file, server, key) in [("haproxy-prefix.yaml", "server ", "weight"), ("apache.yaml", "BalancerMember ", "loadfactor")] {
        let weights = weights(&Example::of(file), server, key);
        assert!(weights.iter().any(|(_, [theirs, _])| *theirs > 1), "{file}: nothing to compare in {weights:?}");
        let (first, [theirs, ours]) = &weights[0];
        for (name, [their, our]) in &weights {
            assert_eq!(our * theirs, their * ours, "{file}: {name} to {first}, in {weights:?}");
        }
    }
}

/// Of a user at such an address, as the proxy before both would say it.
fn from(address: &str) -> Call {
    Call::get("/").field("X-Forwarded-For", address)
}

#[test]
fn an_nginx_that_hashes_addresses_is_the_first_release_and_goes_on_seeing_them() {
    let origins = ["web1", "web2"].map(|name| Origin::start(OriginSpec::new("v1", name)));
    let page = documents().into_iter().find(|document| document.name == "conf/COMING_FROM.md").expect("the page");
    let block = page.blocks("nginx").pop().expect("a block of nginx");
    // What the page says below it.
    let real = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n";
    let http = named(&ADDRESSES[..2], &origins).iter().fold(block.text, |http, (theirs, ours)| http.replace(theirs, ours));
    let nginx = Nginx::start(&format!("{real}{http}"));

    let known: Vec<(String, Browser)> = (1..=12).map(|n| (format!("10.{n}.0.1"), Browser::new(nginx.port()).with_host(HOST))).collect();
    let mut known: Vec<(String, Browser, String)> = known
        .into_iter()
        .map(|(address, mut browser)| {
            let home = browser.send_or_panic(from(&address)).expect_status(200).word("backend");
            (address, browser, home)
        })
        .collect();
    let homes: std::collections::BTreeSet<&String> = known.iter().map(|(_, _, home)| home).collect();
    assert_eq!(homes.len(), 2, "addresses are spread");

    let example = Example::of("haproxy-insert.yaml").at(&named(&ADDRESSES[..2], &origins));
    let example = example.with("10.0.0.5:8080", &format!("127.0.0.1:{}", nginx.port()));
    let tidegate = example.with("apps:\n", "trusted_proxies: [127.0.0.1/32]\napps:\n").start();
    wait_for_admission(&tidegate, &["haproxy/haproxy"], "everyone");
    tidegate.wait_for_backend("shop", "direct", "web1", "health", "up");
    let click = |known: &mut Vec<(String, Browser, String)>, counter: u64| {
        for (address, browser, home) in known {
            let page = browser.send_or_panic(from(address)).expect_status(200);
            assert_eq!((page.word("backend"), page.number("counter")), (home.clone(), counter), "{address}: the session was lost");
        }
    };
    for (_, browser, _) in &mut known {
        *browser = browser.tab_before(tidegate.port());
    }
    click(&mut known, 2);
    click(&mut known, 3);
    tidegate.wait_for_sessions("shop", "haproxy", 12, 0);
    tidegate.cli(&["promote", "shop", "direct"]).expect_code(0);
    click(&mut known, 4);
    for (_, browser, _) in &mut known {
        browser.get("/logout").expect_status(200);
    }
    tidegate.cli(&["wait", "shop/haproxy"]).expect_code(0);
    drop(nginx);
    assert_eq!(User::new(tidegate.port(), AT_ROOT).clicks, 1);
}
