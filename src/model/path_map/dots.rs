//! `..` in paths, in every way a backend may read it: plain or percent-encoded, behind an encoded slash or a backslash, before a parameter
//! (`/..;x/`, which Tomcat normalises). Decoded once, as servers decode.

/// Whether any segment is `..`.
pub fn has_dots(path: &[u8]) -> bool {
    // Nearly every path ends here.
    path.iter().any(|&octet| octet == b'.' || octet == b'%') && steps(path).any(|step| step == Step::Up)
}

/// Whether `..` leaves the directory that `path` begins in.
pub fn climbs(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    for step in steps(path) {
        match step {
            Step::Up if depth == 0 => return true,
            Step::Up => depth -= 1,
            Step::Down => depth += 1,
            Step::Stay => {}
        }
    }
    false
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Up,
    Down,
    /// An empty segment or a single dot.
    Stay,
}

/// What each segment does.
fn steps(path: &[u8]) -> impl Iterator<Item = Step> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let (mut dots, mut others, mut parameter) = (0, 0, false);
        let mut ahead = rest.take()?;
        while let Some((octet, next)) = first_decoded(ahead) {
            ahead = next;
            match octet {
                // A fragment has no place in a request target; whether a backend cuts it off or not, both readings are checked.
                b'/' | b'\\' | b'#' => {
                    rest = Some(ahead);
                    break;
                }
                b';' => parameter = true,
                _ if parameter => {}
                b'.' => dots += 1,
                _ => others += 1,
            }
        }
        Some(match (dots, others) {
            (2, 0) => Step::Up,
            (0 | 1, 0) => Step::Stay,
            _ => Step::Down,
        })
    })
}

/// The first octet, percent-decoded, and what follows it.
fn first_decoded(text: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some((high * 16 + low, rest));
    }
    text.split_first().map(|(&octet, rest)| (octet, rest))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_dot_is_found_however_it_is_written() {
        let check = |path: &str, expected: bool| assert_eq!(has_dots(path.as_bytes()), expected, "{path}");
        for up in ["..", "%2e%2e", "%2E%2e", ".%2e", "%2e.", "..;", "..;x=1", "..%3bx", "%2e%2e;jsessionid=A"] {
            check(&format!("/shop/{up}"), true);
            check(&format!("/shop/{up}/x"), true);
            check(&format!("/shop/a%2f{up}%2Fx"), true);
            check(&format!("/shop/a\\{up}\\x"), true);
            check(&format!("/shop/a%5c{up}%5Cx"), true);
            check(up, true);
        }
        for other in ["", "/", "/shop", "/a.b/c..d/...", "/..a", "/a..", "/.", "/./x", "/%2e/", "//", "/%252e%252e/", "/%", "/%2", "/;.."] {
            check(other, false);
        }
    }

    #[test]
    fn climbing_means_to_leave_the_start() {
        let check = |path: &str, expected: bool| assert_eq!(climbs(path.as_bytes()), expected, "{path}");
        check("/a/../b", false);
        check("/a/b/../../c", false);
        check("/..", true);
        check("/a/../..", true);
        check("/a/..;x/%2e%2e/b", true);
        check("/./../a", true);
        check("//../a", true);
        check("/a/./../b", false);
        check("", false);
    }
}
