//! The lives of a backend's process: when another one began, and how that is known.
//!
//! What is proven takes the sessions of the life before; what is only suspected takes nothing: each session's own answer decides
//! then. A restart has no exact time. [`Restart::after`] is the last moment at which the life before was seen, so whatever is older
//! is dead for certain, also at another proxy that noticed earlier or later; what lies between that and the proof is in doubt.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::ledger::{Counts, EndReason, Found, Ledger, LossCause, Standing};
use super::time::Time;

/// Ends are written down rounded up to this.
const STAMP: std::time::Duration = std::time::Duration::from_millis(100);

/// How the beginning of another life is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// `health.instance_header` has another value.
    Header,
    /// `tidegate lost`.
    Operator,
    /// None: it was away, and is back.
    Suspected,
}

impl Proof {
    /// Every proof, in declaration order: the discriminant is the index.
    pub const ALL: [Proof; 3] = [Proof::Header, Proof::Operator, Proof::Suspected];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Proof::Header => "header",
            Proof::Operator => "operator",
            Proof::Suspected => "suspected",
        }
    }
}

/// The process that answered a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Of `health.instance_header`.
    pub value: Box<[u8]>,
    /// When that probe began.
    pub seen: Time,
}

/// The processes that have answered at one address, by their instance header.
#[derive(Debug, Default)]
pub struct Lineage {
    last: Option<Instance>,
    /// Latest last.
    former: VecDeque<Box<[u8]>>,
    several: bool,
}

/// What an instance header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody said it before.
    First,
    /// The process that answered last time.
    Same,
    /// Another one, which nobody has seen yet: a restart, after this last look at the life before.
    Another {
        /// When the former one was last asked.
        before: Time,
    },
    /// One of several that answer in turn: the header is that of a worker, or a balancer is behind the address. It proves nothing.
    Several {
        /// That was not known yet.
        news: bool,
    },
}

impl Lineage {
    /// So many former processes are remembered: as many workers in turn are found out.
    const FORMER: usize = 16;

    /// Goes on from the process that answered last.
    pub fn resume(last: Option<Instance>) -> Lineage {
        Lineage { last, ..Lineage::default() }
    }

    /// The process that answered last.
    pub fn last(&self) -> Option<Instance> {
        self.last.clone()
    }

    /// Hears what an answer says that was asked for at `asked`.
    pub fn hear(&mut self, value: Box<[u8]>, asked: Time) -> Told {
        let again = self.former.contains(&value);
        let before = self.last.replace(Instance { value: value.clone(), seen: asked });
        let Some(before) = before else { return Told::First };
        if before.value == value && !self.several {
            return Told::Same;
        }
        if self.former.len() == Lineage::FORMER {
            self.former.pop_front();
        }
        self.former.push_back(before.value);
        if again || self.several {
            return Told::Several { news: !std::mem::replace(&mut self.several, true) };
        }
        Told::Another { before: before.seen }
    }
}

/// Lives so far, as they are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivesMemory {
    /// In the order of [`Proof::ALL`].
    pub begun: Vec<u64>,
    /// Of the last proven restart.
    pub after: Time,
    /// When it was proven; zero if there was none.
    pub proven: Time,
    /// It was found to work.
    pub worked: bool,
}

/// A proven restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The last moment at which the life before was seen.
    pub after: Time,
    /// When it was proven.
    pub proven: Time,
}

impl Restart {
    /// Whether a session that the ledger knows as not live any more, or not yet, is of a life before.
    pub fn took(&self, found: &Found) -> bool {
        match found.standing {
            Standing::Live { .. } => false,
            // Its user is still to be told so.
            Standing::Ended(EndReason::Evicted) => false,
            Standing::Ended(_) if found.ended_at.is_some_and(|ended| ended <= self.proven + STAMP) => true,
            Standing::Ended(_) | Standing::Candidate => found.seen <= self.after,
        }
    }

    /// Whether a pin that was issued then leads to a life before. Pins know whole seconds; the one of the restart itself is in doubt.
    pub fn outdates(&self, issued: Time) -> bool {
        issued.as_secs() < self.after.as_secs()
    }
}

/// The lives of one backend so far.
#[derive(Debug, Default)]
pub struct Lives {
    begun: [AtomicU64; Proof::ALL.len()],
    after: AtomicU64,
    proven: AtomicU64,
    /// Whether it worked since it was last suspected: who appears for the first time has not come back, and one absence is one.
    worked: AtomicBool,
}

impl Lives {
    /// Lives that began with this proof.
    pub fn begun(&self, proof: Proof) -> u64 {
        self.begun.get(proof as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The last proven restart.
    pub fn restart(&self) -> Option<Restart> {
        let proven = Time(self.proven.load(Ordering::Acquire));
        (proven.0 > 0).then(|| Restart { after: Time(self.after.load(Ordering::Relaxed)), proven })
    }

    /// Whether it ever worked: otherwise nobody can have a session there.
    pub fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    /// What is to be remembered.
    pub fn remember(&self) -> LivesMemory {
        LivesMemory {
            begun: Proof::ALL.map(|proof| self.begun(proof)).to_vec(),
            after: Time(self.after.load(Ordering::Relaxed)),
            proven: Time(self.proven.load(Ordering::Acquire)),
            worked: self.worked.load(Ordering::Relaxed),
        }
    }

    /// Goes on from what was remembered.
    pub fn recall(&self, memory: &LivesMemory) {
        for (count, begun) in self.begun.iter().zip(&memory.begun) {
            count.store(*begun, Ordering::Relaxed);
        }
        self.after.store(memory.after.0, Ordering::Relaxed);
        self.proven.store(memory.proven.0, Ordering::Release);
        self.worked.store(memory.worked, Ordering::Relaxed);
    }

    /// It was found to work.
    pub fn worked(&self) {
        self.worked.store(true, Ordering::Relaxed);
    }

    /// It was away and is back, or its connections have ended: its sessions are in doubt until it vouches for them. To be called
    /// before it is open again.
    pub fn suspected(&self, counts: &Counts) {
        counts.doubt();
        if self.worked.swap(false, Ordering::Relaxed) {
            self.count(Proof::Suspected);
        }
    }

    /// Takes the sessions of the life before: those whose id is from before `after`. One that got its id since is in doubt,
    /// unless `all` says that nobody can have been there meanwhile. Answers how many confirmed ones are lost.
    pub fn proven(&self, proof: Proof, of: (&Ledger, u32, &Counts), after: Time, all: bool, now: Time) -> usize {
        let (ledger, slot, counts) = of;
        // In this order: whoever is decided now must not be vouched for by the life before.
        counts.doubt();
        self.after.store(after.0, Ordering::Relaxed);
        self.proven.store(now.0.max(1), Ordering::Release);
        self.count(proof);
        if all { ledger.lose(slot, LossCause::Restart, now) } else { ledger.lose_older(slot, LossCause::Restart, after, now) }
    }

    fn count(&self, proof: Proof) {
        if let Some(count) = self.begun.get(proof as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_proves_a_restart_unless_several_processes_say_it_in_turn() {
        let check = |said: &str, expected: &str| {
            let mut lineage = Lineage::default();
            let told = said.bytes().enumerate().map(|(at, value)| match lineage.hear(Box::new([value]), Time(at as u64)) {
                Told::First => '1',
                Told::Same => '=',
                Told::Another { before } => {
                    assert_eq!(before, Time(at as u64 - 1), "the last look at the life before");
                    '!'
                }
                Told::Several { news: true } => '?',
                Told::Several { news: false } => '.',
            });
            assert_eq!(told.collect::<String>(), expected, "{said}");
        };
        check("aaa", "1==");
        check("aabbc", "1=!=!");
        check("abab", "1!?.");
        check("abcdabcd", "1!!!?...");
        check("abaaa", "1!?..");
    }
}
