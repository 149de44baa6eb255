//! What an operator has opened for an organisation. What is not named is closed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    destination::{Country, NumberKind},
    velocity::Velocity,
};
use crate::{
    call::{UnknownWord, words},
    fleet::RoutePrefix,
    number::E164,
};

/// Most prefixes of a policy: each call looks at all of them.
const PREFIXES_MAX: usize = 1_000;
/// Most caller ids of a policy.
const CALLER_IDS_MAX: usize = 10_000;

words! {
    /// What a prefix says.
    Access {
        /// Numbers that begin so may be phoned, of whatever country and kind, premium ones too.
        Allow = "allow",
        /// They may not, although their country is open.
        Deny = "deny",
    }
}

/// What may be phoned, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// By country the kinds of numbers that are open there.
    pub countries: BTreeMap<Country, BTreeSet<NumberKind>>,
    /// By prefix, over what countries say; the longest that fits counts.
    pub prefixes: BTreeMap<RoutePrefix, Access>,
    /// What may be presented as caller. Who names no caller presents the trunk's own.
    pub caller_ids: BTreeSet<E164>,
    /// When alarms are raised.
    pub velocity: Velocity,
}

/// A policy that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {rule}")]
pub struct InvalidPolicy {
    /// The field.
    pub param: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl Policy {
    /// Whether nothing at all is open.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.countries.values().all(BTreeSet::is_empty)
            && !self.prefixes.values().any(|access| *access == Access::Allow)
    }

    /// Checks every bound that a type does not carry.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let check = |ok: bool, param, rule| if ok { Ok(()) } else { Err(InvalidPolicy { param, rule }) };
        check(self.prefixes.len() <= PREFIXES_MAX, "prefixes", "at most 1000")?;
        check(self.velocity.is_valid(), "velocity", "counts of 1 to 1000000, hours of 0 to 23")?;
        check(self.caller_ids.len() <= CALLER_IDS_MAX, "caller_ids", "at most 10000")?;
        let opened = self.countries.values().flatten();
        check(
            opened.into_iter().all(|kind| *kind != NumberKind::Unassigned),
            "countries",
            "unassigned numbers are opened by a prefix alone",
        )
    }

    /// What the longest prefix says of a number.
    pub(super) fn by_prefix(&self, number: &E164) -> Option<(&RoutePrefix, Access)> {
        let fits = self.prefixes.iter().filter(|(prefix, _)| number.as_str().starts_with(prefix.as_str()));
        fits.max_by_key(|(prefix, _)| prefix.as_str().len()).map(|(prefix, access)| (prefix, *access))
    }

    /// Whether a kind of number is open in a country. Where a plan does not tell fixed from mobile, either will do.
    pub(super) fn opens(&self, country: &Country, kind: NumberKind) -> bool {
        let Some(kinds) = self.countries.get(country) else { return false };
        match kind {
            NumberKind::Unassigned => false,
            NumberKind::FixedOrMobile => {
                [kind, NumberKind::Fixed, NumberKind::Mobile].iter().any(|kind| kinds.contains(kind))
            }
            NumberKind::Fixed
            | NumberKind::Mobile
            | NumberKind::TollFree
            | NumberKind::Premium
            | NumberKind::SharedCost
            | NumberKind::Personal
            | NumberKind::Voip
            | NumberKind::Uan
            | NumberKind::Pager
            | NumberKind::Voicemail
            | NumberKind::Satellite
            | NumberKind::InternationalNetwork
            | NumberKind::InternationalPremium => kinds.contains(&kind),
        }
    }
}
