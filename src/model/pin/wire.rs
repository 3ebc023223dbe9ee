//! The octets of a pin, without its signature. Everything has one encoding only, so that a pin cannot be altered and still mean the same.
//!
//! `flags` · 16 octets of binding if flag 1 is set · `issued` and `seen` as 5 octets each, big-endian seconds · length and octets of the
//! release's name · the backend's name up to the end.

use super::Pin;
use crate::model::octets::split_before;
use crate::model::time::Time;

/// Longest name of a release or a backend; the configuration refuses longer ones.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest payload.
pub const MAX_PAYLOAD_BYTES: usize = 1 + 16 + 5 + 5 + 1 + 2 * MAX_NAME_BYTES;

const BOUND: u8 = 1;

/// A name on the stack.
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

/// What a payload says.
pub struct Payload {
    pub release: Name,
    pub backend: Name,
    pub binding: Option<[u8; 16]>,
    pub issued: Time,
    pub seen: Time,
}

/// Appends the payload of `pin` to `out`.
pub fn encode(pin: &Pin, out: &mut Vec<u8>) {
    debug_assert!(pin.release.len() <= MAX_NAME_BYTES && pin.backend.len() <= MAX_NAME_BYTES, "names are checked");
    out.push(if pin.binding.is_some() { BOUND } else { 0 });
    out.extend(pin.binding.iter().flatten());
    for time in [pin.issued, pin.seen] {
        // The last moment of 5 octets is in the year 36812.
        let [_, _, _, octets @ ..] = time.as_secs().min((1 << 40) - 1).to_be_bytes();
        out.extend_from_slice(&octets);
    }
    out.push(u8::try_from(pin.release.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(pin.release.as_bytes());
    out.extend_from_slice(pin.backend.as_bytes());
}

/// Reads a payload whose signature was checked; `None` if none of our versions wrote it.
pub fn decode(payload: &[u8]) -> Option<Payload> {
    let (&[flags], rest) = payload.split_first_chunk()?;
    let (binding, rest) = match flags {
        BOUND => rest.split_first_chunk().map(|(binding, rest)| (Some(*binding), rest))?,
        0 => (None, rest),
        _ => return None,
    };
    let (issued, rest) = decode_time(rest)?;
    let (seen, rest) = decode_time(rest)?;
    let (&[length], rest) = rest.split_first_chunk()?;
    let (release, backend) = rest.split_at_checked(usize::from(length))?;
    Some(Payload { release: Name::new(release)?, backend: Name::new(backend)?, binding, issued, seen })
}

fn decode_time(octets: &[u8]) -> Option<(Time, &[u8])> {
    let (&[a, b, c, d, e], rest) = octets.split_first_chunk()?;
    Some((Time::from_secs(u64::from_be_bytes([0, 0, 0, a, b, c, d, e])), rest))
}
