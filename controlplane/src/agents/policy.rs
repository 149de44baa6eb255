//! What a node's gate shall admit, from the declared fleet.

use controlplane_core::{
    fleet::{Fleet, Trunk},
    names::NodeName,
    number::NumberFormat,
};
use node_agent_ami::FLIGHT_RECORD_FAMILY;
use node_agent_protocol::{List, NumberRule, Policy, Text, TrunkPolicy};

use crate::calls::{CONTEXTS, VARIABLES};

/// Digits of an E.164 number.
const DIGITS: (u8, u8) = (7, 15);
/// Digits of a number in national form, or in international form behind `00`.
const NATIONAL_DIGITS: (u8, u8) = (3, 20);

/// The policy of `node`.
pub(super) fn of(fleet: &Fleet, revision: i64, node: &NodeName) -> Policy {
    let trunks: Vec<TrunkPolicy> = fleet.trunks_of(node).map(trunk).collect();
    let sum = |of: fn(&TrunkPolicy) -> u32| trunks.iter().map(of).fold(0, u32::saturating_add);
    Policy {
        revision: u64::try_from(revision).unwrap_or(0),
        node: node.clone(),
        channels_max: sum(|t| t.channels_max),
        cps_max: sum(|t| t.cps_max),
        trunks: List::first(trunks),
        contexts: List::first(CONTEXTS.map(Text::cut)),
        variables: List::first(VARIABLES.map(Text::cut)),
        db_families: List::first([Text::cut(FLIGHT_RECORD_FAMILY)]),
    }
}

fn trunk(trunk: &Trunk) -> TrunkPolicy {
    TrunkPolicy {
        trunk: trunk.name.clone(),
        endpoint: trunk.endpoint.clone(),
        channels_max: trunk.channels_max,
        cps_max: trunk.cps_max,
        number: number(trunk.number_format, trunk.number_prefix.as_str()),
    }
}

/// As `controlplane_core::number::dialled` writes them.
fn number(format: NumberFormat, prefix: &str) -> NumberRule {
    let (begins, digits) = match format {
        NumberFormat::E164Plus if prefix.is_empty() => ("+", DIGITS),
        NumberFormat::E164Plus | NumberFormat::E164 => (prefix, DIGITS),
        // Behind the prefix, or behind 00 for other countries: what both begin with, often nothing.
        NumberFormat::National => ("", NATIONAL_DIGITS),
    };
    NumberRule { begins: Text::cut(begins), digits_min: digits.0, digits_max: digits.1 }
}

#[cfg(test)]
mod tests {
    use controlplane_core::number::dialled;

    use super::*;

    #[test]
    fn every_number_that_a_trunk_dials_is_admitted() {
        let numbers = ["+48221234567", "+2908123", "+123456789012345"];
        for format in [NumberFormat::E164Plus, NumberFormat::E164, NumberFormat::National] {
            for prefix in ["", "0", "99"] {
                let rule = number(format, prefix);
                for to in numbers {
                    let out = dialled(&to.parse().unwrap(), format, prefix, "48");
                    assert!(rule.admits(&out), "{format:?} {prefix:?} {out}");
                }
                assert!(!rule.admits("1") && !rule.admits("12345678x"));
            }
        }
    }
}
