//! What Prometheus gets to see: a deploy in which nothing goes wrong, then everything that can.
//!
//! Each fault is the real thing before the real binary: a disk that is full, a backend that comes and goes, a receiver that hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::server::Prometheus;
use crate::client::{Browser, Call, Wire};
use crate::origin::{Origin, OriginSpec};
use crate::process::{Scratch, delay, free_port, wait_for};
use crate::scenarios::user_on;
use crate::shop::{Shop, backend};
use crate::speaker::{Speaker, answer_ok, next_request};
use crate::state::disk::Disk;
use crate::tidegate::{SOON, Tidegate};

/// So many sessions must have ended before there is a forecast, and some more.
const HISTORY: usize = 25;
/// Reports that may wait for a receiver, and as many again as are dropped then.
const REPORTS: usize = 125;
const DAY: u64 = 86_400;

/// tidegate and everything around it.
pub(super) struct Stage {
    a1: Origin,
    a2: Origin,
    b1: Origin,
    disk: Disk,
    folder: Scratch,
    receivers: [Speaker; 2],
    tls_port: u16,
    tidegate: Tidegate,
}

impl Stage {
    /// One app, whose ledger is old enough to be believed.
    pub(super) fn new() -> Stage {
        let (a1, a2, b1) = (backend("v1", "a1"), backend("v1", "a2"), backend("v2", "b1"));
        let receivers = [true, false].map(|takes| {
            Speaker::start(move |stream| {
                let mut input = std::io::BufReader::new(stream.try_clone()?);
                next_request(&mut input, stream)?;
                if takes { answer_ok(&mut &*stream, "thanks") } else { std::io::copy(&mut input, &mut std::io::sink()).map(drop) }
            })
        });
        let (disk, folder, tls_port) = (Disk::new(), Scratch::new("prometheus-play"), free_port());
        write_certificate(&folder, 90 * DAY);
        let tidegate = shop(&disk, &folder, tls_port, &receivers).release("v1", &[&a1, &a2]).release("v2", &[&b1]).start();
        // v2 drains since the start, for it may have had users.
        tidegate.wait_for_state("shop", "v2", "drained");
        Stage { a1, a2, b1, disk, folder, receivers, tls_port, tidegate }
    }

    pub(super) fn tidegate(&self) -> &Tidegate {
        &self.tidegate
    }

    /// Users come and go, v2 is promoted and v1 empties; then it is taken back, and v2 empties.
    pub(super) fn deploy_well(&mut self, prometheus: &Prometheus) {
        let tidegate = &self.tidegate;
        let known = || {
            let mut user = tidegate.browser();
            user.get("/").expect_status(200);
            user.get("/login").expect_status(200);
            user.get("/").expect_status(200);
            user
        };
        for _ in 0..HISTORY {
            known().get("/logout").expect_status(200);
        }
        let mut old: Vec<Browser> = (0..8).map(|_| known()).collect();
        tidegate.cli(&["reload"]).expect_code(0);
        // Whoever is silent for as long as idle_timeout would be moved: a busy machine may take that long for eight of them.
        let click = |users: &mut Vec<Browser>| users.iter_mut().for_each(|user| drop(user.get("/").expect_status(200)));
        for (to, from) in [("v2", "v1"), ("v1", "v2")] {
            click(&mut old);
            tidegate.cli(&["promote", "shop", to, "--timeout", "5m", "--then", "keep"]).expect_code(0);
            let mut new = Vec::new();
            while let Some(mut leaving) = old.pop() {
                assert_eq!(leaving.get("/").word("release"), from);
                delay(Duration::from_millis(250)); // a wave that a scrape each second can see
                leaving.get("/logout").expect_status(200);
                new.push(known());
                click(&mut old);
                click(&mut new);
            }
            tidegate.wait_for_state("shop", from, "drained");
            old = new;
        }
        for mut user in old {
            user.get("/logout").expect_status(200);
        }
        wait_for("the second verdict is seen", SOON, || {
            prometheus.holds("tidegate_release_state{release=\"v2\",state=\"drained\"} == 1")
                && prometheus.holds("tidegate_webhook_deliveries_total{result=\"delivered\"} >= 2")
        });
    }

    /// Provokes fault after fault; `fires` waits until that alert has fired.
    pub(super) fn everything_goes_wrong(&mut self, prometheus: &Prometheus, fires: impl Fn(&str)) {
        self.a_file_that_is_refused(prometheus, &fires);
        let mut more = Newcomers::start();
        more.f2.stop();
        write_certificate(&self.folder, DAY);
        let config = self.yaml() + &more.yaml(&self.receivers[1]);
        self.tidegate.write_config(&config);
        self.tidegate.cli(&["reload"]).expect_code(0);
        for (app, backend) in [("small", "c1"), ("small", "c2"), ("gone", "d1"), ("told", "e1"), ("told", "e2")] {
            let release = if ["c2", "e2"].contains(&backend) { "v2" } else { "v1" };
            self.tidegate.wait_for_backend(app, release, backend, "health", "up");
        }
        self.tidegate.wait_for_backend("colours", "v1", "f1", "health", "up");
        self.tidegate.wait_for_backend("colours", "v2", "f2", "health", "down");
        let over = AtomicBool::new(false);
        let Newcomers { c1, d1, e1, .. } = more;
        std::thread::scope(|scope| {
            let stage = &*self;
            // Also when an assertion fails: the scope waits for its threads.
            let _ending = Ending(&over);
            let flapping = scope.spawn(move || comes_and_goes(d1, prometheus));
            let _open = stage.drain_that_stands_still(scope, &over, prometheus);
            stage.reports_that_nobody_takes();
            stage.strangers_on_a_draining_backend(&e1);
            stage.ledger_that_is_full();
            let waiting = stage.queue(scope, &c1);
            for alert in ["TidegateCertificateExpires", "TidegateCertificateExpiresSoon", "TidegateReportsLost"] {
                fires(alert);
            }
            for alert in ["TidegateLedgerNearlyFull", "TidegateSessionsUntracked", "TidegateSessionsReplaced", "TidegateDrainNotConfident"]
            {
                fires(alert);
            }
            fires("TidegateBackendQueue");
            c1.let_go();
            waiting.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("answered"), 200));
            stage.tidegate.cli(&["evict", "small/v1"]).expect_code(0);
            fires("TidegateSessionsEvicted");
            stage.counts_that_differ();
            for alert in ["TidegateCountProbeDrift", "TidegateCountProbeFails"] {
                fires(alert);
            }
            for alert in ["TidegateDrainStuck", "TidegateDrainDeadlineMissed"] {
                fires(alert);
            }
            // The last session there ends; what it left open does not.
            over.store(true, Ordering::SeqCst);
            fires("TidegateDrainHeldByExchange");
            let _down = flapping.join().expect("it came and went");
            for alert in ["TidegateBackendFlapping", "TidegateBackendDown", "TidegateNoReadyBackend"] {
                fires(alert);
            }
            let mut nobody = Browser::new(stage.tidegate.port()).with_host("gone.test");
            for _ in 0..40 {
                nobody.get("/").expect_status(503);
            }
            fires("TidegateRequestsFail");
        });
        self.restart_that_loses(&fires);
        self.disk.fill();
        wait_for("the state cannot be written", SOON, || {
            (0..50).for_each(|_| drop(self.tidegate.browser().get("/").expect_status(200)));
            self.tidegate.metrics().sum("tidegate_ledger_write_failures_total", &[]) >= 1.0
        });
        fires("TidegateStateNotWritten");
        self.disk.make_room();
        // One more drain that has a deadline and somebody left, for whoever looks at the metrics now.
        let _somebody = user_on(&self.tidegate, "b1");
        self.tidegate.cli(&["promote", "shop", "v1", "--timeout", "5m", "--then", "keep"]).expect_code(0);
    }

    /// The process is killed.
    pub(super) fn ends(&mut self) {
        self.tidegate.kill();
    }

    fn yaml(&self) -> String {
        let shop = shop(&self.disk, &self.folder, self.tls_port, &self.receivers);
        shop.release("v1", &[&self.a1, &self.a2]).release("v2", &[&self.b1]).yaml()
    }

    fn a_file_that_is_refused(&self, prometheus: &Prometheus, fires: &impl Fn(&str)) {
        self.tidegate.write_config("apps: {shop: {nonsense: 1}}\n");
        self.tidegate.cli(&["reload"]).expect_code(1);
        fires("TidegateConfigReloadFailed");
        self.tidegate.write_config(&self.yaml());
        self.tidegate.cli(&["reload"]).expect_code(0);
        wait_for("the alert ends with a reload that works", SOON, || !prometheus.holds("ALERTS{alertname=\"TidegateConfigReloadFailed\"}"));
    }

    /// v1 drains, and somebody there clicks until it is over; a WebSocket without a session is open there, too, and given back.
    fn drain_that_stands_still<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        over: &'scope AtomicBool,
        prometheus: &Prometheus,
    ) -> Wire {
        let mut keeper = user_on(&self.tidegate, "a1");
        let open = self.tidegate.browser().websocket("/echo");
        self.tidegate.cli(&["promote", "shop", "v2", "--timeout", "4s", "--then", "keep"]).expect_code(0);
        wait_for("the drain is seen", SOON, || prometheus.holds("tidegate_drain_sessions_remaining{target=\"shop/v1\"} > 0"));
        scope.spawn(move || {
            while !over.load(Ordering::SeqCst) {
                keeper.get("/peek").expect_status(200);
                delay(Duration::from_millis(200));
            }
            keeper.get("/logout").expect_status(200);
        });
        open
    }

    /// Each promotion overtakes the drain of the one before, and each verdict is to be reported.
    fn reports_that_nobody_takes(&self) {
        for at in 0..=REPORTS {
            let to = if at % 2 == 0 { "v2" } else { "v1" };
            let (status, answer) = self.tidegate.admin_post("/api/v1/apps/told/promote", &json!({ "release": to }));
            assert_eq!(status, 202, "{answer}");
        }
        let dropped = || self.tidegate.metrics().sum("tidegate_webhook_deliveries_total", &[("result", "dropped")]);
        wait_for("reports are dropped", SOON, || dropped() > 0.0);
    }

    /// What a drain does to those who are no users of it: a dead session is sent on, a living one that nobody knew is adopted, and a
    /// WebSocket that belongs to nobody is closed.
    fn strangers_on_a_draining_backend(&self, e1: &Origin) {
        assert_eq!(self.tidegate.release_state("told", "v1"), "current");
        let stranger = || Browser::new(self.tidegate.port()).with_host("told.test");
        let _open = stranger().websocket("/echo");
        self.tidegate.cli(&["promote", "told", "v2"]).expect_code(0);
        let answer = stranger().send_or_panic(Call::get("/page").cookie("JSESSIONID=00000000000000000000000000000000.e1"));
        assert_eq!((answer.word("release").as_str(), e1.requests_to("/page").len()), ("v2", 1));
        let mut early = Browser::new(e1.port()).with_host("told.test");
        early.get("/").expect_status(200);
        let mut early = early.tab_before(self.tidegate.port());
        for _ in 0..3 {
            assert_eq!(early.get("/").word("session"), "known");
        }
        // In an app of many requests: one in twenty would be an alert.
        self.tidegate.browser().get("/status?code=500").expect_status(500);
        for metric in ["tidegate_replays_total", "tidegate_sessions_adopted_total", "tidegate_tunnels_closed_total"] {
            wait_for(metric, SOON, || self.tidegate.metrics().sum(metric, &[("app", "told")]) == 1.0);
        }
    }

    /// Twelve users where there is room for ten; one of them had been away when he logged in.
    fn ledger_that_is_full(&self) {
        let newcomer = || {
            let mut user = Browser::new(self.tidegate.port()).with_host("small.test");
            user.get("/").expect_status(200);
            user.get("/").expect_status(200);
            user
        };
        let mut slow = newcomer();
        delay(Duration::from_millis(1500)); // longer than rotation_within
        slow.get("/login").expect_status(200);
        let replaced = || self.tidegate.metrics().sum("tidegate_session_loss_total", &[("app", "small"), ("cause", "replaced")]);
        assert_eq!(replaced(), 1.0);
        for _ in 0..12 {
            newcomer();
        }
        assert!(self.tidegate.metrics().sum("tidegate_sessions_untracked_total", &[("app", "small")]) >= 1.0);
        self.tidegate.cli(&["promote", "small", "v2"]).expect_code(0);
        self.tidegate.cli(&["promote", "small", "v1"]).expect_code(0);
    }

    /// One exchange fills c1, others wait.
    fn queue<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, c1: &Origin) -> Vec<std::thread::ScopedJoinHandle<'scope, u16>> {
        let send = |path: &'static str| {
            scope.spawn(move || {
                let mut user = Browser::new(self.tidegate.port()).with_host("small.test").with_timeout(Duration::from_secs(90));
                user.get(path).status
            })
        };
        let mut all = vec![send("/hold")];
        wait_for("c1 is full", SOON, || c1.requests_to("/hold").len() == 1);
        all.extend([send("/peek"), send("/peek")]);
        all
    }

    fn counts_that_differ(&self) {
        for _ in 0..20 {
            Browser::new(self.b1.port()).get("/").expect_status(200);
        }
        self.a2.answer("/count", "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n");
    }

    fn restart_that_loses(&mut self, fires: &impl Fn(&str)) {
        let users: Vec<Browser> = (0..3).map(|_| user_on(&self.tidegate, "b1")).collect();
        wait_for("the life before is known", SOON, || self.tidegate.sessions("shop", "v2").live >= 3);
        let probes = self.b1.probes();
        wait_for("it has been looked at", SOON, || self.b1.probes() > probes + 2);
        self.b1.restart();
        // Whoever clicks before a probe has seen it looks like somebody who logs in.
        let proven = || self.tidegate.metrics().sum("tidegate_backend_incarnations_total", &[("backend", "b1"), ("proof", "header")]);
        wait_for("the restart is proven", SOON, || proven() == 1.0);
        for mut user in users {
            user.get("/").expect_status(200);
        }
        fires("TidegateSessionsLost");
    }
}

/// Says that it is over when it goes, whatever the reason.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Apps that come with a reload, each for faults of its own; of `colours` health decides, and one of the two is idle, which is none.
struct Newcomers {
    c1: Origin,
    c2: Origin,
    d1: Origin,
    e1: Origin,
    e2: Origin,
    f1: Origin,
    f2: Origin,
}

impl Newcomers {
    fn start() -> Newcomers {
        let start = |release: &str, name: &str| Origin::start(OriginSpec::new(release, name).with_route());
        let [c1, d1, e1, f1] = ["c1", "d1", "e1", "f1"].map(|name| start("v1", name));
        let [c2, e2, f2] = ["c2", "e2", "f2"].map(|name| start("v2", name));
        Newcomers { c1, c2, d1, e1, e2, f1, f2 }
    }

    /// Below `apps:`.
    fn yaml(&self, hanging: &Speaker) -> String {
        let app = |name: &str, keys: &str, releases: &[&Origin]| {
            let mut text = format!(
                "  {name}:\n    match: [{{host: {name}.test}}]\n    current: v1\n    {keys}\n    \
                 health: {{path: /health, interval: 100ms, timeout: 1s, rise: 1, fall: 1}}\n    releases:\n"
            );
            for (number, origin) in (1..).zip(releases) {
                text += &format!("      v{number}: {{backends: {{{}: \"{}\"}}}}\n", origin.name(), origin.address());
            }
            text
        };
        let small = "limits: {max_connections: 1, queue: {size: 9, timeout: 80s}}\n    \
                     session: {cookies: [JSESSIONID], max_entries: 10, rotation_within: 1s}";
        let webhook = format!("http://127.0.0.1:{}/", hanging.port());
        let told = format!("session: {{cookies: [JSESSIONID], pin: route}}\n    drain: {{webhook: \"{webhook}\", tunnels: 1s}}");
        app("small", small, &[&self.c1, &self.c2])
            + &app("gone", "session: {cookies: [JSESSIONID]}", &[&self.d1])
            + &app("told", &told, &[&self.e1, &self.e2])
            + &app("colours", "session: {cookies: [JSESSIONID]}", &[&self.f1, &self.f2]).replace("current: v1", "current: by_health")
    }
}

/// Three times down and up, each long enough to be scraped, then down for good.
fn comes_and_goes(mut origin: Origin, prometheus: &Prometheus) -> Origin {
    let seen = |health: &str| {
        let question = format!("tidegate_backend_health{{app=\"gone\",health=\"{health}\"}} == 1");
        wait_for(&format!("d1 is seen {health}"), SOON, || prometheus.holds(&question));
    };
    seen("up");
    for _ in 0..3 {
        origin.stop();
        seen("down");
        origin.listen();
        seen("up");
    }
    origin.stop();
    origin
}

fn shop(disk: &Disk, folder: &Scratch, tls_port: u16, receivers: &[Speaker; 2]) -> Shop {
    let certificate = folder.path().join("shop.pem");
    let tls = format!("tls: {{certificates: [{{certificate: \"{}\"}}]}}", certificate.display());
    let listeners = format!("listeners: [{{address: \"127.0.0.1:@port\"}}, {{address: \"127.0.0.1:{tls_port}\", {tls}}}]");
    Shop::new("cookie")
        .process(&listeners)
        .process(&format!("state: {{directory: {}}}", disk.state().display()))
        .session("idle_timeout: 4s")
        .session("engaged_within: 2s")
        .session("confirm_within: 2s")
        .session("count_probe: {url_path: /count, json: sessions}")
        .health("instance_header: X-Instance")
        .app(&format!("drain: {{webhook: \"http://127.0.0.1:{}/\"}}", receivers[0].port()))
}

/// For `shop.test`, ending so many seconds from now.
fn write_certificate(folder: &Scratch, ends_in: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut about = rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).expect("a name");
    about.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now + ends_in);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = about.self_signed(&key).expect("a certificate");
    folder.write("shop.pem", &(certificate.pem() + &key.serialize_pem()));
}
