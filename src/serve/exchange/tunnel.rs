//! A tunnel as an exchange: with the backend's 101 it joins the open ones, and leaves them when the exchange is dropped.

use super::Gateway;
use super::context::Exchange;

impl Gateway {
    /// To be called after the 101's session news: a session that it made is the tunnel's own.
    pub(super) fn tunnel_opened(&self, exchange: &mut Exchange) {
        let (Some(tunnel), Some(app), Some(claim)) = (&exchange.tunnel, &exchange.app, &exchange.claim) else { return };
        let key = if exchange.ignored { None } else { exchange.visit.session_key() };
        let slot = claim.forward.backend.slot;
        exchange.tunnel_entry = Some(self.control.tunnels.enter(app, slot, key, tunnel.handle(), self.control.now()));
    }
}
