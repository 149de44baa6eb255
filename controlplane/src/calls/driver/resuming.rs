//! What an earlier process left of a call: endings that were written, and an attempt that was open.

use std::time::Duration;

use controlplane_core::{
    access::Mode,
    attempt::Attempt,
    call::Rang,
    ending::{EarlyMedia, Ending, EndingClass, Reading},
    health::Load,
};
use controlplane_store::calls::Attempt as Stored;
use tokio::time::Instant;

use super::{Driver, Sent, Step};
use crate::calls::{
    attempt::{Ended, Run, limits, listening},
    place::{Place, Slots},
};

/// Timer B of a node that is no longer declared: every 408 is then taken for silence.
const TIMER_B_UNKNOWN: Duration = Duration::ZERO;

impl Driver<'_> {
    /// Takes up what an earlier process left: endings that were written, and an attempt that was open. An
    /// ending whose call is open had been decided to be followed by another trunk.
    pub(super) async fn take_up(&mut self) -> Step {
        for stored in std::mem::take(&mut self.call.attempts) {
            let (fleet, _) = self.calls.registry.fleet();
            let place = Place {
                id: &stored.id,
                node: &stored.node,
                trunk: &stored.trunk,
                carrier: &stored.carrier,
                declared: fleet.trunk(&stored.trunk),
            };
            match stored.ending {
                Some(ending) if stored.round < self.call.round => self.earlier.push(ending),
                Some(ending) => {
                    self.endings.push(ending);
                    self.pass_over(&place, ending);
                }
                None => {
                    let step = match self.call.mode {
                        Mode::Live => self.resume(&stored, &place).await,
                        Mode::Test => self.rehearse_again(&stored.id).await,
                    };
                    if step == Step::Ended {
                        return Step::Ended;
                    }
                }
            }
        }
        Step::Next
    }

    async fn resume(&mut self, stored: &Stored, place: &Place<'_>) -> Step {
        let registry = &self.calls.registry;
        registry.adopt(place.trunk, place.carrier, place.id);
        let _slots = Slots { registry, place };
        let _started = self.calls.gate.adopt(&self.call.org, place.id);
        let (fleet, _) = registry.fleet();
        let timer_b = fleet
            .node(place.node)
            .map_or(TIMER_B_UNKNOWN, |node| Duration::from_millis(node.timer_b_ms.into()));
        let early_media = place.declared.map_or(EarlyMedia::Maybe, |trunk| trunk.early_media);
        let limits = limits(&self.call.request, self.calls.patience.reconcile);
        let age = Duration::try_from(self.calls.clock.now() - stored.started_at).unwrap_or_default();
        let now = Instant::now().into_std();
        let sent = Sent { began: now.checked_sub(age).unwrap_or(now), load: Load::Normal };
        let machine =
            Attempt::resumed(now, age, limits, Reading { early_media, timer_b }, stored.status, stored.rang)
                .listening(listening(&self.call.request), stored.key);
        tracing::info!(call = %self.call.id, attempt = %stored.id, node = %stored.node, status = %stored.status,
            "taking up an attempt that an earlier process began");
        let run = Run {
            calls: self.calls,
            call: Some((&self.call.id, self.call.claim.epoch)),
            place,
            request: &self.call.request,
            began: sent.began,
            started_at: stored.started_at,
            sent_to: stored.incarnation.as_deref(),
            when_rung: None,
            canceled: &mut self.canceled,
        };
        let unknown = Ending::without_answer(EndingClass::Unknown, Rang::Maybe);
        let ended = run.resume(machine).await.unwrap_or(Ended { ending: unknown, may_live_on: true });
        self.ended(place, sent, ended).await
    }
}
