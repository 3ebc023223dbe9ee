//! Examples before applications that need nothing but a session cookie or header: scripted backends.

use super::{AT_ROOT, Example, HOST, User, ends_when_they_leave, newcomers, wait_for_admission};
use crate::client::{Browser, Call};
use crate::identity::mcp_server;
use crate::origin::{Origin, OriginSpec};

fn backend(release: &str, name: &str) -> Origin {
    Origin::start(OriginSpec::new(release, name))
}

#[test]
fn the_smallest_configuration_serves_and_deploys_as_its_comment_says() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    // Half an hour, the default, is too long for a test.
    let example = Example::of("minimal.yaml").with("  shop:\n", "  shop:\n    session: {idle_timeout: 12s}\n");
    let tidegate = example.with("127.0.0.1:8081", &a1.address()).start();
    wait_for_admission(&tidegate, &["v1/a1"], "everyone");
    let staying = User::on(tidegate.port(), AT_ROOT, "a1");
    tidegate.cli(&["stage", "shop", "v2", "--backend", &format!("b1={}", b1.address())]).expect_code(0);
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
    let mut promotion = tidegate.cli_in_background("promote", &["promote", "shop", "v2", "--wait"]);
    tidegate.wait_for_state("shop", "v1", "draining");
    assert_eq!(newcomers(tidegate.port(), AT_ROOT, 3), ["b1"; 3]);
    ends_when_they_leave(&mut promotion, vec![staying], &mut []);
}

#[test]
fn the_reference_is_a_configuration_that_serves() {
    let a1 = backend("v1", "a1");
    let example =
        Example::of("reference.yaml").with("127.0.0.1:9180", "127.0.0.1:@admin").with("token_file: null", "token_file: @folder/token");
    let example = example.with("./tidegate-state", "@folder/state");
    let tidegate = example.with("127.0.0.1:8081", &a1.address()).start();
    wait_for_admission(&tidegate, &["v1/a1"], "everyone");
    User::on(tidegate.port(), AT_ROOT, "a1").log_out();
}

#[test]
fn blue_and_green_take_part_by_their_own_health() {
    let names = ["blue1", "blue2", "green1", "green2"];
    let origins = names.map(|name| backend(name.trim_end_matches(char::is_numeric), name));
    let addresses: Vec<(&str, String)> = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.21:8080", "10.0.0.22:8080"]
        .into_iter()
        .zip(origins.iter().map(Origin::address))
        .collect();
    let switch = |name: &str, to: &str| {
        let origin = origins.iter().find(|origin| origin.name() == name).expect("a name");
        Browser::new(origin.port()).post(&format!("/health/{to}"), "").expect_status(204);
    };
    switch("green1", "disable");
    switch("green2", "disable");
    let tidegate = Example::of("blue-green.yaml").at(&addresses).start();
    let (blue, green) = (["blue/blue1", "blue/blue2"], ["green/green1", "green/green2"]);
    wait_for_admission(&tidegate, &blue, "everyone");
    wait_for_admission(&tidegate, &green, "nobody");
    let mut known = [User::on(tidegate.port(), AT_ROOT, "blue1"), User::on(tidegate.port(), AT_ROOT, "blue2")];

    for (name, to) in [("green1", "enable"), ("green2", "enable"), ("blue1", "disable"), ("blue2", "disable")] {
        switch(name, to);
    }
    wait_for_admission(&tidegate, &green, "everyone");
    wait_for_admission(&tidegate, &blue, "known_sessions");
    let homes = newcomers(tidegate.port(), AT_ROOT, 6);
    assert!(homes.iter().all(|home| home.starts_with("green")), "{homes:?}");
    known.iter_mut().for_each(User::click);

    // All of them at once, by mistake: somebody serves.
    switch("green1", "disable");
    switch("green2", "disable");
    wait_for_admission(&tidegate, &green, "known_sessions");
    User::new(tidegate.port(), AT_ROOT).log_out();
    known.iter_mut().for_each(User::click);
    switch("green1", "enable");
    wait_for_admission(&tidegate, &green[..1], "everyone");
    known.iter_mut().for_each(User::click);

    let mut later = [User::on(tidegate.port(), AT_ROOT, "green1")];
    let mut drain = tidegate.cli_in_background("drain", &["drain", "shop/blue", "--wait"]);
    tidegate.wait_for_state("shop", "blue", "draining");
    ends_when_they_leave(&mut drain, known.into(), &mut later);

    tidegate.cli(&["serve", "shop/blue"]).expect_code(0);
    assert_eq!(newcomers(tidegate.port(), AT_ROOT, 3), ["green1"; 3], "blue still says 503");
    switch("blue1", "enable");
    wait_for_admission(&tidegate, &blue[..1], "everyone");
    later[0].click();
}

#[test]
fn a_php_host_drains_and_whoever_logs_out_has_left() {
    let hosts = ["php1", "php2"].map(|name| Origin::start(OriginSpec::new("v1", name).with_cookie("PHPSESSID")));
    for host in &hosts {
        for path in ["/health.php", "/poll.php", "/logout.php"] {
            host.answer(path, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n");
        }
    }
    let example = Example::of("php.yaml").with("idle_timeout: 24m", "idle_timeout: 12s");
    let tidegate = example.at(&[("10.0.0.11:80", hosts[0].address()), ("10.0.0.12:80", hosts[1].address())]).start();
    wait_for_admission(&tidegate, &["v1/php1", "v1/php2"], "everyone");
    let mut user = User::on(tidegate.port(), AT_ROOT, "php1");
    let mut other = User::on(tidegate.port(), AT_ROOT, "php2");
    let drain = tidegate.cli_in_background("drain", &["drain", "shop/v1/php1", "--wait"]);
    wait_for_admission(&tidegate, &["v1/php1"], "known_sessions");
    // The id travels in a link, and the session is the same.
    let id = user.browser.cookie("PHPSESSID").expect("a session");
    let linked = Browser::new(tidegate.port()).with_host(HOST).send_or_panic(Call::get(&format!("/?PHPSESSID={id}")));
    assert_eq!((linked.word("backend"), linked.number("counter")), ("php1".to_owned(), 3));
    user.clicks += 1;
    user.browser.get("/poll.php").expect_status(200);
    user.click();
    user.browser.post("/logout.php", "").expect_status(200);
    let mut drain = drain;
    ends_when_they_leave(&mut drain, Vec::new(), std::slice::from_mut(&mut other));
    assert_eq!(tidegate.drain("shop/v1/php1")["ended"]["moved"], 1, "by the move point, and not by its timeout");
    assert_eq!(user.browser.get("/").word("backend"), "php2", "and is somebody new, on a host that serves");
}

#[test]
fn a_session_of_an_mcp_server_stays_until_it_is_deleted() {
    let (old, new) = (mcp_server("a1"), mcp_server("b1"));
    let example = Example::of("mcp.yaml").with("idle_timeout: 1h", "idle_timeout: 12s").with("/var/lib/tidegate", "@folder/state");
    let address = |port: u16| format!("127.0.0.1:{port}");
    let tidegate = example.at(&[("10.0.0.11:3000", address(old.port())), ("10.0.0.21:3000", address(new.port()))]).start();
    tidegate.wait_for_backend("mcp", "v1", "a1", "admission", "everyone");
    tidegate.wait_for_backend("mcp", "v2", "b1", "health", "up");
    let send = |method: &str, id: Option<&str>| {
        let call = Call::new(method, "/mcp").with_body("{}");
        let call = id.into_iter().fold(call, |call, id| call.field("Mcp-Session-Id", id));
        Browser::new(tidegate.port()).with_host("mcp.example.com").send_or_panic(call)
    };
    let begun = send("POST", None).expect_status(200);
    let id = begun.head.field("mcp-session-id").expect("an id").to_owned();
    assert_eq!(begun.word("backend"), "a1");
    let use_it = |counter| {
        let answer = send("POST", Some(&id)).expect_status(200);
        assert_eq!((answer.word("backend"), answer.number("counter")), ("a1".to_owned(), counter));
        assert_eq!(answer.head.field("set-cookie"), None, "nothing is added");
    };
    use_it(2);
    let mut promotion = tidegate.cli_in_background("promote", &["promote", "mcp", "v2", "--wait"]);
    tidegate.wait_for_state("mcp", "v1", "draining");
    let later = send("POST", None).expect_status(200);
    assert_eq!(later.word("backend"), "b1");
    use_it(3);
    assert_eq!(promotion.ended(), None);
    send("DELETE", Some(&id)).expect_status(204);
    ends_when_they_leave(&mut promotion, Vec::new(), &mut []);
    assert_eq!(tidegate.drain("mcp/v1")["ended"]["moved"], 1, "by the move point, and not by its timeout");
}
