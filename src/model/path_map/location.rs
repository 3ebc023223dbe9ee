//! URLs in response headers: `Location`, `Content-Location`, `Refresh`. Only what points at this application is touched; a redirect to another
//! host, say for a login elsewhere, goes out as it came.

use std::borrow::Cow;

use super::PathMap;
use crate::model::octets::{split_before, strip_prefix_ignore_case};

/// How the client sees the app in this exchange, and who answered.
#[derive(Clone, Copy, Debug)]
pub struct PublicSide<'a> {
    /// `http` or `https`, as the client came.
    pub scheme: &'a [u8],
    /// Host as the client wrote it, with its port if it wrote one.
    pub host: &'a [u8],
    /// Address and port of the backend, as a URL of its own making would have them: `10.0.0.5:8080`, `[::1]:8080`.
    pub backend: &'a [u8],
}

impl PathMap {
    /// The value of `Location` or `Content-Location` for the client.
    pub fn location_to_public<'a>(&self, value: &'a [u8], side: &PublicSide) -> Cow<'a, [u8]> {
        let url = value.trim_ascii();
        let Some(parts) = Parts::of(url) else { return Cow::Borrowed(value) };
        let (start, path) = match parts {
            Parts::Path => (None, url),
            Parts::Absolute { scheme, authority, path } => {
                let port_scheme = scheme.unwrap_or(side.scheme);
                if same_authority(authority, side.host, port_scheme, side.scheme) {
                    (Some(Cow::Borrowed(url.get(..url.len() - path.len()).unwrap_or_default())), path)
                } else if !side.host.is_empty() && same_authority(authority, side.backend, port_scheme, b"http") {
                    // A scheme-relative URL stays one; else the client's scheme, which the backend cannot know.
                    let scheme = if scheme.is_some() { [side.scheme, b":"].concat() } else { Vec::new() };
                    (Some(Cow::Owned([&scheme, b"//".as_slice(), side.host].concat())), path)
                } else {
                    return Cow::Borrowed(value);
                }
            }
        };
        let mapped = self.to_public(path);
        match start {
            None if matches!(mapped, Cow::Borrowed(_)) => Cow::Borrowed(value),
            // `/shop-v42//evil` must not become `//evil`: that would be another host. Browsers read `\` as `/` and skip tabs.
            None if matches!(mapped.get(1), Some(b'/' | b'\\' | b'\t')) => Cow::Owned([b"/.", mapped.as_ref()].concat()),
            None => Cow::Owned(mapped.into_owned()),
            Some(Cow::Borrowed(_)) if matches!(mapped, Cow::Borrowed(_)) => Cow::Borrowed(value),
            Some(start) => Cow::Owned([start.as_ref(), mapped.as_ref()].concat()),
        }
    }

    /// The value of `Refresh` (`5; url=/shop-v42/x`) for the client; only the URL can change.
    pub fn refresh_to_public<'a>(&self, value: &'a [u8], side: &PublicSide) -> Cow<'a, [u8]> {
        let Some(url) = refresh_url(value) else { return Cow::Borrowed(value) };
        let Cow::Owned(mapped) = self.location_to_public(url, side) else { return Cow::Borrowed(value) };
        let start = url.as_ptr().addr() - value.as_ptr().addr();
        let (before, after) = (value.get(..start), value.get(start + url.len()..));
        Cow::Owned([before.unwrap_or_default(), &mapped, after.unwrap_or_default()].concat())
    }
}

enum Parts<'a> {
    /// An absolute path.
    Path,
    /// With a host; `path` is what follows it, and may be empty or begin with a query.
    Absolute { scheme: Option<&'a [u8]>, authority: &'a [u8], path: &'a [u8] },
}

impl<'a> Parts<'a> {
    /// `None` for relative references, which mean the same on both sides, and for schemes that are not ours.
    fn of(url: &'a [u8]) -> Option<Parts<'a>> {
        let schemes: [&[u8]; 4] = [b"http", b"https", b"ws", b"wss"];
        let after = |scheme: &[u8]| strip_prefix_ignore_case(url, scheme)?.strip_prefix(b"://");
        let found = schemes.iter().find_map(|scheme| Some((Some(*scheme), after(scheme)?)));
        let (scheme, rest) = match found.or_else(|| Some((None, url.strip_prefix(b"//")?))) {
            Some(found) => found,
            // Browsers read a backslash as a slash: `/\evil` names a host.
            None => return (url.starts_with(b"/") && !url.starts_with(b"/\\")).then_some(Parts::Path),
        };
        let (authority, path) = split_before(rest, |octet| matches!(octet, b'/' | b'?' | b'#' | b'\\'));
        Some(Parts::Absolute { scheme, authority, path })
    }
}

/// Whether two authorities name the same host and port; each may leave out its scheme's own port.
fn same_authority(a: &[u8], b: &[u8], a_scheme: &[u8], b_scheme: &[u8]) -> bool {
    let (a_host, a_port) = host_and_port(a, a_scheme);
    let (b_host, b_port) = host_and_port(b, b_scheme);
    // `http://shop.example.com/` behind `https://shop.example.com/`: the application does not know of TLS, but means itself.
    let both_default = a_port == default_port(a_scheme) && b_port == default_port(b_scheme);
    !a_host.is_empty() && a_host.eq_ignore_ascii_case(b_host) && (a_port == b_port || both_default)
}

fn host_and_port<'a>(authority: &'a [u8], scheme: &[u8]) -> (&'a [u8], &'a [u8]) {
    let colon = authority.iter().rposition(|&octet| octet == b':');
    // The last colon of `[::1]` is inside the brackets.
    let bracket = authority.iter().rposition(|&octet| octet == b']');
    match colon.filter(|colon| bracket.is_none_or(|bracket| bracket < *colon)).and_then(|at| authority.split_at_checked(at)) {
        Some((host, port)) if port.len() > 1 => (host, port.strip_prefix(b":").unwrap_or(port)),
        Some((host, _)) => (host, default_port(scheme)),
        None => (authority, default_port(scheme)),
    }
}

fn default_port(scheme: &[u8]) -> &'static [u8] {
    if scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss") { b"443" } else { b"80" }
}

/// The URL in a `Refresh` value, as browsers find it: behind the time, a `;` or `,`, maybe `url=`, maybe quotation marks.
fn refresh_url(value: &[u8]) -> Option<&[u8]> {
    let (_, rest) = split_before(value, |octet| octet == b';' || octet == b',');
    let rest = rest.get(1..)?.trim_ascii();
    let named = strip_prefix_ignore_case(rest, b"url").and_then(|after| after.trim_ascii_start().strip_prefix(b"="));
    let url = named.unwrap_or(rest).trim_ascii_start();
    Some(match url {
        [quote @ (b'"' | b'\''), quoted @ ..] => split_before(quoted, |octet| octet == *quote).0,
        _ => url,
    })
}
