//! Older ids of renamed sessions. They live in one small table beside the shards: only a login makes one, and it stays
//! 30 s, or as long as an exchange that carries it is under way (a WebSocket opened before the login).
//!
//! Every alias points straight at its session's present id; a further renaming redirects all of them. Chains were
//! rejected: an application that renames at every request would make them hundreds long under one open WebSocket.

use std::collections::{HashMap, VecDeque};

use crate::model::session_key::SessionKey;

use super::journal::Renamings;
use super::rules::{ALIAS_TICKS, Now};

/// Aliases per session beyond which the oldest idle ones go: an application that renames at every request.
const MOST_PER_SESSION: usize = 32;

#[derive(Debug)]
struct Alias {
    to: SessionKey,
    /// Exchanges under way that carry this id; the session counts them as borrowed.
    open: u32,
    until: u32,
}

#[derive(Debug, Default)]
pub(super) struct Aliases {
    table: HashMap<SessionKey, Alias>,
    /// Aliases of each session, oldest first.
    of: HashMap<SessionKey, Vec<SessionKey>>,
    /// In the order of their ends; may name aliases that are gone.
    queue: VecDeque<(u32, SessionKey)>,
    /// For whoever keeps a copy of the ledger.
    pub renamings: Renamings,
}

impl Aliases {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Every alias and the present id that it leads to.
    pub fn pairs(&self) -> impl Iterator<Item = (SessionKey, SessionKey)> {
        self.table.iter().map(|(old, alias)| (*old, alias.to))
    }

    /// The present id of the session that `key` once named.
    pub fn find(&mut self, key: &SessionKey, now: Now) -> Option<SessionKey> {
        let alias = self.table.get(key)?;
        if alias.until <= now.tick && alias.open == 0 {
            self.remove(key);
            return None;
        }
        Some(alias.to)
    }

    pub fn enter(&mut self, key: &SessionKey) {
        if let Some(alias) = self.table.get_mut(key) {
            alias.open = alias.open.saturating_add(1);
        }
    }

    /// Whether an exchange was under way by this alias.
    pub fn leave(&mut self, key: &SessionKey, now: Now) -> bool {
        let Some(alias) = self.table.get_mut(key) else { return false };
        let was_open = alias.open > 0;
        alias.open = alias.open.saturating_sub(1);
        if alias.open == 0 && alias.until <= now.tick {
            self.remove(key);
        }
        was_open
    }

    /// The session named `old`, with `open` exchanges of that name, is named `new` from now on. `old` must not be an
    /// alias, `new` no longer be one.
    pub fn rename(&mut self, old: SessionKey, new: SessionKey, open: u32, now: Now) {
        debug_assert!(!self.table.contains_key(&old) && !self.table.contains_key(&new), "a session's name is no alias");
        let mut names = self.of.remove(&old).unwrap_or_default();
        for name in &names {
            if let Some(alias) = self.table.get_mut(name) {
                alias.to = new;
            }
        }
        let until = now.tick.saturating_add(ALIAS_TICKS);
        self.table.insert(old, Alias { to: new, open, until });
        self.queue.push_back((until, old));
        names.push(old);
        let all = self.of.entry(new).or_default();
        all.append(&mut names);
        if all.len() > MOST_PER_SESSION
            && let Some(place) = all.iter().position(|name| self.table.get(name).is_none_or(|alias| alias.open == 0))
        {
            let name = all.remove(place);
            self.table.remove(&name);
        }
    }

    /// Forgets an alias; answers its session and the exchanges under way by it.
    pub fn remove(&mut self, key: &SessionKey) -> Option<(SessionKey, u32)> {
        let alias = self.table.remove(key)?;
        if let Some(names) = self.of.get_mut(&alias.to) {
            names.retain(|name| name != key);
            if names.is_empty() {
                self.of.remove(&alias.to);
            }
        }
        Some((alias.to, alias.open))
    }

    /// Drops what has ended; looks at no more than `budget`. True when more is due.
    pub fn expire(&mut self, now: Now, budget: usize) -> bool {
        for _ in 0..budget {
            match self.queue.front() {
                Some(&(until, key)) if until <= now.tick => {
                    self.queue.pop_front();
                    // One with an exchange under way goes when that ends.
                    self.find(&key, now);
                }
                _ => return false,
            }
        }
        true
    }

    /// Exchanges under way by aliases of `key`.
    #[cfg(test)]
    pub fn borrowed(&self, key: &SessionKey) -> u32 {
        self.table.values().filter(|alias| alias.to == *key).map(|alias| alias.open).sum()
    }
}
