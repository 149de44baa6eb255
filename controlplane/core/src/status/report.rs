//! What is shown: of each region and of call delivery its days and their shares, and what operators say.

use std::collections::BTreeMap;

use serde::Serialize;
use time::{Date, OffsetDateTime};

use super::{DAYS, RegionDay, notice::Notice};
use crate::names::RegionName;

/// Calls that ended on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallsDay {
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// For which the fleet did what was asked.
    pub served: i64,
    /// For which it did not.
    pub missed: i64,
}

/// What is known of the past.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// Regions' days.
    pub regions: Vec<RegionDay>,
    /// Calls' days.
    pub calls: Vec<CallsDay>,
    /// Notices, newest first.
    pub notices: Vec<Notice>,
}

/// How it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Calls can be sent.
    Available,
    /// From some regions.
    Partly,
    /// They cannot.
    Unavailable,
    /// There is nothing to send them by.
    Unknown,
}

impl Standing {
    /// As in JSON and in the page's style.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Partly => "partly",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        }
    }
}

/// A day of a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    /// Which one, in UTC.
    pub day: String,
    /// The share, 0 to 1; `None`: nothing is known of it.
    pub ratio: Option<f64>,
}

/// A region, or call delivery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What it is of.
    pub name: String,
    /// How it stands now.
    pub state: Standing,
    /// Over all days; `None`: nothing is known.
    pub ratio: Option<f64>,
    /// Each day, the oldest first.
    pub days: Vec<Day>,
}

/// A notice as everybody reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoticeView {
    /// Its id.
    pub id: String,
    /// In one line.
    pub title: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it was over.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// What was said, the newest first.
    pub updates: Vec<super::notice::Update>,
}

/// Everything that is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `status`.
    pub object: &'static str,
    /// Whose it is, in the operator's words.
    pub name: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// How it stands.
    pub state: Standing,
    /// How many days the lines have.
    pub days: i64,
    /// Calls that the fleet had to bring about.
    pub delivery: Line,
    /// Every region of the fleet, by name.
    pub regions: Vec<Line>,
    /// What operators say: what is open first, then the newest first.
    pub notices: Vec<NoticeView>,
}

/// A share of two counts, rounded down, so that only all is all.
fn ratio(good: i64, bad: i64) -> Option<f64> {
    let all = good.checked_add(bad).filter(|all| *all > 0)?;
    let parts = i128::from(good) * 100_000 / i128::from(all);
    #[allow(clippy::cast_precision_loss, reason = "at most 100,000")]
    Some(parts as f64 / 100_000.0)
}

/// A share in words, as `99.95 %`.
#[must_use]
pub fn percent(ratio: Option<f64>) -> String {
    match ratio {
        None => "no data".to_owned(),
        Some(all) if all >= 1.0 => "100 %".to_owned(),
        // Rounded down, as the share is.
        Some(part) => format!("{:.2} %", (part * 10_000.0 + 1e-6).floor() / 100.0),
    }
}

fn date(day: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(day.saturating_mul(86_400));
    at.map(|at| at.date()).unwrap_or(Date::MIN).to_string()
}

fn line(name: String, state: Standing, today: i64, of_day: &BTreeMap<i64, (i64, i64)>) -> Line {
    let days = today - DAYS + 1..=today;
    let within = of_day.range(days.clone());
    let (good, bad) = within.fold((0_i64, 0_i64), |sum, (_, day)| (sum.0 + day.0, sum.1 + day.1));
    let day =
        |day: i64| Day { day: date(day), ratio: of_day.get(&day).and_then(|(good, bad)| ratio(*good, *bad)) };
    Line { name, state, ratio: ratio(good, bad), days: days.map(day).collect() }
}

/// What is shown, of regions from which calls can be sent now or cannot, and of the past.
#[must_use]
pub fn report(name: &str, now: OffsetDateTime, regions: &[(RegionName, bool)], past: &Past) -> Report {
    let today = now.unix_timestamp().div_euclid(86_400);
    let up = regions.iter().filter(|(_, up)| *up).count();
    let state = match up {
        _ if regions.is_empty() => Standing::Unknown,
        0 => Standing::Unavailable,
        up if up < regions.len() => Standing::Partly,
        _ => Standing::Available,
    };
    let region = |(region, up): &(RegionName, bool)| {
        let days = past.regions.iter().filter(|day| day.region == *region);
        let days = days.map(|day| (day.day, (day.up_ms, day.down_ms))).collect();
        let state = if *up { Standing::Available } else { Standing::Unavailable };
        line(region.to_string(), state, today, &days)
    };
    let calls = past.calls.iter().map(|day| (day.day, (day.served, day.missed))).collect();
    // One region is enough to send a call.
    let delivery = if state == Standing::Partly { Standing::Available } else { state };
    let view = |notice: &Notice| NoticeView {
        id: notice.id.to_string(),
        title: notice.title.clone(),
        started_at: notice.started_at,
        ended_at: notice.ended_at,
        updates: notice.updates.iter().rev().cloned().collect(),
    };
    let mut notices: Vec<_> = past.notices.iter().map(view).collect();
    notices.sort_by_key(|notice| (notice.ended_at.is_some(), std::cmp::Reverse(notice.started_at)));
    Report {
        object: "status",
        name: name.to_owned(),
        updated_at: now,
        state,
        days: DAYS,
        delivery: line("Call delivery".to_owned(), delivery, today, &calls),
        regions: regions.iter().map(region).collect(),
        notices,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    #[test]
    fn only_all_is_all() {
        assert_eq!(percent(ratio(1, 0)), "100 %");
        assert_eq!(percent(ratio(999_999_999, 1)), "99.99 %");
        assert_eq!(percent(ratio(9_995, 5)), "99.95 %");
        assert_eq!(percent(ratio(2, 1)), "66.66 %");
        assert_eq!(percent(ratio(0, 5)), "0.00 %");
        assert_eq!(percent(ratio(0, 0)), "no data");
        assert_eq!(ratio(i64::MAX, 1), None);
    }

    #[test]
    fn ninety_days_are_shown_and_older_ones_do_not_count() {
        let today = NOON.unix_timestamp() / 86_400;
        let region: RegionName = "eu-east".parse().unwrap();
        let day =
            |ago: i64, up_ms, down_ms| RegionDay { region: region.clone(), day: today - ago, up_ms, down_ms };
        let past = Past {
            regions: vec![day(90, 0, 1_000), day(89, 1_000, 0), day(0, 500, 500)],
            calls: vec![CallsDay { day: today, served: 3, missed: 1 }],
            notices: Vec::new(),
        };
        let shown = report("Calls", NOON, &[(region.clone(), true), ("us".parse().unwrap(), false)], &past);
        assert_eq!((shown.state, shown.delivery.state), (Standing::Partly, Standing::Available));
        let east = &shown.regions[0];
        assert_eq!((east.days.len(), east.ratio), (90, Some(0.75)));
        assert_eq!(east.days[0], Day { day: "2026-09-01".to_owned(), ratio: Some(1.0) });
        assert_eq!(east.days[89], Day { day: "2026-11-29".to_owned(), ratio: Some(0.5) });
        assert_eq!(shown.regions[1].ratio, None);
        assert_eq!(shown.delivery.ratio, Some(0.75));
        let none = |regions: &[(RegionName, bool)]| report("x", NOON, regions, &Past::default()).state;
        assert_eq!(none(&[]), Standing::Unknown);
        assert_eq!(none(&[(region.clone(), false)]), Standing::Unavailable);
        assert_eq!(none(&[(region, true)]), Standing::Available);
    }
}
