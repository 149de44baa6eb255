//! The same calls over links: AMI listens on the PBXes' loopback only, and `ringward-agent` carries it.

use crate::fixture::{Fleet, diagonal, full, over_links};
use crate::{failover, faults, many, unknown};

#[test]
fn a_hundred_calls_are_spread_evenly() {
    failover::spread_evenly(&Fleet::up(over_links(full())));
}

#[test]
fn silence_is_left_as_the_customer_chose() {
    unknown::silent(&Fleet::up(over_links(diagonal())));
}

#[test]
fn a_killed_control_plane_takes_its_calls_up_again() {
    faults::control_plane_killed(&Fleet::up(over_links(diagonal())));
}

#[test]
fn a_thousand_calls_in_flight_end_as_their_carrier_saw_them() {
    many::in_flight(&Fleet::up(over_links(many::one_pbx())), 1);
}
