//! For how long calls could be sent from a region, by day (UTC): added up look by look, until it is written down.
//!
//! The time between two looks counts as what the second one sees. Where it is longer than [`GAP_MAX`], nobody was there to
//! look, and so nobody to send a call: it counts as down, for every region that the fleet has now.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use crate::names::RegionName;

/// Between two looks, of which a restart may lie between: longer, and the control plane was away.
const GAP_MAX: Duration = Duration::MINUTE;
const DAY_MS: i64 = 86_400_000;

/// A region's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionDay {
    /// Which region.
    pub region: RegionName,
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// For how long calls could be sent from it, in ms.
    pub up_ms: i64,
    /// For how long they could not, in ms.
    pub down_ms: i64,
}

/// What is to be written: the time from one moment to another, by region and day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// From when; `None`: nothing was ever written.
    pub from: Option<OffsetDateTime>,
    /// Up to when.
    pub until: OffsetDateTime,
    /// How much of it.
    pub days: Vec<RegionDay>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    up_ms: i64,
    down_ms: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Uptime {
    written: Option<OffsetDateTime>,
    seen: Option<OffsetDateTime>,
    /// When this process began, until its first look.
    began: Option<OffsetDateTime>,
    tallies: BTreeMap<(RegionName, i64), Tally>,
}

impl Uptime {
    /// Goes on after what was written up to a moment, in a process that began at another.
    #[must_use]
    pub fn resumed(written: Option<OffsetDateTime>, began: OffsetDateTime) -> Self {
        Self { written, seen: written, began: Some(began), tallies: BTreeMap::new() }
    }

    /// Somebody else has written up to this moment: what was added up here is told already.
    pub fn told_by_another(&mut self, written: Option<OffsetDateTime>) {
        self.tallies.clear();
        self.written = written;
        self.seen = written;
    }

    /// From these regions calls can be sent now, or cannot.
    pub fn look(&mut self, regions: &[(RegionName, bool)], now: OffsetDateTime) {
        let here_until = self.began.take().unwrap_or(now);
        let Some(mut seen) = self.seen.replace(now) else { return };
        if here_until - seen > GAP_MAX {
            regions.iter().for_each(|(region, _)| self.add(region, false, seen, here_until));
            seen = here_until;
        }
        regions.iter().for_each(|(region, up)| self.add(region, *up, seen, now));
    }

    fn add(&mut self, region: &RegionName, up: bool, from: OffsetDateTime, until: OffsetDateTime) {
        let ms =
            |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let (mut from, until) = (ms(from), ms(until));
        while from < until {
            let day = from.div_euclid(DAY_MS);
            let end = until.min((day + 1) * DAY_MS);
            let tally = self.tallies.entry((region.clone(), day)).or_default();
            *(if up { &mut tally.up_ms } else { &mut tally.down_ms }) += end - from;
            from = end;
        }
    }

    /// What was added up since the last write. `None`: nobody has looked yet.
    #[must_use]
    pub fn unwritten(&self) -> Option<Unwritten> {
        let until = self.seen.filter(|seen| Some(*seen) != self.written)?;
        let day = |((region, day), Tally { up_ms, down_ms }): (&(RegionName, i64), &Tally)| RegionDay {
            region: region.clone(),
            day: *day,
            up_ms: *up_ms,
            down_ms: *down_ms,
        };
        Some(Unwritten { from: self.written, until, days: self.tallies.iter().map(day).collect() })
    }

    /// It is written up to this moment, beyond which nobody has looked meanwhile.
    pub fn written(&mut self, until: OffsetDateTime) {
        self.tallies.clear();
        self.written = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    fn regions(up: &[(&str, bool)]) -> Vec<(RegionName, bool)> {
        up.iter().map(|(name, up)| (name.parse().unwrap(), *up)).collect()
    }

    fn seconds(uptime: &Uptime) -> Vec<(String, i64, i64, i64)> {
        let days = uptime.unwritten().map_or_else(Vec::new, |unwritten| unwritten.days);
        let row = |d: RegionDay| (d.region.to_string(), d.day, d.up_ms / 1_000, d.down_ms / 1_000);
        days.into_iter().map(row).collect()
    }

    #[test]
    fn time_between_looks_is_what_the_second_one_sees() {
        let mut uptime = Uptime::resumed(None, NOON);
        let (both, one) = (regions(&[("a", true), ("b", true)]), regions(&[("a", true), ("b", false)]));
        uptime.look(&both, NOON);
        assert!(seconds(&uptime).is_empty(), "one look spans nothing");
        uptime.look(&both, NOON + Duration::seconds(10));
        uptime.look(&one, NOON + Duration::seconds(15));
        let day = NOON.unix_timestamp() / 86_400;
        assert_eq!(seconds(&uptime), [("a".into(), day, 15, 0), ("b".into(), day, 10, 5)]);
        uptime.written(NOON + Duration::seconds(15));
        assert_eq!(uptime.unwritten(), None);
        // A clock that was set back adds nothing.
        uptime.look(&both, NOON);
        assert!(seconds(&uptime).is_empty());
        uptime.look(&both, NOON + Duration::seconds(1));
        assert_eq!(seconds(&uptime)[0].2, 1);
    }

    #[test]
    fn midnight_parts_days() {
        let mut uptime = Uptime::resumed(None, NOON);
        let midnight = datetime!(2026-11-30 00:00 UTC);
        uptime.look(&regions(&[("a", true)]), midnight - Duration::seconds(20));
        uptime.look(&regions(&[("a", false)]), midnight + Duration::seconds(30));
        let day = midnight.unix_timestamp() / 86_400;
        assert_eq!(seconds(&uptime), [("a".into(), day - 1, 0, 20), ("a".into(), day, 0, 30)]);
    }

    #[test]
    fn where_nobody_looked_for_long_no_call_was_sent() {
        // A process that slept.
        let mut uptime = Uptime::resumed(None, NOON);
        uptime.look(&regions(&[("a", true)]), NOON);
        uptime.look(&regions(&[("a", true)]), NOON + Duration::minutes(10));
        assert_eq!(seconds(&uptime)[0], ("a".into(), NOON.unix_timestamp() / 86_400, 0, 600));
        // A restart: away from 12:00 to 12:30, and settled 40 s later; a short one is none.
        for (away, down) in [(Duration::minutes(30), 1_800), (Duration::seconds(50), 0)] {
            let mut uptime = Uptime::resumed(Some(NOON), NOON + away);
            uptime.look(&regions(&[("a", true)]), NOON + away + Duration::seconds(40));
            let up = 40 + if down == 0 { 50 } else { 0 };
            assert_eq!(seconds(&uptime)[0], ("a".into(), NOON.unix_timestamp() / 86_400, up, down));
        }
    }

    #[test]
    fn what_another_has_told_is_not_told_again() {
        let mut uptime = Uptime::resumed(Some(NOON), NOON);
        uptime.look(&regions(&[("a", true)]), NOON + Duration::seconds(10));
        uptime.told_by_another(Some(NOON + Duration::seconds(8)));
        assert_eq!(uptime.unwritten(), None);
        uptime.look(&regions(&[("a", true)]), NOON + Duration::seconds(12));
        let unwritten = uptime.unwritten().unwrap();
        assert_eq!(unwritten.from, Some(NOON + Duration::seconds(8)));
        assert_eq!(unwritten.days[0].up_ms, 4_000);
    }
}
