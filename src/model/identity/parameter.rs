//! Ids in the request target: `/shop/cart;jsessionid=ABC.t1` and `?PHPSESSID=abc`. A path parameter may stand on any
//! segment, not only on the last one, and ends at the next `;` or `/`.

use std::borrow::Cow;

use crate::model::octets::{split_before, split_once};

/// Values of the path parameter `name` (any case, as Tomcat's users write it both ways), in order. An encoded `%3b` begins no
/// parameter: servlet containers decode after they have cut parameters off.
pub fn path_parameter<'a>(path: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let parts = path.split(|&octet| octet == b';').skip(1);
    parts.filter_map(move |part| Some(parameter_value(part, name)?.0))
}

/// `path` without the parameter `name`; borrowed when it has none.
pub fn without_path_parameter<'a>(path: &'a [u8], name: &str) -> Cow<'a, [u8]> {
    if path_parameter(path, name).next().is_none() {
        return Cow::Borrowed(path);
    }
    let mut kept = Vec::with_capacity(path.len());
    for (i, part) in path.split(|&octet| octet == b';').enumerate() {
        match parameter_value(part, name) {
            Some((_, rest)) if i > 0 => kept.extend_from_slice(rest),
            _ => {
                kept.extend_from_slice(if i > 0 { b";" } else { b"" });
                kept.extend_from_slice(part);
            }
        }
    }
    Cow::Owned(kept)
}

/// Values of the query parameter `name` (exact case, as PHP reads it), in order.
pub fn query_parameter<'a>(query: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let parts = query.split(|&octet| octet == b'&');
    parts.filter_map(move |part| query_value(part, name))
}

/// `query` without the parameter `name`; borrowed when it has none. When nothing is left, the caller drops the `?` too.
pub fn without_query_parameter<'a>(query: &'a [u8], name: &str) -> Cow<'a, [u8]> {
    if query_parameter(query, name).next().is_none() {
        return Cow::Borrowed(query);
    }
    let mut kept = Vec::with_capacity(query.len());
    let others = query.split(|&octet| octet == b'&').filter(|part| query_value(part, name).is_none());
    for (i, part) in others.enumerate() {
        kept.extend_from_slice(if i > 0 { b"&" } else { b"" });
        kept.extend_from_slice(part);
    }
    Cow::Owned(kept)
}

/// The value of a part `name=value/rest`, and `/rest`.
fn parameter_value<'a>(part: &'a [u8], name: &str) -> Option<(&'a [u8], &'a [u8])> {
    let (parameter, rest) = split_before(part, |octet| octet == b'/');
    let (found, value) = split_once(parameter, b'=')?;
    found.eq_ignore_ascii_case(name.as_bytes()).then_some((value, rest))
}

fn query_value<'a>(part: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (found, value) = split_once(part, b'=')?;
    (found == name.as_bytes()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_parameter_is_found_on_any_segment_and_removed_from_it() {
        let check = |path: &str, values: &[&str], without: &str| {
            let found: Vec<_> = path_parameter(path.as_bytes(), "jsessionid").collect();
            let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, values, "{path}");
            let rest = without_path_parameter(path.as_bytes(), "jsessionid");
            assert_eq!(rest.as_ref(), without.as_bytes(), "{path}");
            assert_eq!(matches!(rest, Cow::Borrowed(_)), path == without, "{path}");
        };
        check("/shop/cart", &[], "/shop/cart");
        check("/shop/cart;jsessionid=ABC.t1", &["ABC.t1"], "/shop/cart");
        check("/shop/cart;JSESSIONID=ABC.t1", &["ABC.t1"], "/shop/cart");
        check("/shop;jsessionid=A/cart", &["A"], "/shop/cart");
        check("/shop;a=1;jsessionid=A;b=2/cart;c", &["A"], "/shop;a=1;b=2/cart;c");
        check("/shop;jsessionid=A/cart;jsessionid=B", &["A", "B"], "/shop/cart");
        check("/shop;jsessionid=", &[""], "/shop");
        check("/shop;jsessionid", &[], "/shop;jsessionid");
        check("/shop;xjsessionid=A", &[], "/shop;xjsessionid=A");
        check("/shop;jsessionidx=A", &[], "/shop;jsessionidx=A");
        check("/shop;jsessionid/=A", &[], "/shop;jsessionid/=A");
        check("/shop%3bjsessionid=A", &[], "/shop%3bjsessionid=A");
        check("jsessionid=A", &[], "jsessionid=A");
        check(";jsessionid=A", &["A"], "");
        check("jsessionid=A;jsessionid=B", &["B"], "jsessionid=A");
        check("/a;;jsessionid=A;/b", &["A"], "/a;;/b");
        check("/a;jsessionid=A=B", &["A=B"], "/a");
        check("", &[], "");
    }

    #[test]
    fn a_query_parameter_is_found_and_removed_with_one_ampersand() {
        let check = |query: &str, values: &[&str], without: &str| {
            let found: Vec<_> = query_parameter(query.as_bytes(), "PHPSESSID").collect();
            let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, values, "{query}");
            let rest = without_query_parameter(query.as_bytes(), "PHPSESSID");
            assert_eq!(rest.as_ref(), without.as_bytes(), "{query}");
            assert_eq!(matches!(rest, Cow::Borrowed(_)), query == without, "{query}");
        };
        check("", &[], "");
        check("a=1", &[], "a=1");
        check("PHPSESSID=x", &["x"], "");
        check("PHPSESSID=x&a=1", &["x"], "a=1");
        check("a=1&PHPSESSID=x", &["x"], "a=1");
        check("a=1&PHPSESSID=x&b=2", &["x"], "a=1&b=2");
        check("PHPSESSID=x&PHPSESSID=y", &["x", "y"], "");
        check("phpsessid=x", &[], "phpsessid=x");
        check("PHPSESSID", &[], "PHPSESSID");
        check("XPHPSESSID=x&PHPSESSIDX=y", &[], "XPHPSESSID=x&PHPSESSIDX=y");
        check("a&&PHPSESSID=&b", &[""], "a&&b");
    }
}
