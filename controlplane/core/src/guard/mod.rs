//! The fraud guard: which calls an organisation may place at all.
//!
//! Everything is closed until an operator opens it. In this order, and the first that speaks decides:
//!
//! 1. an emergency number, as any trunk of the route would dial it: never;
//! 2. the caller id: one of the organisation's own, or none;
//! 3. the longest prefix that the policy names;
//! 4. the number's country and kind.
//!
//! What is open and suddenly differs raises an alarm ([`Watch`]), which may refuse it too.
//!
//! What a trunk may present is the trunk's own matter (`caller_ids` in fleet.toml), looked at when one is chosen.

mod destination;
mod emergency;
mod emergency_codes;
mod policy;
#[cfg(test)]
mod tests;
mod velocity;

pub use self::{
    destination::{Country, Destination, InvalidCountry, NumberKind},
    emergency::emergency,
    policy::{Access, InvalidPolicy, Policy},
    velocity::{Alarm, AlarmKind, Velocity, Watch},
};
use serde::{Deserialize, Serialize};

use crate::{
    call::{UnknownWord, words},
    fleet::{Fleet, RoutePrefix},
    names::TrunkName,
    number::E164,
};

words! {
    /// The rule that refused a call.
    Rule {
        /// A trunk would dial an emergency service.
        Emergency = "emergency",
        /// The caller id is none of the organisation's.
        CallerId = "caller_id",
        /// A prefix is closed.
        Prefix = "prefix",
        /// Nothing is open yet for the organisation.
        NothingOpen = "nothing_open",
        /// The country is closed.
        Country = "country",
        /// The country is open, and not this kind of number.
        NumberType = "number_type",
        /// No numbering plan has such a number.
        Unassigned = "unassigned",
        /// It raises an alarm that blocks.
        Velocity = "velocity",
    }
}

/// Why a call may be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// This prefix is open.
    Prefix(RoutePrefix),
    /// Its kind is open in its country.
    Country,
}

/// Why it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// This trunk would dial this emergency code.
    Emergency {
        /// Which trunk.
        trunk: TrunkName,
        /// Which code.
        code: &'static str,
    },
    /// The caller id is none of the organisation's.
    CallerId,
    /// This prefix is closed.
    Prefix(RoutePrefix),
    /// Nothing is open yet.
    NothingOpen,
    /// Its country is closed, or unknown.
    Country,
    /// Its kind is closed in its country.
    NumberType,
    /// There is no such number.
    Unassigned,
    /// It raises an alarm that blocks.
    Velocity(AlarmKind),
}

impl Denied {
    /// The rule's word.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        match self {
            Self::Emergency { .. } => Rule::Emergency,
            Self::CallerId => Rule::CallerId,
            Self::Prefix(_) => Rule::Prefix,
            Self::NothingOpen => Rule::NothingOpen,
            Self::Country => Rule::Country,
            Self::NumberType => Rule::NumberType,
            Self::Unassigned => Rule::Unassigned,
            Self::Velocity(_) => Rule::Velocity,
        }
    }

    /// The field of the request that it is about.
    #[must_use]
    pub const fn param(&self) -> &'static str {
        match self {
            Self::CallerId => "from",
            Self::Emergency { .. }
            | Self::Prefix(_)
            | Self::NothingOpen
            | Self::Country
            | Self::NumberType
            | Self::Unassigned
            | Self::Velocity(_) => "to",
        }
    }
}

/// What the guard says of a call, and what it took the number for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Where the number leads.
    pub destination: Destination,
    /// Whether it may be placed, and by what.
    pub decision: Result<Opened, Denied>,
}

impl Verdict {
    /// For whoever asked: what was decided and by what, without anything that only operators know.
    #[must_use]
    pub fn sentence(&self) -> String {
        let kind = self.destination.kind;
        let place =
            self.destination.country.as_ref().map_or("no known country".to_owned(), ToString::to_string);
        match &self.decision {
            Ok(Opened::Prefix(prefix)) => format!("Numbers that begin with {} are open.", prefix.as_str()),
            Ok(Opened::Country) => format!("Numbers of kind {kind} in {place} are open."),
            Err(Denied::Emergency { code, .. }) => {
                format!("It would be dialled as the emergency number {code}. Nobody can open that.")
            }
            Err(Denied::CallerId) => "The caller id is none that this organisation may present.".to_owned(),
            Err(Denied::Prefix(prefix)) => format!("Numbers that begin with {} are closed.", prefix.as_str()),
            Err(Denied::NothingOpen) => {
                "No destination is open yet for this organisation: an operator opens what it may phone."
                    .to_owned()
            }
            Err(Denied::Country) => format!("Numbers of {place} are not open for this organisation."),
            Err(Denied::NumberType) => {
                format!("Numbers of kind {kind} in {place} are not open for this organisation.")
            }
            Err(Denied::Velocity(kind)) => {
                format!("It raises the alarm {kind}, which refuses calls until the hour is over.")
            }
            Err(Denied::Unassigned) => format!("No numbering plan has such a number ({place})."),
        }
    }
}

/// Decides whether an organisation with this policy may place a call.
#[must_use]
pub fn decide(policy: &Policy, fleet: &Fleet, to: &E164, from: Option<&E164>) -> Verdict {
    let destination = Destination::of(to);
    let decision = decision(policy, fleet, to, from, &destination);
    Verdict { destination, decision }
}

fn decision(
    policy: &Policy,
    fleet: &Fleet,
    to: &E164,
    from: Option<&E164>,
    destination: &Destination,
) -> Result<Opened, Denied> {
    let trunks = fleet.route_for(to).into_iter().flat_map(|route| route.tiers.iter().flatten());
    let calls_for_help =
        trunks.filter_map(|name| fleet.trunk(name)).find_map(|trunk| Some((trunk, emergency(trunk, to)?)));
    if let Some((trunk, code)) = calls_for_help {
        return Err(Denied::Emergency { trunk: trunk.name.clone(), code });
    }
    if from.is_some_and(|from| !policy.caller_ids.contains(from)) {
        return Err(Denied::CallerId);
    }
    match policy.by_prefix(to) {
        Some((prefix, Access::Allow)) => return Ok(Opened::Prefix(prefix.clone())),
        Some((prefix, Access::Deny)) => return Err(Denied::Prefix(prefix.clone())),
        None => {}
    }
    if policy.is_closed() {
        return Err(Denied::NothingOpen);
    }
    let Some(country) = &destination.country else { return Err(Denied::Unassigned) };
    if policy.opens(country, destination.kind) {
        Ok(Opened::Country)
    } else if !policy.countries.contains_key(country) {
        Err(Denied::Country)
    } else if destination.kind == NumberKind::Unassigned {
        Err(Denied::Unassigned)
    } else {
        Err(Denied::NumberType)
    }
}
