//! The whole demo at the pace of a machine: the real proxy, the real users, a drain with people on it.

use std::sync::Mutex;

use super::scene::Act;
use super::*;
use crate::model::drain::DrainState;

/// Remembers what was shown.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Scene>>>);

impl Watch for Memory {
    fn show(&mut self, scene: &Scene, _: &Setting) -> io::Result<()> {
        self.0.lock().unwrap().push(scene.clone());
        Ok(())
    }
}

#[test]
fn a_deploy_in_front_of_people_disturbs_nobody() {
    let memory = Memory::default();
    let watch = memory.clone();
    let played = play(Pace::hurried(), Keep::Nothing, || Box::new(watch)).unwrap();
    let summary = screen::summary(&played.last).join("\n");
    assert!(played.good, "{summary}");
    assert_eq!((played.last.act, played.last.census.disturbed), (Act::SwitchedOff, 0), "{summary}");
    let census = &played.last.census;
    let drain = played.last.drain.as_ref().unwrap();
    assert_eq!((drain.state, drain.remaining() + drain.unconfirmed), (DrainState::Drained, 0), "{summary}");
    assert!(drain.initial >= 5, "nobody was there when the drain began: {summary}");
    assert!(census.newcomers.get("v2").is_some_and(|people| *people >= 5), "{summary}");
    assert_eq!(census.newcomers.get("v1"), None, "{summary}");
    assert!(census.logged_out > 0 && census.left > 0 && census.returned > 0 && census.crawled > 0, "{census:?}");
    let scenes = memory.0.lock().unwrap();
    let under_way = |scene: &Scene| scene.drain.as_ref().is_some_and(|drain| drain.state == DrainState::Draining && drain.engaged > 0);
    assert!(scenes.iter().any(under_way), "no frame shows people on the draining release");
}

#[test]
fn nobody_watching_ends_it_at_once() {
    struct Closed;
    impl Watch for Closed {
        fn show(&mut self, _: &Scene, _: &Setting) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let played = play(Pace::hurried(), Keep::Nothing, || Box::new(Closed));
    assert!(matches!(played, Err(DemoError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe));
}
