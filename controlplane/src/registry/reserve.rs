//! Who takes the next attempt, and the slots that it holds while it lives.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use controlplane_core::{
    fleet::{Fleet, Trunk},
    guard::emergency,
    health::{Board, ForCall, Load, Refusal, Standing},
    ids::AttemptId,
    names::{CarrierName, RegionName, TrunkName},
    number::E164,
    selection::{Availability, Choice, Decision, PassedOver, Tried},
};
use node_agent_ami::{Incarnation, Session};

use super::{Limits, Link, Registry, State};

/// Canaries that are remembered after their end. Their nodes ask within half a minute; what is forgotten by then stays
/// there for a week.
const CANARIES_MAX: usize = 10_000;

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
    /// How busy trunk and carrier are with this attempt.
    pub load: Load,
    /// By what the trunk's and the carrier's window know the start.
    started: (Instant, Option<Instant>),
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

/// Why no canary leaves over a trunk now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCanary {
    /// The trunk, its canary or its node's session has just gone.
    #[error("It has just gone from the fleet")]
    Gone,
    /// Its number is an emergency service's, as the trunk would dial it.
    #[error("The trunk would dial {0}, an emergency service")]
    Emergency(&'static str),
    /// As a call, it would be passed over.
    #[error("A canary goes where a call may, and no call may there now: {0}")]
    Held(PassedOver),
}

impl Registry {
    /// Chooses a trunk for a call to `to` and takes its slots for `attempt`. `waits_for_key`: a node whose dialplan hears
    /// none is the last resort.
    #[must_use]
    pub fn reserve(
        &self,
        to: &E164,
        from: Option<&E164>,
        waits_for_key: bool,
        tried: &Tried,
        attempt: &AttemptId,
        now: Instant,
    ) -> Reserved {
        let mut state = self.state();
        let state = &mut *state;
        let State { fleet, nodes, trunks, carriers, selector, board, .. } = state;
        let ground = Ground { nodes, trunks, carriers, to, from, waits_for_key, now };
        let health = ground.for_call(board, fleet, to);
        let decision = selector.choose(fleet, to, tried, |trunk| ground.availability(health.as_ref(), trunk));
        let name = match decision.choice {
            Choice::Trunk(name) => name,
            Choice::Wait { until } => return Reserved::Refused(Refused::Wait { until }),
            Choice::NoRoute => return Reserved::Refused(Refused::NoRoute),
            Choice::NothingLeft => return Reserved::Refused(Refused::NothingLeft),
            Choice::NothingUsable => return Reserved::Refused(Refused::NothingUsable),
        };
        match take(&name, fleet, Parts { nodes, trunks, carriers }, attempt, now) {
            Some(assignment) => {
                board.sent(now, &name);
                Reserved::Trunk(Box::new(assignment))
            }
            // The selector chose what the availability above called ready, under the same lock.
            None => Reserved::Refused(Refused::NothingUsable),
        }
    }

    /// Who would be chosen for a call to `to`, who is passed over, and why; and whether the route fails open for
    /// it (panic). Changes nothing.
    #[must_use]
    pub fn explain(&self, to: &E164, from: Option<&E164>, now: Instant) -> (Decision, bool) {
        let state = self.state();
        let State { fleet, nodes, trunks, carriers, selector, board, .. } = &*state;
        let ground = Ground { nodes, trunks, carriers, to, from, waits_for_key: false, now };
        let health = ground.for_call(board, fleet, to);
        let decision = selector
            .explain(fleet, to, &Tried::default(), |trunk| ground.availability(health.as_ref(), trunk));
        (decision, health.is_some_and(|health| health.is_panic()))
    }

    /// Takes this very trunk's slots for a canary. A probation that waits for a canary does not stand against it.
    ///
    /// # Errors
    /// [`NoCanary`]: a limit, its health, an operator or its node stands against it.
    pub fn reserve_canary(
        &self,
        name: &TrunkName,
        attempt: &AttemptId,
        now: Instant,
    ) -> Result<Assignment, NoCanary> {
        let mut state = self.state();
        let State { fleet, nodes, trunks, carriers, board, .. } = &mut *state;
        let trunk = fleet.trunk(name).ok_or(NoCanary::Gone)?;
        let to = &trunk.canary.as_ref().ok_or(NoCanary::Gone)?.number;
        if let Some(code) = emergency(trunk, to) {
            return Err(NoCanary::Emergency(code));
        }
        let awaits_one = |name| board.trunk(name).is_some_and(|trunk| trunk.wants_canary(now));
        match board.standing_for_any(now, trunk) {
            Ok(_) => {}
            Err(withheld) if withheld.why == Refusal::TrialsUnderWay && awaits_one(name) => {}
            Err(withheld) => return Err(NoCanary::Held(withheld.why.passed_over())),
        }
        let ground = Ground { nodes, trunks, carriers, to, from: None, waits_for_key: false, now };
        match ground.limits(trunk, Standing::Preferred) {
            Availability::Ready(_) => {}
            Availability::Later { why, .. } | Availability::Unusable(why) => return Err(NoCanary::Held(why)),
        }
        let parts = Parts { nodes, trunks, carriers };
        let assignment = take(name, fleet, parts, attempt, now).ok_or(NoCanary::Gone)?;
        board.sent(now, name);
        Ok(assignment)
    }

    /// A canary is over: what it has left on its node may go.
    pub fn canary_over(&self, attempt: &AttemptId) {
        let mut state = self.state();
        if state.canaries.len() == CANARIES_MAX {
            state.canaries.pop_front();
        }
        state.canaries.push_back(attempt.clone());
    }

    /// Of these attempts, those that were canaries and are over.
    #[must_use]
    pub fn past_canaries(&self, attempts: &[AttemptId]) -> Vec<AttemptId> {
        let asked: HashSet<_> = attempts.iter().collect();
        self.state().canaries.iter().filter(|canary| asked.contains(canary)).cloned().collect()
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

    /// The attempt was not sent, and will not be: its start counts against no pace, and is no trial.
    pub fn not_sent(&self, assignment: &Assignment) {
        let mut state = self.state();
        state.board.not_sent(&assignment.trunk.name);
        let (on_trunk, at_carrier) = assignment.started;
        if let Some(trunk) = state.trunks.get_mut(&assignment.trunk.name) {
            trunk.limits.window.give_back(on_trunk);
        }
        if let (Some(carrier), Some(at)) = (state.carriers.get_mut(&assignment.trunk.carrier), at_carrier) {
            carrier.window.give_back(at);
        }
    }

    /// Other replicas have all that a carrier's account may have: nobody is to ask for it for so long. From then on its starts, of which so many were
    /// so long ago, the newest first, are given out as each is free again: all that wait would else ask for the first one at once.
    pub fn carrier_is_full(&self, carrier: &CarrierName, now: Instant, again: Duration, ago: &[Duration]) {
        if let Some(carrier) = self.state().carriers.get_mut(carrier) {
            carrier.full_until = Some(now + again);
            carrier.window.is_counted(ago.iter().rev().filter_map(|ago| now.checked_sub(*ago)));
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
}

type Nodes = std::collections::BTreeMap<controlplane_core::names::NodeName, super::NodeState>;
type Trunks = std::collections::HashMap<TrunkName, super::TrunkState>;
type Carriers = std::collections::HashMap<CarrierName, Limits>;

/// All that availability rests on, but health.
struct Ground<'a> {
    nodes: &'a Nodes,
    trunks: &'a Trunks,
    carriers: &'a Carriers,
    to: &'a E164,
    from: Option<&'a E164>,
    waits_for_key: bool,
    now: Instant,
}

impl<'a> Ground<'a> {
    /// How trunks stand for the call; `None` where no route leads to it, and nobody will ask.
    fn for_call(&self, board: &'a Board, fleet: &'a Fleet, to: &E164) -> Option<ForCall<'a>> {
        let can_serve = |trunk: &Trunk| {
            self.may_present(trunk)
                && !matches!(self.limits(trunk, Standing::LastResort), Availability::Unusable(_))
        };
        let route = fleet.route_for(to)?;
        Some(board.for_call(self.now, fleet, route, to, self.from, can_serve))
    }

    /// Whether the call waits for a key that this trunk's node would not hear.
    fn is_deaf_to(&self, trunk: &Trunk) -> bool {
        let now = tokio::time::Instant::from_std(self.now);
        self.waits_for_key && self.nodes.get(&trunk.node).is_some_and(|node| node.is_deaf(now))
    }

    fn may_present(&self, trunk: &Trunk) -> bool {
        self.from.is_none_or(|from| trunk.may_present(from))
    }

    fn availability(&self, health: Option<&ForCall<'_>>, trunk: &Trunk) -> Availability {
        if emergency(trunk, self.to).is_some() {
            return Availability::Unusable(PassedOver::EmergencyNumber);
        }
        if !self.may_present(trunk) {
            return Availability::Unusable(PassedOver::CallerIdNotAllowed);
        }
        let Some(health) = health else { return Availability::Unusable(PassedOver::NodeUnverified) };
        match health.standing(trunk) {
            Ok(_) if self.is_deaf_to(trunk) => self.limits(trunk, Standing::LastResort),
            Ok(standing) => self.limits(trunk, standing),
            Err(withheld) => match self.limits(trunk, Standing::LastResort) {
                // What is missing altogether is told before what health makes of it.
                missing @ Availability::Unusable(PassedOver::NodeDown | PassedOver::NodeUnverified) => {
                    missing
                }
                Availability::Ready(_) | Availability::Later { .. } | Availability::Unusable(_) => {
                    withheld.availability()
                }
            },
        }
    }

    /// What session, configuration and limits say, whatever the health.
    fn limits(&self, trunk: &Trunk, standing: Standing) -> Availability {
        let now = self.now;
        let up = self.nodes.get(&trunk.node).is_some_and(|node| match &node.link {
            Link::Up { session, .. } => session.close_reason().is_none(),
            Link::Down { .. } | Link::Connecting => false,
        });
        if !up {
            return Availability::Unusable(PassedOver::NodeDown);
        }
        let Some(state) = self.trunks.get(&trunk.name) else {
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
        let Some(carrier) = self.carriers.get(&trunk.carrier) else { return Availability::Ready(standing) };
        if let Some(until) = carrier.full_until.filter(|until| *until > now) {
            return Availability::Later { until: Some(until), why: PassedOver::CarrierAtCps };
        }
        if let Err(until) = carrier.window.check(now) {
            return Availability::Later { until: Some(until), why: PassedOver::CarrierAtCps };
        }
        if carrier.channels.check().is_err() {
            return Availability::Later { until: None, why: PassedOver::CarrierAtChannels };
        }
        Availability::Ready(standing)
    }
}

struct Parts<'a> {
    nodes: &'a Nodes,
    trunks: &'a mut Trunks,
    carriers: &'a mut Carriers,
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
    let Link::Up { session, incarnation, .. } = &parts.nodes.get(&trunk.node)?.link else { return None };
    let limits = &mut parts.trunks.get_mut(name)?.limits;
    limits.channels.acquire(attempt).ok()?;
    let mut started = (limits.window.take(now), None);
    let mut near = limits.channels.is_near_full() || limits.window.is_near_full(now);
    if let Some(carrier) = parts.carriers.get_mut(&trunk.carrier) {
        // Checked by `availability` under the same lock; a failure here would only count one less.
        let _ = carrier.channels.acquire(attempt);
        started.1 = Some(carrier.window.take(now));
        near |= carrier.channels.is_near_full() || carrier.window.is_near_full(now);
    }
    Some(Assignment {
        region: node.region.clone(),
        timer_b: Duration::from_millis(node.timer_b_ms.into()),
        session: session.clone(),
        incarnation: incarnation.clone(),
        load: if near { Load::NearLimit } else { Load::Normal },
        started,
        trunk,
    })
}
