//! What stands before the two Tomcats, and how its operator deploys with it.
//!
//! Each is set up as its manual says and drained by its own command; none gets a hint that the others lack.

use crate::apache::Apache;
use crate::client::Browser;
use crate::haproxy::HaProxy;
use crate::shop::Shop;
use crate::tidegate::Tidegate;
use crate::tomcat::{Context, Tomcat};

/// A kind of proxy with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// tidegate with this `session.pin`.
    Tidegate(&'static str),
    /// HAProxy with this argument of `cookie`.
    HaProxy(&'static str),
    /// Apache's mod_proxy_balancer, sticky by Tomcat's route.
    Apache,
}

/// A contestant: a kind before a shop (context) of its own on the same two Tomcats.
#[derive(Debug, Clone, Copy)]
pub struct Contestant {
    pub name: &'static str,
    pub kind: Kind,
    pub context: &'static str,
}

const fn contestant(name: &'static str, kind: Kind, context: &'static str) -> Contestant {
    Contestant { name, kind, context }
}

pub const CONTESTANTS: [Contestant; 6] = [
    contestant("tidegate, `pin: cookie`", Kind::Tidegate("cookie"), "/c"),
    contestant("tidegate, `pin: route`", Kind::Tidegate("route"), "/r"),
    contestant("HAProxy, `cookie SRV insert indirect nocache`", Kind::HaProxy("SRV insert indirect nocache"), "/i"),
    contestant("HAProxy, the same with `maxidle 1m`", MAXIDLE, "/m"),
    contestant("HAProxy, `cookie JSESSIONID prefix`", Kind::HaProxy("JSESSIONID prefix"), "/p"),
    contestant("Apache, `stickysession=JSESSIONID`", Kind::Apache, "/a"),
];

/// The one setting of the others that ends a pin with its session: it repeats the application's timeout.
pub const MAXIDLE: Kind = Kind::HaProxy("SRV insert indirect nocache maxidle 60s");

impl Contestant {
    /// The shop, with session cookies.
    pub fn shop(&self) -> Context {
        Context { path: self.context, cookies: true }
    }

    /// Starts it; all new sessions go to the old Tomcat, `a1`.
    pub fn start(&self, old: &Tomcat, new: &Tomcat) -> Running {
        let backends = [("a1", old.address()), ("b1", new.address())];
        match self.kind {
            Kind::Tidegate(pin) => {
                let [old, new] = backends.map(|(name, address)| format!("{name}: \"{address}\""));
                let shop = Shop::new(pin)
                    .session("idle_timeout: 1m") // the application's own
                    .probed(&format!("{}/health.jsp", self.context))
                    .patient_probes()
                    .release_of("v1", vec![old])
                    .release_of("v2", vec![new]);
                Running::Tidegate(shop.start())
            }
            Kind::HaProxy(cookie) => {
                let haproxy = HaProxy::with_cookie(cookie, &backends);
                haproxy.set_state("b1", "maint");
                Running::HaProxy(haproxy)
            }
            Kind::Apache => {
                let apache = Apache::with_routes(&backends);
                apache.set_flag("b1", 'D', true);
                Running::Apache(apache)
            }
        }
    }
}

/// A contestant's process.
pub enum Running {
    Tidegate(Tidegate),
    HaProxy(HaProxy),
    Apache(Apache),
}

impl Running {
    pub fn port(&self) -> u16 {
        match self {
            Running::Tidegate(tidegate) => tidegate.port(),
            Running::HaProxy(haproxy) => haproxy.port(),
            Running::Apache(apache) => apache.port(),
        }
    }

    pub fn browser(&self) -> Browser {
        Browser::new(self.port())
    }

    /// Sends new sessions to `b1` and drains `a1`; returns when that holds for every later request.
    pub fn deploy(&self) {
        match self {
            Running::Tidegate(tidegate) => {
                tidegate.cli(&["promote", "shop", "v2", "--from", "v1"]).expect_code(0);
            }
            Running::HaProxy(haproxy) => {
                haproxy.set_state("b1", "ready");
                haproxy.set_state("a1", "drain");
            }
            Running::Apache(apache) => {
                apache.set_flag("b1", 'D', false);
                apache.set_flag("a1", 'N', true);
            }
        }
    }

    /// Does it say by itself that the old release is empty? The others have no word for it.
    pub fn says_drained(&self) -> bool {
        match self {
            Running::Tidegate(tidegate) => tidegate.release_state("shop", "v1") == "drained",
            Running::HaProxy(_) | Running::Apache(_) => false,
        }
    }
}
