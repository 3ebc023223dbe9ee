//! The pins that this thread verified last. A user's requests carry the same one for minutes, and its signature costs more than
//! the rest of a decision.
//!
//! What is kept is a text whose signature held; a text that differs in one octet is a stranger and is verified. Two texts are
//! compared only when 64 bits of a keyed hash agree, so no forger learns from the time that it takes how near a guess came.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::rc::Rc;

use super::VerifiedPin;
use crate::model::session_key::SessionKey;

/// Pins kept by each thread: at half a KiB each, and enough that the users of a few seconds are among them. In sets, so that two
/// whose hashes meet do not push each other out with every request.
const SETS: usize = 256;
const WAYS: usize = 4;

/// A verified pin, shared with the thread's memory.
#[derive(Clone, Debug)]
pub struct KnownPin(Rc<Kept>);

#[derive(Debug)]
struct Kept {
    ring: u64,
    app: Box<str>,
    text: Box<[u8]>,
    pin: VerifiedPin,
    /// The last session that it was found to be bound to.
    bound_to: Cell<Option<SessionKey>>,
}

impl KnownPin {
    /// Whether it is bound to the session of this key. `judge` is asked unless it said so of this very key before.
    pub fn is_bound_to(&self, key: SessionKey, judge: impl FnOnce(&VerifiedPin) -> bool) -> bool {
        let known = self.0.bound_to.get() == Some(key);
        if !known && judge(self) {
            self.0.bound_to.set(Some(key));
            return true;
        }
        known
    }
}

impl Deref for KnownPin {
    type Target = VerifiedPin;

    fn deref(&self) -> &VerifiedPin {
        &self.0.pin
    }
}

struct Recent {
    hasher: RandomState,
    /// Of each set the one that was asked for last comes first.
    sets: Vec<[Way; WAYS]>,
}

/// The hash is not fetched from the pin: a set is one cache line.
#[derive(Clone, Default)]
struct Way {
    hash: u64,
    kept: Option<Rc<Kept>>,
}

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::new(Recent { hasher: RandomState::new(), sets: vec![Default::default(); SETS] });
}

/// The pin that `text` is for `app` by the keyring numbered `ring`; `verify` is asked unless it was lately.
pub(super) fn known<E>(ring: u64, app: &str, text: &[u8], verify: impl FnOnce() -> Result<VerifiedPin, E>) -> Result<KnownPin, E> {
    RECENT.with_borrow_mut(|recent| {
        let hash = recent.hasher.hash_one((ring, text));
        let Some(set) = recent.sets.get_mut(hash as usize % SETS) else { return verify_anew(ring, app, text, verify) };
        let held = set.iter().position(|way| {
            let same = |kept: &Kept| kept.ring == ring && *kept.app == *app && *kept.text == *text;
            way.hash == hash && way.kept.as_deref().is_some_and(same)
        });
        let pin = match held.and_then(|place| set.get(place)?.kept.clone()) {
            Some(kept) => KnownPin(kept),
            None => verify_anew(ring, app, text, verify)?,
        };
        // Only now: what is no pin moves nobody.
        if let Some(ways) = set.get_mut(..=held.unwrap_or(WAYS - 1)) {
            ways.rotate_right(1);
        }
        let [first, ..] = set;
        *first = Way { hash, kept: Some(Rc::clone(&pin.0)) };
        Ok(pin)
    })
}

fn verify_anew<E>(ring: u64, app: &str, text: &[u8], verify: impl FnOnce() -> Result<VerifiedPin, E>) -> Result<KnownPin, E> {
    Ok(KnownPin(Rc::new(Kept { ring, app: app.into(), text: text.into(), pin: verify()?, bound_to: Cell::default() })))
}
