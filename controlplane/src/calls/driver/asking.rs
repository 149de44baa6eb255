//! When a call asks for a trunk: in its organisation's turn, within its organisation's limits.

use controlplane_core::{call::Reason, ids::AttemptId};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Driver,
    choosing::{AGAIN_MAX, Wait},
};
use crate::{
    audio::Playable,
    calls::gate::Started,
    registry::{Assignment, Refused, Reserved},
};

/// What came of asking.
pub(super) enum Asked {
    /// A trunk takes it.
    Trunk(Box<Assignment>, Started),
    /// None does now.
    Wait(Wait),
}

impl Driver<'_> {
    /// Waits for its turn among the calls of its route. `false`: something has changed, look again. Who has tried a trunk
    /// in this round does not line up: its callee waits, and what is left for it may be another trunk than for all others.
    pub(super) async fn may_ask(&mut self, deadline: Instant) -> bool {
        if !self.endings.is_empty() || !self.tried.is_empty() {
            self.in_line = None;
            return true;
        }
        if self.in_line.is_none() {
            let (fleet, _) = self.calls.registry.fleet();
            let Some(route) = fleet.route_for(&self.call.request.to) else { return true };
            let weight = self.calls.rules.limits(&self.call.org).weight.unwrap_or(1);
            let place = (self.call.request.priority, self.call.id.clone());
            let route = route.prefix.as_str().to_owned();
            self.in_line = Some(self.calls.gate.join(route, &self.call.org, weight, place));
        }
        if self.in_line.as_ref().is_none_or(|line| line.is_first()) {
            return true;
        }
        self.leave_turn();
        let Some(line) = &self.in_line else { return true };
        tokio::select! {
            biased;
            () = line.woken() => {}
            _ = self.canceled.changed() => {}
            () = sleep_until(deadline) => self.late = Reason::Throttled,
        }
        false
    }

    /// Asks its organisation's limits, then the fleet.
    pub(super) fn ask(&mut self, plays: &Playable, id: &AttemptId, now: Instant) -> Asked {
        let limits = self.calls.rules.limits(&self.call.org);
        let started = match self.calls.gate.start(&self.call.org, &limits, id, now.into_std()) {
            Ok(started) => started,
            Err(until) => {
                self.leave_turn();
                self.late = Reason::Throttled;
                if let Some(line) = &self.in_line {
                    line.held();
                }
                return Asked::Wait(Wait::Until(until.map_or(now + AGAIN_MAX, Instant::from_std)));
            }
        };
        let (to, from) = (&self.call.request.to, self.call.request.from.as_ref());
        match self.reserve(to, from, plays, id, now) {
            Reserved::Trunk(to) => {
                if let Some(line) = self.in_line.take() {
                    line.served();
                }
                Asked::Trunk(to, started)
            }
            Reserved::Refused(refused) => {
                started.not_sent();
                self.leave_turn();
                if !matches!(refused, Refused::Wait { .. }) {
                    // What it waits for is no limit: it comes back to its place by age.
                    self.in_line = None;
                } else if let Some(line) = &self.in_line {
                    line.refused();
                }
                Asked::Wait(self.refused(refused, now))
            }
        }
    }

    /// Waits until then, or until something changes, in its place.
    pub(super) async fn wait(&mut self, until: Instant, changes: &mut watch::Receiver<u64>) {
        let Some(line) = &self.in_line else {
            tokio::select! {
                () = sleep_until(until) => {}
                _ = changes.changed() => {}
                _ = self.canceled.changed() => {}
            }
            return;
        };
        tokio::select! {
            () = sleep_until(until) => line.waited(None),
            _ = changes.changed() => line.waited(Some(*changes.borrow_and_update())),
            () = line.woken() => line.woke(),
            _ = self.canceled.changed() => {}
        }
    }
}
