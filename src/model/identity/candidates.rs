//! The few ids a request may mean. A browser sends several cookies of one name when they were set for different paths
//! or domains, so a request may carry more than one id; the ledger knows which of them lives.

use std::ops::Deref;

/// How many different values of one carrier are looked at. A browser sends one per cookie path and domain, most specific path
/// first; more than four is an attack or a broken client.
pub const MAX_CANDIDATES: usize = 4;

/// Longest id. Longer ones are treated as absent: hashing them would cost more than they are worth, and browsers cap a
/// cookie at 4096 bytes.
pub const MAX_ID_BYTES: usize = 4096;

/// Up to four different values in the order of the request. Nothing is allocated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates<'a> {
    values: [&'a [u8]; MAX_CANDIDATES],
    len: usize,
}

impl<'a> Candidates<'a> {
    /// Remembers `value` unless it is unusable, known already, or one too many.
    pub fn add(&mut self, value: &'a [u8]) {
        if !usable(value) || self.contains(&value) {
            return;
        }
        if let Some(free) = self.values.get_mut(self.len) {
            *free = value;
            self.len += 1;
        }
    }

    /// The values.
    pub fn as_slice(&self) -> &[&'a [u8]] {
        self.values.get(..self.len).unwrap_or_default()
    }
}

impl<'a> Deref for Candidates<'a> {
    type Target = [&'a [u8]];
    fn deref(&self) -> &Self::Target {
        self.as_slice()
    }
}

/// Whether `id` can identify a session: not empty, not huge, without control characters.
pub fn usable(id: &[u8]) -> bool {
    // To the end without a branch, so that it is done in vectors.
    let controls = || id.iter().fold(false, |any, octet| any | octet.is_ascii_control());
    (1..=MAX_ID_BYTES).contains(&id.len()) && !controls()
}
