//! The status page in a real Chromium: a whole deploy with people clicking meanwhile, reading without JavaScript or mouse, and a crowd.
//!
//! What a person sees and does is in the scripts of `tests/browser/`; here are the proxy, its backends and its users.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chromium;
use crate::client::{Browser, Call};
use crate::process::delay;
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::tidegate::Tidegate;

/// What every script gets.
fn given(tidegate: &Tidegate, more: Value) -> Value {
    let mut given = more;
    given["url"] = json!(format!("{}/", tidegate.admin_url()));
    given["token"] = json!(tidegate.read("token").trim());
    given
}

/// People who click all the time, on whichever release they are.
struct Crowd {
    people: Mutex<Vec<Browser>>,
    /// Nothing can be answered at present.
    away: AtomicBool,
    /// What went wrong at any other time.
    failed: Mutex<Vec<String>>,
}

impl Crowd {
    fn people(&self) -> MutexGuard<'_, Vec<Browser>> {
        self.people.lock().expect("nobody panicked with the crowd")
    }

    fn click(&self) {
        for user in self.people().iter_mut() {
            let away = self.away.load(Ordering::SeqCst);
            let failed = match user.send(Call::get("/")) {
                Ok(answer) if answer.status == 200 => continue,
                Ok(answer) => answer.head.raw,
                Err(error) => error.to_string(),
            };
            // It may also have gone while this one was under way.
            if !away && !self.away.load(Ordering::SeqCst) {
                self.failed.lock().expect("a list").push(failed);
            }
        }
    }

    fn come(&self, tidegate: &Tidegate, count: u64) {
        for _ in 0..count {
            let mut user = tidegate.browser();
            for _ in 0..2 {
                user.get("/").expect_status(200);
            }
            self.people().push(user);
        }
    }

    fn leave(&self, release: &str, count: u64) {
        let mut people = self.people();
        for _ in 0..count {
            let there = people.iter_mut().position(|user| user.get("/peek").word("release") == release);
            let mut user = people.remove(there.unwrap_or_else(|| panic!("nobody is on {release}")));
            user.get("/logout").expect_status(200);
        }
    }
}

#[test]
fn a_whole_deploy_is_done_in_the_browser_while_people_click() {
    let origins = [("v1", "a1"), ("v1", "a2"), ("v2", "b1"), ("v2", "b2")].map(|(release, name)| backend(release, name));
    let [a1, a2, b1, b2] = &origins;
    let shop = Shop::new("cookie")
        .session("idle_timeout: 30m")
        .session("confirm_within: 1s")
        .session("count_probe: {url_path: /count, json: sessions}")
        .release("v1", &[a1, a2])
        .release("v2", &[b1, b2]);
    let mut tidegate = Tidegate::start_replaceable(&shop.yaml());
    for (release, name) in [("v1", "a1"), ("v1", "a2"), ("v2", "b1"), ("v2", "b2")] {
        tidegate.wait_for_backend("shop", release, name, "health", "up");
    }
    let people = (0..3).flat_map(|_| ["a1", "a2"]).map(|name| user_on(&tidegate, name)).collect();
    let crowd = Crowd { people: Mutex::new(people), away: AtomicBool::new(false), failed: Mutex::default() };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                crowd.click();
                delay(Duration::from_millis(250));
            }
        });
        let over = OnDrop(&over);
        chromium::drive("deploy", given(&tidegate, json!({})), |asked, values| {
            let count = values["count"].as_u64().unwrap_or_default();
            match asked {
                "come" => crowd.come(&tidegate, count),
                "leave" => crowd.leave(values["release"].as_str().expect("a release"), count),
                "stop" => {
                    crowd.away.store(true, Ordering::SeqCst);
                    tidegate.stop();
                }
                "start" => {
                    tidegate.start_again();
                    crowd.away.store(false, Ordering::SeqCst);
                }
                "upgrade" => drop(tidegate.cli(&["upgrade"]).expect_code(0)),
                other => panic!("the script asks for {other}"),
            }
            json!(true)
        });
        drop(over);
    });
    assert_eq!(*crowd.failed.lock().expect("a list"), [""; 0], "clicks that failed, the upgrade included");
}

/// Ends the clicking also when the test fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_page_is_read_without_javascript_used_without_a_mouse_and_keeps_strangers_out() {
    const MARKUP: &str = "<b id=injected>bold</b><img src=x onerror=alert(1)>";
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let shop = Shop::new("cookie").release("v1", &[&a1]).release("v2", &[&b1]);
    let tidegate = shop.start();
    let yaml = shop.yaml();
    let user = user_on(&tidegate, "a1");
    // Others can reach this one, so reading takes the token, too.
    let remote = shop.process("admin: {address: \"0.0.0.0:@admin\", token_file: @folder/token}").start();
    // Whatever connects there was let through.
    let foreign = TcpListener::bind("127.0.0.1:0").expect("a port");
    foreign.set_nonblocking(true).expect("a socket");
    let address = format!("http://{}", foreign.local_addr().expect("a port"));
    let far = json!({ "url": format!("{}/", remote.admin_url()), "token": remote.read("token").trim() });
    let arguments = given(&tidegate, json!({ "foreign": address, "markup": MARKUP, "remote": far }));
    chromium::drive("reading", arguments, |asked, _| match asked {
        "break the file" => {
            tidegate.write_config(&format!("{yaml}\n    \"{MARKUP}\": 1\n"));
            tidegate.cli(&["reload"]).expect_code(1);
            json!(true)
        }
        "foreign requests" => {
            let connected = std::iter::from_fn(|| foreign.accept().ok());
            json!(connected.map(|(client, _)| asked_by(client)).filter(|asked| !asked.is_empty()).collect::<Vec<_>>())
        }
        other => panic!("the script asks for {other}"),
    });
    drop(user);
}

/// What a client has sent so far. Chromium connects ahead of a request that it then does not make.
fn asked_by(mut client: TcpStream) -> String {
    client.set_nonblocking(false).and_then(|()| client.set_read_timeout(Some(Duration::from_secs(1)))).expect("a socket");
    let mut head = [0; 200];
    let length = client.read(&mut head).unwrap_or_default();
    String::from_utf8_lossy(&head[..length]).into_owned()
}

#[test]
fn a_thousand_backends_and_fifty_drains_are_seen_soon_and_stay_smooth() {
    const APPS: u64 = 50;
    const BACKENDS: u64 = 20;
    // One app has users.
    let shop = backend("v1", "a1");
    let mut yaml = Shop::new("cookie").release("v1", &[&shop]).yaml();
    for app in 0..APPS {
        yaml += &format!(
            "  app{app}:\n    match: [{{host: app{app}.test, path: /}}]\n    current: v1\n    health: {{tcp: true, interval: 60s, timeout: 1s}}\n"
        );
        yaml += "    session: {cookies: [JSESSIONID]}\n    releases:\n      v1:\n        backends:\n";
        for number in 1..=BACKENDS {
            // Nobody has to be there.
            yaml += &format!("          a{number}: 127.0.{number}.1:9\n");
        }
    }
    let tidegate = Tidegate::start(&yaml);
    for app in 0..APPS {
        let (status, said) = tidegate.admin_post("/api/v1/drains", &json!({ "target": format!("app{app}/v1/a1"), "force": true }));
        assert_eq!(status, 201, "{said}");
    }
    let (users, maintained) = (40, 40);
    let more = json!({ "backends": APPS * BACKENDS + 1, "drains": APPS, "users": users, "maintained": maintained });
    let mut crowd = Vec::new();
    chromium::drive("crowd", given(&tidegate, more), |asked, _| {
        for number in 0..users.max(maintained) {
            if asked == "users come" {
                crowd.push(user_on(&tidegate, "a1"));
            } else {
                let target = format!("app{number}/v1/a2");
                let (status, said) =
                    tidegate.admin_post("/api/v1/intent", &json!({ "target": target, "intent": "maintain", "force": true }));
                assert_eq!(status, 200, "{said}");
            }
            // Many at once would reach the page as one change.
            delay(Duration::from_millis(100));
        }
        json!(true)
    });
}
