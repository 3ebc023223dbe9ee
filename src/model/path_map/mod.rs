//! A release may live under another path than the public one (`path: /shop-v42` behind `/shop`), several of them on one Tomcat. The public
//! path never changes. Prefixes match whole segments, octet by octet: `/shop-v42x` is not under `/shop-v42`, and `/%73hop` not under `/shop`.

mod dots;
mod location;

use std::borrow::Cow;

pub use location::PublicSide;

use self::dots::{climbs, has_dots};
use crate::model::octets::split_before;

/// The two prefixes of one app and one release. There is one only where a release has a `path:`; without, nothing is mapped or checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    /// `/` or `/a/b`.
    public: Prefix,
    /// `/` or `/a/b`.
    backend: Prefix,
}

/// Why a request cannot be mapped; the caller answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// A `..`, plain or encoded, could leave the release's prefix on the backend for another application there.
    #[error("the path has a .. segment")]
    DotSegments,
    /// It is not under the public prefix that matched.
    #[error("the path is not under the app's prefix")]
    OutsidePrefix,
}

impl PathMap {
    /// A map between two absolute prefixes; a slash at their end does not matter.
    pub fn new(public: &str, backend: &str) -> PathMap {
        PathMap { public: Prefix::new(public), backend: Prefix::new(backend) }
    }

    /// The request target (path and maybe query) for the backend. `*` stays.
    pub fn to_backend<'a>(&self, target: &'a [u8]) -> Result<Cow<'a, [u8]>, PathFault> {
        if target == b"*" {
            return Ok(Cow::Borrowed(target));
        }
        let (path, _) = split_before(target, |octet| octet == b'?');
        if has_dots(path) {
            return Err(PathFault::DotSegments);
        }
        let rest = self.public.rest(target).ok_or(PathFault::OutsidePrefix)?;
        Ok(self.exchange(target, rest, &self.backend))
    }

    /// The public path for an absolute path (with query and fragment) of the backend; unchanged where it is not under the backend's prefix,
    /// or leaves it by `..`.
    pub fn to_public<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        match self.backend.rest(path) {
            Some(rest) if !climbs(split_before(rest, |octet| octet == b'?' || octet == b'#').0) => self.exchange(path, rest, &self.public),
            _ => Cow::Borrowed(path),
        }
    }

    /// A `Set-Cookie` line for the client: its Path is mapped, all other octets stay. `Path=/` stays too: it is wide enough under any prefix.
    pub fn set_cookie_to_public<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let mut kept = Vec::new();
        let mut done = 0;
        let mut at = 0;
        for (i, part) in line.split(|&octet| octet == b';').enumerate() {
            let end = at + part.len();
            if let Some(value) = path_attribute(part).filter(|_| i > 0)
                && let Cow::Owned(path) = self.to_public(value)
            {
                // Behind the value there can only be blanks, which the cut drops together with it.
                kept.extend_from_slice(line.get(done..end - value_and_blanks(part)).unwrap_or_default());
                kept.extend_from_slice(&path);
                done = end;
            }
            at = end + 1;
        }
        if done == 0 {
            return Cow::Borrowed(line);
        }
        kept.extend_from_slice(line.get(done..).unwrap_or_default());
        Cow::Owned(kept)
    }

    /// `prefix` before `rest` of `whole`.
    fn exchange<'a>(&self, whole: &'a [u8], rest: &[u8], prefix: &Prefix) -> Cow<'a, [u8]> {
        if self.public == self.backend {
            return Cow::Borrowed(whole);
        }
        // The root has no octets of its own, so it needs the slash that the bare other prefix does not have.
        let slash: &[u8] = if prefix.is_root() && !rest.starts_with(b"/") { b"/" } else { b"" };
        Cow::Owned([prefix.0.as_bytes(), slash, rest].concat())
    }
}

/// Without a slash at its end, so the root is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prefix(String);

impl Prefix {
    fn new(path: &str) -> Prefix {
        Prefix(path.trim_end_matches('/').to_owned())
    }

    fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// What follows the prefix in `path`: nothing, or something that begins the next segment, a parameter of the prefix's own last
    /// segment (`/shop;jsessionid=A`), a query or a fragment.
    fn rest<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(self.0.as_bytes())?;
        let ends = match rest.first() {
            None | Some(b';' | b'?' | b'#') => !self.is_root(),
            Some(b'/') => true,
            Some(_) => false,
        };
        ends.then_some(rest)
    }
}

/// The value of an attribute `Path=value`, unless it is the root.
fn path_attribute(part: &[u8]) -> Option<&[u8]> {
    let at = part.iter().position(|&octet| octet == b'=')?;
    let name = part.get(..at)?.trim_ascii();
    let value = part.get(at + 1..)?.trim_ascii();
    (name.eq_ignore_ascii_case(b"path") && value.len() > 1).then_some(value)
}

/// How many octets of `Path= value ` the value takes, with the blanks behind it.
fn value_and_blanks(part: &[u8]) -> usize {
    let value = part.iter().position(|&octet| octet == b'=').and_then(|at| part.get(at + 1..));
    value.map_or(0, |value| value.trim_ascii_start().len())
}

#[cfg(test)]
#[path = "tables.rs"]
mod tables;
