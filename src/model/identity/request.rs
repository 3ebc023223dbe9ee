//! Reads a request's identity in one pass over its cookies, without allocating. It gives candidates, not an answer: which
//! of several ids lives is for the ledger to say.

use super::candidates::Candidates;
use super::cookie_pair::pairs;
use super::parameter::{path_parameter, query_parameter};
use super::{Carrier, SessionNames};

/// What a request says about who sent it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// Session ids of the winning carrier, in the order of the request; in the pin mode `prefix` still with their prefix.
    pub ids: Candidates<'a>,
    /// What carried them; `None` exactly when there is no id.
    pub carrier: Option<Carrier>,
    /// Values of this app's pin cookie. Several when it was set for several domains; the latest issued valid one counts.
    pub pins: Candidates<'a>,
}

/// Finds the session ids and pins of a request.
///
/// `pin_cookie` is the name of the app's pin cookie, `None` where pins are not in a cookie. `cookies` are the values of
/// all `Cookie` fields (HTTP/2 splits them, RFC 9113 §8.2.3). `id_header` looks up a header and is asked only if it matters.
pub fn identify<'a>(
    names: &SessionNames,
    pin_cookie: Option<&str>,
    cookies: impl IntoIterator<Item = &'a [u8]>,
    id_header: impl FnOnce(&str) -> Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
) -> Identity<'a> {
    let mut found = Identity::default();
    for field in cookies {
        for (name, value) in pairs(field) {
            if pin_cookie.is_some_and(|pin| pin.as_bytes() == name) {
                found.pins.add(value);
            } else if let Some(rank) = names.cookies.iter().position(|known| known.as_bytes() == name) {
                found.add_cookie(rank, value);
            }
        }
    }
    if found.carrier.is_some() {
        return found;
    }
    if let Some(value) = names.header.as_deref().and_then(id_header) {
        found.take(Carrier::Header, std::iter::once(value.trim_ascii()));
    }
    if let (None, Some(name)) = (found.carrier, &names.path_parameter) {
        found.take(Carrier::Path, path_parameter(path, name));
    }
    if let (None, Some(name), Some(query)) = (found.carrier, &names.query_parameter, query) {
        found.take(Carrier::Query, query_parameter(query, name));
    }
    found
}

impl<'a> Identity<'a> {
    /// A cookie of a better rank replaces what a worse one brought; an unusable value is as good as absent.
    fn add_cookie(&mut self, rank: usize, value: &'a [u8]) {
        let carrier = Carrier::Cookie(rank);
        match self.carrier {
            Some(held) if held == carrier => self.ids.add(value),
            Some(held) if held < carrier => {}
            _ => self.take(carrier, std::iter::once(value)),
        }
    }

    fn take(&mut self, carrier: Carrier, values: impl Iterator<Item = &'a [u8]>) {
        let mut ids = Candidates::default();
        values.for_each(|value| ids.add(value));
        if !ids.is_empty() {
            self.ids = ids;
            self.carrier = Some(carrier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::xorshift::Xorshift;

    fn names() -> SessionNames {
        SessionNames {
            cookies: vec!["JSESSIONID".into(), "SID".into()],
            path_parameter: Some("jsessionid".into()),
            query_parameter: Some("PHPSESSID".into()),
            header: Some("Mcp-Session-Id".into()),
        }
    }

    fn ask<'a>(cookies: &[&'a [u8]], header: Option<&'a [u8]>, path: &'a str, query: &'a str) -> Identity<'a> {
        let query = (!query.is_empty()).then_some(query.as_bytes());
        identify(
            &names(),
            Some("tidegate_shop"),
            cookies.iter().copied(),
            |name| {
                assert_eq!(name, "Mcp-Session-Id");
                header
            },
            path.as_bytes(),
            query,
        )
    }

    fn shown(values: &Candidates) -> Vec<String> {
        values.iter().map(|value| value.escape_ascii().to_string()).collect()
    }

    #[test]
    fn the_first_present_cookie_name_wins_and_duplicates_are_all_candidates() {
        let check = |cookies: &[&str], rank: Option<usize>, ids: &[&str]| {
            let fields: Vec<_> = cookies.iter().map(|field| field.as_bytes()).collect();
            let found = ask(&fields, None, "/", "");
            assert_eq!(found.carrier, rank.map(Carrier::Cookie), "{cookies:?}");
            assert_eq!(shown(&found.ids), ids, "{cookies:?}");
        };
        check(&[], None, &[]);
        check(&[""], None, &[]);
        check(&["JSESSIONID=a"], Some(0), &["a"]);
        check(&["x=1; JSESSIONID=a; y=2"], Some(0), &["a"]);
        check(&["SID=b"], Some(1), &["b"]);
        check(&["SID=b; JSESSIONID=a"], Some(0), &["a"]);
        check(&["JSESSIONID=a; SID=b"], Some(0), &["a"]);
        check(&["SID=b", "JSESSIONID=a"], Some(0), &["a"]);
        check(&["JSESSIONID=a; JSESSIONID=b"], Some(0), &["a", "b"]);
        check(&["JSESSIONID=a", "JSESSIONID=b"], Some(0), &["a", "b"]);
        check(&["JSESSIONID=a; JSESSIONID=a"], Some(0), &["a"]);
        check(&["JSESSIONID=1; JSESSIONID=2; JSESSIONID=3; JSESSIONID=4; JSESSIONID=5"], Some(0), &["1", "2", "3", "4"]);
        check(&["JSESSIONID=; SID=b"], Some(1), &["b"]);
        check(&["JSESSIONID=\"\"; SID=b"], Some(1), &["b"]);
        check(&["SID=b; JSESSIONID="], Some(1), &["b"]);
        check(&["JSESSIONID=; JSESSIONID=a"], Some(0), &["a"]);
        check(&["JSESSIONID=\"a b\""], Some(0), &["a b"]);
        check(&["JSESSIONID=\"a"], Some(0), &["\\\"a"]);
        check(&["JSESSIONID=\""], Some(0), &["\\\""]);
        check(&["  JSESSIONID = a  "], Some(0), &["a"]);
        check(&["\tJSESSIONID=a\t;"], Some(0), &["a"]);
        check(&[";;;JSESSIONID=a;;"], Some(0), &["a"]);
        check(&["JSESSIONID=a=b=="], Some(0), &["a=b=="]);
        check(&["JSESSIONID=\"a;b\""], Some(0), &["\\\"a"]);
        check(&["JSESSIONID"], None, &[]);
        check(&["=JSESSIONID"], None, &[]);
        check(&["jsessionid=a"], None, &[]);
        check(&["JSESSIONIDX=a; XJSESSIONID=b"], None, &[]);
        check(&["JSESSIONID=a\u{1}b"], None, &[]);
        check(&["JSESSIONID=a\u{7f}"], None, &[]);
        check(&["JSESSIONID=é"], Some(0), &["\\xc3\\xa9"]);
    }

    #[test]
    fn cookie_then_header_then_path_then_query() {
        let check = |cookie: &str, header: Option<&str>, path: &str, query: &str, expected: Option<(Carrier, &str)>| {
            let found = ask(&[cookie.as_bytes()], header.map(str::as_bytes), path, query);
            assert_eq!(found.carrier, expected.map(|(carrier, _)| carrier));
            let ids: Vec<_> = expected.iter().map(|(_, id)| id.to_string()).collect();
            assert_eq!(shown(&found.ids), ids);
        };
        let (path, query) = ("/a;jsessionid=P.t1", "x=1&PHPSESSID=Q");
        check("JSESSIONID=C", Some("H"), path, query, Some((Carrier::Cookie(0), "C")));
        check("other=C", Some("H"), path, query, Some((Carrier::Header, "H")));
        check("", Some(" H "), path, query, Some((Carrier::Header, "H")));
        check("", Some(""), path, query, Some((Carrier::Path, "P.t1")));
        check("", None, path, query, Some((Carrier::Path, "P.t1")));
        check("JSESSIONID=", None, path, query, Some((Carrier::Path, "P.t1")));
        check("", None, "/a;jsessionid=", query, Some((Carrier::Query, "Q")));
        check("", None, "/a", query, Some((Carrier::Query, "Q")));
        check("", None, "/a", "", None);
    }

    #[test]
    fn an_id_longer_than_a_cookie_can_be_is_absent() {
        let longest = [b"JSESSIONID=".as_slice(), &[b'a'; MAX]].concat();
        let too_long = [b"JSESSIONID=".as_slice(), &[b'a'; MAX + 1]].concat();
        const MAX: usize = super::super::MAX_ID_BYTES;
        assert_eq!(ask(&[&longest], None, "/", "").ids.len(), 1);
        assert!(ask(&[&too_long], None, "/", "").ids.is_empty());
    }

    #[test]
    fn only_this_apps_pin_cookie_is_read_and_every_copy_of_it() {
        let cookies: [&[u8]; 2] = [b"tidegate_shop=p1; tidegate_blog=q; JSESSIONID=a", b"tidegate_shop=\"p2\""];
        let found = ask(&cookies, None, "/", "");
        assert_eq!(shown(&found.pins), ["p1", "p2"]);
        assert_eq!(shown(&found.ids), ["a"]);
        let found = identify(&names(), None, cookies, |_| None, b"/", None);
        assert!(found.pins.is_empty());
    }

    #[test]
    fn no_request_makes_it_panic() {
        let mut dice = Xorshift(0x1d);
        for _ in 0..20_000 {
            let cookie = dice.octets(60, b"JSESSIONID=; \"\ttidegate_shop");
            let header = dice.octets(8, b" a");
            let path = dice.octets(40, b"/;jsessionid=");
            let query = dice.octets(40, b"&PHPSESSID=");
            let header = |_: &str| Some(header.as_slice());
            let found = identify(&names(), Some("tidegate_shop"), [cookie.as_slice()], header, &path, Some(&query));
            assert_eq!(found.carrier.is_none(), found.ids.is_empty());
        }
    }
}
