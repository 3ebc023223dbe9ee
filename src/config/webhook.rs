//! `drain.webhook`: a URL in the configuration, taken apart once so that nothing can be wrong with it later.

use super::problem::{Wrong, quote};
use super::read::{Field, Section};
use super::scalar;
use super::session::SHORTEST_KEY;
use crate::model::settings::WebhookUrl;

/// The URL and the file of its key.
pub(super) fn webhook(s: &mut Section) -> (Option<WebhookUrl>, Option<String>) {
    let url = s.optional("webhook", None, |f| f.parsed(url));
    let key_file = s.optional("webhook_key_file", None, key_file);
    if key_file.is_some() && !s.has("webhook") {
        s.wrong_at("webhook_key_file", Wrong::new("signs nothing without `webhook`", "add `webhook: https://…`, or remove this line"));
    }
    (url, key_file)
}

fn key_file(f: &Field) -> Option<String> {
    let (name, length) = f.file()?;
    if length < SHORTEST_KEY {
        let what = format!("the key {} has {length} bytes, at least {SHORTEST_KEY} are needed", quote(&name));
        return f.wrong(Wrong::new(what, format!("make it with `openssl rand -hex 32 > {name}`")));
    }
    Some(name)
}

fn url(text: &str) -> Result<WebhookUrl, Wrong> {
    // Not repeated, nor what other readers say of it: what looks like a typo may be a password, or the secret path of a chat's webhook.
    let wrong = |remedy: &str| Wrong::new("this is not a URL to report to (not shown: it may hold a secret)", remedy);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(wrong("write https://HOST/PATH, or http://HOST:PORT/PATH"));
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(wrong("begin it with https:// or http://")),
    };
    if text.contains('#') {
        return Err(wrong("remove the `#` and what follows: it is never sent"));
    }
    let cut = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(cut).unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(wrong("remove the user before the `@`: reports are signed, and the receiver checks that"));
    }
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    scalar::request_path(&target)
        .map_err(|_| wrong("write its path without `.` and `..`, and encode spaces and special characters as %XX"))?;
    let port = if tls { 443 } else { 80 };
    // What follows the last `:` is a port, unless that colon is inside an IPv6 address in brackets.
    let ported = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = if ported { authority.to_owned() } else { format!("{authority}:{port}") };
    let address = scalar::parse_address(&address).map_err(|_| {
        wrong("write the host as a name, an IPv4 address or an IPv6 address in brackets, and a port from 1 to 65535 if it needs one")
    })?;
    Ok(WebhookUrl { url: text.to_owned(), tls, address, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let check = |text: &str, expected: Option<(bool, &str, u16, &str)>| {
            let got = url(text);
            let parts = got.as_ref().ok().map(|u| (u.tls, u.address.host.as_str(), u.address.port, u.target.as_str()));
            assert_eq!(parts, expected, "{text}: {got:?}");
        };
        check("https://ci.example.com/hooks/1", Some((true, "ci.example.com", 443, "/hooks/1")));
        check("HTTP://10.0.0.5:8080/x?a=b", Some((false, "10.0.0.5", 8080, "/x?a=b")));
        check("http://h", Some((false, "h", 80, "/")));
        check("http://h?a", Some((false, "h", 80, "/?a")));
        check("https://[::1]/x", Some((true, "::1", 443, "/x")));
        check("https://[::1]:8/x", Some((true, "::1", 8, "/x")));
        for bad in [
            "",
            "ci.example.com/x",
            "ftp://h/x",
            "http://",
            "http:///x",
            "http://u:p@h/x",
            "http://h:0/",
            "http://h:x/",
            "http://h/a b",
            "http://h/#x",
            "http://::1/x",
            "http://h h/",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_refusal_repeats_no_secret() {
        for text in [
            "https://ci:s3cret@h/x",
            "ci:s3cret@h/x",
            "https://ci:s3cret/more@h/x",
            "ftp://ci:s3cret@h/x",
            "https://h/s3cret/../x",
            "https://h/x?token=s3cret here",
            "https://h/s3cret#x",
            "https://s3cret:s3cret/x",
            "https://::s3cret/x",
        ] {
            let wrong = url(text).expect_err(text);
            assert!(!format!("{wrong:?}").contains("s3cret"), "{text}: {wrong:?}");
        }
    }
}
