//! Whether "nobody is left there" may be believed when something is about to be taken away.

use std::sync::Arc;

use crate::model::admission::ReleaseState;
use crate::model::backend::Backend;
use crate::model::drain::{Doubt, Watched, doubt};
use crate::model::time::Time;
use crate::model::view::App;

/// Why a count of zero on these backends would not be the truth. Unknown is not zero: people may be older than the ledger.
pub(super) fn unsure(app: &App, backends: &[Arc<Backend>], now: Time) -> Option<Doubt> {
    let began = app.backends.iter().flatten().map(|b| b.live.since).min();
    // Who came while we watched, and was never asked for anything, has nobody; nor has who never worked. And where a drain was
    // proven, nobody is left.
    let came_and_went = |b: &Backend| began < Some(b.live.since) && b.live.tally.codes().iter().sum::<u64>() == 0;
    let keeps = |b: &&Arc<Backend>| {
        let gate = b.live.gate.read();
        b.live.lives.has_worked() && !came_and_went(b) && !gate.fenced && !gate.state.gone() && gate.state != ReleaseState::Staged
    };
    backends.iter().filter(keeps).find_map(|b| doubt(app, b, Watched::Always, now))
}
