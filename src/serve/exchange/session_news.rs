//! What an answer says of its session, told to the ledger: born, renamed, ended, or honoured and therefore alive.

use http::header::SET_COOKIE;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::context::{Exchange, PinChange, Stay};
use super::request_head::split_query;
use crate::model::decide::Footing;
use crate::model::identity::{News, Scope, news};
use crate::model::ledger::{Adopted, Adoption, Attention, EndReason, Entered, Standing};
use crate::model::reason::Reason;
use crate::model::session_key::SessionKey;
use crate::model::view::App;

impl Gateway {
    pub(super) fn hear_session_news(&self, session: &Session, response: &ResponseHeader, exchange: &mut Exchange) {
        let (Some(app), Some(claim)) = (exchange.app.clone(), &exchange.claim) else { return };
        if exchange.ignored {
            return;
        }
        let slot = claim.forward.backend.slot;
        let (footing, strip) = (claim.forward.footing, claim.forward.strip);
        let now = self.control.now();
        let request = session.req_header();
        let path = match &exchange.mapped {
            Some(mapped) => split_query(mapped).0,
            None => request.uri.path().as_bytes(),
        };
        let lines = response.headers.get_all(SET_COOKIE).iter().map(|line| line.as_bytes());
        let header = app.names.header.as_deref().and_then(|name| response.headers.get(name)).map(|value| value.as_bytes());
        // The id that this request brought to the backend; a stripped one never got there.
        let brought = exchange.facts.and_then(|facts| facts.key).filter(|_| !strip);
        match news(lines, header, &app.names, path, now) {
            News::Set(new) => {
                let key = app.hash.key(new.id);
                exchange.pin_change = self.heard_of(&app, exchange, brought, key, slot, new.scope);
            }
            News::Deleted(deletion) => {
                if brought.is_some_and(|key| app.ledger.end(key, EndReason::Logout, u32::from(deletion.scope.0), now)) {
                    exchange.pin_change = PinChange::Delete;
                }
            }
            News::Nothing => {
                let honoured = footing == Footing::Unknown || (footing == Footing::New && brought.is_some());
                let failed = response.status.is_server_error() || app.settings.not_mine.status.contains(response.status.as_u16());
                if let Some(key) = brought.filter(|_| honoured && !failed && exchange.stay.is_none()) {
                    self.honoured(&app, exchange, key, slot);
                }
            }
        }
    }

    /// The answer sets an id.
    fn heard_of(
        &self,
        app: &App,
        exchange: &mut Exchange,
        brought: Option<SessionKey>,
        key: SessionKey,
        slot: u32,
        scope: Scope,
    ) -> PinChange {
        let now = self.control.now();
        let scope = u32::from(scope.0);
        let found = exchange.facts.and_then(|facts| facts.session);
        let was_live = exchange.stay.is_some() || found.is_some_and(|found| matches!(found.standing, Standing::Live { .. }));
        match brought {
            Some(old) if old == key && was_live && found.is_some_and(|found| found.slot == slot) => return PinChange::AsDue,
            // The same id again: the application says itself that it honours it.
            Some(old) if old == key => {
                let adopted = app.ledger.adopt(key, slot, self.proof(exchange), exchange.decided_at, now);
                if !matches!(adopted, Adopted::Live | Adopted::Known) {
                    app.ledger.born(key, slot, scope, now);
                }
                return PinChange::NewSession;
            }
            Some(old) if was_live => {
                let silent = found.map(|found| exchange.decided_at.since(found.seen));
                app.ledger.rotate(old, key, slot, scope, silent, now);
            }
            _ => {
                app.ledger.born(key, slot, scope, now);
            }
        }
        PinChange::NewSession
    }

    /// An id that was not live met a backend that did not replace it.
    fn honoured(&self, app: &std::sync::Arc<App>, exchange: &mut Exchange, key: SessionKey, slot: u32) {
        let now = self.control.now();
        let adopted = app.ledger.adopt(key, slot, self.proof(exchange), exchange.decided_at, now);
        if matches!(adopted, Adopted::Live | Adopted::Known) && exchange.reason != Some(Reason::StandIn) {
            if app.ledger.enter(key, Attention::Foreground, now) == Entered::Live {
                exchange.stay = Some(Stay::new(&app.ledger, key, self.control.clock()));
            }
            exchange.pin_change = PinChange::SameSession;
        }
    }

    fn proof(&self, exchange: &Exchange) -> Adoption {
        match exchange.facts.map(|facts| facts.pin) {
            Some(crate::model::decide::PinClaim::Backend { issued: Some(issued), bound: true, .. }) => Adoption::SignedPin { issued },
            _ => Adoption::Unsigned,
        }
    }
}
