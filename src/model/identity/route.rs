//! Backends named inside ids: Tomcat's suffix (`abc.tomcat1`, jvmRoute) and HAProxy's prefix (`tomcat1~abc`, `cookie …
//! prefix`). The suffix stays in the id, the application wrote it; the prefix is not part of it, the balancer did.

use crate::model::octets::{rsplit_once, split_once};

/// What follows the last dot: `abc.tomcat1` names `tomcat1`. Ids may contain dots, routes may not.
pub fn route_suffix(id: &[u8]) -> Option<&[u8]> {
    rsplit_once(id, b'.').map(|(_, route)| route).filter(|route| !route.is_empty())
}

/// Route and id of `tomcat1~abc`, cut at the first `~` as HAProxy does.
pub fn split_prefix(value: &[u8]) -> Option<(&[u8], &[u8])> {
    split_once(value, b'~').filter(|(route, _)| !route.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_follows_the_last_dot() {
        let check = |id: &str, expected: Option<&str>| {
            assert_eq!(route_suffix(id.as_bytes()), expected.map(str::as_bytes), "{id}");
        };
        check("abc.tomcat1", Some("tomcat1"));
        check("a.b.tomcat1", Some("tomcat1"));
        check(".tomcat1", Some("tomcat1"));
        check("abc.", None);
        check("abc", None);
        check(".", None);
        check("", None);
    }

    #[test]
    fn the_prefix_ends_at_the_first_tilde() {
        let check = |value: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(route, id)| (route.as_bytes(), id.as_bytes()));
            assert_eq!(split_prefix(value.as_bytes()), expected, "{value}");
        };
        check("tomcat1~abc", Some(("tomcat1", "abc")));
        check("tomcat1~a~b", Some(("tomcat1", "a~b")));
        check("tomcat1~", Some(("tomcat1", "")));
        check("~abc", None);
        check("abc", None);
        check("", None);
    }
}
