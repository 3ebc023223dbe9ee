//! The rules once more, as naively as possible: sessions by number, names that point at them, exchanges in a list,
//! deadlines by looking at everything. It shares nothing with the ledger but the public words.

use std::collections::HashMap;

use super::*;

#[derive(Clone, Debug)]
pub struct Session {
    pub name: u64,
    pub slot: usize,
    pub standing: Standing,
    pub seen: u64,
    pub born: u64,
    foreground: u64,
    engaged: bool,
    ended: u64,
    scope: u32,
    unsigned: bool,
}

#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    pub born: u64,
    pub adopted: u64,
    pub arrived: u64,
    pub rotated: u64,
    pub ended: HashMap<&'static str, u64>,
    pub lost: HashMap<&'static str, u64>,
}

/// All times are ticks.
pub struct Model {
    rules: Rules,
    pub sessions: HashMap<usize, Session>,
    /// Older names: session and end.
    aliases: HashMap<u64, (usize, u64)>,
    /// Exchanges under way: name and session.
    exchanges: Vec<(u64, usize)>,
    pub totals: Vec<Totals>,
    next: usize,
}

fn ticks(span: Duration) -> u64 {
    span.as_millis().div_ceil(100) as u64
}

impl Model {
    pub fn new(rules: Rules, slots: usize) -> Model {
        let totals = vec![Totals::default(); slots];
        Model { rules, sessions: HashMap::new(), aliases: HashMap::new(), exchanges: Vec::new(), totals, next: 0 }
    }

    fn stamp(now: u64) -> u64 {
        now.div_ceil(100)
    }

    pub fn open(&self, session: usize) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.1 == session).count()
    }

    /// Lets time act on one session until nothing is due at `now` (milliseconds).
    fn settle(&mut self, id: usize, now: u64) {
        let (tick, rules) = (now / 100, self.rules);
        loop {
            let open = self.open(id);
            let Some(s) = self.sessions.get(&id).cloned() else { return };
            let lifetime = rules.max_lifetime.map_or(u64::MAX, |span| s.born + ticks(span));
            match s.standing {
                Standing::Live { confirmed: false } => {
                    let at = (s.born + ticks(rules.confirm_within)).min(s.born + ticks(rules.idle_timeout)).min(lifetime);
                    if at > tick {
                        return;
                    }
                    self.finish(id, EndReason::Unconfirmed, None, at);
                }
                Standing::Live { confirmed: true } => {
                    let idle = if open == 0 { s.seen + ticks(rules.idle_timeout) } else { u64::MAX };
                    if lifetime <= idle && lifetime <= tick {
                        self.finish(id, EndReason::Lifetime, None, lifetime);
                    } else if idle <= tick {
                        self.finish(id, EndReason::Idle, None, idle);
                    } else {
                        let s = self.sessions.get_mut(&id).unwrap();
                        s.engaged &= s.foreground + ticks(rules.engaged_within) > tick;
                        return;
                    }
                }
                Standing::Candidate if open == 0 && s.seen + ticks(rules.idle_timeout) <= tick => drop(self.sessions.remove(&id)),
                Standing::Ended(_) if open == 0 && s.ended + ticks(rules.idle_timeout.max(Duration::from_secs(3600))) <= tick => {
                    self.sessions.remove(&id);
                }
                _ => return,
            }
        }
    }

    pub fn sweep(&mut self, now: u64) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.settle(id, now);
        }
        self.drop_aliases(now);
    }

    fn drop_aliases(&mut self, now: u64) {
        let exchanges = &self.exchanges;
        self.aliases.retain(|name, alias| alias.1 > now / 100 || exchanges.iter().any(|exchange| exchange.0 == *name));
    }

    pub fn entries(&self) -> usize {
        self.sessions.len() + self.aliases.len()
    }

    /// The session that a name leads to, settled, and whether by an alias.
    pub fn find(&mut self, name: u64, now: u64) -> Option<(usize, bool)> {
        self.drop_aliases(now);
        let id = self.sessions.iter().find(|(_, s)| s.name == name).map(|(&id, _)| (id, false));
        let (id, alias) = id.or_else(|| self.aliases.get(&name).map(|alias| (alias.0, true)))?;
        self.settle(id, now);
        self.sessions.contains_key(&id).then_some((id, alias))
    }

    fn live(&self, id: usize) -> bool {
        matches!(self.sessions[&id].standing, Standing::Live { .. })
    }

    fn finish(&mut self, id: usize, reason: EndReason, cause: Option<LossCause>, at: u64) -> bool {
        let s = self.sessions.get_mut(&id).unwrap();
        let confirmed = s.standing == Standing::Live { confirmed: true };
        let reason = if !confirmed && cause.is_some() { EndReason::Unconfirmed } else { reason };
        (s.standing, s.ended, s.engaged) = (Standing::Ended(reason), at, false);
        let totals = &mut self.totals[s.slot];
        *totals.ended.entry(reason.as_str()).or_default() += 1;
        if let (true, Some(cause)) = (confirmed, cause) {
            *totals.lost.entry(cause.as_str()).or_default() += 1;
        }
        confirmed
    }

    pub fn enter(&mut self, name: u64, attention: Attention, now: u64) -> Entered {
        let Some((id, _)) = self.find(name, now) else { return Entered::NotLive };
        if !self.live(id) {
            return Entered::NotLive;
        }
        let within = ticks(self.rules.engaged_within);
        let s = self.sessions.get_mut(&id).unwrap();
        s.seen = Model::stamp(now);
        if attention == Attention::Foreground {
            s.foreground = Model::stamp(now);
        }
        s.engaged = s.foreground + within > now / 100;
        s.standing = Standing::Live { confirmed: true };
        self.exchanges.push((name, id));
        Entered::Live
    }

    pub fn leave(&mut self, name: u64, now: u64) {
        let place = self.exchanges.iter().position(|exchange| exchange.0 == name).expect("it entered");
        // The exchange keeps its session, or tombstone, until it ends.
        let id = self.exchanges[place].1;
        self.settle(id, now);
        self.exchanges.remove(place);
        if self.live(id) {
            self.sessions.get_mut(&id).unwrap().seen = Model::stamp(now);
        }
    }

    fn insert(&mut self, name: u64, slot: usize, scope: u32, now: u64) -> usize {
        let stamp = Model::stamp(now);
        let standing = Standing::Live { confirmed: false };
        self.next += 1;
        let s =
            Session { name, slot, standing, seen: stamp, born: stamp, foreground: stamp, engaged: false, ended: 0, scope, unsigned: false };
        self.sessions.insert(self.next, s);
        self.next
    }

    /// The name is no alias any more; its exchanges go with it to session `to`.
    fn dissolve(&mut self, name: u64, to: usize) {
        if let Some((from, _)) = self.aliases.remove(&name) {
            for exchange in self.exchanges.iter_mut().filter(|exchange| exchange.0 == name && exchange.1 == from) {
                exchange.1 = to;
            }
        }
    }

    pub fn born(&mut self, name: u64, slot: usize, scope: u32, now: u64) -> Born {
        let mut born = Born::New;
        if let Some((id, alias)) = self.find(name, now) {
            let from = self.sessions[&id].slot;
            if self.live(id) && from == slot {
                let s = self.sessions.get_mut(&id).unwrap();
                s.seen = Model::stamp(now);
                s.scope = if s.scope == 0 { scope } else { s.scope };
                return Born::Known;
            }
            if self.live(id) {
                self.finish(id, EndReason::Lost, Some(LossCause::Failover), Model::stamp(now));
                born = Born::Moved { from: from as u32 };
            }
            if !alias {
                let fresh = self.insert(name, slot, scope, now);
                let fresh = self.sessions.remove(&fresh).unwrap();
                self.sessions.insert(id, fresh);
                self.totals[slot].born += 1;
                return born;
            }
        }
        let id = self.insert(name, slot, scope, now);
        self.dissolve(name, id);
        self.totals[slot].born += 1;
        born
    }

    pub fn rotate(&mut self, old: u64, new: u64, slot: usize, scope: u32, silent: Option<Duration>, now: u64) -> Rotated {
        let stamp = Model::stamp(now);
        let found = self.find(old, now).filter(|found| self.live(found.0));
        let (Some(silent), Some((id, _))) = (silent, found) else { return Rotated::NotLive(self.born(new, slot, scope, now)) };
        let cause = if self.sessions[&id].slot != slot {
            Some(LossCause::Failover)
        } else if self.rules.rotation_within.is_some_and(|longest| silent > longest) {
            Some(LossCause::Replaced)
        } else {
            None
        };
        if cause.is_some() {
            self.finish(id, EndReason::Lost, cause, stamp);
            return Rotated::Replaced(self.born(new, slot, scope, now));
        }
        if self.sessions[&id].name == new {
            self.born(new, slot, scope, now);
            return Rotated::Renamed;
        }
        self.totals[slot].rotated += 1;
        let former = self.sessions[&id].name;
        self.dissolve(new, id);
        let mut kept = id;
        if let Some((other, _)) = self.find(new, now) {
            let (gone, stays) = if self.live(other) && self.sessions[&other].slot == slot {
                self.finish(id, EndReason::Moved, None, stamp);
                kept = other;
                (id, other)
            } else {
                if self.live(other) {
                    self.finish(other, EndReason::Lost, Some(LossCause::Failover), stamp);
                }
                (other, id)
            };
            self.sessions.remove(&gone);
            for exchange in self.exchanges.iter_mut().filter(|exchange| exchange.1 == gone) {
                exchange.1 = stays;
            }
            for alias in self.aliases.values_mut().filter(|alias| alias.0 == gone) {
                alias.0 = stays;
            }
        }
        let s = self.sessions.get_mut(&kept).unwrap();
        s.name = new;
        s.seen = stamp;
        if kept == id && scope != 0 {
            s.scope = scope;
        }
        self.aliases.insert(former, (kept, now / 100 + 300));
        Rotated::Renamed
    }

    pub fn adopt(&mut self, name: u64, slot: usize, proof: Adoption, decided_at: u64, now: u64) -> Adopted {
        let stamp = Model::stamp(now);
        let unsigned = proof == Adoption::Unsigned;
        let Some((id, _)) = self.find(name, now) else {
            if unsigned && self.sessions.values().filter(|s| s.unsigned).count() >= self.rules.max_entries.div_ceil(10) {
                self.aliases.remove(&name);
                return Adopted::Capped;
            }
            let id = self.insert(name, slot, 0, now);
            self.dissolve(name, id);
            let s = self.sessions.get_mut(&id).unwrap();
            if unsigned {
                (s.standing, s.unsigned) = (Standing::Candidate, true);
                return Adopted::Candidate;
            }
            (s.standing, s.engaged) = (Standing::Live { confirmed: true }, true);
            self.totals[slot].adopted += 1;
            return Adopted::Live;
        };
        let s = self.sessions.get_mut(&id).unwrap();
        match s.standing {
            Standing::Live { confirmed } => {
                if s.slot == slot {
                    s.seen = stamp;
                    if !confirmed {
                        (s.standing, s.engaged, s.foreground) = (Standing::Live { confirmed: true }, true, stamp);
                    }
                }
                return Adopted::Known;
            }
            Standing::Candidate if unsigned && s.slot != slot => {
                (s.slot, s.seen) = (slot, stamp);
                return Adopted::Candidate;
            }
            Standing::Ended(reason) => {
                let expired = matches!(reason, EndReason::Idle | EndReason::Lifetime | EndReason::Unconfirmed);
                if !expired && decided_at <= s.ended * 100 {
                    return Adopted::Ghost;
                }
                if reason == EndReason::Lifetime {
                    s.born = stamp;
                }
            }
            Standing::Candidate => {}
        }
        (s.standing, s.engaged, s.foreground) = (Standing::Live { confirmed: true }, true, stamp);
        (s.slot, s.seen) = (slot, stamp);
        s.unsigned &= unsigned;
        self.totals[slot].adopted += 1;
        Adopted::Live
    }

    pub fn logout(&mut self, name: u64, scope: u32, now: u64) -> bool {
        let Some((id, _)) = self.find(name, now) else { return false };
        let known = self.sessions[&id].scope;
        if scope != 0 && known != 0 && scope != known {
            return false;
        }
        let live = self.live(id);
        let s = self.sessions.get_mut(&id).unwrap();
        match s.standing {
            Standing::Live { .. } => drop(self.finish(id, EndReason::Logout, None, Model::stamp(now))),
            Standing::Candidate => drop(self.sessions.remove(&id)),
            Standing::Ended(_) => (s.standing, s.ended) = (Standing::Ended(EndReason::Logout), Model::stamp(now)),
        }
        live
    }

    pub fn relocate(&mut self, name: u64, to: usize, now: u64) -> bool {
        let Some((id, _)) = self.find(name, now) else { return false };
        let from = self.sessions[&id].slot;
        if !self.live(id) || from == to {
            return false;
        }
        self.sessions.get_mut(&id).unwrap().slot = to;
        *self.totals[from].ended.entry("moved").or_default() += 1;
        self.totals[to].arrived += 1;
        true
    }

    pub fn lose(&mut self, slot: usize, now: u64) -> usize {
        self.all_of(slot, now)
            .into_iter()
            .filter(|&id| self.finish(id, EndReason::Lost, Some(LossCause::Restart), Model::stamp(now)))
            .count()
    }

    fn all_of(&mut self, slot: usize, now: u64) -> Vec<usize> {
        let ids: Vec<usize> = self.sessions.iter().filter(|(_, s)| s.slot == slot).map(|(&id, _)| id).collect();
        for &id in &ids {
            self.settle(id, now);
        }
        ids.into_iter().filter(|id| self.sessions.contains_key(id) && self.live(*id)).collect()
    }

    pub fn evict_all(&mut self, slot: usize, idle: Duration, now: u64) -> usize {
        let mut evicted = 0;
        for id in self.all_of(slot, now) {
            let s = &self.sessions[&id];
            let silent = self.open(id) == 0 && now.saturating_sub(s.seen * 100) >= idle.as_millis() as u64;
            if silent && s.standing == (Standing::Live { confirmed: true }) {
                self.finish(id, EndReason::Evicted, Some(LossCause::Evicted), Model::stamp(now));
                evicted += 1;
            }
        }
        evicted
    }

    /// Engaged, kept alive, unconfirmed, candidates.
    pub fn gauges(&self, slot: usize) -> [u64; 4] {
        let mut gauges = [0; 4];
        for s in self.sessions.values().filter(|s| s.slot == slot) {
            match s.standing {
                Standing::Live { confirmed: false } => gauges[2] += 1,
                Standing::Live { .. } if s.engaged => gauges[0] += 1,
                Standing::Live { .. } => gauges[1] += 1,
                Standing::Candidate => gauges[3] += 1,
                Standing::Ended(_) => {}
            }
        }
        gauges
    }
}
