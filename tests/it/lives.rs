//! Backends that restart under the same name, and backends that only look as if they had.
//!
//! What is lost is lost with the backend's memory; what is judged is that it is counted once, that nobody needs a second click, and
//! that nothing else is lost because of it.

use std::io::{BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Browser, Call};
use crate::http::Head;
use crate::origin::Origin;
use crate::process::{delay, wait_for, wait_until_equal};
use crate::scenarios::{cookie_received, counted, each_pin, user_on};
use crate::shop::{Shop, backend};
use crate::speaker::Speaker;
use crate::tidegate::{SOON, Tidegate};
use crate::tomcat::{Tomcat, TomcatSpec};

/// As many as the project promises figures for.
const USERS: usize = 500;

fn losses(tidegate: &Tidegate, cause: &str) -> u64 {
    counted(tidegate, "tidegate_session_loss_total", &[("cause", cause)])
}

fn lives(tidegate: &Tidegate, proof: &str) -> u64 {
    counted(tidegate, "tidegate_backend_incarnations_total", &[("backend", "a1"), ("proof", proof)])
}

/// That many users, all with a confirmed session on a1, while the other backends take nobody.
fn all_on_a1(tidegate: &Tidegate, others: &[&str], users: usize) -> Vec<Browser> {
    for other in others {
        tidegate.cli(&["drain", &format!("shop/v1/{other}")]).expect_code(0);
    }
    let mut all: Vec<Browser> = (0..users).map(|_| tidegate.browser()).collect();
    for user in &mut all {
        user.get("/").expect_status(200);
        assert_eq!(user.get("/").word("backend"), "a1");
    }
    for other in others {
        tidegate.cli(&["serve", &format!("shop/v1/{other}")]).expect_code(0);
        tidegate.wait_for_backend("shop", "v1", other, "admission", "everyone");
    }
    all
}

/// Each user clicks twice: the first click must bring a new session that works, the second one must find it. Where they are then.
fn clean_in_one_request(users: &mut [Browser], names: &[&str]) -> Vec<usize> {
    let mut homes = vec![0; names.len()];
    for user in users.iter_mut() {
        let first = user.get("/").expect_status(200);
        assert_eq!((first.word("session").as_str(), first.number("counter")), ("new", 1));
    }
    for user in users {
        let second = user.get("/").expect_status(200);
        assert_eq!(second.number("counter"), 2, "the new session works");
        let home = names.iter().position(|name| *name == second.word("backend")).expect("a backend of the release");
        homes[home] += 1;
    }
    homes
}

#[test]
fn a_restart_that_a_header_proves_spreads_its_500_users_over_the_release_and_counts_each_once() {
    let names = ["a1", "a2", "a3", "a4"];
    let mut origins = names.map(|name| backend("v1", name));
    let refs: Vec<&Origin> = origins.iter().collect();
    let tidegate = Shop::new("cookie").health("instance_header: X-Instance").release("v1", &refs).start();
    let mut users = all_on_a1(&tidegate, &names[1..], USERS);
    assert_eq!(tidegate.sessions("shop", "v1").live, USERS as u64);
    origins[0].restart();
    wait_until_equal("the restart is proven", SOON, &1, || lives(&tidegate, "header"));
    // Not those that got their id since the last look at the life before: their own answers tell.
    let at_once = losses(&tidegate, "restart");
    assert!(at_once > USERS as u64 / 2, "{at_once}");
    tidegate.wait_for_backend("shop", "v1", "a1", "admission", "everyone");
    origins.iter().for_each(Origin::clear_requests);
    let homes = clean_in_one_request(&mut users, &names);
    println!(
        "proven restart, {USERS} users: clean in one request {USERS}, then at {names:?} {homes:?}, lost {}, {at_once} at once",
        losses(&tidegate, "restart")
    );
    let mean = USERS / names.len();
    assert!(homes.iter().all(|&home| home.abs_diff(mean) <= mean / 10), "{homes:?} is not within a tenth of {mean}");
    assert_eq!((losses(&tidegate, "restart"), counted(&tidegate, "tidegate_session_loss_total", &[])), (500, 500), "once each");
    assert_eq!((lives(&tidegate, "header"), lives(&tidegate, "suspected")), (1, 0));
    for origin in &origins {
        let met = origin.requests_to("/");
        let dead = met.iter().filter(|request| request.head.raw.contains(".a1") && request.body.is_empty());
        let own = origin.name() == "a1";
        assert!(own || dead.count() == 0, "{}: a dead id arrived", origin.name());
    }
}

#[test]
fn a_restart_that_nothing_proves_leaves_the_word_to_each_of_500_sessions() {
    let names = ["a1", "a2", "a3", "a4"];
    let mut origins = names.map(|name| backend("v1", name));
    let refs: Vec<&Origin> = origins.iter().collect();
    let twice = "interval: 100ms, timeout: 1s, rise: 2, fall: 2";
    let tidegate = Shop::new("cookie").probes(twice).release("v1", &refs).start();
    let mut users = all_on_a1(&tidegate, &names[1..], USERS);
    origins[0].stop();
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
    origins[0].restart();
    tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
    assert_eq!((lives(&tidegate, "suspected"), losses(&tidegate, "restart")), (1, 0), "suspicion takes nothing");
    let homes = clean_in_one_request(&mut users, &names);
    let lost = losses(&tidegate, "restart");
    println!("restart without proof, {USERS} users: clean in one request {USERS}, then at {names:?} {homes:?}, lost {lost}");
    assert_eq!(homes[0], USERS, "their pins stay");
    assert_eq!((lost, counted(&tidegate, "tidegate_session_loss_total", &[])), (USERS as u64, USERS as u64), "once each");
    assert_eq!(counted(&tidegate, "tidegate_sessions_rotated_total", &[]), 0);
    assert_eq!(tidegate.sessions("shop", "v1").live, USERS as u64, "and each has one again");
}

#[test]
fn a_restart_between_two_probes_is_noticed_by_the_end_of_an_idle_connection() {
    let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").patient_probes().release("v1", &[&a1, &a2]).start();
    let mut users = all_on_a1(&tidegate, &["a2"], 50);
    wait_for("idle connections have grown old", 2 * SOON, || a1.probes() >= 6);
    let probes = a1.probes();
    wait_for("a probe has just passed", SOON, || a1.probes() > probes);
    a1.restart();
    wait_until_equal("it is suspected", SOON, &1, || lives(&tidegate, "suspected"));
    assert_eq!(tidegate.backend("shop", "v1", "a1", "health"), "up", "nobody was refused");
    assert_eq!(clean_in_one_request(&mut users, &["a1", "a2"]), [50, 0]);
    assert_eq!((losses(&tidegate, "restart"), counted(&tidegate, "tidegate_sessions_rotated_total", &[])), (50, 0));
}

/// A backend that closes each connection so long after its one answer, saying so in its head or not; and how often it was probed.
fn closes(says_so: bool, after: Duration) -> (Speaker, Arc<AtomicUsize>) {
    let probes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&probes);
    let word = if says_so { "Connection: close\r\n" } else { "" };
    let speaker = Speaker::start(move |mut stream| {
        if Head::read(&mut BufReader::new(stream.try_clone()?))?.is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{word}Content-Length: 4\r\n\r\nfine").as_bytes())?;
            delay(after);
        }
        Ok(())
    });
    (speaker, probes)
}

#[test]
fn a_backend_that_closes_idle_connections_by_its_own_rules_is_not_taken_for_restarted() {
    // Sooner and later than the next probe comes, and a Tomcat that looks once a second in between, which is now the one and now the other.
    let tomcats = Tomcat::start_all([
        TomcatSpec::new("v1", "t1").with_keep_alive(-1, Duration::from_millis(800)),
        TomcatSpec::new("v1", "t2").with_keep_alive(1, Duration::from_secs(60)),
    ]);
    let closing = [(true, 0), (false, 0), (false, 300), (false, 980), (false, 1_500), (false, 2_500)];
    let closing = closing.map(|(says_so, after)| closes(says_so, Duration::from_millis(after)));
    let mut backends: Vec<String> = tomcats.iter().zip(["t1", "t2"]).map(|(t, name)| format!("{name}: \"{}\"", t.address())).collect();
    backends.extend(closing.iter().zip(1..).map(|((speaker, _), n)| speaker.line(&format!("c{n}"))));
    let probes = "interval: 1s, timeout: 5s, rise: 1, fall: 5";
    let tidegate = Shop::new("cookie").probed("/shop/health.jsp").probes(probes).release_of("v1", backends).start();
    let began = Instant::now();
    wait_for("probes have come and gone", 4 * SOON, || closing.iter().all(|(_, probes)| probes.load(Ordering::SeqCst) >= 16));
    // At most so many in that time, by the jitter; more would mean that the end of a connection asked for one.
    let most = began.elapsed().as_millis() / 900 + 3;
    for (n, (_, probes)) in closing.iter().enumerate() {
        let probes = probes.load(Ordering::SeqCst);
        assert!(probes as u128 <= most, "c{}: {probes} probes, at most {most}", n + 1);
    }
    assert!(!tidegate.read("tidegate.log").contains("restarted"), "{}", tidegate.read("tidegate.log"));
    assert_eq!(counted(&tidegate, "tidegate_backend_incarnations_total", &[]), 0);
}

#[test]
fn the_operators_word_is_proof_too() {
    each_pin(|pin| {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let (mut user, mut other) = (user_on(&tidegate, "a1"), user_on(&tidegate, "a2"));
        let old = user.cookie("JSESSIONID").unwrap();
        a1.restart();
        let said = tidegate.cli(&["lost", "shop/v1/a1"]).expect_code(0);
        assert!(said.stdout.contains("1 session lost with the restart of shop/v1/a1"), "{pin}: {}", said.stdout);
        assert_eq!((lives(&tidegate, "operator"), losses(&tidegate, "restart")), (1, 1), "{pin}");
        [&a1, &a2].into_iter().for_each(Origin::clear_requests);
        let page = user.get("/").expect_status(200);
        assert_eq!((page.word("session").as_str(), user.get("/").number("counter")), ("new", 2), "{pin}");
        let home = if page.word("backend") == "a1" { &a1 } else { &a2 };
        let first = &home.requests_to("/")[0].head.raw;
        assert!(!first.contains(&old), "{pin}: the dead id is taken out: {first}");
        assert_eq!(other.get("/").number("counter"), 3, "{pin}: the other backend's users are at home");
        assert_eq!(counted(&tidegate, "tidegate_session_loss_total", &[]), 1, "{pin}");
        let nobody = tidegate.cli(&["lost", "shop/v1/a7"]).expect_code(1);
        assert!(nobody.stderr.contains("does not exist"), "{pin}: {}", nobody.stderr);
    });
}

#[test]
fn a_session_that_its_backend_honours_after_an_absence_is_alive() {
    each_pin(|pin| {
        let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
        let tidegate = Shop::new(pin).release("v1", &[&a1, &a2]).start();
        let mut user = user_on(&tidegate, "a1");
        a1.refuse();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        a1.listen();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        assert_eq!(user.get("/").number("counter"), 3, "{pin}");
        // In no doubt any more: a new id is a login.
        assert_eq!(user.get("/login").number("counter"), 3, "{pin}");
        assert_eq!(user.get("/").number("counter"), 4, "{pin}");
        assert_eq!(counted(&tidegate, "tidegate_session_loss_total", &[]), 0, "{pin}");
        assert_eq!(counted(&tidegate, "tidegate_sessions_rotated_total", &[]), 1, "{pin}");
        assert!(!cookie_received(&a1, "/").is_empty(), "{pin}");
        tidegate.wait_for_sessions("shop", "v1", 1, 0);
    });
}

/// All users at once, each on a thread of its own; the answers in the users' order.
fn at_once(users: Vec<Browser>, target: &str) -> Vec<(Browser, crate::client::Response)> {
    let started = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let spawn = |mut user: Browser| {
            let started = &started;
            let work = move || {
                user.disconnect();
                started.fetch_add(1, Ordering::SeqCst);
                let page = user.send_or_panic(Call::get(target));
                (user, page)
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work).expect("a thread can be started")
        };
        let all: Vec<_> = users.into_iter().map(spawn).collect();
        all.into_iter().map(|user| user.join().expect("an answer came")).collect()
    })
}

/// 500 users log in within the same moment; the backend is slow, and where told it refuses connections for a while. That the process is
/// the same all the time is told by its header, or by a connection from before that it still answers.
fn login_rush(refuses: bool, header: bool) {
    let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let mut shop = Shop::new("cookie").app("failover_wait: 30s").release("v1", &[&a1, &a2]);
    shop = shop.probes("interval: 1s, timeout: 2s, rise: 2, fall: 5");
    if header {
        shop = shop.health("instance_header: X-Instance");
    }
    let tidegate = shop.start();
    let users = all_on_a1(&tidegate, &["a2"], USERS);
    wait_for("idle connections have grown old", 2 * SOON, || a1.probes() >= 6);
    a2.clear_requests();
    let answered = std::thread::scope(|scope| {
        let rush = scope.spawn(|| at_once(users, "/login?ms=300"));
        if refuses {
            a1.refuse();
            tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
            delay(Duration::from_millis(500)); // as long as such a moment takes
            a1.listen();
        }
        rush.join().expect("everybody was answered")
    });
    let what = format!("login rush of {USERS}, refusing {refuses}, with header {header}");
    for (mut user, page) in answered {
        assert_eq!((page.status, page.number("counter")), (200, 2), "{what}: {}", page.head.raw);
        assert_eq!(user.get("/").number("counter"), 3, "{what}: the session goes on");
    }
    let (lost, all) = (losses(&tidegate, "restart"), counted(&tidegate, "tidegate_session_loss_total", &[]));
    let renamed = counted(&tidegate, "tidegate_sessions_rotated_total", &[]);
    println!("{what}: sessions that went on {USERS}, counted as renamed {renamed}, as lost {lost}");
    assert_eq!(lost, all, "{what}: by no other cause");
    assert_eq!((lost, renamed), (0, USERS as u64), "{what}");
    assert!(a2.requests().is_empty(), "{what}: nobody was sent away");
    wait_until_equal("each is live once", SOON, &(USERS as u64), || tidegate.sessions("shop", "v1").live);
}

#[test]
fn a_login_rush_costs_no_session() {
    login_rush(false, false);
    login_rush(true, true);
    login_rush(true, false);
}

#[test]
fn a_firewall_that_rejects_for_ten_seconds_costs_no_session() {
    let (mut a1, a2) = (backend("v1", "a1"), backend("v1", "a2"));
    let tidegate = Shop::new("cookie").app("failover_wait: 60s").release("v1", &[&a1, &a2]).start();
    // Some click all the time, some wait until it is over.
    let mut busy: Vec<Browser> = (0..8).map(|_| user_on(&tidegate, "a1").with_timeout(Duration::from_secs(60))).collect();
    let mut quiet: Vec<Browser> = (0..20).map(|_| user_on(&tidegate, "a1")).collect();
    let over = AtomicBool::new(false);
    let clicks = std::thread::scope(|scope| {
        let over = &over;
        let clicking: Vec<_> = busy
            .iter_mut()
            .map(|user| {
                scope.spawn(move || {
                    let mut clicks = 2;
                    while !over.load(Ordering::SeqCst) {
                        clicks += 1;
                        assert_eq!(user.get("/").expect_status(200).number("counter"), clicks);
                    }
                    clicks
                })
            })
            .collect();
        a1.refuse();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "down");
        delay(Duration::from_secs(10));
        a1.listen();
        tidegate.wait_for_backend("shop", "v1", "a1", "health", "up");
        over.store(true, Ordering::SeqCst);
        clicking.into_iter().map(|user| user.join().expect("its session went on")).sum::<u64>()
    });
    for user in &mut quiet {
        assert_eq!(user.get("/").expect_status(200).number("counter"), 3);
    }
    let lost = counted(&tidegate, "tidegate_session_loss_total", &[]);
    println!("rejected for 10 s: {} sessions, {clicks} clicks of those that went on clicking, lost {lost}", busy.len() + quiet.len());
    assert_eq!((lost, counted(&tidegate, "tidegate_sessions_rotated_total", &[])), (0, 0));
}

#[test]
fn connections_from_before_a_restart_are_not_used_after_it() {
    // Nobody notices: probes are rare, and the backend is back before the next request.
    let rare = "interval: 60s, timeout: 1s, rise: 1, fall: 3";
    let mut a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").probes(rare).release("v1", &[&a1]).start();
    for round in 0..5 {
        // As many pooled connections as exchanges at once.
        let users = (0..24).map(|_| tidegate.browser()).collect();
        let answered = at_once(users, "/page?ms=200");
        a1.restart();
        let after = at_once(answered.into_iter().map(|(user, _)| user).collect(), "/page");
        assert!(after.iter().all(|(_, page)| page.status == 200), "round {round}");
        let mut users: Vec<Browser> = after.into_iter().map(|(user, _)| user).collect();
        a1.restart();
        a1.clear_requests();
        let mut failed = 0;
        for (at, user) in users.iter_mut().enumerate() {
            user.disconnect();
            let status = user.post(&format!("/body?order={round}-{at}"), "order").status;
            assert!(matches!(status, 200 | 502), "{status}");
            failed += usize::from(status == 502);
        }
        let arrived: Vec<String> = a1.requests_to("/body").iter().map(|request| request.head.word(1).to_owned()).collect();
        let mut once = arrived.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), arrived.len(), "round {round}: sent twice: {arrived:?}");
        assert!(arrived.len() + failed >= users.len(), "round {round}");
    }
    assert_eq!(lives(&tidegate, "suspected"), 0, "nobody noticed");
    wait_for("the origin is idle", SOON, || tidegate.status("shop")["releases"]["v1"]["backends"]["a1"]["in_flight"] == 0);
}
