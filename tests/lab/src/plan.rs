//! What a lab shall consist of.
use crate::{LabError, Subnet};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Most PBXes that the address plan has room for.
pub(crate) const PBXES_MAX: u8 = 8;
/// Most carriers that the address plan has room for.
pub(crate) const CARRIERS_MAX: u8 = 3;

/// Which Asterisk the PBXes run. Carriers always run the newest, whose dialplan can say any SIP code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum AsteriskVersion {
    /// Asterisk 22 LTS from Debian forky.
    #[default]
    #[value(name = "22")]
    V22,
    /// Asterisk 16.28 from Debian bullseye: the old end of what is supported.
    #[value(name = "16")]
    V16,
}

impl AsteriskVersion {
    /// Its major number.
    pub fn major(self) -> u8 {
        match self {
            AsteriskVersion::V22 => 22,
            AsteriskVersion::V16 => 16,
        }
    }

    /// The Debian suite that has it.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            AsteriskVersion::V22 => "forky",
            AsteriskVersion::V16 => "bullseye",
        }
    }
}

/// Which trunks there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum TrunkLayout {
    /// One carrier per PBX: `a-pbx-1`, `b-pbx-2`, …
    #[default]
    Diagonal,
    /// Every carrier on every PBX.
    Full,
}

/// What a PBX does with calls that come in over a trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Inbound {
    /// As in production: the context is empty, no channel comes to be.
    #[default]
    Closed,
    /// As on a PBX that also takes calls: each inbound call is a channel that rings for 2 s.
    Rings,
}

/// What the PBXes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Hosts {
    /// An Asterisk process each, in a network namespace.
    #[default]
    Processes,
    /// Whole Debian hosts, booted with systemd: asterisk.service, ssh.service, ringward-agent.service.
    Booted,
}

/// How the control plane reaches the PBXes' AMI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Reach {
    /// At its address on the bridge, as `fleet.toml` says.
    #[default]
    Direct,
    /// Through `ringward-agent` beside each; AMI listens on the PBX's loopback only.
    Agent,
}

/// Which build of the agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Build {
    /// The one beside the program that runs.
    #[default]
    Beside,
    /// The optimised one, as packages have it.
    Release,
}

/// Whether agents ban, and the hosts that this takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hardening {
    /// As the agent is by itself.
    #[default]
    Off,
    /// Firewall and jails are on. Beside the PBXes there are an operator's machine, whose address is the management
    /// network, a phone with an account on each PBX, and more addresses of the attacker's.
    On {
        /// Bans in a minute on evidence whose source may be forged; the product's own bound is 60.
        forgeable_bans_per_minute_max: u32,
    },
}

impl Hardening {
    /// With the product's own bounds.
    #[must_use]
    pub fn usual() -> Self {
        Hardening::On { forgeable_bans_per_minute_max: 60 }
    }
}

/// What a lab shall consist of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How many PBXes: `pbx-1` (.11 of the lab's subnet), `pbx-2`, …
    pub pbxes: u8,
    /// How many carriers: `a` (.21), `b`, `c`.
    pub carriers: u8,
    /// What the PBXes run.
    pub asterisk: AsteriskVersion,
    /// What the PBXes are.
    #[serde(default)]
    pub hosts: Hosts,
    /// How the control plane reaches them.
    #[serde(default)]
    pub reach: Reach,
    /// Which build of the agent runs.
    #[serde(default)]
    pub agents: Build,
    /// Whether they ban.
    #[serde(default)]
    pub hardening: Hardening,
    /// Which trunks there are.
    pub trunks: TrunkLayout,
    /// Adds a trunk `srv-a-pbx-N` to every PBX whose contact is a name with two addresses of carrier a.
    pub srv_trunk: bool,
    /// What inbound calls meet.
    pub inbound: Inbound,
    /// Seconds between OPTIONS to each carrier.
    pub qualify_s: u8,
    /// `cps_max` and `channels_max` of each carrier's account in `fleet.toml`; the sum of its trunks' where there is none.
    #[serde(default)]
    pub account: Option<(u32, u32)>,
    /// `cps_max` of each trunk in `fleet.toml`.
    pub trunk_cps_max: u32,
    /// `channels_max` of each trunk in `fleet.toml`.
    pub trunk_channels_max: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            pbxes: 2,
            carriers: 2,
            asterisk: AsteriskVersion::V22,
            hosts: Hosts::Processes,
            reach: Reach::Direct,
            agents: Build::Beside,
            hardening: Hardening::Off,
            trunks: TrunkLayout::Diagonal,
            srv_trunk: false,
            inbound: Inbound::Closed,
            qualify_s: 2,
            account: None,
            trunk_cps_max: 500,
            trunk_channels_max: 2_000,
        }
    }
}

/// One trunk of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkPlan {
    /// Its name in `fleet.toml`, e.g. `a-pbx-1`.
    pub name: String,
    /// The PBX it is configured on.
    pub node: String,
    /// The carrier it leads to, e.g. `a`.
    pub carrier: String,
    /// The PJSIP endpoint on the PBX, e.g. `carrier-a`.
    pub endpoint: String,
    /// Where it sends, e.g. `sip:192.0.2.21:5060`.
    pub contact: String,
}

impl Plan {
    /// Refuses what has no room in the address plan.
    pub fn check(&self) -> Result<(), LabError> {
        // With none, hosts beside the carriers are the caller's: [`crate::Bare`].
        if self.pbxes > PBXES_MAX {
            return Err(LabError::Plan(format!("{} PBXes; up to {PBXES_MAX} are possible", self.pbxes)));
        }
        if self.carriers == 0 || self.carriers > CARRIERS_MAX {
            return Err(LabError::Plan(format!(
                "{} carriers; 1 to {CARRIERS_MAX} are possible",
                self.carriers
            )));
        }
        if self.hosts == Hosts::Booted && self.agents == Build::Release {
            return Err(LabError::Plan("booted hosts have the agent that is beside this program".into()));
        }
        if self.hosts == Hosts::Booted && self.asterisk != AsteriskVersion::V22 {
            return Err(LabError::Plan("only hosts with Asterisk 22 can be booted with systemd".into()));
        }
        Ok(())
    }

    /// The PBXes: name and address.
    pub fn pbx_hosts(&self, subnet: Subnet) -> Vec<(String, Ipv4Addr)> {
        (1..=self.pbxes).map(|n| (format!("pbx-{n}"), subnet.host(10 + n))).collect()
    }

    /// The carriers: name and address.
    pub fn carrier_hosts(&self, subnet: Subnet) -> Vec<(String, Ipv4Addr)> {
        let names = ["a", "b", "c"].into_iter().zip(21..);
        names.take(self.carriers.into()).map(|(name, n)| (name.into(), subnet.host(n))).collect()
    }

    /// The trunks, in the order of the PBXes.
    pub fn trunk_plans(&self, subnet: Subnet) -> Vec<TrunkPlan> {
        let carriers = self.carrier_hosts(subnet);
        let mut trunks = Vec::new();
        for (at, (node, _)) in self.pbx_hosts(subnet).into_iter().enumerate() {
            for (n, (carrier, address)) in carriers.iter().enumerate() {
                if self.trunks == TrunkLayout::Full || n == at % carriers.len() {
                    trunks.push(TrunkPlan {
                        name: format!("{carrier}-{node}"),
                        node: node.clone(),
                        carrier: carrier.clone(),
                        endpoint: format!("carrier-{carrier}"),
                        contact: format!("sip:{address}:5060"),
                    });
                }
            }
            if self.srv_trunk {
                trunks.push(TrunkPlan {
                    name: format!("srv-a-{node}"),
                    node: node.clone(),
                    carrier: "a".into(),
                    endpoint: "carrier-a-srv".into(),
                    contact: format!("sip:{}", crate::network::SRV_NAME),
                });
            }
        }
        trunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plan: &Plan) -> Vec<String> {
        plan.trunk_plans(serde_json::from_str("[192,0,2]").unwrap())
            .into_iter()
            .map(|trunk| trunk.name)
            .collect()
    }

    #[test]
    fn default_plan_has_one_carrier_per_pbx() {
        assert_eq!(names(&Plan::default()), ["a-pbx-1", "b-pbx-2"]);
    }

    #[test]
    fn full_plan_has_every_pair_and_srv_adds_one_per_pbx() {
        let plan = Plan { trunks: TrunkLayout::Full, srv_trunk: true, ..Plan::default() };
        assert_eq!(names(&plan), ["a-pbx-1", "b-pbx-1", "srv-a-pbx-1", "a-pbx-2", "b-pbx-2", "srv-a-pbx-2"]);
    }

    #[test]
    fn a_plan_beyond_the_address_plan_is_refused() {
        assert!(Plan { pbxes: 9, ..Plan::default() }.check().is_err());
        assert!(Plan { carriers: 0, ..Plan::default() }.check().is_err());
    }
}
