//! Dates of cookies, read as browsers read them (RFC 6265 §5.1.1): order and separators hardly matter. A date that does not
//! parse is no date: the attribute is ignored, the cookie is not.

use crate::model::octets::split_before;
use crate::model::time::Time;

/// The moment that `text` names; moments before 1970 become 1970, since both are past.
pub fn parse_cookie_date(text: &[u8]) -> Option<Time> {
    let (mut clock, mut day, mut month, mut year) = (None, None, None, None);
    // Each token is the first thing still missing that it can be.
    for token in text.split(|&octet| is_delimiter(octet)).filter(|token| !token.is_empty()) {
        if clock.is_none() && set(&mut clock, time_of_day(token)) {
            continue;
        }
        if day.is_none() && set(&mut day, leading_number(token, 1..=2)) {
            continue;
        }
        if month.is_none() && set(&mut month, month_index(token)) {
            continue;
        }
        if year.is_none() {
            set(&mut year, leading_number(token, 2..=4).map(full_year));
        }
    }
    let (seconds, day, month, year) = (clock?, day?, month?, year?);
    let month_length = days_in_month(year, month)?;
    if year < 1601 || !(1..=month_length).contains(&day) {
        return None;
    }
    let months: u64 = (0..month).filter_map(|before| days_in_month(year, before)).sum();
    let Some(days) = days_before_year(year) else { return Some(Time(0)) };
    Some(Time::from_secs((days + months + day - 1) * 86_400 + seconds))
}

fn set<T>(slot: &mut Option<T>, found: Option<T>) -> bool {
    *slot = found;
    slot.is_some()
}

fn is_delimiter(octet: u8) -> bool {
    matches!(octet, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// Seconds since midnight of `h:m:s`, where each part has one or two digits and anything may follow a non-digit.
fn time_of_day(token: &[u8]) -> Option<u64> {
    let mut parts = token.splitn(3, |&octet| octet == b':');
    let whole = |part: &[u8]| part.iter().all(u8::is_ascii_digit).then(|| leading_number(part, 1..=2))?;
    let hours = whole(parts.next()?)?;
    let minutes = whole(parts.next()?)?;
    let seconds = leading_number(parts.next()?, 1..=2)?;
    (hours < 24 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// The number that `token` begins with, if it has that many digits.
fn leading_number(token: &[u8], digits: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let (number, _) = split_before(token, |octet| !octet.is_ascii_digit());
    let value = number.iter().take(4).fold(0, |value, &octet| value * 10 + u64::from(octet - b'0'));
    digits.contains(&number.len()).then_some(value)
}

fn month_index(token: &[u8]) -> Option<usize> {
    let name = token.get(..3)?;
    let months = [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    months.iter().position(|month| name.eq_ignore_ascii_case(*month))
}

fn full_year(year: u64) -> u64 {
    match year {
        70..=99 => year + 1900,
        0..=69 => year + 2000,
        _ => year,
    }
}

fn days_in_month(year: u64, month: usize) -> Option<u64> {
    let leap = u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)));
    [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].get(month).copied()
}

/// Days from 1970-01-01 to January 1st of `year`; `None` before 1970.
fn days_before_year(year: u64) -> Option<u64> {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = year.checked_sub(1970)?;
    Some(years * 365 + leap_days(year - 1) - leap_days(1969))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::xorshift::Xorshift;

    #[test]
    fn dates_parse_as_browsers_parse_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_cookie_date(text.as_bytes()), expected.map(Time::from_secs), "{text}");
        };
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Thu, 01-Jan-1970 00:00:10 GMT", Some(10)); // Tomcat
        check("Thursday, 01-Jan-70 00:00:01 GMT", Some(1)); // RFC 850
        check("Thu Jan  1 00:00:01 1970", Some(1)); // asctime
        check("Fri, 20 Nov 2026 10:00:00 GMT", Some(1_795_168_800));
        check("Fri, 20-Nov-26 10:00:00 GMT", Some(1_795_168_800));
        check("20 nov 2026 10:00:00", Some(1_795_168_800));
        check("2026 Nov 20 10:00:00", Some(1_795_168_800));
        check("10:00:00 20 NOVEMBER 2026", Some(1_795_168_800));
        check("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799));
        check("Thu, 29 Feb 2001 23:59:59 GMT", None);
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
        check("Mon, 01 Jan 1900 00:00:00 GMT", Some(0));
        check("Mon, 01 Jan 1600 00:00:00 GMT", None);
        check("Fri, 20 Nov 2026 24:00:00 GMT", None);
        check("Fri, 20 Nov 2026 10:60:00 GMT", None);
        check("Fri, 00 Nov 2026 10:00:00 GMT", None);
        check("Fri, 31 Nov 2026 10:00:00 GMT", None);
        check("Fri, 20 Nov 20260 10:00:00 GMT", None);
        check("Fri, 20 Nov 10:00:00 GMT", None);
        check("2026-11-20T10:00:00Z", None);
        check("0", None);
        check("-1", None);
        check("", None);
    }

    #[test]
    fn no_date_makes_it_panic() {
        let mut dice = Xorshift(0xda7e);
        for _ in 0..50_000 {
            parse_cookie_date(&dice.octets(40, b"0123456789: -JanFeb"));
        }
    }
}
