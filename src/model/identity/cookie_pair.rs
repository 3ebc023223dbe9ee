//! Takes a `Cookie` field apart (RFC 6265 §4.2.1, read as leniently as servers do). A semicolon always ends a pair,
//! also between quotation marks: browsers and Tomcat agree on that.

use crate::model::octets::{split, split_once, unquoted};

/// Names and values of the cookies in one field. Parts without `=` have no name and are skipped; values lose the
/// blanks and the pair of quotation marks around them.
pub fn pairs(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    split(field, b';').filter_map(pair)
}

/// Name and value of one part.
pub fn pair(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = split_once(part, b'=')?;
    Some((name.trim_ascii(), unquoted(value.trim_ascii())))
}

/// Cuts one part where its value begins, behind blanks and an opening quotation mark.
pub fn split_at_value(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = split_once(part, b'=')?;
    let blanks = value.len() - value.trim_ascii_start().len();
    let quote = usize::from(value.get(blanks) == Some(&b'"'));
    part.split_at_checked(name.len() + 1 + blanks + quote)
}
