//! The octets of a pin, without its signature. Everything has one encoding only, so that a pin cannot be altered and still mean the same.
//!
//! | octets | what |
//! |---|---|
//! | 1 | flags: bound 1, secure 2, SameSite 4 + 8 (default, strict, lax, none), partitioned 16, domain 32, expires 64 |
//! | 16 | binding, if bound |
//! | 5 + 5 | `issued` and `seen`, big-endian seconds |
//! | 5 | expiry of the cookie, if flagged |
//! | 1 + n | domain of the cookie with its length, if flagged |
//! | 1 + n | name of the release with its length |
//! | n | name of the backend, up to the end |

use super::{Pin, VerifiedPin};
use crate::model::identity::{MAX_DOMAIN_BYTES, SameSite};
use crate::model::octets::split_before;
use crate::model::time::Time;

/// Longest name of a release or a backend; the configuration refuses longer ones.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest payload.
pub const MAX_PAYLOAD_BYTES: usize = 1 + 16 + 3 * 5 + 1 + MAX_DOMAIN_BYTES + 1 + 2 * MAX_NAME_BYTES;

const BOUND: u8 = 1;
const SECURE: u8 = 2;
const SAME_SITE: [(u8, Option<SameSite>); 4] =
    [(0, None), (4, Some(SameSite::Strict)), (8, Some(SameSite::Lax)), (12, Some(SameSite::None))];
const PARTITIONED: u8 = 16;
const DOMAIN: u8 = 32;
const EXPIRES: u8 = 64;
const UNKNOWN: u8 = 128;

/// A name or a domain, on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Zero behind `len`.
    octets: [u8; MAX_NAME_BYTES],
    len: usize,
}

impl Name {
    fn new(name: &[u8]) -> Option<Name> {
        let mut octets = [0; MAX_NAME_BYTES];
        let (_, unprintable) = split_before(name, |octet| !octet.is_ascii_graphic());
        if name.is_empty() || !unprintable.is_empty() {
            return None;
        }
        octets.get_mut(..name.len())?.copy_from_slice(name);
        Some(Name { octets, len: name.len() })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let octets = self.octets.get(..self.len).unwrap_or_default();
        std::str::from_utf8(octets).unwrap_or_default()
    }
}

/// Appends the payload of `pin` to `out`.
pub fn encode(pin: &Pin, out: &mut Vec<u8>) {
    debug_assert!(pin.release.len() <= MAX_NAME_BYTES && pin.backend.len() <= MAX_NAME_BYTES, "names are checked");
    let attributes = &pin.attributes;
    let same_site = SAME_SITE.iter().find(|(_, same_site)| *same_site == attributes.same_site);
    let flags = [
        (BOUND, pin.binding.is_some()),
        (SECURE, attributes.secure),
        (PARTITIONED, attributes.partitioned),
        (DOMAIN, attributes.domain.is_some()),
        (EXPIRES, attributes.expires.is_some()),
    ];
    let set = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag);
    out.push(set.chain(same_site.map(|(bits, _)| bits)).fold(0, |flags, flag| flags | flag));
    out.extend(pin.binding.iter().flatten());
    for time in [Some(pin.issued), Some(pin.seen), attributes.expires].iter().flatten() {
        // The last moment of 5 octets is in the year 36812.
        let [_, _, _, octets @ ..] = time.as_secs().min((1 << 40) - 1).to_be_bytes();
        out.extend_from_slice(&octets);
    }
    for name in [attributes.domain, Some(pin.release)].iter().flatten() {
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(pin.backend.as_bytes());
}

/// Reads a payload whose signature was checked; `None` if none of our versions wrote it. The key is not in it.
pub fn decode(payload: &[u8]) -> Option<VerifiedPin> {
    let (&[flags], rest) = payload.split_first_chunk()?;
    let has = |flag: u8| flags & flag != 0;
    if has(UNKNOWN) {
        return None;
    }
    let (binding, rest) = decode_if(has(BOUND), rest, |rest| rest.split_first_chunk().map(|(binding, rest)| (*binding, rest)))?;
    let (issued, rest) = decode_time(rest)?;
    let (seen, rest) = decode_time(rest)?;
    let (expires, rest) = decode_if(has(EXPIRES), rest, decode_time)?;
    let (domain, rest) = decode_if(has(DOMAIN), rest, decode_name)?;
    let (release, backend) = decode_name(rest)?;
    let same_site = SAME_SITE.iter().find(|(bits, _)| *bits == flags & 12)?.1;
    let (secure, partitioned) = (has(SECURE), has(PARTITIONED));
    let backend = Name::new(backend)?;
    Some(VerifiedPin { release, backend, binding, issued, seen, domain, same_site, secure, partitioned, expires, key: 0 })
}

/// A value and what follows it.
type Read<'a, T> = Option<(T, &'a [u8])>;

/// What `decode` reads where the flag says that it is there.
fn decode_if<'a, T>(is_there: bool, rest: &'a [u8], decode: fn(&'a [u8]) -> Read<'a, T>) -> Read<'a, Option<T>> {
    match is_there {
        true => decode(rest).map(|(value, rest)| (Some(value), rest)),
        false => Some((None, rest)),
    }
}

fn decode_time(octets: &[u8]) -> Read<'_, Time> {
    let (&[a, b, c, d, e], rest) = octets.split_first_chunk()?;
    Some((Time::from_secs(u64::from_be_bytes([0, 0, 0, a, b, c, d, e])), rest))
}

fn decode_name(octets: &[u8]) -> Read<'_, Name> {
    let (&[length], rest) = octets.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    Some((Name::new(name)?, rest))
}
