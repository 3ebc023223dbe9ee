//! The cookies that a probe was given, so that each probe does not begin a session of its own.
//!
//! No Path, Domain or expiry is looked at: a probe always asks the same question of the same backend, and all it must
//! do is to be recognised. A backend that forgot the session simply sets another cookie of the same name.

use http::HeaderValue;

/// Cookies kept: an application needs one, a proxy of its own perhaps another.
const COOKIES: usize = 16;
/// Longest cookie kept, as browsers have it.
const LONGEST: usize = 4096;

/// In the order in which they first came; names are unique.
#[derive(Debug, Default)]
pub struct Cookies(Vec<Cookie>);

#[derive(Debug)]
struct Cookie {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Cookies {
    /// Takes a `Set-Cookie` line; an empty value deletes.
    pub fn set(&mut self, line: &[u8]) {
        let pair = line.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        let Some(equals) = pair.iter().position(|&b| b == b'=') else { return };
        let (name, value) = pair.split_at(equals);
        let (name, value) = (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
        if name.is_empty() || pair.len() > LONGEST {
            return;
        }
        let known = self.0.iter().position(|cookie| *cookie.name == *name);
        match (known, value.is_empty()) {
            (Some(i), true) => drop(self.0.remove(i)),
            (Some(i), false) => {
                if let Some(cookie) = self.0.get_mut(i) {
                    cookie.value = value.into();
                }
            }
            (None, false) if self.0.len() < COOKIES => self.0.push(Cookie { name: name.into(), value: value.into() }),
            (None, _) => {}
        }
    }

    /// The `Cookie` header to send.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut line = Vec::new();
        for Cookie { name, value } in &self.0 {
            if !line.is_empty() {
                line.extend_from_slice(b"; ");
            }
            line.extend_from_slice(name);
            line.push(b'=');
            line.extend_from_slice(value);
        }
        if line.is_empty() { None } else { HeaderValue::from_bytes(&line).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_sent_back() {
        let check = |given: &[&str], expected: Option<&str>| {
            let mut cookies = Cookies::default();
            for line in given {
                cookies.set(line.as_bytes());
            }
            let header = cookies.header();
            assert_eq!(header.as_ref().map(|h| h.to_str().expect("ASCII")), expected, "{given:?}");
        };
        check(&[], None);
        check(&["JSESSIONID=abc.a1; Path=/; HttpOnly"], Some("JSESSIONID=abc.a1"));
        check(&["a=1", "b=2; Secure", "a=3"], Some("a=3; b=2"));
        check(&["a=1", "a=; Max-Age=0"], None);
        check(&["a=x=y=="], Some("a=x=y=="));
        check(&[" a = 1 ;x"], Some("a=1"));
        for bad in ["", "a", "=1", ";", "; a=1"] {
            check(&[bad], None);
        }
        let long = format!("a={}", "x".repeat(5000));
        check(&[&long], None);
    }

    #[test]
    fn a_backend_cannot_grow_the_header_without_bound() {
        let mut cookies = Cookies::default();
        for i in 0..100 {
            cookies.set(format!("c{i}=1").as_bytes());
        }
        assert_eq!(cookies.0.len(), COOKIES);
    }
}
