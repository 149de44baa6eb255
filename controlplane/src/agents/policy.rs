//! What a node's gate shall admit, from the declared fleet.

use controlplane_core::{
    fleet::{Carrier, Fleet, Trunk},
    names::NodeName,
    number::NumberFormat,
};
use ipnet::IpNet;
use node_agent_ami::FLIGHT_RECORD_FAMILY;
use node_agent_protocol::{CarrierNets, Hardening, List, NETS_MAX, NumberRule, Policy, Text, TrunkPolicy};

use crate::calls::{CONTEXTS, VARIABLES};

/// Digits of an E.164 number.
const DIGITS: (u8, u8) = (7, 15);
/// Digits of a number in national form, or in international form behind `00`.
const NATIONAL_DIGITS: (u8, u8) = (3, 20);

/// The policy of `node`, where replicas of the control plane have these addresses.
pub(super) fn of(
    fleet: &Fleet,
    revision: i64,
    node: &NodeName,
    replicas: impl Iterator<Item = IpNet>,
) -> Policy {
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
        hardening: hardening(fleet, node, replicas).map(Box::new),
    }
}

/// Who is never banned on `node`: all of them or, where they are too many for a message, nothing, so that the node goes
/// on with what it knows instead of with a part.
fn hardening(fleet: &Fleet, node: &NodeName, replicas: impl Iterator<Item = IpNet>) -> Option<Hardening> {
    let is_here = |carrier: &&Carrier| fleet.trunks_of(node).any(|trunk| trunk.carrier == carrier.name);
    let carriers = fleet.carriers().filter(is_here).map(|carrier| {
        Some(CarrierNets {
            carrier: carrier.name.clone(),
            signalling: List::whole(carrier.signalling.clone()).ok()?,
            media: List::whole(carrier.media.clone()).ok()?,
        })
    });
    let management = fleet.managements_of(node).flat_map(|of| of.networks.iter().copied()).collect();
    let whole = || {
        Some(Hardening {
            carriers: List::whole(carriers.collect::<Option<Vec<_>>>()?).ok()?,
            control_plane: List::whole(replicas.collect()).ok()?,
            management: List::whole(management).ok()?,
        })
    };
    let hardening = whole().filter(|hardening| hardening.nets() <= NETS_MAX);
    if hardening.is_none() {
        tracing::error!(%node, "carriers and management have more than {NETS_MAX} networks here: the node is not told of them");
    }
    hardening
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
    fn a_node_hears_of_its_own_carriers_and_management() {
        let fleet = |signalling: &str| {
            Fleet::parse(&format!(
                r#"
                carrier = [
                    {{ name = "acme", signalling = [{signalling}], media = ["192.0.2.0/24"] }},
                    {{ name = "beta", signalling = ["198.51.100.1/32"] }},
                ]
                node = [{{ name = "waw-1" }}, {{ name = "fra-1" }}]
                trunk = [{{ name = "a", node = "waw-1", carrier = "acme", endpoint = "a" }}]
                management = [
                    {{ name = "office", networks = ["203.0.113.0/28"] }},
                    {{ name = "fra", networks = ["203.0.113.16/28"], nodes = ["fra-1"] }},
                ]
                "#
            ))
            .unwrap()
        };
        let replica: IpNet = "203.0.113.77/32".parse().unwrap();
        let of =
            |fleet: &Fleet, node: &str| super::of(fleet, 1, &node.parse().unwrap(), [replica].into_iter());
        let few = fleet("\"192.0.2.21/32\"");
        let waw = of(&few, "waw-1").hardening.unwrap();
        let names: Vec<_> = waw.carriers.iter().map(|carrier| carrier.carrier.as_str()).collect();
        assert_eq!((names, waw.nets(), waw.control_plane.to_vec()), (vec!["acme"], 4, vec![replica]));
        assert_eq!(waw.management.len(), 1);
        let fra = of(&few, "fra-1").hardening.unwrap();
        assert_eq!((fra.carriers.len(), fra.management.len()), (0, 2));
        let nets: Vec<_> = (0..NETS_MAX).map(|n| format!("\"10.0.{}.{}/32\"", n / 256, n % 256)).collect();
        assert!(of(&fleet(&nets.join(",")), "waw-1").hardening.is_none());
    }

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
