//! One answer out of several proxies' answers. Pure: what goes in is what the APIs said.
//!
//! Counts are summed, so a session that two proxies have seen counts twice: too many, never too few. What is no count is compared, and
//! where proxies disagree the words of all stand side by side, so that no script takes one of them for the truth.

use serde::Serialize;

use crate::api::{AppStatus, BackendStatus, Bucket, DrainStatus, Ended, Eta, Named, ReleaseStatus, Sessions, SessionsReport, Status};

/// An answer, and the address it came from.
pub type From<'a, T> = (&'a str, T);

/// What several proxies say together.
#[derive(Debug, Serialize)]
pub struct Merged<T> {
    /// The one document, in the form of a single answer.
    #[serde(flatten)]
    pub whole: T,
    /// Whose answers it is made of.
    pub asked: Vec<String>,
    /// Who did not answer, and why.
    pub no_answer: Vec<String>,
    /// Where they disagree.
    pub differences: Vec<String>,
}

/// All status documents as one.
pub fn statuses(all: &[From<Status>]) -> (Status, Vec<String>) {
    let mut differences = Vec::new();
    let version = same(&mut differences, "version", &words(all, |status| status.version.clone()));
    let apps = union(&mut differences, "app", all, |status| &status.apps, app);
    let drains = paired(all).iter().map(|pair| drain_of(&mut differences, pair, all.len())).collect();
    let stopping: Vec<&str> = all.iter().filter(|(_, status)| status.stopping).map(|(url, _)| *url).collect();
    if !stopping.is_empty() && stopping.len() < all.len() {
        differences.push(format!("stopping: {}", stopping.join(", ")));
    }
    let mut differs: Vec<String> = all.iter().flat_map(|(_, status)| status.differs.clone()).collect();
    differs.sort();
    differs.dedup();
    (Status { version, stopping: !stopping.is_empty(), differs, apps, drains }, differences)
}

fn app(differences: &mut Vec<String>, name: &str, all: &[From<&AppStatus>]) -> AppStatus {
    let current = same(differences, &format!("{name}: current"), &words(all, |app| app.current.clone()));
    AppStatus { current, releases: union(differences, &format!("release {name}/"), all, |app| &app.releases, release) }
}

fn release(differences: &mut Vec<String>, name: &str, all: &[From<&ReleaseStatus>]) -> ReleaseStatus {
    let state = same(differences, &format!("{name}: state"), &words(all, |release| release.state.clone()));
    let backends = union(differences, &format!("backend {name}/"), all, |release| &release.backends, backend);
    ReleaseStatus { state, sessions: sum(all.iter().map(|(_, release)| release.sessions)), backends }
}

fn backend(differences: &mut Vec<String>, name: &str, all: &[From<&BackendStatus>]) -> BackendStatus {
    let mut compared = |what: &str, read: fn(&BackendStatus) -> &String| {
        same(differences, &format!("{name}: {what}"), &words(all, |backend| read(backend).clone()))
    };
    let (address, intent, health) =
        (compared("address", |b| &b.address), compared("intent", |b| &b.intent), compared("health", |b| &b.health));
    BackendStatus {
        address,
        intent,
        health,
        // Follows from the others: a difference has been told with them.
        admission: same(&mut Vec::new(), "", &words(all, |backend| backend.admission.clone())),
        incarnation: all.iter().map(|(_, backend)| backend.incarnation).max().unwrap_or_default(),
        in_flight: all.iter().map(|(_, backend)| backend.in_flight).sum(),
        sessions: sum(all.iter().map(|(_, backend)| backend.sessions)),
        // They asked the same backend.
        counted: all.iter().filter_map(|(_, backend)| backend.counted).max(),
    }
}

/// The n-th last drain of a target on each proxy is the n-th last on the others; numbers differ from proxy to proxy.
fn paired<'a>(all: &'a [From<'a, Status>]) -> Vec<Vec<From<'a, &'a DrainStatus>>> {
    let mut pairs: Vec<(&str, usize, Vec<From<&DrainStatus>>)> = Vec::new();
    for (url, status) in all {
        for (at, drain) in status.drains.iter().enumerate() {
            let later = status.drains.iter().skip(at + 1).filter(|other| other.target == drain.target).count();
            match pairs.iter_mut().find(|(target, nth, _)| *target == drain.target && *nth == later) {
                Some((_, _, pair)) => pair.push((url, drain)),
                None => pairs.push((&drain.target, later, vec![(url, drain)])),
            }
        }
    }
    let mut pairs: Vec<_> = pairs.into_iter().map(|(_, _, pair)| pair).collect();
    pairs.sort_by_key(|pair| pair.iter().map(|(_, drain)| drain.started.clone()).min());
    pairs
}

/// As [`drain`]; one that is not known to all is told so.
fn drain_of(differences: &mut Vec<String>, pair: &[From<&DrainStatus>], asked: usize) -> DrainStatus {
    let (whole, different) = drain(pair);
    differences.extend(different);
    if pair.len() == asked {
        return whole;
    }
    let known: Vec<&str> = pair.iter().map(|(url, _)| *url).collect();
    if whole.verdict.is_none() {
        differences.push(format!("{} drains on {} only", whole.target, known.join(", ")));
    }
    // Not the plain word, which speaks for all.
    DrainStatus { verdict: whole.verdict.map(|verdict| format!("{verdict} on {}", known.join(", "))), ..whole }
}

/// The drains of one target on several proxies as one: over when all are, sure when all are, empty when the last is. Where those that
/// people came by are drained, a standby has nothing to add.
pub fn drain(all: &[From<&DrainStatus>]) -> (DrainStatus, Vec<String>) {
    let (standbys, visited): (Vec<_>, Vec<_>) = all.iter().copied().partition(|(_, d)| d.stands_by);
    if standbys.is_empty() || visited.is_empty() || !visited.iter().all(|(_, d)| d.verdict.as_deref() == Some("drained")) {
        return drain_of_all(all);
    }
    let (whole, mut differences) = drain_of_all(&visited);
    differences.extend(standbys.iter().map(|(url, _)| not_visited(&whole.target, url)));
    (whole, differences)
}

/// What a verdict must not hide.
pub fn not_visited(target: &str, url: &str) -> String {
    format!("drain of {target}: proxy {url} was not visited since it began")
}

fn drain_of_all(all: &[From<&DrainStatus>]) -> (DrainStatus, Vec<String>) {
    let mut differences = Vec::new();
    let Some((_, first)) = all.first() else { return (DrainStatus::default(), differences) };
    let target = first.target.clone();
    let total = |read: fn(&DrainStatus) -> u64| all.iter().map(|(_, d)| read(d)).sum::<u64>();
    let latest = |read: fn(&DrainStatus) -> &Option<String>| all.iter().filter_map(|(_, d)| read(d).clone()).max();
    let over = all.iter().all(|(_, d)| d.verdict.is_some());
    let (initial, remaining) = (total(|d| d.initial), total(|d| d.remaining));
    let state = match all.iter().all(|(_, d)| d.state == first.state) {
        true => first.state.clone(),
        // One that is a step ahead is no disagreement.
        false if !over => "draining".to_owned(),
        false => same(&mut differences, &format!("drain of {target}"), &words(all, |d| d.state.clone())),
    };
    let unsure = all.iter().find(|(_, d)| !d.confident);
    let eta = |read: fn(&Eta) -> Option<u64>| {
        let waiting = all.iter().filter(|(_, d)| d.verdict.is_none() && d.remaining > 0);
        waiting.map(|(_, d)| read(&d.eta_seconds)).collect::<Option<Vec<u64>>>().and_then(|etas| etas.into_iter().max())
    };
    let ids_agree = all.iter().all(|(_, d)| d.id == first.id);
    let whole = DrainStatus {
        // `tidegate wait` takes either.
        id: if ids_agree { first.id.clone() } else { target.clone() },
        owner: same(&mut Vec::new(), "", &words(all, |d| d.owner.clone())),
        started: all.iter().map(|(_, d)| d.started.clone()).min().unwrap_or_default(),
        initial,
        remaining,
        progress: if initial == 0 { 1.0 } else { 1.0 - remaining.min(initial) as f64 / initial as f64 },
        confident: unsure.is_none(),
        confidence: unsure.map(|(url, d)| {
            let why = d.confidence.as_deref().unwrap_or("sessions from before may exist");
            if all.len() > 1 { format!("{why} ({url})") } else { why.to_owned() }
        }),
        stands_by: all.iter().all(|(_, d)| d.stands_by),
        eta_seconds: Eta { p50: eta(|eta| eta.p50), p90: eta(|eta| eta.p90), p99: eta(|eta| eta.p99) },
        eta_missing: all.iter().find_map(|(_, d)| d.eta_missing.clone().filter(|_| d.remaining > 0)),
        upper_bound_seconds: all.iter().filter_map(|(_, d)| d.upper_bound_seconds).max(),
        deadline: latest(|d| &d.deadline),
        ended: ended(all.iter().map(|(_, d)| d.ended)),
        verdict: over.then(|| state.clone()),
        deadline_in_seconds: all.iter().filter_map(|(_, d)| d.deadline_in_seconds).max(),
        then: same(&mut differences, &format!("drain of {target}: then"), &words(all, |d| d.then.clone())),
        sessions: sum(all.iter().map(|(_, d)| d.sessions)),
        in_flight: total(|d| d.in_flight),
        backends: all.iter().map(|(_, d)| d.backends).max().unwrap_or_default(),
        // Whoever is reached by one is not dead.
        backends_down: all.iter().map(|(_, d)| d.backends_down).min().unwrap_or_default(),
        finished: if over { latest(|d| &d.finished) } else { None },
        state,
        target,
    };
    (whole, differences)
}

/// All reports of sessions as one. Lists stand one after the other: each proxy has handles of its own.
pub fn sessions(all: &[From<SessionsReport>]) -> (SessionsReport, Vec<String>) {
    let mut differences = Vec::new();
    let releases = union(&mut differences, "release ", all, |report| &report.releases, |_, _, all| sum(all.iter().map(|(_, s)| **s)));
    let lists: Vec<_> = all.iter().filter_map(|(_, report)| report.list.clone()).collect();
    let report = SessionsReport {
        app: all.first().map_or_else(String::new, |(_, report)| report.app.clone()),
        sessions: sum(all.iter().map(|(_, report)| report.sessions)),
        releases,
        ages: buckets(all, |report| &report.ages),
        idle: buckets(all, |report| &report.idle),
        list: if lists.is_empty() { None } else { Some(lists.concat()) },
        truncated: all.iter().any(|(_, report)| report.truncated),
    };
    (report, differences)
}

fn buckets(all: &[From<SessionsReport>], read: fn(&SessionsReport) -> &Vec<Bucket>) -> Vec<Bucket> {
    let mut whole: Vec<Bucket> = Vec::new();
    for bucket in all.iter().flat_map(|(_, report)| read(report)) {
        match whole.iter_mut().find(|known| known.up_to_seconds == bucket.up_to_seconds) {
            Some(known) => known.sessions += bucket.sessions,
            None => whole.push(*bucket),
        }
    }
    whole
}

/// What every proxy has under the same name, in the order of the first that has it. `what` begins what is said of one that is missing.
fn union<'a, T, V: 'a, W>(
    differences: &mut Vec<String>,
    what: &str,
    all: &'a [From<'a, T>],
    read: impl Fn(&'a T) -> &'a Named<V>,
    merge: impl Fn(&mut Vec<String>, &str, &[From<&'a V>]) -> W,
) -> Named<W> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in all.iter().flat_map(|(_, answer)| read(answer).iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let path = what.rsplit(' ').next().filter(|path| path.ends_with('/')).unwrap_or_default();
    let one = |name: &str| {
        let found: Vec<From<&V>> = all.iter().filter_map(|(url, answer)| Some((*url, read(answer).get(name)?))).collect();
        let missing: Vec<&str> = all.iter().filter(|(_, answer)| read(answer).get(name).is_none()).map(|(url, _)| *url).collect();
        if !missing.is_empty() {
            differences.push(format!(
                "{}{name} is not on {}",
                if path.is_empty() { format!("{} ", what.trim()) } else { what.to_owned() },
                missing.join(", ")
            ));
        }
        (name.to_owned(), merge(differences, &format!("{path}{name}"), &found))
    };
    names.into_iter().map(one).collect()
}

fn words<'a, T>(all: &[From<'a, T>], read: impl Fn(&T) -> String) -> Vec<From<'a, String>> {
    all.iter().map(|(url, answer)| (*url, read(answer))).collect()
}

/// The one word of all, or all their words.
fn same(differences: &mut Vec<String>, what: &str, words: &[From<String>]) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for (_, word) in words {
        if !distinct.contains(&word.as_str()) {
            distinct.push(word);
        }
    }
    if distinct.len() > 1 {
        let told: Vec<String> = words.iter().map(|(url, word)| format!("{word} on {url}")).collect();
        differences.push(format!("{what}: {}", told.join(", ")));
    }
    distinct.join(" | ")
}

fn sum(all: impl Iterator<Item = Sessions>) -> Sessions {
    all.fold(Sessions::default(), |a, b| Sessions {
        live: a.live + b.live,
        engaged: a.engaged + b.engaged,
        kept_alive: a.kept_alive + b.kept_alive,
        unconfirmed: a.unconfirmed + b.unconfirmed,
    })
}

fn ended(all: impl Iterator<Item = Ended>) -> Ended {
    all.fold(Ended::default(), |a, b| Ended {
        logout: a.logout + b.logout,
        idle: a.idle + b.idle,
        lifetime: a.lifetime + b.lifetime,
        moved: a.moved + b.moved,
        lost: a.lost + b.lost,
        evicted: a.evicted + b.evicted,
        unconfirmed: a.unconfirmed + b.unconfirmed,
    })
}

#[cfg(test)]
mod tests {
    use super::super::screen::example_drain;
    use super::*;

    /// A status document with one release and one backend, in these words: current, state, health, live sessions.
    fn status(current: &str, state: &str, health: &str, live: u64) -> Status {
        let sessions = Sessions { live, engaged: live, ..Sessions::default() };
        let text = format!(
            r#"{{"version":"1","apps":{{"shop":{{"current":"{current}","releases":{{"v41":{{"state":"{state}",
              "sessions":{{"live":{live},"engaged":{live},"kept_alive":0,"unconfirmed":0}},"backends":{{"a1":{{"address":"h:1","intent":"serve",
              "health":"{health}","admission":"everyone","incarnation":1,"in_flight":2,
              "sessions":{{"live":{live},"engaged":{live},"kept_alive":0,"unconfirmed":0}}}}}}}}}}}}}},"drains":[]}}"#
        );
        let status: Status = serde_json::from_str(&text).expect("a fixed document");
        assert_eq!(status.apps.get("shop").and_then(|app| app.releases.get("v41")).map(|r| r.sessions), Some(sessions));
        status
    }

    #[test]
    fn counts_are_summed_and_words_are_compared() {
        let check = |one: Status, two: Status, current: &str, state: &str, live, expected: &[&str]| {
            let (whole, differences) = statuses(&[("A", one), ("B", two)]);
            let app = whole.apps.get("shop").expect("the app");
            let v41 = app.releases.get("v41").expect("the release");
            let a1 = v41.backends.get("a1").expect("the backend");
            assert_eq!((app.current.as_str(), v41.state.as_str(), v41.sessions.live, a1.sessions.live), (current, state, live, live));
            assert_eq!(a1.in_flight, 4);
            assert_eq!(differences, expected);
        };
        let agreed = || status("v41", "current", "up", 3);
        check(agreed(), status("v41", "current", "up", 4), "v41", "current", 7, &[]);
        check(
            agreed(),
            status("v42", "draining", "up", 0),
            "v41 | v42",
            "current | draining",
            3,
            &["shop: current: v41 on A, v42 on B", "shop/v41: state: current on A, draining on B"],
        );
        check(agreed(), status("v41", "current", "down", 0), "v41", "current", 3, &["shop/v41/a1: health: up on A, down on B"]);
    }

    #[test]
    fn what_one_of_them_does_not_have_is_named() {
        let mut bare = status("v41", "current", "up", 1);
        let release = bare.apps.0[0].1.releases.0[0].1.clone();
        bare.apps.0[0].1.releases.0.push(("v42".to_owned(), release));
        let (whole, differences) = statuses(&[("A", bare), ("B", status("v41", "current", "up", 1))]);
        assert_eq!(differences, ["release shop/v42 is not on B"]);
        assert!(whole.apps.get("shop").expect("the app").releases.get("v42").is_some());
        let empty = Status { apps: Named::default(), ..status("v41", "current", "up", 1) };
        assert_eq!(statuses(&[("A", status("v41", "current", "up", 1)), ("B", empty)]).1, ["app shop is not on B"]);
    }

    #[test]
    fn a_drain_is_over_when_it_is_over_everywhere() {
        let check = |change: fn(&mut DrainStatus, &mut DrainStatus), look: fn(&DrainStatus) -> String, expected: &str| {
            let (mut one, mut two) = (example_drain(), example_drain());
            change(&mut one, &mut two);
            assert_eq!(look(&drain(&[("A", &one), ("B", &two)]).0), expected);
        };
        let drained = |d: &mut DrainStatus| (d.verdict, d.state, d.remaining) = (Some("drained".to_owned()), "drained".to_owned(), 0);
        let verdict = |d: &DrainStatus| format!("{:?} {}", d.verdict, d.state);
        check(|_, _| (), |d| format!("{} of {}, {}", d.remaining, d.initial, d.progress > 0.69), "24 of 80, true");
        check(|_, _| (), verdict, "None draining");
        check(|one, _| (one.verdict, one.state) = (Some("drained".into()), "drained".into()), verdict, "None draining");
        check(
            |_, two| two.confident = false,
            |d| format!("{} {:?}", d.confident, d.confidence),
            "false Some(\"sessions from before may exist (B)\")",
        );
        check(
            |one, two| (one.eta_seconds.p50, two.eta_seconds.p50) = (Some(60), Some(90)),
            |d| format!("{:?}", d.eta_seconds.p50),
            "Some(90)",
        );
        check(|one, _| one.eta_seconds.p50 = Some(60), |d| format!("{:?}", d.eta_seconds.p50), "None");
        check(|_, two| two.id = "d9".into(), |d| d.id.clone(), "shop/v41");
        let (mut one, mut two) = (example_drain(), example_drain());
        drained(&mut one);
        drained(&mut two);
        assert_eq!(verdict(&drain(&[("A", &one), ("B", &two)]).0), "Some(\"drained\") drained");
        two.state = "cancelled".to_owned();
        let (whole, differences) = drain(&[("A", &one), ("B", &two)]);
        assert_eq!(verdict(&whole), "Some(\"drained | cancelled\") drained | cancelled");
        assert_eq!(differences, ["drain of shop/v41: drained on A, cancelled on B"]);
    }

    #[test]
    fn a_standby_adds_nothing_to_the_verdict_of_those_that_people_came_by() {
        let drained = || DrainStatus { verdict: Some("drained".to_owned()), state: "drained".to_owned(), remaining: 0, ..example_drain() };
        let standby = || DrainStatus { stands_by: true, confident: false, remaining: 0, ..example_drain() };
        let cancelled = || DrainStatus { verdict: Some("cancelled".to_owned()), state: "cancelled".to_owned(), ..example_drain() };
        let check = |all: &[DrainStatus], verdict: Option<&str>, confident, expected: &[&str]| {
            let named: Vec<From<&DrainStatus>> = ["A", "B", "C"].into_iter().zip(all).collect();
            let (whole, differences) = drain(&named);
            assert_eq!((whole.verdict.as_deref(), whole.confident), (verdict, confident), "{all:?}");
            assert_eq!(differences, expected);
        };
        let b_was_not = "drain of shop/v41: proxy B was not visited since it began";
        check(&[drained(), standby()], Some("drained"), true, &[b_was_not]);
        check(&[drained(), standby(), drained()], Some("drained"), true, &[b_was_not]);
        check(&[drained(), standby(), example_drain()], None, false, &[]);
        check(&[standby(), standby()], None, false, &[]);
        check(&[standby()], None, false, &[]);
        check(&[cancelled(), standby()], None, false, &[]);
    }

    #[test]
    fn a_drain_that_one_does_not_know_never_says_the_plain_word() {
        let with = |state: &str, verdict: Option<&str>| {
            let drain = DrainStatus { state: state.to_owned(), verdict: verdict.map(str::to_owned), ..example_drain() };
            Status { drains: vec![drain], ..status("v41", "current", "up", 0) }
        };
        let (whole, differences) = statuses(&[("A", with("drained", Some("drained"))), ("B", status("v41", "current", "up", 0))]);
        assert_eq!((whole.drains[0].verdict.as_deref(), differences.len()), (Some("drained on A"), 0));
        let (whole, differences) = statuses(&[("A", with("draining", None)), ("B", status("v41", "current", "up", 0))]);
        assert_eq!((whole.drains[0].verdict.as_deref(), differences), (None, vec!["shop/v41 drains on A only".to_owned()]));
    }

    #[test]
    fn the_last_drains_of_a_target_belong_together() {
        let drain = |id: &str, target: &str, started: &str| DrainStatus {
            id: id.to_owned(),
            target: target.to_owned(),
            started: started.to_owned(),
            ..example_drain()
        };
        let one = Status {
            drains: vec![drain("d1", "x", "1"), drain("d2", "y", "2"), drain("d3", "x", "3")],
            ..status("v41", "current", "up", 0)
        };
        let two = Status { drains: vec![drain("d1", "x", "4")], ..status("v41", "current", "up", 0) };
        let whole = statuses(&[("A", one), ("B", two)]).0;
        let told: Vec<_> = whole.drains.iter().map(|d| (d.id.as_str(), d.target.as_str(), d.initial)).collect();
        assert_eq!(told, [("d1", "x", 40), ("d2", "y", 40), ("x", "x", 80)]);
    }
}
