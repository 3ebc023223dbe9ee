//! What the backend sees of the client's cookies: without pins, without a session cookie that is dead, without our prefix.
//! Everything else keeps its octets and its order: applications parse cookies in more ways than any RFC knows.

use super::cookie_pair::{pair, split_at_value};
use super::pin_cookie::PIN_COOKIE_PREFIX;
use crate::model::octets::{split, split_before, split_once};

/// What to change.
pub struct CookieEdit<'e> {
    /// Whether an app of this name is configured: the cookies `tidegate_<app>` of all of them are removed, since a sibling's
    /// pin is no backend's business either. Other cookies that merely begin with `tidegate_` stay.
    pub is_app: &'e dyn Fn(&[u8]) -> bool,
    /// Session cookies to strip because the user is moved. Empty on the usual way: the application judges its own cookies.
    pub dead: &'e [String],
    /// In the pin mode `prefix`: whose value loses its prefix.
    pub prefixed: Option<Prefixed<'e>>,
}

/// Where HAProxy's `tomcat1~abc` may stand.
pub struct Prefixed<'e> {
    /// The session cookies.
    pub cookies: &'e [String],
    /// Whether a backend has this route. An id that contains `~` and no prefix was set before tidegate came, and stays whole.
    pub is_route: &'e dyn Fn(&[u8]) -> bool,
}

/// The request's `Cookie` field afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CookieField {
    /// As it was, in one field or none.
    Unchanged,
    /// No cookie is left; the field goes.
    Removed,
    /// This one field instead.
    Replaced(Vec<u8>),
}

/// Edits the values of all `Cookie` fields of a request. Several fields become one, joined by `"; "` as RFC 9113 §8.2.3
/// asks before they enter HTTP/1.1. Allocates only to replace.
pub fn edit_cookies<'a>(fields: impl Iterator<Item = &'a [u8]> + Clone, edit: &CookieEdit) -> CookieField {
    let several = fields.clone().nth(1).is_some();
    let changes = |field: &[u8]| parts(field).any(|part| !matches!(edit.fate(part), Fate::Keep));
    if !several && !fields.clone().any(changes) {
        return CookieField::Unchanged;
    }
    let mut joined = Vec::with_capacity(fields.clone().map(|field| field.len() + 2).sum());
    let mut any_cookie = false;
    for field in fields.map(<[u8]>::trim_ascii).filter(|field| !field.is_empty()) {
        let mut separator: &[u8] = if joined.is_empty() { b"" } else { b"; " };
        for part in parts(field) {
            let (head, tail) = match edit.fate(part) {
                Fate::Drop => continue,
                Fate::Keep => (part, [].as_slice()),
                Fate::Cut { head, tail } => (head, tail),
            };
            any_cookie |= !part.trim_ascii().is_empty();
            joined.extend_from_slice(separator);
            // A part that becomes the first of its field leaves the blank behind that followed its semicolon.
            joined.extend_from_slice(if separator == b";" { head } else { head.trim_ascii_start() });
            joined.extend_from_slice(tail);
            separator = b";";
        }
    }
    if any_cookie { CookieField::Replaced(joined) } else { CookieField::Removed }
}

/// The application's `Set-Cookie` line with `route~` before its value, as HAProxy's `prefix` mode writes it. `None` where there is
/// nothing to prefix: an empty value is a deletion.
pub fn insert_prefix(line: &[u8], route: &str) -> Option<Vec<u8>> {
    let (first, attributes) = split_before(line, |octet| octet == b';');
    let (_, value) = pair(first)?;
    if value.is_empty() {
        return None;
    }
    let (head, tail) = split_at_value(first)?;
    Some([head, route.as_bytes(), b"~", tail, attributes].concat())
}

enum Fate<'a> {
    Keep,
    Drop,
    /// Only these two pieces stay.
    Cut {
        head: &'a [u8],
        tail: &'a [u8],
    },
}

impl CookieEdit<'_> {
    fn fate<'a>(&self, part: &'a [u8]) -> Fate<'a> {
        let Some((name, _)) = pair(part) else { return Fate::Keep };
        if name.strip_prefix(PIN_COOKIE_PREFIX.as_bytes()).is_some_and(self.is_app) || is_in(name, self.dead) {
            return Fate::Drop;
        }
        let prefixed = self.prefixed.as_ref().filter(|prefixed| is_in(name, prefixed.cookies));
        prefixed.and_then(|prefixed| prefixed.cut(part)).unwrap_or(Fate::Keep)
    }
}

impl Prefixed<'_> {
    fn cut<'a>(&self, part: &'a [u8]) -> Option<Fate<'a>> {
        let (head, value) = split_at_value(part)?;
        let (route, tail) = split_once(value, b'~')?;
        (self.is_route)(route).then_some(Fate::Cut { head, tail })
    }
}

fn is_in(name: &[u8], names: &[String]) -> bool {
    names.iter().any(|known| known.as_bytes() == name)
}

fn parts(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(field, b';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::xorshift::Xorshift;

    fn edit(fields: &[&[u8]], dead: &[String], cookies: &[String]) -> CookieField {
        let is_app = |app: &[u8]| app == b"shop" || app == b"blog";
        let is_route = |route: &[u8]| route == b"t1" || route == b"t2";
        let prefixed = Some(Prefixed { cookies, is_route: &is_route });
        edit_cookies(fields.iter().copied(), &CookieEdit { is_app: &is_app, dead, prefixed })
    }

    fn check(fields: &[&str], dead: &[&str], cookies: &[&str], expected: Option<&str>) {
        let octets: Vec<_> = fields.iter().map(|field| field.as_bytes()).collect();
        let [dead, cookies] = [dead, cookies].map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let expected = match expected {
            None => CookieField::Unchanged,
            Some("") => CookieField::Removed,
            Some(text) => CookieField::Replaced(text.as_bytes().to_vec()),
        };
        assert_eq!(edit(&octets, &dead, &cookies), expected, "{fields:?}");
    }

    #[test]
    fn pins_of_configured_apps_go_and_everything_else_keeps_its_octets() {
        let check = |fields: &[&str], expected| check(fields, &[], &[], expected);
        check(&[], None);
        check(&[""], None);
        check(&["a=1;b=2;  c = \"x\" ;;"], None);
        check(&["tidegate_other=1; tidegate_=2; Tidegate_shop=3; tidegate_shop"], None);
        check(&["tidegate_shop=p"], Some(""));
        check(&["tidegate_shop=p;"], Some(""));
        check(&["tidegate_shop=p; tidegate_blog=q"], Some(""));
        check(&["a=1; tidegate_shop=p; b=2"], Some("a=1; b=2"));
        check(&["tidegate_shop=p; a=1; b=2"], Some("a=1; b=2"));
        check(&["tidegate_shop=p;a=1;b=2"], Some("a=1;b=2"));
        check(&["a=1; b=2; tidegate_shop=p"], Some("a=1; b=2"));
        check(&["a=1; b=2; tidegate_shop=p;"], Some("a=1; b=2;"));
        check(&["a=\"1 2\" ;tidegate_shop = p;b;=c;\u{e9}=\u{1}"], Some("a=\"1 2\" ;b;=c;\u{e9}=\u{1}"));
        check(&["tidegate_shop=p", "tidegate_shop=q; a=1"], Some("a=1"));
        check(&["JSESSIONID=x.t1; tidegate_shop=p"], Some("JSESSIONID=x.t1"));
    }

    #[test]
    fn several_fields_become_one() {
        let check = |fields: &[&str], expected| check(fields, &[], &[], expected);
        check(&["a=1", "SRV=s2", "b=2; c=3"], Some("a=1; SRV=s2; b=2; c=3"));
        check(&["a=1", "tidegate_shop=p", "b=2"], Some("a=1; b=2"));
        check(&["tidegate_shop=p", "b=2"], Some("b=2"));
        check(&["", " ", "b=2"], Some("b=2"));
        check(&["", ""], Some(""));
        check(&[" ;", "tidegate_shop=p"], Some(""));
    }

    #[test]
    fn a_dead_session_cookie_goes_in_every_copy() {
        let check = |fields: &[&str], expected| check(fields, &["JSESSIONID"], &[], expected);
        check(&["JSESSIONID=a"], Some(""));
        check(&["JSESSIONID=a; JSESSIONID=b; c=3"], Some("c=3"));
        check(&["c=3; JSESSIONID=\"a\""], Some("c=3"));
        check(&["SID=s; jsessionid=a"], None);
        check(&["tidegate_shop=p; JSESSIONID=a; SID=s"], Some("SID=s"));
    }

    #[test]
    fn a_known_route_before_a_tilde_is_cut_off() {
        let check = |fields: &[&str], expected| check(fields, &[], &["JSESSIONID"], expected);
        check(&["JSESSIONID=t1~abc"], Some("JSESSIONID=abc"));
        check(&["a=1; JSESSIONID=t2~abc; b=t1~x"], Some("a=1; JSESSIONID=abc; b=t1~x"));
        check(&["JSESSIONID=\"t1~abc\" ; b=2"], Some("JSESSIONID=\"abc\" ; b=2"));
        check(&["JSESSIONID= t1~abc"], Some("JSESSIONID= abc"));
        check(&["JSESSIONID=t1~a~b"], Some("JSESSIONID=a~b"));
        check(&["JSESSIONID=t9~abc"], None);
        check(&["JSESSIONID=~abc"], None);
        check(&["JSESSIONID=abc"], None);
        check(&["tidegate_shop=p; JSESSIONID=t1~abc"], Some("JSESSIONID=abc"));
    }

    #[test]
    fn a_prefix_goes_before_the_value_of_a_set_cookie() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(insert_prefix(line.as_bytes(), "t1"), expected.map(|line| line.as_bytes().to_vec()), "{line}");
        };
        check("JSESSIONID=abc; Path=/; HttpOnly", Some("JSESSIONID=t1~abc; Path=/; HttpOnly"));
        check("JSESSIONID=\"abc\";Path=/", Some("JSESSIONID=\"t1~abc\";Path=/"));
        check("JSESSIONID = abc", Some("JSESSIONID = t1~abc"));
        check("JSESSIONID=; Max-Age=0", None);
        check("JSESSIONID=\"\"; Max-Age=0", None);
        check("JSESSIONID", None);
    }

    #[test]
    fn any_field_can_be_edited_and_then_nothing_of_ours_is_left() {
        let mut dice = Xorshift(0xc00c1e);
        let names = ["JSESSIONID".to_owned()];
        let pieces = ["tidegate_shop", "JSESSIONID", "=", "; ", ";", " ", "t1~", "a", "\"", "\t", "x=1; "];
        for _ in 0..20_000 {
            let field: String = (0..dice.below(12)).map(|_| dice.pick(&pieces)).collect();
            let wild = dice.octets(30, b"tidegate_shop=; ");
            for fields in [[field.as_bytes(), &wild].as_slice(), &[field.as_bytes()], &[&wild]] {
                let CookieField::Replaced(once) = edit(fields, &names, &[]) else { continue };
                assert_eq!(edit(&[&once], &names, &[]), CookieField::Unchanged, "{}", once.escape_ascii());
            }
        }
    }
}
