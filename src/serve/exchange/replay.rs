//! An answer that is discarded, and the second try: the next backend is claimed first, so an answer is given up only for a
//! place elsewhere. Whether it is to be is the model's rule.
//!
//! Nothing is kept for it on the way: Pingora holds the first 64 KiB of every body in any case, and a request that has
//! outgrown them keeps the answer it got. Interim answers of the first backend were passed on already.

use std::sync::Arc;

use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;

use super::Gateway;
use super::context::{Exchange, Tried};
use super::entry::{Inside, question, read_facts};
use crate::model::decide::{Forward, Question};
use crate::model::gate::InFlight;
use crate::model::replay::{Answered, elsewhere};
use crate::model::time::Time;
use crate::model::view::App;
use crate::model::visit::{Heard, PinChange};

/// By which Pingora begins anew: with the claim that has been made, and the body from its buffer.
pub(super) fn begin_anew() -> Box<Error> {
    let mut e = Error::new_up(ErrorType::Custom("sent once more"));
    e.set_retry(true);
    e
}

impl Gateway {
    /// Claims another backend if this answer is to be discarded and there is one. The exchange is then that backend's, and nothing
    /// of the first one is left in it: its session was not live, so the ledger counted nothing.
    pub(super) fn claim_elsewhere(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        app: &Arc<App>,
        disowned: bool,
        heard: Heard,
        now: Time,
    ) -> bool {
        let (Some(claim), Some(facts)) = (&exchange.claim, &exchange.facts) else { return false };
        // Once: whoever is sent a second time is new, and new clients' answers are theirs.
        if exchange.disowned {
            return false;
        }
        let (errand, path) = (exchange.errand, session.req_header().uri.path());
        let answered = Answered { facts, forward: &claim.forward, errand, path, disowned, heard };
        let Some(cause) = answered.replay(&app.ledger, &app.settings.drain, now) else { return false };
        if session.as_ref().retry_buffer_truncated() {
            return false;
        }
        // The snapshot of now: the drain may be younger than the one in which the exchange was decided.
        let Some(app) = self.control.view().app(&app.name).cloned() else { return false };
        let facts = read_facts(&app, session, now);
        let asked = Question { now, disowned: true, ..question(exchange, &facts) };
        let Some((forward, in_flight)) = self.enter_elsewhere(&app, asked, exchange.tried) else { return false };
        let (from, to) = (Arc::clone(&claim.forward.backend), Arc::clone(&forward.backend));
        let former = (exchange.facts.replace(facts), exchange.mapped.take(), exchange.decided_at);
        exchange.decided_at = now;
        let turn = self.queues.turn(&app, &forward.backend);
        if self.entered(session, exchange, &app, forward, Inside { in_flight, turn, now }).is_err() {
            (exchange.facts, exchange.mapped, exchange.decided_at) = former;
            return false;
        }
        log::debug!(
            "{}: {}/{} disowned a session, sent once more to {}/{}",
            app.name,
            from.release,
            from.spec.name,
            to.release,
            to.spec.name
        );
        app.tally.replayed(cause);
        (exchange.disowned, exchange.replaying) = (true, true);
        if facts.pin.signed() {
            // Where the second answer opens no session, the next request is new without another replay.
            exchange.pin_change = PinChange::Delete;
        }
        exchange.app = Some(app);
        true
    }

    /// No waiting: while every backend that takes new clients is full, the answer at hand is the better one. So it is after as many
    /// full ones as an exchange may meet at all.
    fn enter_elsewhere(&self, app: &App, asked: Question<'_>, mut tried: Tried) -> Option<(Forward, InFlight)> {
        loop {
            let forward = elsewhere(app, &Question { tried: tried.as_slice(), ..asked })?;
            let backend = &forward.backend;
            if !self.queues.is_awaited(app, backend)
                && let Ok(in_flight) = backend.live.gate.claim(forward.need, backend.max_connections)
            {
                return Some((forward, in_flight));
            }
            if !tried.add(backend.slot) {
                return None;
            }
        }
    }
}
