//! HTTP-date (RFC 9110 §5.6.7) as caches must read it (RFC 9111 §4.2): all three forms, case
//! ignored, and nothing that merely resembles a date, because an invalid date means "stale".

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

const MONTHS: [&[u8; 3]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];
const DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// The instant that an HTTP-date names. `now` decides the century of a two-digit year. A zone other
/// than GMT, a missing or doubled separator, a one-digit hour and the like are no date.
pub fn parse(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let value = value.to_ascii_lowercase();
    imf(&value).or_else(|| rfc850(&value, now)).or_else(|| asctime(&value))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf(value: &[u8]) -> Option<SystemTime> {
    let (name, rest) = value.split_at_checked(3)?;
    short_day(name)?;
    if value.len() != 29 || &rest[..2] != b", " || rest[4] != b' ' || rest[8] != b' ' {
        return None;
    }
    if rest[13] != b' ' || &rest[22..] != b" gmt" {
        return None;
    }
    let year = digits(&rest[9..13])?;
    instant(year, month(&rest[5..8])?, digits(&rest[2..4])?, time(&rest[14..22])?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let comma = value.iter().position(|&b| b == b',')?;
    let (name, rest) = value.split_at(comma);
    if !DAYS.contains(&name) || rest.len() != 24 || &rest[..2] != b", " {
        return None;
    }
    if rest[4] != b'-' || rest[8] != b'-' || rest[11] != b' ' || &rest[20..] != b" gmt" {
        return None;
    }
    let year = full_year(digits(&rest[9..11])?, now);
    instant(year, month(&rest[5..8])?, digits(&rest[2..4])?, time(&rest[12..20])?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(value: &[u8]) -> Option<SystemTime> {
    let (name, rest) = value.split_at_checked(3)?;
    short_day(name)?;
    if value.len() != 24 || rest[0] != b' ' || rest[4] != b' ' || rest[7] != b' ' {
        return None;
    }
    if rest[16] != b' ' {
        return None;
    }
    let day = match rest[5] {
        b' ' => digits(&rest[6..7])?,
        _ => digits(&rest[5..7])?,
    };
    instant(digits(&rest[17..])?, month(&rest[1..4])?, day, time(&rest[8..16])?)
}

fn short_day(name: &[u8]) -> Option<()> {
    DAYS.iter().any(|day| day[..3] == *name).then_some(())
}

fn month(name: &[u8]) -> Option<i64> {
    MONTHS.iter().position(|month| month[..] == *name).map(|at| at as i64 + 1)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |sum, byte| match byte {
        b'0'..=b'9' => Some(sum * 10 + i64::from(byte - b'0')),
        _ => None,
    })
}

/// Seconds since midnight. A leap second counts as the second before it.
fn time(text: &[u8]) -> Option<i64> {
    let (hour, minute, second) = (digits(&text[..2])?, digits(&text[3..5])?, digits(&text[6..])?);
    let valid = text[2] == b':' && text[5] == b':' && hour < 24 && minute < 60 && second <= 60;
    valid.then(|| hour * 3600 + minute * 60 + second.min(59))
}

// A year more than 50 years ahead is the latest past year with these digits (RFC 9110 §5.6.7).
fn full_year(two_digits: i64, now: SystemTime) -> i64 {
    let (this_year, _, _) = civil(seconds(now).div_euclid(86_400));
    let year = this_year - this_year.rem_euclid(100) + two_digits;
    if year > this_year + 50 { year - 100 } else { year }
}

fn instant(year: i64, month: i64, day: i64, time: i64) -> Option<SystemTime> {
    let days_of = |month| match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day < 1 || day > days_of(month) {
        return None;
    }
    // Days since the epoch in the proleptic Gregorian calendar, counted in 400-year eras that begin
    // on 1 March, so that the leap day is the last of its year.
    let shifted = if month > 2 { year } else { year - 1 };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + time;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

/// Whole seconds since the epoch, rounded down.
pub(crate) fn seconds(instant: SystemTime) -> i64 {
    match instant.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            -whole - i64::from(before.subsec_nanos() > 0 && whole < i64::MAX)
        }
    }
}

/// The date of a day counted from the epoch: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// An IMF-fixdate. Instants outside the years 1970 to 9999, which the form cannot say or no clock
/// of ours shows, become the nearest that it can.
pub fn format(instant: SystemTime) -> String {
    const LAST: i64 = 253_402_300_799;
    let seconds = seconds(instant).clamp(0, LAST);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    // The epoch was a Thursday, which is the fourth name of the table.
    let weekday = capital(&DAYS[usize::try_from((days + 3) % 7).unwrap_or(0)][..3]);
    let month = capital(&MONTHS[usize::try_from(month - 1).unwrap_or(0)][..]);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn capital(name: &[u8]) -> String {
    let mut name = String::from_utf8_lossy(name).into_owned();
    name[..1].make_ascii_uppercase();
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn read(text: &str) -> Option<SystemTime> {
        parse(text.as_bytes(), at(1_800_000_000))
    }

    #[test]
    fn all_three_forms_name_the_same_instant() {
        let instant = Some(at(784_111_777));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), instant);
        assert_eq!(read("Sunday, 06-Nov-94 08:49:37 GMT"), instant);
        assert_eq!(read("Sun Nov  6 08:49:37 1994"), instant);
    }

    #[test]
    fn case_is_ignored() {
        assert_eq!(read("SUN, 06 nOV 1994 08:49:37 gmt"), Some(at(784_111_777)));
    }

    #[test]
    fn what_merely_resembles_a_date_is_none() {
        for text in [
            "0",
            "-1",
            "",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Xyz, 18 Aug 2050 02:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:60:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_leap_day_exists_in_leap_years_only() {
        assert!(read("Thu, 29 Feb 2024 00:00:00 GMT").is_some());
        assert!(read("Thu, 29 Feb 2000 00:00:00 GMT").is_some());
        assert!(read("Thu, 29 Feb 2100 00:00:00 GMT").is_none());
        assert!(read("Thu, 29 Feb 2023 00:00:00 GMT").is_none());
    }

    #[test]
    fn a_two_digit_year_more_than_fifty_years_ahead_is_past() {
        // The clock of these tests stands in 2027.
        assert_eq!(read("Thursday, 18-Aug-77 00:00:00 GMT"), read("Thu, 18 Aug 2077 00:00:00 GMT"));
        assert_eq!(read("Thursday, 18-Aug-78 00:00:00 GMT"), read("Thu, 18 Aug 1978 00:00:00 GMT"));
    }

    #[test]
    fn dates_before_the_epoch_are_dates() {
        assert_eq!(
            read("Wed, 31 Dec 1969 23:59:59 GMT"),
            UNIX_EPOCH.checked_sub(Duration::from_secs(1))
        );
    }

    #[test]
    fn a_date_is_written_as_imf_fixdate() {
        assert_eq!(format(at(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_written_is_read_back(seconds in 0_u64..253_402_300_800) {
            prop_assert_eq!(read(&format(at(seconds))), Some(at(seconds)));
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes, at(0));
        }
    }
}
