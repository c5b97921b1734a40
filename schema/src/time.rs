//! Points in time and spans, as plain numbers. Reads no clock.

use std::{fmt, ops::Add, ops::Sub, time::Duration};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z, leap seconds ignored. Microseconds, since PostgreSQL keeps no finer ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The point `seconds` after the epoch.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The span from `earlier` to here; zero when `earlier` is later (clocks step back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Year, month, day, hour, minute, second in UTC (proleptic Gregorian).
    #[must_use]
    pub fn civil(self) -> (i64, u32, u32, u32, u32, u32) {
        let seconds = self.seconds();
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days to civil date by 400-year eras that start on 1 March, so that the leap day ends a year.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        (year, small(month), small(day), small(rest / 3_600), small(rest / 60 % 60), small(rest % 60))
    }
}

impl Timestamp {
    /// The point at that UTC date and time; `None` for a date that does not exist (proleptic Gregorian, years 0 to 9999).
    #[must_use]
    pub fn from_civil(year: i64, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<Self> {
        // A leap second is the last one of its minute here.
        let fits = (0..=9_999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !fits || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        // The inverse of `civil`: years that begin on 1 March.
        let y = year - i64::from(month <= 2);
        let era = y.div_euclid(400);
        let year_of_era = y - era * 400;
        let month_from_march = i64::from((month + 9) % 12);
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        let time = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second.min(59));
        let point = Self::from_seconds(days * 86_400 + time);
        let (y, m, d, ..) = point.civil();
        ((y, m, d) == (year, month, day)).then_some(point)
    }

    /// Reads a date and time of RFC 3339 with any offset; digits beyond microseconds are dropped. `None` for anything else.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let number = |at: std::ops::Range<usize>| -> Option<u32> {
            let part = text.get(at)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
        };
        let mark = |at: usize, set: &[u8]| text.as_bytes().get(at).is_some_and(|b| set.contains(b));
        let marks = mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":");
        if !marks {
            return None;
        }
        let whole = Self::from_civil(
            i64::from(number(0..4)?),
            number(5..7)?,
            number(8..10)?,
            number(11..13)?,
            number(14..16)?,
            number(17..19)?,
        )?;
        let rest = text.get(19..)?;
        let digits = rest
            .strip_prefix('.')
            .map_or("", |r| r.get(..r.bytes().take_while(u8::is_ascii_digit).count()).unwrap_or(""));
        let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6).fold(0, |n, b| n * 10 + i64::from(b - b'0'));
        let zone = if digits.is_empty() { rest } else { rest.get(digits.len() + 1..)? };
        let offset = match zone.as_bytes() {
            [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
                let two = |a: u8, b: u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
                let seconds = two(*h1, *h2) * 3_600 + two(*m1, *m2) * 60;
                if *sign == b'-' { -seconds } else { seconds }
            }
            _ => return None,
        };
        Some(Self(whole.0 + micros - offset * 1_000_000))
    }

    /// As it is shown, with all six digits of its microseconds.
    #[must_use]
    pub fn precise(self) -> String {
        let mut out = String::with_capacity(27);
        self.write_precise(&mut out);
        out
    }

    /// Appends it as [`Timestamp::precise`] has it.
    pub fn write_precise(self, out: &mut String) {
        let (y, mo, d, h, mi, s) = self.civil();
        let us = self.0.rem_euclid(1_000_000);
        // Digit by digit: a log has millions of these, and formatting costs more than all else in a line.
        let mut number = |n: u64, digits: u32, mark: char| {
            for place in (0..digits).rev() {
                out.push(char::from(b'0' + (n / 10_u64.pow(place) % 10) as u8));
            }
            out.push(mark);
        };
        number(u64::try_from(y).unwrap_or(0), 4, '-');
        number(mo.into(), 2, '-');
        number(d.into(), 2, 'T');
        number(h.into(), 2, ':');
        number(mi.into(), 2, ':');
        number(s.into(), 2, '.');
        number(us.unsigned_abs(), 6, 'Z');
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, mo, d, h, mi, s) = self.civil();
        let ms = self.0.rem_euclid(1_000_000) / 1_000;
        write!(f, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{ms:03}Z")
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates_are_right_at_leap_days_and_before_the_epoch() {
        assert_eq!(Timestamp::from_seconds(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_seconds(951_782_400).to_string(), "2000-02-29T00:00:00.000Z");
        assert_eq!(Timestamp::from_seconds(-1).to_string(), "1969-12-31T23:59:59.000Z");
        assert_eq!(Timestamp(1_795_366_923_456_789).to_string(), "2026-11-22T17:02:03.456Z");
    }

    #[test]
    fn dates_are_read_with_any_offset_and_only_dates() {
        let read = |text: &str| Timestamp::parse_rfc3339(text);
        for point in [Timestamp(1_795_366_923_456_789), Timestamp(-1), Timestamp::from_seconds(951_782_400)] {
            assert_eq!(read(&point.precise()), Some(point));
        }
        let noon = Timestamp::from_civil(2026, 11, 25, 12, 0, 0);
        assert_eq!(read("2026-11-25T13:30:00+01:30"), noon);
        assert_eq!(read("2026-11-25T10:00:00.000000999-02:00"), noon);
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T12:00:00",
            "2026-11-25",
            "",
            "2026-1é-25T12:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
