//! What may be concluded from outcomes, and from whose.

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use time::macros::datetime;

use super::*;
use crate::ids::OrgId;

fn org(n: u64) -> Party {
    Party::Org(OrgId::new(datetime!(2026-11-24 10:00 UTC), &mut StdRng::seed_from_u64(n)))
}

fn outcomes(rows: &[(u64, u32, Charge)]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for (n, destination, charge) in rows {
        let number: crate::number::E164 = format!("+48{destination:03}1234567").parse().unwrap();
        let outcome = Outcome {
            at: Moment::default(),
            party: org(*n),
            destination: Destination::of(&number),
            caller: None,
            charge: *charge,
        };
        outcomes.push(outcome, &Policy::default());
    }
    outcomes
}

fn trips(rows: &[(u64, u32, Charge)], customers: Customers) -> bool {
    outcomes(rows).trip(customers, &Policy::default()).is_some()
}

const BAD: Charge = Charge::Trunk;
const OK: Charge = Charge::Delivered;

#[test]
fn three_destinations_of_two_customers_trip() {
    let rows = [(1, 1, BAD), (2, 2, BAD), (1, 3, BAD)];
    assert!(trips(&rows, Customers::Several));
    assert!(trips(&rows, Customers::One));
    assert!(!trips(&rows[..2], Customers::One));
}

#[test]
fn one_customer_is_enough_only_where_there_is_one() {
    let rows = [(1, 1, BAD), (1, 2, BAD), (1, 3, BAD), (1, 4, BAD)];
    assert!(trips(&rows, Customers::One));
    assert!(!trips(&rows, Customers::Several));
}

#[test]
fn a_loud_customer_does_not_drown_a_quiet_one_that_is_served() {
    let mut rows: Vec<_> = (0..60).map(|n| (1, n % 9, BAD)).collect();
    rows.extend([(2, 20, OK), (2, 21, OK)]);
    assert!(!trips(&rows, Customers::Several));
    // Nor does a single bad call of the quiet one turn that.
    rows.push((2, 22, BAD));
    assert!(!trips(&rows, Customers::Several));
}

#[test]
fn refusals_need_several_customers_whatever_the_fleet() {
    let no = Charge::DestinationOrCaller;
    assert!(!trips(&[(1, 1, no), (1, 2, no), (1, 3, no), (1, 4, no)], Customers::One));
    assert!(trips(&[(1, 1, no), (2, 2, no), (1, 3, no)], Customers::One));
}

#[test]
fn a_carrier_that_fails_half_of_the_calls_is_not_tripped_and_not_effective() {
    let rows: Vec<_> =
        (0..40).map(|n| (u64::from(n % 4), n % 7, if n % 2 == 0 { BAD } else { OK })).collect();
    assert!(!trips(&rows, Customers::Several));
    let low = outcomes(&rows).effectiveness_low(Customers::Several, &Policy::default());
    assert_eq!(low, Some(true));
}

#[test]
fn dead_numbers_of_one_customer_do_not_degrade_the_trunk_of_others() {
    let mut rows: Vec<_> = (0..40).map(|n| (1, n % 9, Charge::Rate)).collect();
    rows.extend((0..6).map(|n| (2, 20 + n, OK)));
    let low = outcomes(&rows).effectiveness_low(Customers::Several, &Policy::default());
    assert_ne!(low, Some(true));
}

#[test]
fn between_the_thresholds_nothing_is_said() {
    let rows: Vec<_> =
        (0..40).map(|n| (u64::from(n % 4), n % 7, if n % 4 == 0 { BAD } else { OK })).collect();
    assert_eq!(outcomes(&rows).effectiveness_low(Customers::One, &Policy::default()), None);
    assert_eq!(outcomes(&rows[1..4]).effectiveness_low(Customers::One, &Policy::default()), None);
}

fn any_rows(orgs: u64, destinations: u32) -> impl Strategy<Value = Vec<(u64, u32, Charge)>> {
    prop::collection::vec((0..orgs, 0..destinations, prop::sample::select(Charge::ALL)), 0..200)
}

proptest! {
    #[test]
    fn one_customer_never_trips_a_trunk_of_several(rows in any_rows(1, 12)) {
        prop_assert!(!trips(&rows, Customers::Several));
    }

    #[test]
    fn one_or_two_destinations_never_trip_a_trunk(rows in any_rows(5, 2)) {
        prop_assert!(!trips(&rows, Customers::One));
        prop_assert!(!trips(&rows, Customers::Several));
    }

    /// The reference: whatever trips with a customer's calls still trips when he is silent and another one
    /// takes his place, and never without two customers failing.
    #[test]
    fn a_trip_has_several_witnesses(rows in any_rows(4, 6)) {
        if let Some(tally) = outcomes(&rows).trip(Customers::Several, &Policy::default()) {
            prop_assert!(tally.customers >= 2 && tally.destinations >= 3);
            prop_assert!(tally.failed * 10 >= tally.calls * 8);
        }
    }

    #[test]
    fn the_window_is_bounded(rows in any_rows(4, 6)) {
        prop_assert!(outcomes(&rows).0.len() <= Policy::default().outcomes_max);
    }
}
