//! Alarms on what suddenly differs: many calls to one country in an hour, countries that were never phoned before, a burst
//! at night. Toll fraud looks so, and within what is open nothing else tells it from work.
//!
//! Counted by hours (UTC) and countries; one alarm per organisation, kind and hour.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::destination::Country;
use crate::{
    call::{UnknownWord, words},
    ids::OrgId,
};

/// How long a country counts as known after its last call, in hours: a month.
const KNOWN_HOURS: i64 = 30 * 24;
/// Largest count.
const COUNT_MAX: u32 = 1_000_000;

words! {
    /// What an alarm is about.
    AlarmKind {
        /// More calls to one country in an hour than are usual.
        CountryPerHour = "country_per_hour",
        /// More countries in an hour that were not phoned for a month.
        NewCountries = "new_countries",
        /// More calls in an hour of the night than are usual.
        Night = "night",
    }
}

/// When an alarm is raised; absent: never.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Velocity {
    /// More calls than this to one country in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country_per_hour: Option<u32>,
    /// More countries than this in an hour that were not phoned for 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_countries_per_hour: Option<u32>,
    /// More calls than this in one hour of the night.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub night_per_hour: Option<u32>,
    /// The hours of the night (UTC, 0 to 23).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub night: BTreeSet<u8>,
    /// Whether what raises an alarm is refused, until the hour is over.
    pub block: bool,
}

impl Velocity {
    /// Whether every figure is within its bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let counts = [self.country_per_hour, self.new_countries_per_hour, self.night_per_hour];
        counts.into_iter().flatten().all(|count| (1..=COUNT_MAX).contains(&count))
            && self.night.iter().all(|hour| *hour < 24)
    }
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// About what.
    pub kind: AlarmKind,
    /// Where to.
    pub country: Country,
    /// How many there were with this one.
    pub count: u32,
    /// How many there may be.
    pub max: u32,
    /// Whether it is the first of its kind in this hour: to be told.
    pub is_first: bool,
}

/// What organisations have phoned lately. As many entries as there are organisations and countries.
#[derive(Debug, Clone, Default)]
pub struct Watch(HashMap<OrgId, Org>);

#[derive(Debug, Clone, Default)]
struct Org {
    /// Counted from 1970-01-01 in UTC.
    hour: i64,
    calls: u32,
    by_country: BTreeMap<Country, u32>,
    fresh: BTreeSet<Country>,
    told: BTreeSet<AlarmKind>,
    /// When a country was phoned last.
    known: BTreeMap<Country, i64>,
}

impl Watch {
    /// Counts a call that is to be placed. `Some`: it raises an alarm; where the organisation's alarms block, it is not
    /// to be placed, and does not count.
    pub fn observe(
        &mut self,
        org: &OrgId,
        country: &Country,
        rules: &Velocity,
        now: OffsetDateTime,
    ) -> Option<Alarm> {
        let hour = hour_of(now);
        let of = self.0.entry(org.clone()).or_default();
        if of.hour != hour {
            of.known.retain(|_, last| hour - *last <= KNOWN_HOURS);
            *of = Org { hour, known: std::mem::take(&mut of.known), ..Org::default() };
        }
        let found = of.found(country, rules, now);
        let alarm = found.map(|(kind, count, max)| Alarm {
            kind,
            country: country.clone(),
            count,
            max,
            is_first: of.told.insert(kind),
        });
        if alarm.is_none() || !rules.block {
            of.calls += 1;
            *of.by_country.entry(country.clone()).or_default() += 1;
            if of.is_new(country) {
                of.fresh.insert(country.clone());
            }
            of.known.insert(country.clone(), hour);
        }
        alarm
    }

    /// Whether [`Self::observe`] would raise an alarm, told or not.
    #[must_use]
    pub fn is_unusual(&self, org: &OrgId, country: &Country, rules: &Velocity, now: OffsetDateTime) -> bool {
        let fresh_hour = |of: &Org| Org { hour: hour_of(now), known: of.known.clone(), ..Org::default() };
        let of = match self.0.get(org) {
            Some(of) if of.hour == hour_of(now) => return of.found(country, rules, now).is_some(),
            of => of.map(fresh_hour).unwrap_or_default(),
        };
        of.found(country, rules, now).is_some()
    }

    /// Takes back what was observed of a call that is not placed after all, as one that was placed before.
    pub fn take_back(&mut self, org: &OrgId, country: &Country, observed: OffsetDateTime) {
        let Some(of) = self.0.get_mut(org).filter(|of| of.hour == hour_of(observed)) else { return };
        of.calls = of.calls.saturating_sub(1);
        if let Some(calls) = of.by_country.get_mut(country) {
            *calls = calls.saturating_sub(1);
        }
    }
}

/// Counted from 1970-01-01 in UTC.
fn hour_of(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(3_600)
}

impl Org {
    /// Not phoned for long, or for the first time in this hour.
    fn is_new(&self, country: &Country) -> bool {
        !self.known.contains_key(country) || self.fresh.contains(country)
    }

    /// The first bound that one more call to this country is beyond, with the count that it makes.
    fn found(
        &self,
        country: &Country,
        rules: &Velocity,
        now: OffsetDateTime,
    ) -> Option<(AlarmKind, u32, u32)> {
        let to_country = self.by_country.get(country).copied().unwrap_or(0) + 1;
        let fresh = self.fresh.len() + usize::from(!self.fresh.contains(country));
        let fresh = if self.is_new(country) { u32::try_from(fresh).unwrap_or(u32::MAX) } else { 0 };
        let is_night = rules.night.contains(&now.to_offset(time::UtcOffset::UTC).hour());
        let counts = [
            (AlarmKind::CountryPerHour, to_country, rules.country_per_hour),
            (AlarmKind::NewCountries, fresh, rules.new_countries_per_hour),
            (AlarmKind::Night, self.calls + 1, rules.night_per_hour.filter(|_| is_night)),
        ];
        counts
            .into_iter()
            .find_map(|(kind, count, max)| max.filter(|max| count > *max).map(|max| (kind, count, max)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Duration, macros::datetime};

    use super::*;

    const NIGHT: OffsetDateTime = datetime!(2026-11-24 02:10 UTC);

    fn country(text: &str) -> Country {
        text.parse().unwrap()
    }

    fn kinds(watch: &mut Watch, rules: &Velocity, calls: &[(&str, i64)]) -> Vec<Option<(AlarmKind, bool)>> {
        let org = OrgId::first();
        let observe = |(to, minutes): &(&str, i64)| {
            let alarm = watch.observe(&org, &country(to), rules, NIGHT + Duration::minutes(*minutes));
            alarm.map(|alarm| (alarm.kind, alarm.is_first))
        };
        calls.iter().map(observe).collect()
    }

    #[test]
    fn each_kind_is_told_once_an_hour() {
        let rules = Velocity { country_per_hour: Some(2), ..Velocity::default() };
        let seen = kinds(
            &mut Watch::default(),
            &rules,
            &[("PL", 0), ("PL", 1), ("UA", 1), ("PL", 2), ("PL", 3), ("PL", 60)],
        );
        let alarm = |first| Some((AlarmKind::CountryPerHour, first));
        assert_eq!(seen, [None, None, None, alarm(true), alarm(false), None]);
    }

    #[test]
    fn countries_that_were_never_phoned_are_new_and_known_for_a_month() {
        let rules = Velocity { new_countries_per_hour: Some(1), ..Velocity::default() };
        let mut watch = Watch::default();
        let alarm = Some((AlarmKind::NewCountries, true));
        assert_eq!(kinds(&mut watch, &rules, &[("PL", 0), ("UA", 1)]), [None, alarm]);
        assert_eq!(kinds(&mut watch, &rules, &[("PL", 60), ("UA", 61), ("CU", 62)]), [None, None, None]);
        let later = 32 * 24 * 60;
        assert_eq!(kinds(&mut watch, &rules, &[("PL", later), ("UA", later)]), [None, alarm]);
    }

    #[test]
    fn nights_have_a_bound_of_their_own() {
        let rules = Velocity { night_per_hour: Some(1), night: [2].into(), ..Velocity::default() };
        let alarm = Some((AlarmKind::Night, true));
        let seen =
            kinds(&mut Watch::default(), &rules, &[("PL", 0), ("UA", 1), ("PL", 60), ("PL", 61), ("PL", 62)]);
        assert_eq!(seen, [None, alarm, None, None, None]);
    }

    #[test]
    fn what_is_taken_back_does_not_count_and_asking_changes_nothing() {
        let rules = Velocity { country_per_hour: Some(2), block: true, ..Velocity::default() };
        let (org, pl) = (OrgId::first(), country("PL"));
        let mut watch = Watch::default();
        assert!(!watch.is_unusual(&org, &pl, &rules, NIGHT));
        for _ in 0..5 {
            assert!(watch.observe(&org, &pl, &rules, NIGHT).is_none());
            watch.take_back(&org, &pl, NIGHT);
        }
        assert!(watch.observe(&org, &pl, &rules, NIGHT).is_none());
        assert!(!watch.is_unusual(&org, &pl, &rules, NIGHT));
        assert!(watch.observe(&org, &pl, &rules, NIGHT).is_none());
        assert!(watch.is_unusual(&org, &pl, &rules, NIGHT));
        let later = NIGHT + Duration::hours(1);
        assert!(!watch.is_unusual(&org, &pl, &rules, later), "another hour");
        watch.take_back(&org, &pl, later);
        assert!(watch.observe(&org, &pl, &rules, NIGHT).is_some(), "of another hour, nothing is taken back");
    }

    proptest! {
        /// Where alarms block, no hour ever holds more calls to a country than may be, whoever else calls.
        #[test]
        fn what_blocks_is_never_exceeded(
            max in 1u32..5,
            calls in prop::collection::vec((prop::sample::select(vec!["PL", "UA", "US"]), 0i64..20), 1..120),
        ) {
            let rules = Velocity { country_per_hour: Some(max), block: true, ..Velocity::default() };
            let (mut watch, mut now, mut placed) = (Watch::default(), NIGHT, BTreeMap::new());
            for (to, gap) in calls {
                now += Duration::minutes(gap);
                let is_unusual = watch.is_unusual(&OrgId::first(), &country(to), &rules, now);
                let alarm = watch.observe(&OrgId::first(), &country(to), &rules, now);
                prop_assert_eq!(alarm.is_some(), is_unusual);
                if alarm.is_none() {
                    *placed.entry((to, now.unix_timestamp() / 3_600)).or_insert(0) += 1;
                }
            }
            prop_assert!(placed.values().all(|calls| *calls <= max));
        }
    }
}
