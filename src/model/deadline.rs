//! By when each backend is to be empty, as the request path tells it: kept beside the backend's gate, where a request reads it without
//! a lock. Derived from the drains anew whenever they may have changed, so nothing has to be taken back one by one.

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::Live;
use super::drain::Drain;
use super::settings::DrainThen;
use super::time::Time;
use super::view::View;

/// Tells every backend by when it is to be empty: the earliest deadline of the drains that run, and of those that evict. Drains that
/// are over must be among them once, to take theirs back.
pub fn announce_deadlines<'a>(drains: impl IntoIterator<Item = &'a Drain>, view: &View) {
    let mut drains = drains.into_iter().filter(|drain| drain.deadline.is_some()).peekable();
    if drains.peek().is_none() {
        return;
    }
    let mut earliest: HashMap<*const Live, (Time, Option<Time>)> = HashMap::new();
    for drain in drains.filter(|drain| drain.state.runs()) {
        let Some(deadline) = drain.deadline else { continue };
        for (_, backend) in drain.target.backends(view) {
            let (at, evicts_at) = earliest.entry(Arc::as_ptr(&backend.live)).or_insert((deadline, None));
            *at = deadline.min(*at);
            if drain.then == DrainThen::Evict {
                *evicts_at = Some(evicts_at.map_or(deadline, |at| deadline.min(at)));
            }
        }
    }
    for backend in view.apps.iter().flat_map(|app| app.backends.iter().flatten()) {
        let (at, evicts_at) = earliest.get(&Arc::as_ptr(&backend.live)).copied().unzip();
        backend.live.set_deadline(at, evicts_at.flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::drain::DrainState;
    use crate::model::event::Owner;
    use crate::model::sketch::World;
    use crate::model::target::Target;

    #[test]
    fn the_earliest_deadline_of_the_drains_that_run_counts() {
        let world = World::new("v1:a1,a2 >v2:b1");
        let drain = |target: &str, hours: Option<u64>| {
            let target = Target::parse(target).expect("a target");
            let mut drain = Drain::new(1, target, Owner::Operator, &world.view, world.now);
            drain.deadline = hours.map(|hours| world.now + Duration::from_secs(3600 * hours));
            drain
        };
        let check = |drains: &[Drain], expected: [Option<u64>; 3]| {
            announce_deadlines(drains, &world.view);
            let told = ["a1", "a2", "b1"].map(|name| world.backend(name).live.deadline().map(|at| at.since(world.now).as_secs() / 3600));
            assert_eq!(told, expected);
        };
        let evicts = |drain: &Drain| {
            let mut drain = drain.clone();
            drain.then = DrainThen::Evict;
            drain
        };
        let check_evictions = |drains: &[Drain], expected: Option<u64>| {
            announce_deadlines(drains, &world.view);
            assert_eq!(world.backend("a1").live.evicts_at().map(|at| at.since(world.now).as_secs() / 3600), expected);
        };
        let over = |drain: &Drain| {
            let mut drain = drain.clone();
            drain.finish(DrainState::Drained, &world.view, world.now);
            drain
        };
        let (release, backend) = (drain("shop/v1", Some(4)), drain("shop/v1/a1", Some(2)));
        check(&[], [None; 3]);
        check(&[drain("shop/v1", None)], [None; 3]);
        check(std::slice::from_ref(&release), [Some(4), Some(4), None]);
        check(&[release.clone(), backend.clone()], [Some(2), Some(4), None]);
        check(&[backend.clone(), release.clone(), drain("host:10.0.0.1", Some(1))], [Some(1), Some(4), Some(1)]);
        check(&[release.clone(), over(&backend)], [Some(4), Some(4), None]);
        check(&[over(&release), over(&backend)], [None; 3]);
        check_evictions(&[release.clone(), backend.clone()], None);
        check_evictions(&[evicts(&release), backend.clone()], Some(4));
        check_evictions(&[evicts(&release), evicts(&backend)], Some(2));
        check_evictions(&[evicts(&release), over(&evicts(&backend))], Some(4));
    }
}
