//! From a backend's answer to its number of sessions. Pure, and strict: what is not surely a number is none, for a wrong zero would
//! end a drain that has people in it.

use serde_json::Value;

use crate::model::settings::CountFormat;

/// More sessions than any machine holds; a larger number is a mistake of the page, not a count.
const MOST: u64 = 1_000_000_000;

/// The number of sessions that `body` tells.
///
/// # Errors
/// A few words on why it tells none.
pub fn read(format: &CountFormat, body: &[u8]) -> Result<u64, String> {
    let sessions = match format {
        CountFormat::Tomcat => tomcat(&String::from_utf8_lossy(body)),
        CountFormat::Json(path) => json(path, body),
    }?;
    if sessions > MOST { Err(format!("{sessions} cannot be a number of sessions")) } else { Ok(sessions) }
}

/// `GET /manager/text/sessions?path=/shop` of Tomcat 7 to 11: after `OK - …` and a line with the default timeout comes one line for
/// each span of idleness in which there are sessions, and none when there is no session:
///
/// ```text
/// OK - Session information for application at context path [/shop]
/// Default maximum session inactive interval is [30] minutes
/// Inactive for [<1] minutes: [4] sessions
/// Inactive for [5 - <6] minutes: [1] sessions
/// ```
///
/// Until Tomcat 8 without brackets (`<1 minutes: 4 sessions`). Words are not looked at: the manager speaks the language of its system.
fn tomcat(text: &str) -> Result<u64, String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.next() {
        Some(first) if first.starts_with("OK - ") => {}
        // FAIL comes with status 200: `FAIL - No context exists named [/nope]`.
        Some(first) if first.starts_with("FAIL - ") => return Err(format!("the manager says {:?}", clip(first))),
        _ => return Err("the answer is not the text of Tomcat's manager".to_owned()),
    }
    // Other commands of the manager answer `OK` too, with a single line; read as "no session" they would end a drain.
    let timeout = lines.next().is_some_and(|line| !line.contains(':') && line.bytes().any(|b| b.is_ascii_digit()));
    if !timeout {
        return Err("the manager answers another question; url_path should be /manager/text/sessions?path=/CONTEXT".to_owned());
    }
    let mut sum: u64 = 0;
    for line in lines {
        let count = line.rsplit_once(':').and_then(|(_, count)| leading_number(count));
        let count = count.ok_or_else(|| format!("the manager says {:?}, which counts no sessions", clip(line)))?;
        sum = sum.saturating_add(count);
    }
    Ok(sum)
}

/// ` [4] sessions` and ` 4 sessions`.
fn leading_number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let (digits, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => text.split_once(' ').unwrap_or((text, "")),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // `[08] 12:30` or a version is no count: what follows must be a word.
    (plain && rest.trim_start().chars().next().is_none_or(char::is_alphabetic)).then(|| digits.parse().ok())?
}

fn json(path: &str, body: &[u8]) -> Result<u64, String> {
    let document: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    let mut found = &document;
    for key in path.split('.') {
        let next = match found {
            Value::Array(items) => key.parse::<usize>().ok().and_then(|at| items.get(at)),
            other => other.get(key),
        };
        found = next.ok_or_else(|| format!("the answer has no {path:?}"))?;
    }
    match found {
        Value::Number(number) => whole(number).ok_or_else(|| format!("{path:?} is {number}, which is no number of sessions")),
        _ => Err(format!("{path:?} is not a number")),
    }
}

/// Some frameworks write every number as `12.0`.
fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let number = number.as_f64()?;
        (number >= 0.0 && number.fract() == 0.0 && number <= MOST as f64).then_some(number as u64)
    })
}

/// The beginning of a line that somebody else wrote, for our log.
fn clip(line: &str) -> String {
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "OK - Session information for application at context path [/shop]\nDefault maximum session inactive interval is [30] minutes\n";

    #[test]
    fn the_text_of_tomcats_manager_is_summed_over_its_lines() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let got = read(&CountFormat::Tomcat, text.as_bytes());
            match (&got, expected) {
                (Ok(count), Ok(wanted)) => assert_eq!(*count, wanted, "{text}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{text}: {why}"),
                _ => panic!("{text}: {got:?}"),
            }
        };
        check(HEAD, Ok(0));
        check(&format!("{HEAD}Inactive for [<1] minutes: [4] sessions\n"), Ok(4));
        check(&format!("{HEAD}Inactive for [<1] minutes: [4] sessions\r\nInactive for [5 - <6] minutes: [1] sessions\r\n"), Ok(5));
        check(&format!("{HEAD}Inactive for [>=30] minutes: [12] sessions\nunlimited time: [3] sessions\n"), Ok(15));
        let old = "OK - Session information for application at context path /shop\nDefault maximum session inactive interval 30 minutes\n";
        check(&format!("{old}<1 minutes: 5 sessions\n30 - <40 minutes:1 sessions\n"), Ok(6));
        let german = "OK - Sitzungsinformation\nVorgabe sind [30] Minuten\nInaktiv seit [<1] Minuten: [7] Sitzungen\n";
        check(german, Ok(7));

        check("FAIL - No context exists named [&#47;nope]\n", Err("No context exists named"));
        check("", Err("not the text of Tomcat's manager"));
        check("<!doctype html><html><head>", Err("not the text of Tomcat's manager"));
        check("OK - Reloaded application at context path [/shop]\n", Err("another question"));
        check("OK - Listed applications for virtual host [localhost]\n/shop:running:4:shop##2\n", Err("another question"));
        check(&format!("{HEAD}Inactive for [<1] minutes: [many] sessions\n"), Err("counts no sessions"));
        check(&format!("{HEAD}Inactive for [<1] minutes: [-4] sessions\n"), Err("counts no sessions"));
        check(&format!("{HEAD}Inactive for [<1] minutes\n"), Err("counts no sessions"));
        check(&format!("{HEAD}2026-11-20 12:30\n/shop:running:0:8 [x]\n"), Err("counts no sessions"));
        check(&format!("{HEAD}a: [99999999999999999999] sessions\n"), Err("counts no sessions"));
        check(&format!("{HEAD}a: [2000000000] sessions\n"), Err("cannot be a number of sessions"));
    }

    #[test]
    fn a_number_in_json_is_found_by_its_path() {
        let check = |path: &str, text: &str, expected: Result<u64, &str>| {
            let got = read(&CountFormat::Json(path.to_owned()), text.as_bytes());
            match (&got, expected) {
                (Ok(count), Ok(wanted)) => assert_eq!(*count, wanted, "{text}"),
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{text}: {why}"),
                _ => panic!("{text}: {got:?}"),
            }
        };
        check("sessions.active", r#"{"sessions":{"active":12,"max":40}}"#, Ok(12));
        check("value", r#"{"value":0}"#, Ok(0));
        // Spring's actuator: /actuator/metrics/tomcat.sessions.active.current
        check("measurements.0.value", r#"{"measurements":[{"statistic":"VALUE","value":12.0}]}"#, Ok(12));
        check("a", r#"{"a":-1}"#, Err("no number of sessions"));
        check("a", r#"{"a":1.5}"#, Err("no number of sessions"));
        check("a", r#"{"a":1e300}"#, Err("no number of sessions"));
        check("a", r#"{"a":18446744073709551615}"#, Err("cannot be a number"));
        check("a", r#"{"a":"12"}"#, Err("not a number"));
        check("a", r#"{"a":null}"#, Err("not a number"));
        check("a.b", r#"{"a":{}}"#, Err("has no \"a.b\""));
        check("a.b", r#"{"a":3}"#, Err("has no \"a.b\""));
        check("a.9", r#"{"a":[]}"#, Err("has no"));
        check("a", "<html>", Err("not JSON"));
        check("a", &"[".repeat(100_000), Err("not JSON"));
    }
}
