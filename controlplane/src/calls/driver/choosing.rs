//! Which trunk a call gets, and what it does while none takes it.

use std::time::Duration;

use controlplane_core::{
    call::{OnUnknown, Reason},
    ending::EndingClass,
    ids::AttemptId,
    number::E164,
    selection::Tried,
};
use tokio::time::Instant;

use super::Driver;
use crate::{
    audio::Playable,
    calls::{attempt::listening, place::Place},
    registry::{Refused, Reserved},
};

/// Longest wait before trunks are tried again that sent nothing, and between two looks for a freed channel.
pub(super) const AGAIN_MAX: Duration = Duration::from_secs(2);

/// What to do while no trunk takes it.
pub(super) enum Wait {
    /// Until then, or until something changes.
    Until(Instant),
    /// Until then.
    Pause(Instant),
    End(Reason),
}

impl Driver<'_> {
    /// Nodes that could not get what calls play lately come after all others.
    pub(super) fn reserve(
        &self,
        to: &E164,
        from: Option<&E164>,
        plays: &Playable,
        id: &AttemptId,
        now: Instant,
    ) -> Reserved {
        let registry = &self.calls.registry;
        let keys = !listening(&self.call.request).keys.is_empty();
        let reserve = |tried: &Tried| registry.reserve(to, from, keys, tried, id, now.into_std());
        let shunned = self.calls.audio.placing().shunned(plays);
        if shunned.is_empty() {
            return reserve(&self.tried);
        }
        let (mut tried, (fleet, _)) = (self.tried.clone(), registry.fleet());
        shunned.iter().for_each(|node| tried.pass_over_node(node, &fleet));
        match reserve(&tried) {
            Reserved::Refused(Refused::NothingLeft | Refused::NothingUsable) => reserve(&self.tried),
            reserved @ (Reserved::Trunk(_) | Reserved::Refused(Refused::Wait { .. } | Refused::NoRoute)) => {
                reserved
            }
        }
    }

    /// What follows when no trunk takes it.
    pub(super) fn refused(&mut self, refused: Refused, now: Instant) -> Wait {
        let patience = self.calls.patience.trunk;
        self.late = Reason::DeadlineExceeded;
        match refused {
            Refused::NoRoute => Wait::End(Reason::NoHealthyRoute),
            Refused::Wait { until } => {
                self.late = Reason::Throttled;
                self.unusable_since = None;
                // Without a moment: a channel that is freed tells; look at least now and then.
                Wait::Until(until.map_or(now + AGAIN_MAX, Instant::from_std))
            }
            // What can be used was tried, and some of it is worth another try.
            Refused::NothingLeft | Refused::NothingUsable if self.tried != self.spent => {
                let until = *self.nothing_left_since.get_or_insert(now) + patience;
                let wait = now + self.again;
                self.again = (self.again * 2).min(AGAIN_MAX);
                self.tried.clone_from(&self.spent);
                if wait >= until { Wait::End(self.without_trunk()) } else { Wait::Pause(wait) }
            }
            Refused::NothingUsable => {
                let until = *self.unusable_since.get_or_insert(now) + patience;
                if now >= until { Wait::End(self.without_trunk()) } else { Wait::Until(until) }
            }
            Refused::NothingLeft => Wait::End(self.without_trunk()),
        }
    }

    /// A trunk that was tried is passed over: for good, or until nothing else is left.
    pub(super) fn pass_over(&mut self, place: &Place<'_>, ending: EndingClass) {
        let (fleet, _) = self.calls.registry.fleet();
        self.tried.add_names(place.trunk, place.node, place.carrier, &fleet);
        let doubtful = ending.is_unsettled() && self.call.request.on_unknown == OnUnknown::Retry;
        if ending.may_have_reached_carrier() && !doubtful {
            self.spent.add_names(place.trunk, place.node, place.carrier, &fleet);
        }
    }
}
