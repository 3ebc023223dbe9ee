//! What a response says about the session: a new id, the end of the old one, or nothing. It does not say what that means (born, rotated,
//! replaced, or merely repeated): only the ledger knows which id was live when the request was decided.

use super::candidates::usable;
use super::set_cookie::{Scope, SetCookie};
use super::{Carrier, SessionNames};
use crate::model::time::Time;

/// A response's word on its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// No word.
    Nothing,
    /// The client has this id from now on, maybe the one it had.
    Set(NewId<'a>),
    /// The client is told to forget its cookie.
    Deleted(Deletion<'a>),
}

/// An id on its way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewId<'a> {
    /// As the application wrote it, without quotation marks.
    pub id: &'a [u8],
    /// A cookie or the header.
    pub carrier: Carrier,
    /// For the ledger: a later deletion counts only if it matches. Unknown for a header.
    pub scope: Scope,
    /// The line, whose attributes our pin copies; `None` for a header.
    pub cookie: Option<SetCookie<'a>>,
}

/// An order to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion<'a> {
    /// Which of [`SessionNames::cookies`] it is.
    pub carrier: Carrier,
    /// Ends the session only if it [matches](Scope::matches) the scope at birth.
    pub scope: Scope,
    /// The line, whose Domain the deletion of our pin copies.
    pub cookie: SetCookie<'a>,
}

/// Reads all `Set-Cookie` lines of a response, and `id_header`, the value of [`SessionNames::header`] if it has one.
///
/// The last line for a cookie wins, as in the browser. A cookie is name, domain and path: a deletion of the one at `/old` beside
/// a new id at `/` takes nothing back, in either order. `request_path` and the lines must be of the same side of a path mapping.
pub fn news<'a>(
    set_cookies: impl IntoIterator<Item = &'a [u8]>,
    id_header: Option<&'a [u8]>,
    names: &SessionNames,
    request_path: &[u8],
    now: Time,
) -> News<'a> {
    let (mut set, mut deleted) = (None::<NewId>, None::<Deletion>);
    for line in set_cookies {
        let Some((carrier, cookie)) = session_cookie(line, names) else { continue };
        let scope = cookie.scope(request_path);
        if !cookie.is_deletion(now) {
            set = usable(cookie.value).then_some(NewId { id: cookie.value, carrier, scope, cookie: Some(cookie) }).or(set);
            continue;
        }
        if set.is_some_and(|set| set.carrier == carrier && set.scope == scope) {
            set = None;
        }
        deleted = Some(Deletion { carrier, scope, cookie });
    }
    let header = id_header.filter(|_| names.header.is_some()).map(<[u8]>::trim_ascii).filter(|id| usable(id));
    let header = header.map(|id| NewId { id, carrier: Carrier::Header, scope: Scope::UNKNOWN, cookie: None });
    match (set.or(header), deleted) {
        (Some(set), _) => News::Set(set),
        (None, Some(deletion)) => News::Deleted(deletion),
        (None, None) => News::Nothing,
    }
}

/// The line as a session cookie. The name is compared first: most lines of most responses are something else.
fn session_cookie<'a>(line: &'a [u8], names: &SessionNames) -> Option<(Carrier, SetCookie<'a>)> {
    let name = line.split(|&octet| octet == b'=').next()?.trim_ascii();
    let rank = names.cookies.iter().position(|known| known.as_bytes() == name)?;
    Some((Carrier::Cookie(rank), SetCookie::parse(line)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::xorshift::Xorshift;

    const NOW: Time = Time::from_secs(1_795_168_800);

    fn names() -> SessionNames {
        SessionNames { cookies: vec!["JSESSIONID".into(), "SID".into()], header: Some("Mcp-Session-Id".into()), ..SessionNames::default() }
    }

    fn told(lines: &[&str], header: Option<&str>) -> String {
        let names = names();
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        match news(lines, header.map(str::as_bytes), &names, b"/shop/login", NOW) {
            News::Nothing => "nothing".into(),
            News::Set(new) => format!("set {} {:?}", new.id.escape_ascii(), new.carrier),
            News::Deleted(deletion) => format!("deleted {:?}", deletion.carrier),
        }
    }

    #[test]
    fn the_last_line_wins_and_a_new_id_beats_a_deletion_elsewhere() {
        let check = |lines: &[&str], expected: &str| assert_eq!(told(lines, None), expected, "{lines:?}");
        check(&[], "nothing");
        check(&["other=1", "XJSESSIONID=a", "jsessionid=a", "JSESSIONID"], "nothing");
        check(&["JSESSIONID=a; Path=/shop"], "set a Cookie(0)");
        check(&[" JSESSIONID = \"a\""], "set a Cookie(0)");
        check(&["SID=b"], "set b Cookie(1)");
        check(&["JSESSIONID=a", "JSESSIONID=b"], "set b Cookie(0)");
        check(&["JSESSIONID=a", "SID=b"], "set b Cookie(1)");
        check(&["JSESSIONID=; Max-Age=0"], "deleted Cookie(0)");
        check(&["JSESSIONID=x; Expires=Thu, 01-Jan-1970 00:00:10 GMT"], "deleted Cookie(0)");
        // Tomcat at login after an invalidation: delete and set in one response.
        check(&["JSESSIONID=; Max-Age=0", "JSESSIONID=b"], "set b Cookie(0)");
        check(&["JSESSIONID=b", "JSESSIONID=; Max-Age=0"], "deleted Cookie(0)");
        check(&["JSESSIONID=b; Path=/", "JSESSIONID=; Max-Age=0; Path=/old"], "set b Cookie(0)");
        check(&["JSESSIONID=b; Path=/old", "JSESSIONID=; Max-Age=0; Path=/old"], "deleted Cookie(0)");
        check(&["JSESSIONID=b", "JSESSIONID=; Max-Age=0; Path=/shop"], "deleted Cookie(0)");
        check(&["SID=b", "JSESSIONID=; Max-Age=0"], "set b Cookie(1)");
        check(&["JSESSIONID=a\u{1}"], "nothing");
        check(&["JSESSIONID=a", "JSESSIONID=b\u{1}"], "set a Cookie(0)");
    }

    #[test]
    fn a_header_is_news_unless_a_cookie_is() {
        let check = |lines: &[&str], header: &str, expected: &str| assert_eq!(told(lines, Some(header)), expected);
        check(&[], "h1", "set h1 Header");
        check(&[], " h1 ", "set h1 Header");
        check(&[], "", "nothing");
        check(&["JSESSIONID=a"], "h1", "set a Cookie(0)");
        check(&["JSESSIONID=; Max-Age=0"], "h1", "set h1 Header");
        assert_eq!(news([], Some(b"h1"), &SessionNames::default(), b"/", NOW), News::Nothing);
    }

    #[test]
    fn the_scope_of_a_deletion_tells_whose_birth_it_means() {
        let names = names();
        let scope = |line: &str| match news([line.as_bytes()], None, &names, b"/shop/login", NOW) {
            News::Set(new) => new.scope,
            News::Deleted(deletion) => deletion.scope,
            News::Nothing => panic!("{line} is news"),
        };
        let birth = scope("JSESSIONID=a; Path=/shop");
        assert!(birth.matches(scope("JSESSIONID=; Path=/shop; Max-Age=0")));
        assert!(birth.matches(scope("JSESSIONID=; Max-Age=0")));
        assert!(!birth.matches(scope("JSESSIONID=; Path=/; Max-Age=0")));
        assert!(!birth.matches(scope("JSESSIONID=; Path=/shop; Domain=example.com; Max-Age=0")));
    }

    #[test]
    fn no_response_makes_it_panic() {
        let (mut dice, names) = (Xorshift(0x2e35), names());
        for _ in 0..20_000 {
            let line = dice.octets(30, b"JSESSIONID=; Max-Age=0");
            news([line.as_slice(), b"JSESSIONID=a"], Some(&line), &names, &line, NOW);
        }
    }
}
