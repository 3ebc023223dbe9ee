//! What identifies a session on the wire: which id a request carries, what a response says about ids, and the edits of
//! cookie fields that follow. Ids are octets exactly as the application wrote them: nothing here decodes `%41` or lowers case,
//! or the same session would have two keys.

mod candidates;
mod cookie_date;
mod cookie_edit;
mod cookie_pair;
mod news;
mod parameter;
mod pin_cookie;
mod request;
mod route;
mod set_cookie;

pub use candidates::{Candidates, MAX_CANDIDATES, MAX_ID_BYTES, usable};
pub use cookie_date::parse_cookie_date;
pub use cookie_edit::{CookieEdit, CookieField, Prefixed, edit_cookies, insert_prefix};
pub use news::{Deletion, NewId, News, news};
pub use parameter::{path_parameter, query_parameter, without_path_parameter, without_query_parameter};
pub use pin_cookie::{MAX_DOMAIN_BYTES, PIN_COOKIE_PREFIX, PinAttributes, delete_pin_cookie, pin_cookie_name, set_pin_cookie};
pub use request::{Identity, identify};
pub use route::{route_suffix, split_prefix};
pub use set_cookie::{SameSite, Scope, SetCookie};

/// Where an app's session ids travel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionNames {
    /// Alternatives: the first one of this list that a request carries wins, wherever it stands in the request.
    pub cookies: Vec<String>,
    /// `;name=id` in the path; any case.
    pub path_parameter: Option<String>,
    /// `?name=id`; exact case.
    pub query_parameter: Option<String>,
    /// A header that carries the id both ways; any case.
    pub header: Option<String>,
}

/// What carried an id. A request that carries ids in several ways has the id of the first, in this order: where cookies work,
/// the others are leftovers of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// The cookie at this position of [`SessionNames::cookies`].
    Cookie(usize),
    /// The header.
    Header,
    /// The path parameter.
    Path,
    /// The query parameter.
    Query,
}
