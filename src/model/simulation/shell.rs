//! The proxy's part, as `serve::exchange` plays it: facts → decide → claim → enter, and then hear → pin → leave.
//!
//! What it must get right, and what breaks an invariant if it does not: the gate is entered before the session is counted; an
//! exchange leaves the ledger before it leaves its gate; an id is adopted where it was sent as its own, never at a stand-in;
//! and a pin that is written for a session that was already there is dated by the decision, not by the answer.

use std::sync::Arc;

use super::Simulation;
use super::application::{News, SCOPE, Want};
use crate::model::admission::{Admission, Health};
use crate::model::decide::{Decision, Footing, Forward, PinClaim, Question, decide};
use crate::model::facts::Facts;
use crate::model::gate::InFlight;
use crate::model::identity::PinAttributes;
use crate::model::ledger::{Adopted, Adoption, Attention, EndReason, Entered, Standing};
use crate::model::pin::Pin;
use crate::model::reason::Reason;
use crate::model::session_key::SessionKey;
use crate::model::settings::{PinMode, PinOn};
use crate::model::time::Time;
use crate::model::view::App;

/// An exchange that holds a claim.
pub(super) struct Exchange {
    pub(super) client: usize,
    pub(super) app: usize,
    /// In which it was decided.
    pub(super) snapshot: Arc<App>,
    pub(super) decided_at: Time,
    pub(super) facts: Facts,
    pub(super) forward: Forward,
    pub(super) want: Want,
    /// Whether its backend was to become empty when it was decided.
    pub(super) emptying: bool,
    /// Whether any backend took new sessions when it was decided.
    pub(super) anywhere_open: bool,
    /// The id that reaches the application.
    pub(super) brought: Option<String>,
    pub(super) answer: Option<News>,
    /// The key under which the ledger counts it.
    pub(super) stay: Option<SessionKey>,
    relocated: bool,
    /// Counts in the gate until it is dropped.
    _in_flight: InFlight,
}

impl Exchange {
    pub(super) fn told(&self) -> String {
        let backend = &self.forward.backend;
        format!("c{} {} {}/{}", self.client, self.forward.reason.as_str(), backend.release, backend.spec.name)
    }

    pub(super) fn stands_in(&self) -> bool {
        self.forward.reason == Reason::StandIn
    }
}

impl Simulation {
    /// A client asks for something, maybe while earlier requests of it are under way.
    pub(super) fn request(&mut self) {
        let client = self.dice.below(self.clients.len());
        if self.clients[client].exchanges >= 3 {
            return;
        }
        let want = match self.dice.below(12) {
            0..6 => Want::Page,
            6..12 => Want::ALL[self.dice.below(Want::ALL.len())],
            _ => Want::Image,
        };
        if let Some(exchange) = self.admit(client, want) {
            self.clients[client].exchanges += 1;
            self.under_way.push(exchange);
        }
    }

    fn admit(&mut self, client: usize, want: Want) -> Option<Exchange> {
        let place = self.clients[client].app;
        let (mut tried, mut waited) = (Vec::new(), false);
        // The bound shows that nothing spins: each turn of the loop needs a refused connect, a wait, or a change in between.
        for _ in 0..16 {
            let app = Arc::clone(&self.world.view.apps[place]);
            let facts = self.facts(&app, client);
            let question = Question {
                now: self.world.now,
                has_id: facts.key.is_some(),
                session: facts.session,
                pin: facts.pin,
                tried: &tried,
                waited,
                dice: self.dice.next(),
                client: self.clients[client].address,
            };
            let decision = decide(&app, &question);
            self.decided(client, &app, &facts, &tried, waited, &decision);
            let forward = match decision {
                Decision::Forward(forward) => forward,
                Decision::Wait(..) => {
                    waited = true;
                    continue;
                }
                Decision::Refuse(reason, _) => {
                    app.tally.decided(reason);
                    return None;
                }
            };
            let anywhere_open = app.open.backends().iter().any(|b| b.admission() == Admission::Everyone && !tried.contains(&b.slot));
            let emptying = forward.backend.emptying();
            if self.dice.below(20) == 0 {
                self.meddle(&forward);
            }
            let Ok(in_flight) = forward.backend.live.gate.claim(forward.need, forward.backend.max_connections) else {
                self.count("claim failed");
                continue;
            };
            let exchange = Exchange {
                client,
                app: place,
                decided_at: self.world.now,
                want,
                emptying,
                anywhere_open,
                brought: if forward.strip { None } else { self.id_of(client) },
                answer: None,
                stay: None,
                relocated: false,
                _in_flight: in_flight,
                snapshot: app,
                facts,
                forward,
            };
            let exchange = self.entered(exchange);
            let slot = exchange.forward.backend.slot;
            let dead = self.applications.get(&(place, slot)).is_some_and(|application| application.dead);
            if !dead && self.dice.below(100) > 0 {
                return Some(exchange);
            }
            // Refused: counts at once, and nothing was sent, so it may be tried elsewhere.
            self.note(|| format!("{}: connect refused", exchange.told()));
            self.leave(&exchange);
            if dead {
                exchange.forward.backend.live.observe(Health::Down, self.world.now);
            }
            self.count("connect refused");
            tried.push(slot);
        }
        self.fail("an exchange that finds no end");
    }

    fn facts(&self, app: &App, client: usize) -> Facts {
        let client = &self.clients[client];
        let jar = client.jar.as_ref().map(|value| format!("JSESSIONID={value}")).unwrap_or_default();
        let pin = client.pin.as_ref().map(|value| format!("{}={value}", app.pin_cookie)).unwrap_or_default();
        Facts::read(app, [jar.as_bytes(), pin.as_bytes()], |_| None, b"/shop", None, self.world.now)
    }

    fn entered(&mut self, mut exchange: Exchange) -> Exchange {
        exchange.snapshot.tally.decided(exchange.forward.reason);
        self.count(exchange.forward.reason.as_str());
        let slot = exchange.forward.backend.slot;
        self.note(|| format!("{} enters, {:?}, pin {:?}", exchange.told(), exchange.facts.session, exchange.facts.pin));
        self.gate_entered(&exchange);
        let ledger = &exchange.snapshot.ledger;
        if let Some(key) = exchange.facts.key.filter(|_| exchange.forward.footing != Footing::New) {
            let attention = if exchange.want == Want::Poll { Attention::Background } else { Attention::Foreground };
            if ledger.enter(key, attention, self.world.now) == Entered::Live {
                exchange.stay = Some(key);
                let home = exchange.facts.session.map(|found| found.slot);
                if !exchange.stands_in() && home != Some(slot) {
                    exchange.relocated = ledger.relocate(key, slot, self.world.now);
                }
            }
        }
        exchange
    }

    /// Some exchange gets on: the application works on it, or its answer arrives, or somebody goes away.
    pub(super) fn advance(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let nth = self.dice.below(self.under_way.len());
        let place = (self.under_way[nth].app, self.under_way[nth].forward.backend.slot);
        let dead = self.applications.get(&place).is_some_and(|application| application.dead);
        if self.under_way[nth].answer.is_none() && !dead && self.dice.below(30) > 0 {
            let mut exchange = self.under_way.swap_remove(nth);
            self.work(&mut exchange);
            return self.under_way.push(exchange);
        }
        let mut exchange = self.under_way.swap_remove(nth);
        self.clients[exchange.client].exchanges -= 1;
        if let Some(answer) = exchange.answer.take() {
            let pin = self.hear(&mut exchange, &answer);
            // Now and then an answer is lost between us and the client.
            if self.dice.below(40) > 0 {
                self.receive(&exchange, answer, pin);
            }
        }
        self.leave(&exchange);
        let client = exchange.client;
        drop(exchange);
        if !self.clients[client].comes_back && self.clients[client].exchanges == 0 {
            self.clients[client] = self.newcomer();
        }
    }

    /// What the answer says, told to the ledger; and the client's next pin: `None` leaves the one it has, an empty one deletes it.
    fn hear(&mut self, exchange: &mut Exchange, answer: &News) -> Option<String> {
        let (ledger, now, slot) = (Arc::clone(&exchange.snapshot.ledger), self.world.now, exchange.forward.backend.slot);
        let app = Arc::clone(&exchange.snapshot);
        let brought = exchange.brought.as_ref().and(exchange.facts.key);
        let found = exchange.facts.session;
        let was_live = exchange.stay.is_some() || found.is_some_and(|f| matches!(f.standing, Standing::Live { .. }));
        match answer {
            News::Set(id) => {
                let key = app.hash.key(id.as_bytes());
                let mut issued = now;
                match brought {
                    Some(old) if old == key && was_live && found.is_some_and(|f| f.slot == slot) => issued = exchange.decided_at,
                    // The same id again: the application says itself that it honours it. At a stand-in the session is born anew.
                    Some(old) if old == key => {
                        let adopted = if exchange.stands_in() { Adopted::Ghost } else { self.adopt(exchange, key) };
                        if !matches!(adopted, Adopted::Live | Adopted::Known) {
                            ledger.born(key, slot, SCOPE, now);
                        }
                    }
                    Some(old) if was_live => {
                        let silent = found.map(|f| exchange.decided_at.since(f.seen));
                        // By an older name: the session is renamed once more, and a client that misses this answer keeps a
                        // name that is forgotten after 30 s. Its signed pin still leads home; in the mode `learn` nothing does.
                        let again = ledger.find(old, now).is_some_and(|found| found.alias);
                        if let Some(held) = self.id_of(exchange.client).filter(|_| again) {
                            self.unsettled(exchange.app, &held);
                        }
                        let rotated = ledger.rotate(old, key, slot, SCOPE, silent, now);
                        self.note(|| format!("  {rotated:?}"));
                    }
                    _ => {
                        ledger.born(key, slot, SCOPE, now);
                    }
                }
                return self.pin(exchange, Some(id), issued);
            }
            News::Deleted(scope) => {
                // Nobody knows the scope of an adopted session: the deletion of another cookie ends it, too.
                let strange = *scope != SCOPE && brought.and_then(|key| ledger.find(key, now)).is_some_and(|found| found.birth_scope == 0);
                if let Some(id) = exchange.brought.as_ref().filter(|_| strange) {
                    self.unsettled(exchange.app, id);
                }
                let ended = brought.is_some_and(|key| ledger.end(key, EndReason::Logout, *scope, now));
                return ended.then(String::new);
            }
            News::Nothing => {
                let unknown = exchange.forward.footing == Footing::Unknown || exchange.forward.footing == Footing::New;
                if let Some(key) = brought.filter(|_| unknown && exchange.stay.is_none() && !exchange.stands_in())
                    && matches!(self.adopt(exchange, key), Adopted::Live | Adopted::Known)
                {
                    return self.pin(exchange, exchange.brought.as_ref(), exchange.decided_at);
                }
            }
            News::Failure => {}
        }
        let here = matches!(exchange.facts.pin, PinClaim::Backend { slot: s, .. } if s == slot);
        if exchange.stands_in() || (here && exchange.facts.pin.signed() && !exchange.facts.refresh && !exchange.relocated) {
            return None;
        }
        if exchange.stay.is_some() {
            return self.pin(exchange, exchange.brought.as_ref(), exchange.decided_at);
        }
        let at_first = app.settings.session.pin_on == PinOn::FirstResponse && exchange.brought.is_none() && !here;
        if at_first { self.pin(exchange, None, exchange.decided_at) } else { None }
    }

    fn adopt(&mut self, exchange: &Exchange, key: SessionKey) -> Adopted {
        let proof = match exchange.facts.pin {
            PinClaim::Backend { issued: Some(issued), bound: true, .. } => Adoption::SignedPin { issued },
            _ => Adoption::Unsigned,
        };
        let (ledger, slot, now) = (&exchange.snapshot.ledger, exchange.forward.backend.slot, self.world.now);
        let adopted = ledger.adopt(key, slot, proof, exchange.decided_at, now);
        if let Some(id) = exchange.brought.as_ref().filter(|_| ledger.find(key, now).is_some_and(|found| found.slot == slot)) {
            self.settled((exchange.app, slot), id);
        }
        adopted
    }

    fn pin(&self, exchange: &Exchange, id: Option<&String>, issued: Time) -> Option<String> {
        let (app, backend) = (&exchange.snapshot, &exchange.forward.backend);
        if app.settings.session.pin != PinMode::Cookie {
            return None;
        }
        let binding = id.and_then(|id| app.keyring.binding(id.as_bytes()));
        let (release, name) = (&*backend.release, &*backend.spec.name);
        let pin = Pin { release, backend: name, binding, issued, seen: self.world.now, attributes: PinAttributes::OVER_PLAIN };
        Some(app.keyring.sign(&app.name, &pin))
    }

    /// The client's jar takes what comes, in the order in which it comes.
    fn receive(&mut self, exchange: &Exchange, answer: News, pin: Option<String>) {
        let client = &mut self.clients[exchange.client];
        match answer {
            News::Set(id) if exchange.snapshot.settings.session.pin == PinMode::Prefix => {
                client.jar = Some(format!("{}~{id}", exchange.forward.backend.spec.route));
            }
            News::Set(id) => client.jar = Some(id),
            News::Deleted(SCOPE) => client.jar = None,
            News::Deleted(_) | News::Nothing | News::Failure => {}
        }
        match pin {
            Some(pin) if pin.is_empty() => client.pin = None,
            Some(pin) => client.pin = Some(pin),
            None => {}
        }
    }

    fn leave(&self, exchange: &Exchange) {
        if let Some(key) = exchange.stay {
            exchange.snapshot.ledger.leave(key, self.world.now);
        }
    }
}
