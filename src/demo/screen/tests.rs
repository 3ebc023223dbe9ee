//! What people see: at every size all lines fit, and the facts are in them.

use super::*;
use crate::demo::users::Census;
use crate::model::drain::Outlook;

fn scene(act: Act) -> Scene {
    let release = |name: &str, state, live| ReleaseRow {
        name: name.to_owned(),
        state,
        live,
        backends: vec![("a1".to_owned(), live / 2, "up"), ("a2".to_owned(), live - live / 2, "up")],
    };
    let [p50, p90, p99] = [11, 22, 33].map(Duration::from_secs);
    let eta = Eta { p50, p90, p99 };
    let drain = DrainRow {
        id: 1,
        target: "shop/v1".to_owned(),
        state: DrainState::Draining,
        initial: 40,
        engaged: 6,
        silent: 4,
        unconfirmed: 2,
        in_flight: 1,
        ended: [21, 9, 0, 0, 0, 0, 3],
        doubt: None,
        outlook: Outlook { eta: Ok(eta), upper_bound: Some(Duration::from_secs(14)) },
        took: None,
    };
    let census = Census { present: 25, arrived: 120, newcomers: [("v2".to_owned(), 37)].into(), ..Census::default() };
    Scene {
        elapsed: Duration::from_secs(34),
        act,
        releases: vec![release("v1", "draining", 10), release("v2", "current", 20)],
        drain: (act >= Act::Draining).then_some(drain),
        census,
        events: (0..50).map(|n| (Duration::from_secs(n), format!("event {n}"))).collect(),
    }
}

fn setting() -> Setting {
    Setting { app_url: "http://127.0.0.1:40001/".to_owned(), admin_url: "http://127.0.0.1:40002/".to_owned(), ..Setting::default() }
}

fn shown(scene: &Scene, canvas: Canvas) -> String {
    let lines = render(scene, &setting(), canvas);
    let text = |line: &Line| line.0.iter().map(|(_, text)| text.as_str()).collect::<String>();
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[test]
fn everything_fits_at_every_size() {
    for act in [Act::Arriving, Act::Staged, Act::Draining, Act::Drained, Act::SwitchedOff] {
        for (columns, rows) in [(80, 24), (120, 40), (200, 60), (40, 10), (20, 5), (1, 1)] {
            for unicode in [true, false] {
                let text = shown(&scene(act), Canvas { columns, rows, unicode });
                assert!(text.lines().count() <= rows, "{act:?} {columns}x{rows}");
                assert!(text.lines().all(|line| line.chars().count() <= columns), "{act:?} {columns}x{rows}\n{text}");
                assert!(unicode || text.is_ascii(), "{act:?} {columns}x{rows}\n{text}");
            }
        }
    }
}

#[test]
fn the_facts_of_a_drain_are_on_a_small_screen() {
    let text = shown(&scene(Act::Draining), Canvas { columns: 80, rows: 24, unicode: true });
    for fact in [
        "v1 switched off",
        "http://127.0.0.1:40001/",
        "http://127.0.0.1:40002/",
        "0:34",
        "drain d1 of shop/v1",
        "10 sessions left, 40 at the start",
        " 75 %",
        "21 logged out, 9 timed out, 0 moved, 0 lost",
        "v1 0   v2 37",
        "people disturbed: 0",
        "the count is certain",
        "empty   in 11 s, nine times of ten in 22 s; 14 s if nobody clicks",
        "0:49 event 49",
    ] {
        assert!(text.contains(fact), "{fact}\n{text}");
    }
}

#[test]
fn a_drain_without_a_forecast_or_a_proof_says_why() {
    let check = |change: fn(&mut DrainRow), expected: &str| {
        let mut scene = scene(Act::Draining);
        scene.drain.as_mut().into_iter().for_each(change);
        let text = shown(&scene, Canvas { columns: 80, rows: 24, unicode: true });
        assert!(text.contains(&format!(" empty   {expected}\n")), "{expected}\n{text}");
    };
    check(|d| d.outlook.eta = Err(TooFew { ended: 7 }), "no forecast after 7 ended sessions; 14 s if nobody clicks");
    check(|d| d.doubt = Some("seen for 4s of 8s".to_owned()), "not known yet: seen for 4s of 8s");
    check(|d| (d.engaged, d.silent) = (0, 0), "now, but for the unconfirmed and those in flight");
    check(|d| d.state = DrainState::Drained, "yes, and nobody can come in any more");
    check(|d| d.state = DrainState::Cancelled, "-");
}

#[test]
fn nothing_jumps_when_the_drain_begins() {
    let canvas = Canvas { columns: 80, rows: 24, unicode: true };
    let row = |act| shown(&scene(act), canvas).lines().position(|line| line.contains("people disturbed"));
    assert!(row(Act::Arriving).is_some());
    assert_eq!(row(Act::Arriving), row(Act::Draining));
}

#[test]
fn a_disturbed_user_is_told_about() {
    let mut scene = scene(Act::Draining);
    scene.census.disturbed = 1;
    scene.census.stories = vec!["user 7: status 503".to_owned()];
    let text = shown(&scene, Canvas { columns: 80, rows: 24, unicode: true });
    assert!(text.contains("people disturbed: 1   user 7: status 503"), "{text}");
    assert!(summary(&scene).iter().any(|line| line.contains("user 7: status 503")));
}

#[test]
fn bars_show_that_something_is_left() {
    let check = |part, whole, expected| assert_eq!(portion(10, part, whole), expected, "{part} of {whole}");
    check(0, 100, 0);
    check(1, 100, 1);
    check(50, 100, 5);
    check(100, 100, 10);
    check(0, 0, 0);
}

#[test]
fn the_summary_says_whether_it_is_drained() {
    let check = |state, expected: &str| {
        let mut scene = scene(Act::Drained);
        if let Some(drain) = &mut scene.drain {
            drain.state = state;
            drain.took = Some(Duration::from_secs(31));
        }
        assert_eq!(summary(&scene).first().map(String::as_str), Some(expected));
    };
    check(DrainState::Drained, "shop/v1 is drained and fenced after 31 s.");
    check(DrainState::Draining, "shop/v1 is not drained: 10 sessions left.");
    check(DrainState::Superseded, "shop/v1 is not drained: 10 sessions left.");
}

#[test]
fn sessions_that_were_just_being_born_are_accounted_for() {
    let check = |initial, expected: &str| {
        let mut scene = scene(Act::Drained);
        if let Some(drain) = &mut scene.drain {
            (drain.state, drain.initial, drain.engaged, drain.silent) = (DrainState::Drained, initial, 0, 0);
        }
        assert_eq!(summary(&scene).get(1).map(String::as_str), Some(expected));
    };
    check(30, "Sessions: 30 at the start; 21 logged out, 9 timed out, 0 moved, 0 lost.");
    check(28, "Sessions: 28 at the start, 2 just being born; 21 logged out, 9 timed out, 0 moved, 0 lost.");
}
