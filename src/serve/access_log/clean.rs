//! Request targets without session ids: who can read a log must not be able to take over a session.

use std::borrow::Cow;

use http::HeaderValue;

use crate::model::identity::{SessionNames, without_path_parameter, without_query_parameter};

/// What servlet containers write unless they are told otherwise; removed where no app is known.
const USUAL: &str = "jsessionid";

/// A path with its query, or a whole URL, without the app's session parameters.
pub fn without_session<'a>(target: &'a [u8], names: Option<&SessionNames>) -> Cow<'a, [u8]> {
    let (path_name, query_name) = match names {
        Some(names) => (names.path_parameter.as_deref(), names.query_parameter.as_deref()),
        None => (Some(USUAL), None),
    };
    let mark = target.iter().position(|&octet| octet == b'?').unwrap_or(target.len());
    let (path, rest) = target.split_at(mark);
    let clean_path = match path_name {
        Some(name) => without_path_parameter(path, name),
        None => Cow::Borrowed(path),
    };
    let query = rest.get(1..).unwrap_or_default();
    let clean_query = match query_name {
        Some(name) => without_query_parameter(query, name),
        None => Cow::Borrowed(query),
    };
    if clean_path.len() == path.len() && clean_query.len() == query.len() {
        return Cow::Borrowed(target);
    }
    let mut clean = clean_path.into_owned();
    if !clean_query.is_empty() {
        clean.push(b'?');
        clean.extend_from_slice(&clean_query);
    }
    Cow::Owned(clean)
}

/// A `Referer` without the app's session parameters; a page with the id in its address sends it along with every click.
pub fn referer_without_session(referer: &HeaderValue, names: Option<&SessionNames>) -> Option<HeaderValue> {
    match without_session(referer.as_bytes(), names) {
        Cow::Borrowed(_) => Some(referer.clone()),
        Cow::Owned(clean) => HeaderValue::from_bytes(&clean).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_reaches_the_log() {
        let names = SessionNames {
            path_parameter: Some("jsessionid".to_owned()),
            query_parameter: Some("PHPSESSID".to_owned()),
            ..SessionNames::default()
        };
        let check = |target: &str, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&without_session(target.as_bytes(), Some(&names))), expected, "{target}");
            let referer = HeaderValue::from_str(&format!("https://a.example{target}")).expect("a header");
            let clean = referer_without_session(&referer, Some(&names)).expect("a header");
            assert_eq!(clean.to_str().expect("ASCII"), format!("https://a.example{expected}"));
        };
        check("/", "/");
        check("/a?b=c", "/a?b=c");
        check("/a;jsessionid=X", "/a");
        check("/a;jsessionid=X.tomcat1?b=c", "/a?b=c");
        check("/a;JSESSIONID=X/b", "/a/b");
        check("/a;v=1;jsessionid=X?", "/a;v=1");
        check("/a?PHPSESSID=X", "/a");
        check("/a?b=c&PHPSESSID=X&d=e", "/a?b=c&d=e");
        check("/a;jsessionid=X?PHPSESSID=Y", "/a");
        check("/a?q=?PHPSESSID", "/a?q=?PHPSESSID");
    }

    #[test]
    fn where_no_app_is_known_the_usual_name_goes() {
        assert_eq!(without_session(b"/a;jsessionid=X?b", None).as_ref(), b"/a?b");
        assert!(matches!(without_session(b"/a?b", None), Cow::Borrowed(_)));
    }
}
