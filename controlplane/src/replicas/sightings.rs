//! How calls ended here, told to the other replicas, and theirs heard here: a carrier that fails the calls of all is found as
//! soon as if one had placed them, within half a second more.
//!
//! What others saw is evidence for trips alone. A trunk that is tripped here, or on probation, goes by what this replica's own
//! trials meet, since those are what it has let through.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use controlplane_core::{
    call::Rang,
    ending::{Ending, EndingClass, Talk},
    health::{Call, Destination, Load, Party},
    names::{NodeName, TrunkName},
    number::E164,
};
use controlplane_store::replicas::Sighting;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Endings that wait to be told; beyond it the oldest are not. More than a second's worth of any fleet.
const UNTOLD_MAX: usize = 5_000;

/// An ending, as others are told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    trunk: TrunkName,
    node: NodeName,
    class: EndingClass,
    rang: Rang,
    sip_code: Option<u16>,
    q850: Option<u16>,
    /// Since its Originate left.
    age_ms: u64,
    waited_ms: u64,
    party: Party,
    destination: Destination,
    caller: Option<E164>,
    is_near_limit: bool,
}

/// Endings that the others have not been told of yet.
#[derive(Debug, Default)]
pub(super) struct Untold(Mutex<VecDeque<Ended>>);

/// An ending on a trunk.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) trunk: TrunkName,
    pub(crate) node: NodeName,
    pub(crate) call: Call,
}

impl Untold {
    pub(super) fn add(&self, ended: Ended) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.len() == UNTOLD_MAX {
            untold.pop_front();
        }
        untold.push_back(ended);
    }

    /// Takes what there is to tell, as of now; `None`: nothing.
    pub(super) fn take(&self, now: Instant) -> Option<Value> {
        let untold = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if untold.is_empty() {
            return None;
        }
        let seen: Vec<Seen> = untold.iter().map(|ended| Seen::of(ended, now)).collect();
        serde_json::to_value(seen).inspect_err(|error| tracing::error!(%error, "endings cannot be told")).ok()
    }
}

impl Seen {
    fn of(Ended { trunk, node, call }: &Ended, now: Instant) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            trunk: trunk.clone(),
            node: node.clone(),
            class: call.ending.class,
            rang: call.ending.rang,
            sip_code: call.ending.sip_code,
            q850: call.ending.q850,
            age_ms: ms(now.saturating_duration_since(call.began)),
            waited_ms: ms(call.waited),
            party: call.party.clone(),
            destination: call.destination.clone(),
            caller: call.caller.clone(),
            is_near_limit: call.load == Load::NearLimit,
        }
    }

    fn ended(self, told_ago: Duration, now: Instant) -> Ended {
        let ending = Ending {
            class: self.class,
            rang: self.rang,
            sip_code: self.sip_code,
            q850: self.q850,
            talk: Talk::NONE,
        };
        let age = told_ago + Duration::from_millis(self.age_ms);
        let call = Call {
            ending,
            began: now.checked_sub(age).unwrap_or(now),
            waited: Duration::from_millis(self.waited_ms),
            party: self.party,
            destination: self.destination,
            caller: self.caller,
            load: if self.is_near_limit { Load::NearLimit } else { Load::Normal },
        };
        Ended { trunk: self.trunk, node: self.node, call }
    }
}

/// What another replica told. One of another release that cannot be read is passed over.
pub(super) fn heard(sighting: Sighting, now: Instant) -> Vec<Ended> {
    let seen: Vec<Seen> = match serde_json::from_value(sighting.seen) {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!(id = sighting.id, %error, "what another replica has seen cannot be read");
            return Vec::new();
        }
    };
    seen.into_iter().map(|seen| seen.ended(sighting.age, now)).collect()
}

#[cfg(test)]
mod tests {
    use controlplane_core::ids::OrgId;

    use super::*;

    #[test]
    fn an_ending_is_heard_as_it_was_seen_and_as_old_as_it_is() {
        let now = tokio::time::Instant::now().into_std() + Duration::from_secs(3_600);
        let ending = Ending {
            class: EndingClass::Congestion,
            rang: Rang::No,
            sip_code: Some(503),
            q850: Some(34),
            talk: Talk::NONE,
        };
        let to: E164 = "+48221234567".parse().unwrap();
        let call = Call {
            ending,
            began: now - Duration::from_secs(9),
            waited: Duration::from_secs(8),
            party: Party::Org(OrgId::first()),
            destination: Destination::of(&to),
            caller: Some(to),
            load: Load::NearLimit,
        };
        let ended = Ended { trunk: "acme-waw-1".parse().unwrap(), node: "waw-1".parse().unwrap(), call };
        let untold = Untold::default();
        assert_eq!(untold.take(now), None);
        untold.add(ended.clone());
        let seen = untold.take(now).unwrap();
        assert_eq!(untold.take(now), None, "it is told once");
        // Read two seconds later by another clock.
        let later = now + Duration::from_secs(500);
        let sighting = Sighting { id: 7, age: Duration::from_secs(2), seen };
        let heard = heard(sighting, later);
        let began = later - Duration::from_secs(11);
        assert_eq!(heard, [Ended { call: Call { began, ..ended.call.clone() }, ..ended }]);
        assert!(super::heard(Sighting { id: 8, age: Duration::ZERO, seen: Value::Null }, later).is_empty());
    }
}
