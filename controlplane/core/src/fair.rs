//! Whose turn it is where trunks are full: organisations take turns by weight, each with its most urgent, oldest call.
//!
//! One [`Line`] holds the calls of one route that wait. Smooth weighted round robin between organisations, as
//! [`crate::selection`] does it between trunks; within one by priority and then by age, as ids grow with time. So
//! what an organisation has waiting does not matter to another: who waits with one call is served within one turn of each
//! of the others, however many of theirs came before.
//!
//! A call that no trunk takes now is passed over until something changes, since another may have a trunk that it has
//! not; an organisation at a limit of its own is passed over as a whole. Time and changes are the caller's to watch.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{CallId, OrgId},
    request::Priority,
};

/// Calls that are refused between two changes before nobody else is asked: a route that is full is full for all but few.
const REFUSED_MAX: usize = 16;

/// A call's place within its organisation: most urgent first, then oldest.
pub type Place = (Priority, CallId);

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Line {
    orgs: BTreeMap<OrgId, Waiting>,
    /// Those that no trunk took since the last change.
    refused: BTreeSet<Place>,
}

#[derive(Debug, Clone)]
struct Waiting {
    weight: i64,
    /// What it has waited beyond its share, in turns times weights.
    credit: i64,
    places: BTreeSet<Place>,
    /// The call that met a limit of its organisation, and waits for that on behalf of all.
    held_by: Option<Place>,
}

impl Line {
    /// A call waits from now on. `weight` is its organisation's, from now on.
    pub fn join(&mut self, org: &OrgId, weight: u32, place: Place) {
        let waiting = self.orgs.entry(org.clone()).or_insert_with(|| Waiting {
            weight: 1,
            credit: 0,
            places: BTreeSet::new(),
            held_by: None,
        });
        waiting.weight = i64::from(weight.max(1));
        waiting.places.insert(place);
    }

    /// A call waits no more, for whatever reason.
    pub fn leave(&mut self, org: &OrgId, place: &Place) {
        self.refused.remove(place);
        let Some(waiting) = self.orgs.get_mut(org) else { return };
        waiting.places.remove(place);
        if waiting.held_by.as_ref() == Some(place) {
            waiting.held_by = None;
        }
        if waiting.places.is_empty() {
            self.orgs.remove(org);
        }
    }

    /// Whose turn it is; `None`: nobody's until something changes.
    #[must_use]
    pub fn first(&self) -> Option<&Place> {
        if self.refused.len() >= REFUSED_MAX {
            return None;
        }
        let candidate = |waiting: &'_ Waiting| {
            if waiting.held_by.is_some() {
                return None;
            }
            waiting.places.iter().find(|place| !self.refused.contains(*place)).cloned()
        };
        let best = self.orgs.iter().filter_map(|(org, waiting)| {
            let place = candidate(waiting)?;
            // Of equals the oldest call, whatever its priority: that is a word within an organisation.
            Some((waiting.credit + waiting.weight, std::cmp::Reverse(place.1.clone()), org, place))
        });
        let (_, _, org, place) = best.max_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)))?;
        self.orgs.get(org)?.places.get(&place)
    }

    /// A call got its trunk: it leaves, and its organisation's turn has passed.
    pub fn served(&mut self, org: &OrgId, place: &Place) {
        let waits = |waiting: &Waiting| waiting.held_by.is_none();
        let total: i64 =
            self.orgs.values().filter(|waiting| waits(waiting)).map(|waiting| waiting.weight).sum();
        self.orgs
            .values_mut()
            .filter(|waiting| waits(waiting))
            .for_each(|waiting| waiting.credit += waiting.weight);
        if let Some(waiting) = self.orgs.get_mut(org) {
            waiting.credit -= total;
        }
        self.leave(org, place);
    }

    /// No trunk takes this call now.
    pub fn refused(&mut self, place: Place) {
        self.refused.insert(place);
    }

    /// Something has changed: all may be asked again.
    pub fn renew(&mut self) {
        self.refused.clear();
    }

    /// This call met a limit of its organisation: none of them is asked until it is [`Self::freed`].
    pub fn held(&mut self, org: &OrgId, place: &Place) {
        if let Some(waiting) = self.orgs.get_mut(org) {
            waiting.held_by = Some(place.clone());
        }
    }

    /// This call may be asked again; if it waited for its organisation's limit, all others of that with it.
    pub fn freed(&mut self, org: &OrgId, place: &Place) {
        self.refused.remove(place);
        if let Some(waiting) = self.orgs.get_mut(org)
            && waiting.held_by.as_ref() == Some(place)
        {
            waiting.held_by = None;
        }
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orgs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};
    use time::macros::datetime;

    use super::*;

    fn org(n: usize) -> OrgId {
        let at = datetime!(2026-11-24 12:00 UTC) + time::Duration::seconds(i64::try_from(n).unwrap());
        OrgId::new(at, &mut StdRng::seed_from_u64(9))
    }

    fn place(priority: Priority, age: usize) -> Place {
        let at = datetime!(2026-11-24 12:00 UTC) + time::Duration::milliseconds(i64::try_from(age).unwrap());
        (priority, CallId::new(at, &mut StdRng::seed_from_u64(age as u64)))
    }

    /// Serves until nobody waits; whose calls they were, in order.
    fn serve(line: &mut Line, whose: &BTreeMap<CallId, usize>) -> Vec<usize> {
        let mut order = Vec::new();
        while let Some(first) = line.first().cloned() {
            let n = whose[&first.1];
            order.push(n);
            line.served(&org(n), &first);
        }
        assert!(line.is_empty());
        order
    }

    #[test]
    fn who_waits_with_one_call_is_served_within_a_turn_of_each_other() {
        let (mut line, mut whose) = (Line::default(), BTreeMap::new());
        for age in 0..1_000 {
            let place = place(Priority::Urgent, age);
            whose.insert(place.1.clone(), 0);
            line.join(&org(0), 1, place);
        }
        let late = place(Priority::Bulk, 1_001);
        whose.insert(late.1.clone(), 1);
        line.join(&org(1), 1, late);
        let order = serve(&mut line, &whose);
        assert_eq!(order.iter().position(|n| *n == 1), Some(1));
    }

    #[test]
    fn weights_share_what_there_is() {
        let (mut line, mut whose) = (Line::default(), BTreeMap::new());
        for age in 0..400 {
            let place = place(Priority::Normal, age);
            whose.insert(place.1.clone(), age % 2);
            line.join(&org(age % 2), if age % 2 == 0 { 3 } else { 1 }, place);
        }
        let order = serve(&mut line, &whose);
        let of_heavy = order.iter().take(200).filter(|n| **n == 0).count();
        assert_eq!(of_heavy, 150);
    }

    #[test]
    fn within_an_organisation_urgent_is_first_then_the_oldest() {
        let mut line = Line::default();
        let places = [
            place(Priority::Bulk, 0),
            place(Priority::Normal, 1),
            place(Priority::Urgent, 3),
            place(Priority::Urgent, 2),
        ];
        for place in &places {
            line.join(&org(0), 1, place.clone());
        }
        for n in [3, 2, 1, 0] {
            assert_eq!(line.first(), Some(&places[n]));
            line.served(&org(0), &places[n]);
        }
    }

    #[test]
    fn who_is_refused_or_held_is_passed_over_until_something_changes() {
        let mut line = Line::default();
        let (a, b, c) = (place(Priority::Normal, 0), place(Priority::Normal, 1), place(Priority::Normal, 2));
        line.join(&org(0), 1, a.clone());
        line.join(&org(0), 1, b.clone());
        line.join(&org(1), 1, c.clone());
        line.refused(a.clone());
        // Of equals the oldest that may be asked.
        assert_eq!(line.first(), Some(&b));
        line.held(&org(0), &b);
        assert_eq!(line.first(), Some(&c));
        line.refused(c);
        assert_eq!(line.first(), None);
        line.renew();
        line.freed(&org(0), &a);
        assert_ne!(line.first(), Some(&a), "it was not this call that waits for the limit");
        line.leave(&org(0), &b);
        assert_eq!(line.first(), Some(&a), "who waited for the limit is gone");
    }

    #[test]
    fn a_full_route_is_not_asked_for_everybody() {
        let mut line = Line::default();
        for age in 0..100 {
            line.join(&org(0), 1, place(Priority::Normal, age));
        }
        let mut asked = 0;
        while let Some(first) = line.first().cloned() {
            line.refused(first);
            asked += 1;
        }
        assert_eq!(asked, REFUSED_MAX);
    }

    proptest! {
        /// Among organisations that always have calls waiting, none gets less than its share by more than a turn of each.
        #[test]
        fn shares_are_kept_at_every_moment(weights in prop::collection::vec(1u32..6, 1..6), turns in 1usize..200) {
            let (mut line, mut whose, mut age) = (Line::default(), BTreeMap::new(), 0);
            let mut join = |line: &mut Line, whose: &mut BTreeMap<CallId, usize>, n: usize| {
                let place = place(Priority::Normal, age);
                age += 1;
                whose.insert(place.1.clone(), n);
                line.join(&org(n), weights[n], place);
            };
            for n in 0..weights.len() {
                join(&mut line, &mut whose, n);
                join(&mut line, &mut whose, n);
            }
            let mut served = vec![0usize; weights.len()];
            let total: u32 = weights.iter().sum();
            for turn in 1..=turns {
                let first = line.first().cloned().unwrap();
                let n = whose[&first.1];
                line.served(&org(n), &first);
                join(&mut line, &mut whose, n);
                served[n] += 1;
                for (n, weight) in weights.iter().enumerate() {
                    let share = turn as f64 * f64::from(*weight) / f64::from(total);
                    prop_assert!((served[n] as f64 - share).abs() <= weights.len() as f64, "{served:?} of {turn}");
                }
            }
        }
    }
}
