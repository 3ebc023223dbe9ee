//! The few readings of octet strings that std has no stable function for. Header values and paths are octets, not
//! text: nothing here assumes UTF-8. Each request's cookies pass through here more than once, hence `memchr`.

use memchr::{memchr, memrchr};

/// The pieces between one `octet` and the next, as `<[u8]>::split` gives them.
pub fn split(text: &[u8], octet: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some((piece, more)) = split_once(text, octet) else { return Some(text) };
        rest = Some(more);
        Some(piece)
    })
}

/// What stands before and after the first `octet`.
pub fn split_once(text: &[u8], octet: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(octet, text)?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.get(1..)?))
}

/// What stands before and after the last `octet`.
pub fn rsplit_once(text: &[u8], octet: u8) -> Option<(&[u8], &[u8])> {
    let at = memrchr(octet, text)?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.get(1..)?))
}

/// Cuts before the first octet for which `is_end` holds; the second part begins with it, or is empty.
pub fn split_before(text: &[u8], is_end: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let at = text.iter().position(|&o| is_end(o)).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, &[]))
}

/// `text` without `prefix`, whatever the case of its ASCII letters.
pub fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `text` without a pair of double quotes around it. A single quote mark is part of the text.
pub fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}
