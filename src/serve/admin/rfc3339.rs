//! Times as people and scripts read them: `2026-11-20T10:00:00Z` (RFC 3339), always UTC, whole seconds.

use crate::model::time::Time;

/// Days from 1970-01-01 to the first of March of the year 0: counting years from March puts the leap day last.
const EPOCH_FROM_MARCH_0: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;

/// `time` as text.
pub fn rfc3339(time: Time) -> String {
    let seconds = time.as_secs();
    let (days, second) = (seconds / 86_400 + EPOCH_FROM_MARCH_0, seconds % 86_400);
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months of 153 days from March on: 31, 30, 31, 30, 31.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

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
