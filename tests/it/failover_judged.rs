//! One of four backends fails while users click and order: what each request came to, by a client that knows.
//!
//! The backends are processes of their own. Every order has a number of its own and is sent on a connection of its own, so that
//! nothing but the proxy can have sent it twice; each backend writes down what it received. `TIDEGATE_LONG=1` takes ten times as
//! many requests and a pause of 40 s. HAProxy stands before the same backends where both can be asked the same.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::{Browser, Call};
use crate::haproxy::HaProxy;
use crate::outside::Outside;
use crate::process::{delay, wait_for, wait_until_equal};
use crate::shop::Shop;
use crate::tidegate::{SOON, Tidegate};

const NAMES: [&str; 4] = ["a1", "a2", "a3", "a4"];
const USERS: usize = 24;
/// Between two requests of a user: enough that a test's length is the fault's.
const THINK: Duration = Duration::from_millis(10);

fn is_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

/// Least number of requests per fault; a third of them are orders.
fn requests() -> usize {
    if is_long() { 15_000 } else { 1_500 }
}

/// What became of all requests.
#[derive(Debug, Default)]
struct Fates {
    gets: usize,
    /// Status and reason of pages that were not served.
    failed_gets: Vec<String>,
    posts: usize,
    failed_posts: Vec<String>,
    /// Orders that were answered 200.
    taken: Vec<String>,
    /// Users whose session was another one than before, and where the one before was.
    moved: Vec<String>,
    longest: Duration,
}

/// A user who knows what the next answer must say.
struct User {
    name: usize,
    browser: Browser,
    home: String,
    counter: u64,
}

impl User {
    fn new(name: usize, port: u16) -> User {
        let mut browser = Browser::new(port).with_timeout(Duration::from_secs(120));
        let page = browser.get("/").expect_status(200);
        User { name, browser, home: page.word("backend"), counter: 1 }
    }

    fn click(&mut self, fates: &Mutex<Fates>) {
        let began = Instant::now();
        let answer = self.browser.send(Call::get("/"));
        let mut fates = fates.lock().unwrap();
        fates.gets += 1;
        fates.longest = fates.longest.max(began.elapsed());
        match answer {
            Ok(page) if page.status == 200 => {
                let (home, counter) = (page.word("backend"), page.number("counter"));
                if (&home, counter) != (&self.home, self.counter + 1) {
                    fates.moved.push(format!("{} {}", self.home, self.name));
                }
                (self.home, self.counter) = (home, counter);
            }
            Ok(page) => fates.failed_gets.push(format!("{} of {}", page.status, self.home)),
            Err(error) => fates.failed_gets.push(format!("{error} of {}", self.home)),
        }
    }

    fn order(&mut self, number: usize, fates: &Mutex<Fates>) {
        let target = format!("/order?id={}-{number}", self.name);
        // On a connection of its own: what is sent on a kept one might be sent again by the client itself.
        self.browser.disconnect();
        let answer = self.browser.send(Call::post(&target, "one"));
        let mut fates = fates.lock().unwrap();
        fates.posts += 1;
        match answer {
            Ok(page) if page.status == 200 => fates.taken.push(target),
            Ok(page) => fates.failed_posts.push(page.status.to_string()),
            Err(error) => fates.failed_posts.push(error.to_string()),
        }
    }
}

/// Users click and order until there were enough requests and the fault, which begins after a quarter of them, is over.
fn under_load(port: u16, fault: impl FnOnce()) -> Fates {
    let (fates, count, over) = (Mutex::default(), AtomicUsize::new(0), AtomicBool::new(false));
    let users: Vec<User> = (0..USERS).map(|name| User::new(name, port)).collect();
    std::thread::scope(|scope| {
        for mut user in users {
            let (fates, count, over) = (&fates, &count, &over);
            scope.spawn(move || {
                for number in 0.. {
                    match number % 3 {
                        2 => user.order(number, fates),
                        _ => user.click(fates),
                    }
                    if count.fetch_add(1, Ordering::SeqCst) >= requests() && over.load(Ordering::SeqCst) {
                        return;
                    }
                    delay(THINK);
                }
            });
        }
        wait_for("a quarter of the requests", Duration::from_secs(120), || count.load(Ordering::SeqCst) * 4 >= requests());
        fault();
        over.store(true, Ordering::SeqCst);
    });
    fates.into_inner().unwrap()
}

fn start() -> Vec<Outside> {
    NAMES.map(Outside::start).into()
}

fn tidegate(backends: &[Outside]) -> Tidegate {
    let lines = backends.iter().map(Outside::line).collect();
    let shop = Shop::new("cookie").probes("interval: 500ms, timeout: 1s, rise: 1, fall: 2").release_of("v1", lines);
    shop.start()
}

fn haproxy(backends: &[Outside]) -> HaProxy {
    let checked = |backend: &Outside| (backend.name().to_owned(), format!("{} check inter 500ms fall 2 rise 1", backend.address()));
    let servers: Vec<(String, String)> = backends.iter().map(checked).collect();
    let servers: Vec<(&str, String)> = servers.iter().map(|(name, server)| (name.as_str(), server.clone())).collect();
    HaProxy::with_cookie("SRV insert indirect nocache\n option redispatch\n option httpchk GET /health", &servers)
}

/// Orders that arrived more than once, and orders that were confirmed and did not arrive.
fn check_orders(backends: &[Outside], fates: &Fates) -> usize {
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for backend in backends {
        for (order, times) in backend.orders() {
            *arrived.entry(order).or_default() += times;
        }
    }
    assert!(fates.taken.iter().all(|order| arrived.contains_key(order)), "what was answered had arrived");
    assert!(fates.posts > 0 && !arrived.is_empty(), "there were orders");
    arrived.values().filter(|&&times| times > 1).count()
}

fn told(what: &str, fates: &Fates, twice: usize) {
    println!(
        "{what}: {} GETs, {} failed {:?}; {} POSTs, {} failed, {twice} sent twice; {} users moved; longest wait {:.1} s",
        fates.gets,
        fates.failed_gets.len(),
        fates.failed_gets.iter().take(3).collect::<Vec<_>>(),
        fates.posts,
        fates.failed_posts.len(),
        fates.moved.len(),
        fates.longest.as_secs_f64(),
    );
}

fn lost(tidegate: &Tidegate) -> f64 {
    tidegate.metrics().sum("tidegate_session_loss_total", &[])
}

/// Everybody whose session was on the failed backend was moved at most once, and nobody else was.
fn only_users_of(home: &str, fates: &Fates) {
    let others: Vec<&String> = fates.moved.iter().filter(|moved| !moved.starts_with(home)).collect();
    assert!(others.is_empty(), "users of other backends moved: {others:?}");
}

#[test]
fn a_killed_backend_fails_no_page_and_repeats_no_order() {
    let mut backends = start();
    let proxy = tidegate(&backends);
    let fates = under_load(proxy.port(), || backends[0].kill());
    let twice = check_orders(&backends, &fates);
    told("killed, tidegate", &fates, twice);
    assert_eq!((fates.failed_gets.len(), twice), (0, 0));
    // In flight when it died: whether it was done is not known, and the user is told so.
    assert!(fates.failed_posts.iter().all(|status| status == "502"), "{:?}", fates.failed_posts);
    only_users_of("a1", &fates);
    assert_eq!(lost(&proxy) as usize, fates.moved.len(), "each loss is counted once");
    drop(proxy);

    let mut backends = start();
    let other = haproxy(&backends);
    let fates = under_load(other.port(), || backends[0].kill());
    told("killed, HAProxy", &fates, check_orders(&backends, &fates));
}

#[test]
fn a_stopped_backend_keeps_its_users_waiting_and_loses_none() {
    let pause = Duration::from_secs(if is_long() { 40 } else { 6 });
    let backends = start();
    let proxy = tidegate(&backends);
    let fates = under_load(proxy.port(), || {
        backends[0].process().pause();
        delay(pause);
        backends[0].process().signal(rustix::process::Signal::CONT);
    });
    let twice = check_orders(&backends, &fates);
    told(&format!("stopped for {} s, tidegate", pause.as_secs()), &fates, twice);
    assert_eq!((fates.failed_gets.len(), fates.failed_posts.len(), twice), (0, 0, 0));
    assert_eq!((fates.moved.len(), lost(&proxy)), (0, 0.0), "sessions lost by the pause");
    assert!(fates.longest >= pause - THINK * 20, "somebody waited: {:?}", fates.longest);
}

/// A listener whose backlog is full answers no further connect: what a firewall that drops looks like.
struct Silent {
    _listener: TcpListener,
    _held: Vec<TcpStream>,
}

impl Silent {
    fn on(port: u16) -> Silent {
        let listener = bind(port);
        rustix::net::listen(&listener, 0).expect("a listening socket can be made smaller");
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut held = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            held.push(stream);
        }
        Silent { _listener: listener, _held: held }
    }
}

/// What has just been killed leaves its port a moment later.
fn bind(port: u16) -> TcpListener {
    crate::process::wait_for_some("the port can be bound", SOON, || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
}

#[test]
fn a_backend_whose_packets_are_dropped_fails_no_page_and_repeats_no_order() {
    let mut backends = start();
    let proxy = tidegate(&backends);
    let mut silent = None;
    let fates = under_load(proxy.port(), || {
        backends[0].kill();
        silent = Some(Silent::on(backends[0].port()));
        proxy.wait_for_backend("shop", "v1", "a1", "health", "down");
    });
    let twice = check_orders(&backends, &fates);
    told("dropping packets, tidegate", &fates, twice);
    assert_eq!((fates.failed_gets.len(), twice), (0, 0));
    assert!(fates.failed_posts.iter().all(|status| status == "502"), "{:?}", fates.failed_posts);
    only_users_of("a1", &fates);
    assert_eq!(lost(&proxy) as usize, fates.moved.len(), "each loss is counted once");
}

/// Accepts and resets, whatever arrives.
struct Resetting {
    over: Arc<AtomicBool>,
    port: u16,
}

impl Resetting {
    fn on(port: u16) -> Resetting {
        let (listener, over) = (bind(port), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok();
            }
        });
        Resetting { over, port }
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok(); // wakes it
    }
}

#[test]
fn a_resetting_backend_fails_only_pages_of_its_own_users_until_it_is_found_down() {
    let mut backends = start();
    let proxy = tidegate(&backends);
    let mut resetting = None;
    let fates = under_load(proxy.port(), || {
        backends[0].kill();
        resetting = Some(Resetting::on(backends[0].port()));
        proxy.wait_for_backend("shop", "v1", "a1", "health", "down");
    });
    let twice = check_orders(&backends, &fates);
    told("resetting, tidegate", &fates, twice);
    assert_eq!(twice, 0);
    // The connect succeeded: a page was asked for, twice, and the session's own backend broke off both times.
    assert!(fates.failed_gets.iter().all(|fate| fate == "502 of a1"), "{:?}", fates.failed_gets);
    assert!(fates.failed_gets.len() <= 6 * USERS, "for long: {}", fates.failed_gets.len());
    only_users_of("a1", &fates);
}

/// Users with a session on a1, all of them.
fn users_on_a1(port: u16) -> Vec<User> {
    let all = (0..USERS).map(|name| User::new(name, port));
    all.filter(|user| user.home == "a1").collect()
}

#[test]
fn after_a_restart_under_the_same_name_everybody_has_a_session_again_in_one_request() {
    let mut backends = start();
    let proxy = tidegate(&backends);
    let told = |what: &str, port: u16, backends: &mut Vec<Outside>| {
        let mut users = users_on_a1(port);
        assert!(users.len() >= 2, "some are on a1");
        users.iter_mut().for_each(|user| drop(user.browser.get("/")));
        backends[0].restart();
        delay(Duration::from_secs(2)); // both have seen it by then
        let clean = users.iter_mut().map(|user| {
            user.browser.disconnect();
            let first = user.browser.get("/").expect_status(200).number("counter");
            (first, user.browser.get("/").number("counter")) == (1, 2)
        });
        let clean = clean.filter(|clean| *clean).count();
        println!("restart under the same name, {what}: {} users, {clean} with a new session that works in one request", users.len());
        assert_eq!(clean, users.len(), "{what}");
        clean
    };
    let clean = told("tidegate", proxy.port(), &mut backends);
    wait_until_equal("each loss is counted once", SOON, &(clean as f64), || lost(&proxy));
    drop(proxy);
    let other = haproxy(&backends);
    told("HAProxy (which counts no lost session)", other.port(), &mut backends);
}
