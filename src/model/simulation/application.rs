//! The two ends: applications that remember sessions, each with its own mind, and clients with cookie jars.

use std::collections::HashMap;
use std::time::Duration;

use super::shell::Exchange;
use super::{Place, Simulation};
use crate::model::replay::Errand;
use crate::model::settings::PinMode;
use crate::model::time::Time;

/// A person, or a crawler, of one app.
pub(super) struct Client {
    pub(super) app: usize,
    /// The value of its session cookie, as it came.
    pub(super) jar: Option<String>,
    /// Its pin cookie, if the app pins so.
    pub(super) pin: Option<String>,
    pub(super) address: u64,
    /// Crawlers never do: they are replaced by somebody new.
    pub(super) comes_back: bool,
    /// Under way.
    pub(super) exchanges: usize,
}

/// The memory of one backend.
#[derive(Default)]
pub(super) struct Application {
    sessions: HashMap<String, Visit>,
    /// Not alive: connects are refused.
    pub(super) dead: bool,
}

#[derive(Clone, Copy)]
struct Visit {
    seen: Time,
    /// Made for an id from elsewhere, and nobody but the application knows of it yet: its answer is still to be heard, or it is
    /// a stand-in's, whose user goes back to the id's home.
    guest: bool,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Needs a session.
    Page,
    /// Needs none and makes none.
    Image,
    /// Needs none, and renews what is there.
    Poll,
    /// Gives a session a new id.
    Login,
    /// Ends it.
    Logout,
    /// Deletes a cookie of the same name and another path: no end.
    Cleanup,
    /// Needs a session, and carries none: a move point.
    Arrival,
    /// A WebSocket: needs a session, and stays open.
    Tunnel,
}

impl Want {
    pub(super) const ALL: [Want; 8] =
        [Want::Page, Want::Image, Want::Poll, Want::Login, Want::Logout, Want::Cleanup, Want::Arrival, Want::Tunnel];

    pub(super) fn errand(self) -> Errand {
        match self {
            Want::Page | Want::Image | Want::Poll | Want::Tunnel => Errand::Read,
            Want::Login | Want::Cleanup => Errand::Write,
            Want::Logout => Errand::Farewell,
            Want::Arrival => Errand::Arrival,
        }
    }
}

/// The scope of every session cookie, and of another one.
pub(super) const SCOPE: u32 = 1;
pub(super) const OTHER_SCOPE: u32 = 2;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    Set(String),
    Deleted(u32),
    /// 500: says nothing about the session.
    Failure,
    /// 421: it has done nothing, for the session is not there.
    NotMine,
}

impl Application {
    fn honours(&self, id: &str, timeout: Duration, now: Time) -> Option<Visit> {
        self.sessions.get(id).copied().filter(|visit| now.since(visit.seen) < timeout)
    }

    pub(super) fn restart(&mut self) {
        self.sessions.clear();
    }
}

impl Simulation {
    /// The application's own timeout: never longer than the one we are told, or no count could be true.
    fn timeout(&self, app: usize) -> Duration {
        let told = self.world.view.apps[app].settings.session.idle_timeout;
        if self.seed.is_multiple_of(3) { told / 2 } else { told }
    }

    /// Whether the applications of this run take ids that they do not know (PHP without strict mode), or replace them.
    pub(super) fn lenient(&self) -> bool {
        self.seed % 4 == 1
    }

    /// Whether the applications of this run say so when they do not know a session.
    fn disown(&self) -> bool {
        self.seed % 4 == 2
    }

    /// The backends that honour the id in this jar at this moment; guests are told apart.
    pub(super) fn honoured_by(&self, app: usize, id: &str) -> Vec<(u32, bool)> {
        let (timeout, now) = (self.timeout(app), self.world.now);
        let all = self.applications.iter().filter(|((a, _), _)| *a == app);
        let mut found: Vec<_> = all.filter_map(|((_, slot), at)| Some((*slot, at.honours(id, timeout, now)?.guest))).collect();
        found.sort_unstable();
        found
    }

    /// The ledger has heard that the application took this id as its own.
    pub(super) fn settled(&mut self, place: Place, id: &str) {
        if let Some(visit) = self.applications.entry(place).or_default().sessions.get_mut(id) {
            visit.guest = false;
        }
    }

    /// The ledger has been told that this id is over, and the application does not think so.
    pub(super) fn unsettled(&mut self, app: usize, id: &str) {
        for (_, application) in self.applications.iter_mut().filter(|((a, _), _)| *a == app) {
            if let Some(visit) = application.sessions.get_mut(id) {
                visit.guest = true;
            }
        }
    }

    /// The id that the jar's value is to the application: without HAProxy's prefix.
    pub(super) fn id_of(&self, client: usize) -> Option<String> {
        let client = &self.clients[client];
        let jar = client.jar.as_ref()?;
        let app = &self.world.view.apps[client.app];
        match app.settings.session.pin {
            PinMode::Prefix => {
                let (_, id) = crate::model::facts::known_prefix(app, jar.as_bytes());
                Some(String::from_utf8_lossy(id).into_owned())
            }
            _ => Some(jar.clone()),
        }
    }

    /// The application works on a request.
    pub(super) fn work(&mut self, exchange: &mut Exchange) {
        let place: Place = (exchange.app, exchange.forward.backend.slot);
        let (timeout, now, lenient) = (self.timeout(exchange.app), self.world.now, self.lenient());
        let disowns = self.disown() && exchange.brought.is_some() && exchange.want != Want::Tunnel;
        self.next_name += 1;
        let name = match self.world.view.apps[exchange.app].settings.session.pin {
            PinMode::Route => format!("s{}.{}", self.next_name, exchange.forward.backend.spec.route),
            _ => format!("s{}", self.next_name),
        };
        let application = self.applications.entry(place).or_default();
        let known = exchange.brought.as_ref().and_then(|id| Some((id.clone(), application.honours(id, timeout, now)?)));
        let fresh = Visit { seen: now, guest: false };
        let mut opened = false;
        let news = match (exchange.want, known) {
            _ if self.dice.below(50) == 0 => News::Failure,
            (_, None) if disowns => News::NotMine,
            (Want::Cleanup, _) => News::Deleted(OTHER_SCOPE),
            (Want::Logout, known) => {
                if let Some((id, _)) = known {
                    application.sessions.remove(&id);
                }
                // Some leave the cookie where it is.
                if exchange.brought.is_some() && self.dice.below(3) > 0 { News::Deleted(SCOPE) } else { News::Nothing }
            }
            (Want::Login, Some((id, visit))) => {
                application.sessions.remove(&id);
                application.sessions.insert(name.clone(), Visit { seen: now, ..visit });
                News::Set(name)
            }
            (_, Some((id, visit))) => {
                application.sessions.insert(id.clone(), Visit { seen: now, ..visit });
                // Some write the cookie with every answer.
                if self.dice.below(10) == 0 { News::Set(id) } else { News::Nothing }
            }
            (Want::Image | Want::Poll, None) => News::Nothing,
            (Want::Page | Want::Login | Want::Arrival | Want::Tunnel, None) => {
                opened = true;
                match exchange.brought.clone().filter(|_| lenient) {
                    Some(id) => {
                        application.sessions.insert(id, Visit { guest: true, ..fresh });
                        News::Nothing
                    }
                    None => {
                        application.sessions.insert(name.clone(), fresh);
                        News::Set(name)
                    }
                }
            }
        };
        if opened {
            self.opened(exchange);
        }
        self.note(|| format!("{} {:?} {:?}: {news:?}", exchange.told(), exchange.want, exchange.brought));
        exchange.answer = Some(news);
    }
}
