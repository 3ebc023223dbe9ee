//! The pins that this thread verified last. A user's requests carry the same one for minutes, and its signature costs more than
//! the rest of a decision.
//!
//! What is kept is a text whose signature held; a text that differs in one octet is a stranger and is verified. Two texts are
//! compared only when 64 bits of a keyed hash agree, so no forger learns from the time that it takes how near a guess came.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::rc::Rc;

use super::VerifiedPin;

/// Pins kept by each thread: at half a KiB each, and enough that the users of a few seconds are among them.
const KEPT: usize = 1024;

/// A verified pin, shared with the thread's memory.
#[derive(Clone, Debug)]
pub struct KnownPin(Rc<Kept>);

#[derive(Debug)]
struct Kept {
    hash: u64,
    ring: u64,
    app: Box<str>,
    text: Box<[u8]>,
    pin: VerifiedPin,
}

impl Deref for KnownPin {
    type Target = VerifiedPin;

    fn deref(&self) -> &VerifiedPin {
        &self.0.pin
    }
}

struct Recent {
    hasher: RandomState,
    slots: Vec<Option<Rc<Kept>>>,
}

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::new(Recent { hasher: RandomState::new(), slots: vec![None; KEPT] });
}

/// The pin that `text` is for `app` by the keyring numbered `ring`; `verify` is asked unless it was lately.
pub(super) fn known<E>(ring: u64, app: &str, text: &[u8], verify: impl FnOnce() -> Result<VerifiedPin, E>) -> Result<KnownPin, E> {
    RECENT.with_borrow_mut(|recent| {
        let hash = recent.hasher.hash_one((ring, text));
        // The hash's remainder by the number of slots.
        let slot = recent.slots.get_mut(hash as usize % KEPT);
        if let Some(Some(kept)) = &slot
            && kept.hash == hash
            && kept.ring == ring
            && *kept.app == *app
            && *kept.text == *text
        {
            return Ok(KnownPin(Rc::clone(kept)));
        }
        let kept = Rc::new(Kept { hash, ring, app: app.into(), text: text.into(), pin: verify()? });
        if let Some(slot) = slot {
            *slot = Some(Rc::clone(&kept));
        }
        Ok(KnownPin(kept))
    })
}
