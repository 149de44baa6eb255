//! Who takes the next attempt, and the slots that it holds while it lives.

use std::time::{Duration, Instant};

use controlplane_core::{
    fleet::{Fleet, Trunk},
    ids::AttemptId,
    names::{CarrierName, RegionName, TrunkName},
    number::E164,
    selection::{Availability, Choice, Decision, PassedOver, Tried},
};
use node_agent_ami::{Incarnation, Session};

use super::{Limits, Link, Registry, State};

/// How long a trunk's pace stays halved after a 503 that was about pace.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// A trunk that takes an attempt, with its slots taken.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The trunk as declared at this moment.
    pub trunk: Trunk,
    /// Its node's region.
    pub region: RegionName,
    /// Its node's Timer B.
    pub timer_b: Duration,
    /// The session to send it by.
    pub session: Session,
    /// Which run of Asterisk that is.
    pub incarnation: Incarnation,
}

/// What came of asking for a trunk.
#[derive(Debug)]
pub enum Reserved {
    /// Send it here.
    Trunk(Box<Assignment>),
    /// Not now.
    Refused(Refused),
}

/// Why no trunk takes it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Limits hold it back: ask again then, or when something changes.
    Wait {
        /// When a limit surely lets the next one through; `None`: when a channel is freed.
        until: Option<Instant>,
    },
    /// No route leads to the number.
    NoRoute,
    /// Every trunk of the route was tried, or can never serve this call.
    NothingLeft,
    /// There are untried trunks, and none can be used now.
    NothingUsable,
}

impl Registry {
    /// Chooses a trunk for a call to `to` and takes its slots for `attempt`.
    #[must_use]
    pub fn reserve(
        &self,
        to: &E164,
        from: Option<&E164>,
        tried: &Tried,
        attempt: &AttemptId,
        now: Instant,
    ) -> Reserved {
        let mut state = self.state();
        let state = &mut *state;
        let State { fleet, nodes, trunks, carriers, selector, .. } = state;
        let decision = selector
            .choose(fleet, to, tried, |trunk| availability(trunk, from, nodes, trunks, carriers, now));
        let name = match decision.choice {
            Choice::Trunk(name) => name,
            Choice::Wait { until } => return Reserved::Refused(Refused::Wait { until }),
            Choice::NoRoute => return Reserved::Refused(Refused::NoRoute),
            Choice::NothingLeft => return Reserved::Refused(Refused::NothingLeft),
            Choice::NothingUsable => return Reserved::Refused(Refused::NothingUsable),
        };
        match take(&name, fleet, state_parts(nodes, trunks, carriers), attempt, now) {
            Some(assignment) => Reserved::Trunk(Box::new(assignment)),
            // The selector chose what the availability above called ready, under the same lock.
            None => Reserved::Refused(Refused::NothingUsable),
        }
    }

    /// Who would be chosen for a call to `to`, who is passed over, and why. Changes nothing.
    #[must_use]
    pub fn explain(&self, to: &E164, from: Option<&E164>, now: Instant) -> Decision {
        let state = self.state();
        state.selector.explain(&state.fleet, to, &Tried::default(), |trunk| {
            availability(trunk, from, &state.nodes, &state.trunks, &state.carriers, now)
        })
    }

    /// Counts an attempt that an earlier process left open.
    pub fn adopt(&self, trunk: &TrunkName, carrier: &CarrierName, attempt: &AttemptId) {
        let mut state = self.state();
        if let Some(trunk) = state.trunks.get_mut(trunk) {
            trunk.limits.channels.adopt(attempt);
        }
        if let Some(carrier) = state.carriers.get_mut(carrier) {
            carrier.channels.adopt(attempt);
        }
    }

    /// Gives an attempt's slots back. Twice does no harm.
    pub fn release(&self, trunk: &TrunkName, carrier: &CarrierName, attempt: &AttemptId) {
        {
            let mut state = self.state();
            if let Some(trunk) = state.trunks.get_mut(trunk) {
                trunk.limits.channels.release(attempt);
            }
            if let Some(carrier) = state.carriers.get_mut(carrier) {
                carrier.channels.release(attempt);
            }
        }
        self.nudge();
    }

    /// After a 503: if the trunk was near its declared channels, the 503 was about load, and the pace is
    /// halved for a while.
    pub fn slow_down_if_busy(&self, trunk: &TrunkName, now: Instant) {
        let mut state = self.state();
        let Some(max) = state.fleet.trunk(trunk).map(|trunk| trunk.channels_max as usize) else { return };
        if let Some(trunk) = state.trunks.get_mut(trunk)
            && trunk.limits.channels.held() * 5 >= max * 4
        {
            trunk.limits.window.slow_down(now, SLOW_FOR);
        }
    }
}

type Nodes = std::collections::BTreeMap<controlplane_core::names::NodeName, super::NodeState>;
type Trunks = std::collections::HashMap<TrunkName, super::TrunkState>;
type Carriers = std::collections::HashMap<CarrierName, Limits>;

fn availability(
    trunk: &Trunk,
    from: Option<&E164>,
    nodes: &Nodes,
    trunks: &Trunks,
    carriers: &Carriers,
    now: Instant,
) -> Availability {
    if from.is_some_and(|from| !trunk.may_present(from)) {
        return Availability::Unusable(PassedOver::CallerIdNotAllowed);
    }
    let up = nodes.get(&trunk.node).is_some_and(|node| match &node.link {
        Link::Up { session, .. } => session.close_reason().is_none(),
        Link::Down { .. } | Link::Connecting => false,
    });
    if !up {
        return Availability::Unusable(PassedOver::NodeDown);
    }
    let Some(state) = trunks.get(&trunk.name) else {
        return Availability::Unusable(PassedOver::NodeUnverified);
    };
    match &state.checked {
        None => return Availability::Unusable(PassedOver::NodeUnverified),
        Some(Err(_)) => return Availability::Unusable(PassedOver::TrunkRefused),
        Some(Ok(())) => {}
    }
    if let Err(until) = state.limits.window.check(now) {
        return Availability::Later { until: Some(until), why: PassedOver::AtCps };
    }
    if state.limits.channels.check().is_err() {
        return Availability::Later { until: None, why: PassedOver::AtChannels };
    }
    let Some(carrier) = carriers.get(&trunk.carrier) else { return Availability::Ready };
    if let Err(until) = carrier.window.check(now) {
        return Availability::Later { until: Some(until), why: PassedOver::CarrierAtCps };
    }
    if carrier.channels.check().is_err() {
        return Availability::Later { until: None, why: PassedOver::CarrierAtChannels };
    }
    Availability::Ready
}

struct Parts<'a> {
    nodes: &'a Nodes,
    trunks: &'a mut Trunks,
    carriers: &'a mut Carriers,
}

fn state_parts<'a>(nodes: &'a Nodes, trunks: &'a mut Trunks, carriers: &'a mut Carriers) -> Parts<'a> {
    Parts { nodes, trunks, carriers }
}

fn take(
    name: &TrunkName,
    fleet: &Fleet,
    parts: Parts<'_>,
    attempt: &AttemptId,
    now: Instant,
) -> Option<Assignment> {
    let trunk = fleet.trunk(name)?.clone();
    let node = fleet.node(&trunk.node)?;
    let Link::Up { session, incarnation } = &parts.nodes.get(&trunk.node)?.link else { return None };
    let limits = &mut parts.trunks.get_mut(name)?.limits;
    limits.channels.acquire(attempt).ok()?;
    limits.window.take(now);
    if let Some(carrier) = parts.carriers.get_mut(&trunk.carrier) {
        // Checked by `availability` under the same lock; a failure here would only count one less.
        let _ = carrier.channels.acquire(attempt);
        carrier.window.take(now);
    }
    Some(Assignment {
        region: node.region.clone(),
        timer_b: Duration::from_millis(node.timer_b_ms.into()),
        session: session.clone(),
        incarnation: incarnation.clone(),
        trunk,
    })
}
