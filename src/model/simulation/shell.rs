//! The proxy's part, as `serve::exchange` plays it: facts → decide → claim → enter, and then replay, or hear → pin → leave.
//!
//! What it must get right, and what breaks an invariant if it does not: the gate is entered before the session is counted; an
//! exchange leaves the ledger before it leaves its gate; an id is adopted where it was sent as its own, never at a stand-in;
//! and a pin that is written for a session that was already there is dated by the decision, not by the answer.

use std::sync::Arc;

use super::Simulation;
use super::application::{News, SCOPE, Want};
use crate::model::admission::{Admission, Health};
use crate::model::decide::{Decision, Forward, PinClaim, Question, decide};
use crate::model::facts::Facts;
use crate::model::gate::InFlight;
use crate::model::identity::PinAttributes;
use crate::model::ledger::Attention;
use crate::model::pin::Pin;
use crate::model::reason::Reason;
use crate::model::replay::{Answered, elsewhere};
use crate::model::session_key::SessionKey;
use crate::model::settings::{PinMode, PinOn};
use crate::model::time::Time;
use crate::model::view::App;
use crate::model::visit::{Heard, PinChange, Visit};

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
    /// Sent once more already.
    disowned: bool,
    /// An open tunnel: its 101 has been heard.
    is_open: bool,
    /// As the ledger sees it.
    pub(super) visit: Visit,
    change: PinChange,
    /// Counts in the gate until it is dropped.
    _in_flight: InFlight,
}

impl Exchange {
    pub(super) fn told(&self) -> String {
        let backend = &self.forward.backend;
        format!("c{} {} {}/{}", self.client, self.forward.reason.as_str(), backend.release, backend.spec.name)
    }

    pub(super) fn stands_in(&self) -> bool {
        self.forward.stands_in
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
                errand: want.errand(),
                disowned: false,
                dice: self.dice.next(),
                client: self.clients[client].address,
            };
            let decision = decide(&app, &question);
            self.decided(client, &app, &facts, &question, &decision);
            let forward = match decision {
                Decision::Forward(forward) => forward,
                Decision::Wait(..) => {
                    waited = true;
                    continue;
                }
                Decision::Refuse(reason, _) => {
                    app.tally.decided(reason);
                    // A script's 409 settles nothing.
                    let navigates = self.dice.below(2) == 0;
                    if let (Reason::Evicted, Some(key), true) = (reason, facts.key, navigates) {
                        app.ledger.tell_evicted(key, self.world.now);
                        self.clients[client].pin = None;
                    }
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
                disowned: false,
                is_open: false,
                visit: Visit::default(),
                change: PinChange::AsDue,
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
        self.note(|| format!("{} enters, {:?}, pin {:?}", exchange.told(), exchange.facts.session, exchange.facts.pin));
        self.gate_entered(&exchange);
        let attention = if exchange.want == Want::Poll { Attention::Background } else { Attention::Foreground };
        let (ledger, now) = (&exchange.snapshot.ledger, self.world.now);
        (exchange.visit, exchange.change) = Visit::begin(ledger, &exchange.facts, &exchange.forward, attention, exchange.decided_at, now);
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
        let is_open = self.under_way[nth].is_open;
        if self.under_way[nth].answer.is_none() && !is_open && !dead && self.dice.below(30) > 0 {
            let mut exchange = self.under_way.swap_remove(nth);
            self.work(&mut exchange);
            return self.under_way.push(exchange);
        }
        let mut exchange = self.under_way.swap_remove(nth);
        if let Some(again) = self.replay(&exchange) {
            self.leave(&exchange);
            return self.under_way.push(again);
        }
        if let Some(answer) = exchange.answer.take() {
            if let (News::Set(_), Some(id)) = (&answer, &exchange.brought) {
                self.renamed.insert(id.clone());
            }
            let pin = self.hear(&mut exchange, &answer);
            exchange.is_open = exchange.want == Want::Tunnel && answer != News::Failure;
            // Now and then an answer is lost between us and the client.
            if self.dice.below(40) > 0 {
                self.receive(&exchange, answer, pin);
                if exchange.is_open {
                    self.count("a tunnel");
                    return self.under_way.push(exchange);
                }
            }
        }
        self.clients[exchange.client].exchanges -= 1;
        self.leave(&exchange);
        let client = exchange.client;
        drop(exchange);
        if !self.clients[client].comes_back && self.clients[client].exchanges == 0 {
            self.clients[client] = self.newcomer();
        }
    }

    /// The same request at another backend, if its answer is to be discarded; now and then its body is too large for that.
    fn replay(&mut self, exchange: &Exchange) -> Option<Exchange> {
        // A tunnel that is open stays.
        let news = exchange.answer.as_ref().filter(|_| !exchange.disowned && exchange.want != Want::Tunnel)?;
        let disowned = *news == News::NotMine;
        let (app, now) = (Arc::clone(&self.world.view.apps[exchange.app]), self.world.now);
        let heard = heard(&app, news);
        let answered =
            Answered { facts: &exchange.facts, forward: &exchange.forward, errand: exchange.want.errand(), path: "/shop", disowned, heard };
        let cause = answered.replay(&app.ledger, &app.settings.drain, now)?;
        self.may_be_replayed(exchange, &app, cause);
        if self.dice.below(5) == 0 {
            return None;
        }
        let facts = self.facts(&app, exchange.client);
        let question = Question {
            now,
            has_id: facts.key.is_some(),
            session: facts.session,
            pin: facts.pin,
            tried: &[],
            waited: true,
            errand: exchange.want.errand(),
            disowned: true,
            dice: self.dice.next(),
            client: self.clients[exchange.client].address,
        };
        let forward = elsewhere(&app, &question)?;
        let in_flight = forward.backend.live.gate.claim(forward.need, forward.backend.max_connections).ok()?;
        self.count(cause.as_str());
        app.tally.replayed(cause);
        Some(self.entered(Exchange {
            client: exchange.client,
            app: exchange.app,
            decided_at: now,
            want: exchange.want,
            emptying: forward.backend.emptying(),
            anywhere_open: true,
            brought: None,
            answer: None,
            disowned: true,
            is_open: false,
            visit: Visit::default(),
            change: PinChange::AsDue,
            _in_flight: in_flight,
            snapshot: app,
            facts,
            forward,
        }))
    }

    /// What the answer says, told to the ledger; and the client's next pin: `None` leaves the one it has, an empty one deletes it.
    fn hear(&mut self, exchange: &mut Exchange, answer: &News) -> Option<String> {
        let (app, now, slot) = (Arc::clone(&exchange.snapshot), self.world.now, exchange.forward.backend.slot);
        let brought = exchange.brought.as_ref().and(exchange.facts.key);
        let heard = heard(&app, answer);
        self.foresee(exchange, brought, heard);
        let former = exchange.visit.counted();
        let change = if exchange.want == Want::Tunnel && heard != Heard::Failure {
            exchange.visit.hear_tunnel(&app.ledger, heard, now)
        } else if exchange.want.errand().parts(&exchange.forward.backend, 200) && heard != Heard::Failure {
            self.count("a farewell");
            exchange.visit.hear_farewell(&app.ledger, heard, now)
        } else {
            exchange.visit.hear(&app.ledger, heard, now)
        };
        if let Some(former) = former.filter(|former| exchange.visit.counted() != Some(*former)) {
            self.count("counted anew");
            app.ledger.leave(former, now);
        }
        self.note(|| format!("  {heard:?}: {change:?}"));
        if let Some(id) = exchange.brought.as_ref().filter(|_| !exchange.forward.stands_in)
            && brought.and_then(|key| app.ledger.find(key, now)).is_some_and(|found| found.slot == slot)
        {
            self.settled((exchange.app, slot), id);
        }
        let change = if change == PinChange::AsDue { exchange.change } else { change };
        match (change, answer) {
            (PinChange::Delete, _) => return Some(String::new()),
            (PinChange::NewSession, News::Set(id)) => return self.pin(exchange, Some(id), now),
            (PinChange::SameSession, _) => return self.pin(exchange, exchange.brought.as_ref(), exchange.decided_at),
            _ => {}
        }
        let here = matches!(exchange.facts.pin, PinClaim::Backend { slot: s, .. } if s == slot);
        if exchange.stands_in() || (here && exchange.facts.pin.signed() && !exchange.facts.refresh) {
            return None;
        }
        if exchange.visit.counted().is_some() {
            return self.pin(exchange, exchange.brought.as_ref(), exchange.decided_at);
        }
        let at_first = app.settings.session.pin_on == PinOn::FirstResponse && exchange.brought.is_none() && !here;
        if at_first { self.pin(exchange, None, exchange.decided_at) } else { None }
    }

    /// What clients may lose by rules that are as they are: noted before they lose it.
    fn foresee(&mut self, exchange: &Exchange, brought: Option<SessionKey>, heard: Heard) {
        let (ledger, now) = (Arc::clone(&exchange.snapshot.ledger), self.world.now);
        let Some(found) = brought.and_then(|key| ledger.find(key, now)) else { return };
        match heard {
            // By an older name: the session is renamed once more, and a client that misses this answer keeps a name that is
            // forgotten after 30 s. Its signed pin still leads home; in the mode `learn` nothing does.
            Heard::Set(key, _) if brought != Some(key) && found.alias => {
                if let Some(held) = self.id_of(exchange.client) {
                    self.unsettled(exchange.app, &held);
                }
            }
            // Nobody knows the scope of an adopted session: the deletion of another cookie ends it, too.
            Heard::Deleted(scope) if scope != SCOPE && found.birth_scope == 0 => {
                if let Some(id) = &exchange.brought {
                    self.unsettled(exchange.app, id);
                }
            }
            _ => {}
        }
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
            News::Deleted(_) | News::Nothing | News::Failure | News::NotMine => {}
        }
        match pin {
            Some(pin) if pin.is_empty() => client.pin = None,
            Some(pin) => client.pin = Some(pin),
            None => {}
        }
    }

    fn leave(&self, exchange: &Exchange) {
        if let Some(key) = exchange.visit.counted() {
            exchange.snapshot.ledger.leave(key, self.world.now);
        }
    }
}

fn heard(app: &App, answer: &News) -> Heard {
    match answer {
        News::Set(id) => Heard::Set(app.hash.key(id.as_bytes()), SCOPE),
        News::Deleted(scope) => Heard::Deleted(*scope),
        News::Nothing => Heard::Nothing,
        News::Failure | News::NotMine => Heard::Failure,
    }
}
