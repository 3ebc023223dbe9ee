//! What would happen to a request, and why: the same facts and the same decision as for a real one, without claiming.

use crate::model::balance::mix;
use crate::model::decide::{Decision, Question, decide};
use crate::model::facts::Facts;
use crate::model::ledger::Standing;
use crate::model::reason::{PinResult, Reason};
use crate::model::replay::Errand;
use crate::model::time::Time;
use crate::model::view::App;

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `forward`, `refuse` or `wait`.
    pub decision: &'static str,
    /// `app/release/backend`.
    pub backend: Option<String>,
    /// Why; `None` while it would wait.
    pub reason: Option<Reason>,
    /// What becomes of the pin.
    pub pin: PinResult,
    /// `live`, `unconfirmed`, `seen_once`, an end's reason, or `none`.
    pub session: &'static str,
    /// Whether the dead session id would be taken out.
    pub strip: bool,
}

/// Explains a request with these header fields (names in lower case).
pub fn explain(app: &App, target: &str, headers: &[(String, String)], now: Time) -> Explanation {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let cookies = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie")).map(|(_, value)| value.as_bytes());
    let mut by_name = headers.iter();
    let facts = Facts::read(
        app,
        cookies,
        |name| by_name.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes()),
        path.as_bytes(),
        query.map(str::as_bytes),
        now,
    );
    let session = match facts.session.map(|found| found.standing) {
        None => "none",
        Some(Standing::Live { confirmed: true }) => "live",
        Some(Standing::Live { confirmed: false }) => "unconfirmed",
        Some(Standing::Candidate) => "seen_once",
        Some(Standing::Ended(reason)) => reason.as_str(),
    };
    let question = Question {
        now,
        has_id: facts.key.is_some(),
        session: facts.session,
        pin: facts.pin,
        tried: &[],
        waited: false,
        // Nobody is asked for a method: a click.
        errand: Errand::of(&http::Method::GET, path, &app.settings.drain),
        disowned: false,
        dice: mix(now.0),
        client: 0,
    };
    match decide(app, &question) {
        Decision::Forward(forward) => {
            let backend = &forward.backend;
            Explanation {
                decision: "forward",
                backend: Some(format!("{}/{}/{}", app.name, backend.release, backend.spec.name)),
                reason: Some(forward.reason),
                pin: forward.pin,
                session,
                strip: forward.strip,
            }
        }
        Decision::Refuse(reason, pin) => {
            Explanation { decision: "refuse", backend: None, reason: Some(reason), pin, session, strip: false }
        }
        Decision::Wait(backend, _) => {
            let name = format!("{}/{}/{}", app.name, backend.release, backend.spec.name);
            Explanation { decision: "wait", backend: Some(name), reason: None, pin: PinResult::Down, session, strip: false }
        }
    }
}
