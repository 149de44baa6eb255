//! Time stamps of log lines. Without an offset they are taken as UTC: only distances matter to the rules.

use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};

use crate::moment::UnixMs;

/// Every form that [`parse`] reads: ISO 8601 and near it, nginx's, syslog's without a year. At each byte there is one
/// way to go on.
pub(super) const FORMS: &str = r"\d\d(?:\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?|/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})|[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})?";

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// A stamp without a year may lie so far ahead of `now` before it is taken as last year's.
const AHEAD_MS: u64 = 86_400_000;

/// Reads a stamp that fits one of [`FORMS`]. One without a year is the last such day before `now`.
pub(super) fn parse(text: &str, now: UnixMs) -> Option<UnixMs> {
    match text.as_bytes() {
        [_, _, b'/', ..] => nginx(text),
        [b'0'..=b'9', ..] => iso(text),
        _ => syslog(text, now),
    }
}

fn iso(text: &str) -> Option<UnixMs> {
    let date = date(text.get(..4)?.parse().ok()?, text.get(5..7)?.parse().ok()?, text.get(8..10)?)?;
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix(['.', ',']).unwrap_or_default();
    let digits = digits.get(..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()))?;
    let offset = rest.find(['Z', '+', '-']).and_then(|at| rest.get(at..)).unwrap_or_default();
    moment(date, text.get(11..19)?, digits, offset)
}

fn syslog(text: &str, now: UnixMs) -> Option<UnixMs> {
    let of_now = time::OffsetDateTime::from_unix_timestamp(i64::try_from(now.0 / 1000).ok()?).ok()?.year();
    let digits = text.get(15..)?.strip_prefix('.').unwrap_or_default();
    let in_year = |year| {
        let date = date(year, month(text.get(..3)?)?, text.get(4..6)?.trim_start())?;
        moment(date, text.get(7..15)?, digits, "")
    };
    // 29 February is in no other year than its own.
    [of_now, of_now - 1, of_now - 2, of_now - 3, of_now - 4]
        .into_iter()
        .filter_map(in_year)
        .find(|at| at.0 <= now.0.saturating_add(AHEAD_MS))
}

fn nginx(text: &str) -> Option<UnixMs> {
    let date = date(text.get(7..11)?.parse().ok()?, month(text.get(3..6)?)?, text.get(..2)?)?;
    moment(date, text.get(12..20)?, "", text.get(21..)?)
}

fn month(name: &str) -> Option<u8> {
    MONTHS.iter().zip(1..).find(|(of, _)| **of == name).map(|(_, number)| number)
}

fn date(year: i32, month: u8, day: &str) -> Option<Date> {
    Date::from_calendar_date(year, Month::try_from(month).ok()?, day.parse().ok()?).ok()
}

fn moment(date: Date, clock: &str, digits: &str, offset: &str) -> Option<UnixMs> {
    let part = |from: usize| clock.get(from..from + 2)?.parse::<u8>().ok();
    let millis = format!("{digits:0<3}").get(..3)?.parse().ok()?;
    // A leap second is the second before it.
    let time = Time::from_hms_milli(part(0)?, part(3)?, part(6)?.min(59), millis).ok()?;
    let at = PrimitiveDateTime::new(date, time).assume_offset(offset_of(offset)?);
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(UnixMs)
}

fn offset_of(text: &str) -> Option<UtcOffset> {
    let (sign, digits) = match text.as_bytes() {
        [] | b"Z" => return Some(UtcOffset::UTC),
        [b'-', ..] => (-1, text.get(1..)?),
        _ => (1, text.get(1..)?),
    };
    let hours: i8 = digits.get(..2)?.parse().ok()?;
    let minutes: i8 = digits.get(digits.len().checked_sub(2)?..)?.parse().ok()?;
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        // 2026-11-24T12:18:42.523Z.
        const AT: u64 = 1_795_522_722_523;
        let now = UnixMs(AT + 3_600_000);
        let parsed = |text: &str| parse(text, now).map(|at| at.0);
        assert_eq!(parsed("2026-11-24T12:18:42.523+00:00"), Some(AT));
        assert_eq!(parsed("2026-11-24T13:18:42.523+0100"), Some(AT));
        assert_eq!(parsed("2026-11-24T07:48:42.523456789-0430"), Some(AT));
        assert_eq!(parsed("2026-11-24 12:18:42,523"), Some(AT));
        assert_eq!(parsed("2026-11-24 12:18:42"), Some(AT - 523));
        assert_eq!(parsed("Nov 24 12:18:42"), Some(AT - 523));
        assert_eq!(parsed("24/Nov/2026:13:18:42 +0100"), Some(AT - 523));
        // Next month was last year's.
        assert_eq!(parsed("Dec  1 00:00:00"), Some(1_764_547_200_000));
        // 2024 was the last year with that day.
        assert_eq!(parsed("Feb 29 00:00:00"), Some(1_709_164_800_000));
        for bad in
            ["2026-13-24 12:18:42", "2026-11-24 25:18:42", "Foo 24 12:18:42", "31/Feb/2026:13:18:42 +0100"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
