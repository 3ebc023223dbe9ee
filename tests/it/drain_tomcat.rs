//! How a drain is judged: a hundred people, crawlers and open WebSockets on real Tomcats whose sessions live for a
//! minute, through tidegate and, at the same time and with the same scripts, through HAProxy and Apache.
//!
//! The old Tomcat itself is the witness: its manager lists and counts sessions, whatever a proxy believes.
//! `TIDEGATE_DRAIN_MINUTES=10` watches longer and prints the table that README shows.

mod crowd;
mod proxies;

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Browser;
use crate::process::{delay, wait_for};
use crate::tomcat::{Tomcat, TomcatSpec};
use crowd::{EARLY_CRAWLS, Ending, LATE_CRAWLS, RETURNERS, Return, Scene, Story};
use proxies::{CONTESTANTS, Contestant, Kind, MAXIDLE, Running};

/// The last session ends 85 seconds after the deploy.
const WINDOW: Duration = Duration::from_secs(96);
/// From the end of the last live session to the verdict.
const PROMPT: Duration = Duration::from_secs(2);
/// The clocks of three processes, and a script that notes a time after the answer it is about.
const CLOCKS: Duration = Duration::from_millis(300);

/// What a contestant did with its crowd; times count from the deploy.
struct Report {
    contestant: Contestant,
    /// Sessions that the old Tomcat had made until then.
    before_deploy: usize,
    stories: Vec<Story>,
    /// When it said that the old release is drained.
    verdict: Option<Duration>,
    /// Sessions on the old Tomcat at the verdict whose id some browser held.
    held_at_verdict: Vec<String>,
    /// The same at the end.
    held_at_end: usize,
    /// Sessions that the Tomcats made after the deploy.
    made_on_old: usize,
    made_on_new: usize,
    /// Sessions on the old Tomcat over time.
    left: Vec<(Duration, usize)>,
    /// What tidegate counted as the ends of the drain's sessions.
    drain: Option<Value>,
}

#[test]
fn a_drain_ends_with_the_last_session_where_those_of_haproxy_and_apache_do_not() {
    let minutes = std::env::var("TIDEGATE_DRAIN_MINUTES").ok();
    let window = minutes.map_or(WINDOW, |minutes| Duration::from_secs(6 + 60 * minutes.parse::<u64>().expect("a number of minutes")));
    let contexts = CONTESTANTS.map(|contestant| contestant.shop());
    let specs = [("v1", "a1"), ("v2", "b1")];
    let tomcats =
        Tomcat::start_all(specs.map(|(release, name)| TomcatSpec::new(release, name).with_session_timeout(1).with_contexts(&contexts)));
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let tomcats = &tomcats;
        let threads = CONTESTANTS.map(|contestant| scope.spawn(move || watch(contestant, tomcats, window)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{}", table(&reports, window));
    for report in &reports {
        match report.contestant.kind {
            Kind::Tidegate(_) => judge(report),
            MAXIDLE => judge_maxidle(report),
            Kind::HaProxy(_) | Kind::Apache => judge_endless(report),
        }
    }
}

/// Plays everybody before one contestant, deploys, and notes what the Tomcats say.
fn watch(contestant: Contestant, tomcats: &[Tomcat], window: Duration) -> Report {
    let [old, new] = tomcats else { panic!("two Tomcats") };
    let context = contestant.context;
    let running = contestant.start(old, new);
    let scene = Scene::new(context, window);
    let scripts = crowd::scripts();
    let made_at_start = old.sessions_made(context);
    let tabs: Vec<Browser> = scripts.iter().map(|_| running.browser()).collect();
    std::thread::scope(|scope| {
        let (scene, port) = (&scene, running.port());
        let play = |(script, tab): (crowd::Script, &Browser)| {
            let browser = tab.tab();
            scope.spawn(move || crowd::play(script, browser, scene))
        };
        let people: Vec<_> = scripts.into_iter().zip(&tabs).map(play).collect();
        let crawler = scope.spawn(move || crowd::crawl(port, scene));
        wait_for("everybody has a session", Duration::from_secs(60), || scene.opened.load(Ordering::SeqCst) == people.len() + 1);
        running.deploy();
        // From here on nobody may make a session on the old one; nobody did so meanwhile, see `crowd`.
        let (made_before, made_on_new_before) = (old.sessions_made(context), new.sessions_made(context));
        let before_deploy = made_before - made_at_start;
        let deployed = Instant::now();
        scene.deployed.set(deployed).expect("one deploy");
        let held_on_old = || {
            let held: HashSet<String> = tabs.iter().flat_map(crowd::held).collect();
            old.session_ids(context).into_iter().filter(|id| held.contains(id)).collect::<Vec<_>>()
        };
        let (mut verdict, mut held_at_verdict, mut left) = (None, Vec::new(), Vec::new());
        while deployed.elapsed() < window {
            if verdict.is_none() && running.says_drained() {
                verdict = Some(deployed.elapsed());
                held_at_verdict = held_on_old();
            }
            if deployed.elapsed().as_secs() / 5 >= left.len() as u64 {
                left.push((deployed.elapsed(), old.session_ids(context).len()));
            }
            delay(Duration::from_millis(50));
        }
        let stories = people.into_iter().map(|person| person.join().unwrap()).collect();
        crawler.join().unwrap();
        Report {
            contestant,
            before_deploy,
            stories,
            verdict,
            held_at_verdict,
            held_at_end: held_on_old().len(),
            made_on_old: old.sessions_made(context) - made_before,
            made_on_new: new.sessions_made(context) - made_on_new_before,
            left,
            drain: drain_of(&running),
        }
    })
}

/// The drain of the old release, of which `tidegate wait` tells the end with its exit code.
fn drain_of(running: &Running) -> Option<Value> {
    let Running::Tidegate(tidegate) = running else { return None };
    let drains = tidegate.admin_get("/api/v1/drains");
    let all = drains["drains"].as_array().expect("a list of drains");
    let drain = all.iter().find(|drain| drain["target"] == "shop/v1").unwrap_or_else(|| panic!("no drain of v1 in {drains}"));
    if drain["state"] == "drained" {
        tidegate.cli(&["wait", drain["id"].as_str().expect("a drain has an id")]).expect_code(0);
    }
    Some(drain.clone())
}

impl Report {
    fn returns(&self) -> impl Iterator<Item = &Return> {
        self.stories.iter().flat_map(|story| &story.returns)
    }

    fn returns_to(&self, release: &str) -> usize {
        self.returns().filter(|visit| visit.release == release).count()
    }

    /// When the last session that the deploy found was over.
    fn last_end(&self) -> Duration {
        self.stories.iter().map(|story| story.ended).max().expect("there were people")
    }

    /// True of every proxy here: all keep people on their release, else there would be nothing to compare.
    fn assert_nobody_was_moved(&self) {
        let everybody = self.stories.len() + EARLY_CRAWLS;
        assert_eq!(self.before_deploy, everybody, "{}: sessions before the deploy", self.contestant.name);
        let lost: Vec<&Story> = self.stories.iter().filter(|story| story.lost.is_some()).collect();
        assert!(lost.is_empty(), "{}: {} people lost their session: {lost:#?}", self.contestant.name, lost.len());
    }
}

/// What the drain promises.
fn judge(report: &Report) {
    let name = report.contestant.name;
    report.assert_nobody_was_moved();
    let verdict = report.verdict.unwrap_or_else(|| panic!("{name}: not drained; {:?}\n{:?}", report.left, report.drain));
    let end = report.last_end();
    assert!(verdict + CLOCKS >= end, "{name}: drained after {verdict:?}, but the last session lived until {end:?}");
    assert!(verdict <= end + PROMPT, "{name}: drained after {verdict:?}, and the last session had ended after {end:?}");
    assert!(report.held_at_verdict.is_empty(), "{name}: sessions of people at the verdict: {:?}", report.held_at_verdict);
    let early = report.returns().filter(|visit| visit.at < verdict).count();
    assert!(early >= RETURNERS, "{name}: {early} people came back while the drain was under way");
    for visit in report.returns() {
        assert_eq!((visit.release.as_str(), visit.counters, visit.ids.len()), ("v2", [1, 2, 3], 1), "{name}: {visit:?}");
    }
    assert_eq!(report.made_on_old, 0, "{name}: sessions made on the old Tomcat after the drain began");
    assert_eq!(report.made_on_new, report.returns().count() + LATE_CRAWLS, "{name}: sessions made on the new Tomcat");
    let ended = |kind: &str| {
        let drain = report.drain.as_ref().expect("tidegate has drains");
        drain["ended"][kind].as_u64().unwrap_or_else(|| panic!("{name}: {drain}")) as usize
    };
    let logs_out = |story: &&Story| matches!(story.script.ending, Ending::LogsOut(_) | Ending::Socket(_, true));
    let logouts = report.stories.iter().filter(logs_out).count();
    let others = report.stories.len() - logouts;
    let counted = ["logout", "idle", "unconfirmed", "moved", "lost", "evicted"].map(ended);
    assert_eq!(counted, [logouts, others, EARLY_CRAWLS, 0, 0, 0], "{name}: ended by logout, idle, unconfirmed, moved, lost, evicted");
}

/// What every other load balancer does: whoever comes back makes a session on the release that should run empty.
fn judge_endless(report: &Report) {
    let name = report.contestant.name;
    report.assert_nobody_was_moved();
    assert_eq!(report.returns_to("v2"), 0, "{name}: README says that nobody is moved");
    assert_eq!(report.made_on_old, report.returns().count(), "{name}: sessions made on the old Tomcat");
    assert!(report.held_at_end > 0, "{name}: README says that it does not reach zero");
}

/// HAProxy's remedy, in all fairness: it does reach zero, and has no word for it.
fn judge_maxidle(report: &Report) {
    let name = report.contestant.name;
    report.assert_nobody_was_moved();
    assert_eq!(report.returns_to("v1"), 0, "{name}: README says that it moves them");
    assert_eq!((report.made_on_old, report.held_at_end), (0, 0), "{name}: sessions on the old Tomcat, made and left");
}

/// The comparison as README shows it.
fn table(reports: &[Report], window: Duration) -> String {
    let marks: Vec<u64> = [60, 120, 300, 600].into_iter().filter(|mark| *mark <= window.as_secs()).collect();
    let mut text = String::from("| the same crowd through | came back after the timeout | to the old release | sessions made there |");
    for mark in &marks {
        write!(text, " there after {} min |", mark / 60).unwrap();
    }
    text += " fewest there | says that it is over |\n|---|--:|--:|--:|--:|--:|";
    text += &"--:|".repeat(marks.len());
    for report in reports {
        let Report { contestant, made_on_old, left, verdict, .. } = report;
        write!(text, "\n| {} | {} | {} | {made_on_old} |", contestant.name, report.returns().count(), report.returns_to("v1")).unwrap();
        for mark in &marks {
            let sample = left.iter().rfind(|(at, _)| at.as_secs() <= *mark);
            write!(text, " {} |", sample.expect("the first sample is at the deploy").1).unwrap();
        }
        let fewest = left.iter().map(|(_, count)| count).min().expect("there are samples");
        let late = verdict.map(|verdict| verdict.as_secs_f64() - report.last_end().as_secs_f64());
        let word = late.map_or_else(|| "never".to_owned(), |late| format!("{late:.1} s after the last session"));
        write!(text, " {fewest} | {word} |").unwrap();
    }
    text
}
