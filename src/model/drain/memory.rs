//! A drain that outlives the process.

use std::collections::BTreeMap;

use super::visitors::Visitors;
use super::{Drain, DrainState, Progress, ended};
use crate::model::ledger::EndReason;
use crate::model::memory::{DrainMemory, OutcomeMemory};
use crate::model::target::Target;
use crate::model::view::View;

impl Drain {
    /// What is to be remembered of it.
    pub fn remember(&self, view: &View) -> DrainMemory {
        let mut gone = self.outcome.map_or_else(|| self.ended(view), |outcome| outcome.ended).into_iter();
        let by_reason = EndReason::ALL.into_iter().filter_map(|reason| Some((reason.as_str().to_owned(), gone.next()?)));
        DrainMemory {
            id: self.id,
            target: self.target.to_string(),
            owner: self.owner,
            started: self.started,
            initial: self.initial,
            deadline: self.deadline,
            then: self.then,
            state: self.state.as_str().to_owned(),
            finished: self.finished,
            ended: by_reason.collect(),
            outcome: self.outcome.as_ref().map(OutcomeMemory::from),
        }
    }

    /// Goes on where a process before left it; `view` is the one that was restored. What evictions may take begins anew.
    ///
    /// # Errors
    /// What of the memory is not understood.
    pub fn recall(memory: &DrainMemory, view: &View) -> Result<Drain, String> {
        let target = Target::parse(&memory.target)?;
        let state = DrainState::ALL.into_iter().find(|state| state.as_str() == memory.state);
        let state = state.ok_or_else(|| format!("drain d{}: unknown state '{}'", memory.id, memory.state))?;
        let gone = counted(&memory.ended);
        let mut before = ended(&target.backends(view)).map(u64::cast_signed);
        for (before, gone) in before.iter_mut().zip(gone) {
            *before = before.saturating_sub_unsigned(gone);
        }
        Ok(Drain {
            // Anew: while this process was away, people were before the other proxy.
            visitors: Visitors::unmet(view, &target),
            id: memory.id,
            target,
            owner: memory.owner,
            started: memory.started,
            initial: memory.initial,
            deadline: memory.deadline,
            then: memory.then,
            state,
            finished: memory.finished,
            outcome: memory.outcome.as_ref().map(|outcome| outcome.progress(gone)),
            paces: Vec::new(),
            before,
        })
    }

    /// Ends since it began, in the order of [`EndReason::ALL`].
    pub(super) fn ended(&self, view: &View) -> [u64; EndReason::ALL.len()] {
        let mut gone = ended(&self.target.backends(view));
        for (gone, before) in gone.iter_mut().zip(self.before) {
            *gone = gone.saturating_sub_signed(before);
        }
        gone
    }
}

fn counted(by_reason: &BTreeMap<String, u64>) -> [u64; EndReason::ALL.len()] {
    EndReason::ALL.map(|reason| by_reason.get(reason.as_str()).copied().unwrap_or(0))
}

impl From<&Progress> for OutcomeMemory {
    fn from(progress: &Progress) -> OutcomeMemory {
        OutcomeMemory {
            engaged: progress.engaged,
            kept_alive: progress.kept_alive,
            unconfirmed: progress.unconfirmed,
            in_flight: progress.in_flight,
            confident: progress.confident,
            backends: progress.backends,
            down: progress.down,
        }
    }
}

impl OutcomeMemory {
    fn progress(&self, ended: [u64; EndReason::ALL.len()]) -> Progress {
        Progress {
            engaged: self.engaged,
            kept_alive: self.kept_alive,
            unconfirmed: self.unconfirmed,
            in_flight: self.in_flight,
            ended,
            confident: self.confident,
            backends: self.backends,
            down: self.down,
        }
    }
}
