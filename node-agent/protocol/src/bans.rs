//! The fleet's bans on their way to a node, and what a node tells of its own.
//!
//! The control plane keeps one list of bans and allowances for the fleet, each change with the next revision. A node
//! says which revision it holds ([`Up::Bans`](crate::Up::Bans)) and gets what changed since, page by page: the next one
//! goes down when the node has said that it holds the last, so that a long list takes no more of the node than it
//! wants to give. A node that was away gets a difference as well; the whole list goes only to one that holds none of
//! it, or whose revision is older than the lifts that are still known.
//!
//! Times go as seconds that are left, since clocks differ. What a node did itself goes up as facts.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{List, Text};

/// Most changes in one message, of all kinds together: with every text at its bound and escaped, some 900 KiB.
pub const BANS_PER_MESSAGE: usize = 256;
/// Longest name of an author or an origin, and longest reason, in bytes.
pub const BAN_TEXT_MAX: usize = 256;
/// Longest evidence, in bytes.
pub const EVIDENCE_MAX: usize = 512;

/// Up to where a node holds the fleet's list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BansHeld {
    /// Which list: random, made with its database. Empty: none yet.
    #[serde(default)]
    pub list: Text<64>,
    /// The revision of the last change that it has taken; 0: none.
    #[serde(default)]
    pub revision: u64,
}

/// Who wants it, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BanBy {
    /// The node where the evidence was seen, or `control_plane`.
    pub origin: Text<BAN_TEXT_MAX>,
    /// A jail, or an operator.
    pub author: Text<BAN_TEXT_MAX>,
    /// Why, for people.
    #[serde(default)]
    pub reason: Text<BAN_TEXT_MAX>,
}

/// A ban of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetBan {
    /// An address or a network.
    pub net: IpNet,
    /// Whose.
    #[serde(flatten)]
    pub by: BanBy,
    /// The jail, where rules made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jail: Option<Text<64>>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Text<EVIDENCE_MAX>>,
    /// What is left of it, in s; absent: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u32>,
}

/// An allowance of the fleet: no ban may touch it while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetAllow {
    /// An address or a network.
    pub net: IpNet,
    /// Whose.
    #[serde(flatten)]
    pub by: BanBy,
    /// What is left of it, in s; absent: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u32>,
}

/// What a page of changes is a page of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BanPage {
    /// What changed since the revision that the node holds: taken at once.
    Changes,
    /// The whole list, of which more follows: kept aside until the last page is there.
    Whole,
    /// The last page of the whole list: what none of its pages names is lifted.
    WholeEnd,
}

/// Changes of the fleet's list, up to a revision. Lifts come before bans: what stands in both was lifted and banned
/// anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanChanges {
    /// Which list.
    pub list: Text<64>,
    /// What kind of page it is.
    pub page: BanPage,
    /// The revision that these follow: that of the node, or of the page before.
    pub after: u64,
    /// The revision of the last of them.
    pub revision: u64,
    /// Lifted.
    #[serde(default)]
    pub lifts: List<IpNet, BANS_PER_MESSAGE>,
    /// Banned, or banned for longer.
    #[serde(default)]
    pub bans: List<FleetBan, BANS_PER_MESSAGE>,
    /// Allowances that were taken back.
    #[serde(default)]
    pub disallows: List<IpNet, BANS_PER_MESSAGE>,
    /// Allowances.
    #[serde(default)]
    pub allows: List<FleetAllow, BANS_PER_MESSAGE>,
}

/// Body of a fact [`crate::fact_kind::BAN`]: this node banned an address by itself, or an operator did on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanMade {
    /// An address or a network.
    pub net: IpNet,
    /// A jail, or an operator.
    pub author: Text<BAN_TEXT_MAX>,
    /// Why, for people.
    #[serde(default)]
    pub reason: Text<BAN_TEXT_MAX>,
    /// The jail, where rules made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jail: Option<Text<64>>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Text<EVIDENCE_MAX>>,
    /// For how long, in s from the fact's moment; absent: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// Body of a fact [`crate::fact_kind::UNBAN`]: an operator lifted a ban on this node. What ended by its time is not
/// told: all know when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanLifted {
    /// Exactly this ban.
    pub net: IpNet,
    /// An operator.
    pub author: Text<BAN_TEXT_MAX>,
    /// Why, for people.
    #[serde(default)]
    pub reason: Text<BAN_TEXT_MAX>,
}

/// Body of a fact [`crate::fact_kind::BAN_REFUSED`]: the fleet bans an address, and this node does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRefused {
    /// The ban's.
    pub net: IpNet,
    /// Why not: what it touches, or what it is wider than.
    pub reason: Text<BAN_TEXT_MAX>,
}

/// Body of a fact [`crate::fact_kind::OFFENCES`]: what one jail saw of one kind in a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffenceTally {
    /// Which jail.
    pub jail: Text<64>,
    /// Which kind of offence.
    pub offence: Text<64>,
    /// How many.
    pub count: u64,
    /// From how many addresses, at least.
    #[serde(default)]
    pub sources: u64,
    /// Over how long, in s.
    pub seconds: u32,
}

/// Body of a fact [`crate::fact_kind::TAMPERING`]: somebody wrote into what Asterisk or a log tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TamperingSeen {
    /// What kind.
    pub tampering: Text<64>,
    /// How many since the last such fact.
    pub count: u64,
    /// From where, if Asterisk's own words tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The text, cut.
    #[serde(default)]
    pub sample: Text<BAN_TEXT_MAX>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Decoded, Down, Malformed, Up, decode, encode};

    fn down(value: &serde_json::Value) -> Result<Decoded<Down>, Malformed> {
        decode(&value.to_string())
    }

    fn longest() -> FleetBan {
        let text = Text::whole(&"\"".repeat(BAN_TEXT_MAX)).unwrap();
        FleetBan {
            net: "ffff:ffff:ffff:ffff::/64".parse().unwrap(),
            by: BanBy { origin: text.clone(), author: text.clone(), reason: text },
            jail: Some(Text::whole(&"\\".repeat(64)).unwrap()),
            evidence: Some(Text::whole(&"\"".repeat(EVIDENCE_MAX)).unwrap()),
            seconds_left: Some(u32::MAX),
        }
    }

    #[test]
    fn a_full_page_of_the_longest_bans_fits_and_comes_back_as_it_was() {
        let page = Down::Bans(Box::new(BanChanges {
            list: Text::cut(&"f".repeat(64)),
            page: BanPage::Changes,
            after: 0,
            revision: u64::MAX,
            lifts: List::first(std::iter::repeat_n(longest().net, BANS_PER_MESSAGE)),
            bans: List::first(std::iter::repeat_n(longest(), BANS_PER_MESSAGE)),
            disallows: List::default(),
            allows: List::default(),
        }));
        let text = encode(&page).unwrap();
        assert_eq!(decode::<Down>(&text).unwrap(), Decoded::Message(page));
        let held = Up::Bans(BansHeld { list: Text::cut("a"), revision: 7 });
        assert_eq!(decode::<Up>(&encode(&held).unwrap()).unwrap(), Decoded::Message(held));
    }

    #[test]
    fn little_is_enough_and_what_is_newer_is_passed_over() {
        let small = json!({"kind": "bans", "list": "a", "page": "changes", "after": 0, "revision": 3, "mood": 1,
            "bans": [{"net": "203.0.113.9/32", "origin": "waw-1", "author": "jail sip", "colour": "red"}]});
        let Decoded::Message(Down::Bans(changes)) = down(&small).unwrap() else { panic!("no bans") };
        assert_eq!((changes.bans[0].seconds_left, changes.lifts.len()), (None, 0));
        let none = json!({"kind": "bans"}).to_string();
        assert_eq!(decode::<Up>(&none).unwrap(), Decoded::Message(Up::Bans(BansHeld::default())));
    }

    #[test]
    fn hostile_pages_are_refused() {
        let good = json!({"kind": "bans", "list": "a", "page": "changes", "after": 0, "revision": 1});
        assert!(down(&good).is_ok());
        let ban = json!({"net": "203.0.113.9/32", "origin": "o", "author": "a"});
        let with = |member: &str, value: serde_json::Value| {
            let mut page = good.clone();
            page[member] = value;
            down(&page)
        };
        let mut long = ban.clone();
        long["reason"] = "x".repeat(BAN_TEXT_MAX + 1).into();
        let mut control = ban.clone();
        control["author"] = "a\u{1b}[31m".into();
        for (member, value) in [
            ("bans", json!([{"net": "203.0.113.9/33", "origin": "o", "author": "a"}])),
            ("bans", json!([{"net": "203.0.113.9; flush ruleset", "origin": "o", "author": "a"}])),
            ("bans", json!([{"net": "203.0.113.9/32", "author": "a"}])),
            ("bans", json!([long])),
            ("bans", json!([control])),
            ("bans", json!(vec![ban; BANS_PER_MESSAGE + 1])),
            ("lifts", json!(vec!["203.0.113.9/32"; BANS_PER_MESSAGE + 1])),
            ("page", json!("everything")),
            ("revision", json!(-1)),
            ("list", json!("x".repeat(65))),
        ] {
            assert!(with(member, value.clone()).is_err(), "{member}: {value}");
        }
    }

    #[test]
    fn the_longest_bodies_of_facts_fit() {
        let text = Text::whole(&"\"".repeat(BAN_TEXT_MAX)).unwrap();
        let made = BanMade {
            net: longest().net,
            author: text.clone(),
            reason: text,
            jail: longest().jail,
            evidence: longest().evidence,
            seconds: None,
        };
        let body = crate::FactBody::of(&made).unwrap();
        assert_eq!(body.read::<BanMade>().unwrap(), made);
        assert!(crate::FactBody::default().read::<BanMade>().is_none());
    }
}
