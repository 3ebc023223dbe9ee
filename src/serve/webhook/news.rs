//! Which drains have something to tell that has not been told. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::drain::{Drain, DrainState};
use crate::model::settings::DrainThen;
use crate::model::target::Target;
use crate::model::time::Time;
use crate::model::view::{App, View};

/// After a deadline, the last exchanges may take this long to leave, and the fence to close; as `cli::wait` has it.
const LEAVING: Duration = Duration::from_secs(10);

/// What is told of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Its deadline has passed, and it goes on: sessions are left, or something else holds it (exchanges, doubt).
    Late,
    /// It is over.
    Over(DrainState),
}

impl Word {
    /// The `verdict` of the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Word::Late => "late",
            Word::Over(state) => state.as_str(),
        }
    }
}

/// What has been told of each drain that is still remembered.
#[derive(Debug, Default)]
pub struct Told(HashMap<u64, Mark>);

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// The deadline that passed; a later one may pass too.
    late: Option<Time>,
    over: bool,
}

impl Told {
    /// As if the end of all that are over had been told.
    pub fn from_now_on(drains: &[Drain]) -> Told {
        Told(drains.iter().map(|drain| (drain.id, Mark { over: !drain.state.runs(), ..Mark::default() })).collect())
    }

    /// What is new, in the order of the drains; told by being answered.
    pub fn news<'a>(&mut self, drains: &'a [Drain], view: &View, now: Time) -> Vec<(&'a Drain, Word)> {
        let mut marks = HashMap::with_capacity(drains.len());
        let mut news = Vec::new();
        for drain in drains {
            let mut mark = self.0.get(&drain.id).copied().unwrap_or_default();
            if drain.state.runs() {
                let missed = drain.deadline.filter(|deadline| mark.late != Some(*deadline) && late(drain, *deadline, view, now));
                if missed.is_some() {
                    mark.late = missed;
                    news.push((drain, Word::Late));
                }
            } else if !mark.over {
                mark.over = true;
                news.push((drain, Word::Over(drain.state)));
            }
            marks.insert(drain.id, mark);
        }
        // Drains that are forgotten leave with the old table.
        self.0 = marks;
        news
    }
}

/// Whether a deadline was missed: at once where it leaves whoever is there, else when they have had the time to leave.
fn late(drain: &Drain, deadline: Time, view: &View, now: Time) -> bool {
    if now < deadline {
        return false;
    }
    now >= deadline + LEAVING || (drain.then != DrainThen::Evict && drain.progress(view, now).remaining() > 0)
}

/// Whether a drain concerns an app, also when its release is gone by now.
pub fn covers(drain: &Drain, app: &App, view: &View) -> bool {
    match &drain.target {
        Target::Release(name, _) | Target::Backend(name, _, _) => **name == *app.name,
        Target::Host(_) => drain.target.backends(view).iter().any(|(of, _)| of.name == app.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Owner;
    use crate::model::ledger::{Attention, EndReason};
    use crate::model::session_key::SessionKey;
    use crate::model::sketch::World;

    const MINUTE: Duration = Duration::from_secs(60);

    fn words(told: &mut Told, drain: &Drain, world: &World) -> Vec<&'static str> {
        told.news(std::slice::from_ref(drain), &world.view, world.now).into_iter().map(|(_, word)| word.as_str()).collect()
    }

    #[test]
    fn each_verdict_and_each_deadline_that_passes_with_sessions_left_is_told_once() {
        let mut world = World::new(">v1:a1 v2:b1");
        let key = SessionKey([1; 16]);
        let slot = world.backend("a1").slot;
        world.shop().ledger.born(key, slot, 0, world.now);
        world.shop().ledger.enter(key, Attention::Foreground, world.now);
        let mut drain = Drain::new(1, Target::parse("shop/v1").unwrap(), Owner::Operator, &world.view, world.now);
        let mut told = Told::default();
        assert_eq!(words(&mut told, &drain, &world), [""; 0]);
        drain.deadline = Some(world.now + MINUTE);
        assert_eq!(words(&mut told, &drain, &world), [""; 0]);
        world.pass(MINUTE);
        assert_eq!(words(&mut told, &drain, &world), ["late"]);
        world.pass(MINUTE);
        assert_eq!(words(&mut told, &drain, &world), [""; 0]);
        drain.deadline = Some(world.now + MINUTE);
        assert_eq!(words(&mut told, &drain, &world), [""; 0]);
        world.pass(MINUTE);
        assert_eq!(words(&mut told, &drain, &world), ["late"], "another deadline");
        drain.deadline = Some(world.now + MINUTE);
        world.shop().ledger.end(key, EndReason::Logout, 0, world.now);
        world.pass(MINUTE);
        assert_eq!(words(&mut told, &drain, &world), [""; 0], "nobody is left: it may end at once");
        drain.finish(DrainState::Superseded, &world.view, world.now);
        assert_eq!(words(&mut told, &drain, &world), ["superseded"]);
        assert_eq!(words(&mut told, &drain, &world), [""; 0]);
        let mut fresh = Told::from_now_on(std::slice::from_ref(&drain));
        assert_eq!(words(&mut fresh, &drain, &world), [""; 0], "from before the start");
    }

    #[test]
    fn a_drain_that_hangs_without_sessions_is_late_too() {
        let check = |then: DrainThen, live: bool, after: u64, expected: &[&str]| {
            let mut world = World::new(">v1:a1 v2:b1");
            let (key, slot) = (SessionKey([1; 16]), world.backend("a1").slot);
            world.shop().ledger.born(key, slot, 0, world.now);
            if live {
                world.shop().ledger.enter(key, Attention::Foreground, world.now);
            }
            let mut drain = Drain::new(1, Target::parse("shop/v1").unwrap(), Owner::Operator, &world.view, world.now);
            (drain.deadline, drain.then) = (Some(world.now + MINUTE), then);
            let mut told = Told::default();
            world.pass(MINUTE - Duration::from_millis(1));
            assert_eq!(words(&mut told, &drain, &world), [""; 0], "before the deadline");
            world.pass(Duration::from_millis(1) + Duration::from_secs(after));
            assert_eq!(words(&mut told, &drain, &world), expected, "{then:?} live: {live}, {after} s after the deadline");
        };
        check(DrainThen::Keep, true, 0, &["late"]);
        check(DrainThen::MoveIdle, true, 0, &["late"]);
        check(DrainThen::Evict, true, 9, &[]);
        check(DrainThen::Evict, true, 10, &["late"]);
        for then in [DrainThen::Keep, DrainThen::MoveIdle, DrainThen::Evict] {
            check(then, false, 9, &[]);
            check(then, false, 10, &["late"]);
        }
    }

    #[test]
    fn a_drain_concerns_its_app_even_after_its_release_is_gone() {
        let world = World::new(">v1:a1 v2:b1");
        let check = |target: &str, expected: bool| {
            let drain = Drain::new(1, Target::parse(target).unwrap(), Owner::Operator, &world.view, world.now);
            assert_eq!(covers(&drain, world.shop(), &world.view), expected, "{target}");
        };
        check("shop/v1", true);
        check("shop/v1/a1", true);
        check("shop/gone", true);
        check("wiki/v1", false);
        check("host:10.0.0.1", true);
        check("host:10.0.0.9", false);
    }
}
