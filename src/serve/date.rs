//! Dates as logs and the API write them, always UTC: local time jumps twice a year, and a log should not.

use std::io::{self, Write};

use crate::model::time::Time;

const MONTHS: [(&str, u64); 12] = [
    ("Jan", 31),
    ("Feb", 28),
    ("Mar", 31),
    ("Apr", 30),
    ("May", 31),
    ("Jun", 30),
    ("Jul", 31),
    ("Aug", 31),
    ("Sep", 30),
    ("Oct", 31),
    ("Nov", 30),
    ("Dec", 31),
];

/// Days of 400 years: then the Gregorian calendar repeats.
const DAYS_OF_400_YEARS: u64 = 146_097;

/// A moment of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
    /// Of the day.
    seconds: u64,
    milliseconds: u64,
}

impl Date {
    /// The date of a time.
    pub fn of(time: Time) -> Date {
        let (seconds, milliseconds) = (time.as_secs(), time.0 % 1000);
        let mut days = seconds / 86_400;
        let mut year = 1970 + 400 * (days / DAYS_OF_400_YEARS);
        days %= DAYS_OF_400_YEARS;
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let mut month = 0;
        for (number, (name, length)) in MONTHS.iter().enumerate() {
            let length = length + u64::from(*name == "Feb" && leap(year));
            month = number;
            if days < length {
                break;
            }
            days -= length;
        }
        Date { year, month, day: days + 1, seconds: seconds % 86_400, milliseconds }
    }

    fn clock(&self) -> (u64, u64, u64) {
        (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60)
    }

    /// As RFC 3339 has it, with milliseconds: `2026-11-20T10:00:00.000Z`.
    pub fn rfc3339(&self, out: &mut impl Write) -> io::Result<()> {
        let (h, m, s) = self.clock();
        write!(out, "{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}.{:03}Z", self.year, self.month + 1, self.day, self.milliseconds)
    }

    /// As the common log format has it: `20/Nov/2026:10:00:00 +0000`.
    pub fn common_log(&self, out: &mut impl Write) -> io::Result<()> {
        let (h, m, s) = self.clock();
        let month = MONTHS.get(self.month).map_or("", |(name, _)| name);
        write!(out, "{:02}/{month}/{:04}:{h:02}:{m:02}:{s:02} +0000", self.day, self.year)
    }
}

/// A time as people and scripts read it, in whole seconds: `2026-11-20T10:00:00Z`.
pub fn rfc3339(time: Time) -> String {
    let date = Date::of(time);
    let (h, m, s) = date.clock();
    format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", date.year, date.month + 1, date.day)
}

/// Whether February has 29 days.
fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `date -u -d @SECONDS`.
    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |milliseconds: u64, rfc3339: &str, common_log: &str| {
            let date = Date::of(Time(milliseconds));
            let mut text = Vec::new();
            date.rfc3339(&mut text).expect("memory");
            assert_eq!(String::from_utf8_lossy(&text), rfc3339);
            text.clear();
            date.common_log(&mut text).expect("memory");
            assert_eq!(String::from_utf8_lossy(&text), common_log);
        };
        check(0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000");
        check(1, "1970-01-01T00:00:00.001Z", "01/Jan/1970:00:00:00 +0000");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z", "28/Feb/2000:23:59:59 +0000");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000");
        check(951_868_800_000, "2000-03-01T00:00:00.000Z", "01/Mar/2000:00:00:00 +0000");
        check(1_709_164_800_000, "2024-02-29T00:00:00.000Z", "29/Feb/2024:00:00:00 +0000");
        check(1_735_689_599_999, "2024-12-31T23:59:59.999Z", "31/Dec/2024:23:59:59 +0000");
        check(1_795_168_800_250, "2026-11-20T10:00:00.250Z", "20/Nov/2026:10:00:00 +0000");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000");
        check(253_402_300_799_000, "9999-12-31T23:59:59.000Z", "31/Dec/9999:23:59:59 +0000");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = Date::of(Time(0));
        for day in 1..200_000 {
            let date = Date::of(Time::from_secs(day * 86_400));
            let next_day = (date.year, date.month, date.day) == (before.year, before.month, before.day + 1);
            let next_month = (date.year, date.month, date.day) == (before.year, before.month + 1, 1);
            let next_year = (date.year, date.month, date.day) == (before.year + 1, 0, 1) && (before.month, before.day) == (11, 31);
            assert!((next_day || next_month || next_year) && date.day <= 31, "{before:?} {date:?}");
            before = date;
        }
    }

    #[test]
    fn the_end_of_time_is_a_date_too() {
        Date::of(Time(u64::MAX));
    }

    #[test]
    fn times_are_written_in_utc() {
        let check = |seconds: u64, expected: &str| assert_eq!(rfc3339(Time::from_secs(seconds)), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_795_168_800, "2026-11-20T10:00:00Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }
}
