//! A canary: one Originate of our own over one trunk. It is no customer's call and is nowhere written down;
//! its ending goes to the trunk's health alone.

use std::{collections::BTreeMap, time::Duration};

use controlplane_core::{
    call::{OnUnknown, Rang},
    ending::{Ending, EndingClass, Reading},
    fleet::{Canary, CanaryExpects},
    health::{self, Destination, Met, Party},
    ids::AttemptId,
    request::{AudioId, Builtin, CallRequest, Content, Failover, MachineDetection, Message, Priority},
    selection::PassedOver,
};
use controlplane_store::{StoreError, replicas::Held};
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use super::{
    Calls,
    attempt::{Ended, Run},
    driver::ACCOUNT_AGAIN,
    place::{Place, Slots},
};
use crate::{audio::Playable, registry::Assignment};

/// As customers' calls by default: the carrier is to be judged alike.
const PROGRESS_S: u16 = 8;
const RING_S: u16 = 25;
/// Longer than the beep that it plays: an answered canary ends by itself.
const TALK_S: u16 = 5;
/// Nothing of it is left after this.
pub(crate) const CANARY_MAX_S: u16 = PROGRESS_S + RING_S + TALK_S;

fn request(canary: &Canary) -> CallRequest {
    CallRequest {
        priority: Priority::Normal,
        dry_run: false,
        to: canary.number.clone(),
        from: None,
        message: Message { content: Content::Audio(AudioId::Builtin(Builtin::Beep)), repeat: 1 },
        acknowledgement: None,
        machine_detection: MachineDetection::default(),
        redial: None,
        callback: None,
        progress_timeout_s: PROGRESS_S,
        ring_timeout_s: RING_S,
        time_limit_s: TALK_S,
        failover: Failover { attempts_max: 1 },
        on_unknown: OnUnknown::Fail,
        deadline_at: None,
        dedup_key: None,
        metadata: BTreeMap::new(),
    }
}

/// Whether the ending is what the operator said it would be.
fn met(ending: &Ending, expects: CanaryExpects) -> Met {
    let as_expected = match expects {
        CanaryExpects::Answered => ending.class == EndingClass::Answered,
        CanaryExpects::Rings => ending.rang == Rang::Yes,
        CanaryExpects::Busy => ending.class == EndingClass::UserBusy,
    };
    if as_expected { Met::AsExpected } else { Met::Otherwise }
}

/// What came of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct CanaryEnded {
    /// Whether it is what its number is for.
    pub(crate) as_expected: bool,
    /// How it ended.
    pub(crate) ending: EndingClass,
    /// The carrier's SIP answer.
    pub(crate) sip_code: Option<u16>,
}

/// Why a canary that a trunk would take does not leave.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// The carrier's account has no room, over all replicas.
    Account(PassedOver),
    /// It cannot be known.
    Store(StoreError),
}

impl Calls {
    /// Counts one towards its carrier's account, where other replicas use it too. Where there is no room, its trunk's slots are
    /// given back.
    pub(crate) async fn count_canary(&self, id: &AttemptId, to: &Assignment) -> Result<(), NoRoom> {
        let carrier = &to.trunk.carrier;
        let Some(account) = self.account(carrier) else { return Ok(()) };
        let refused = match self.store.hold_account(id, carrier, account).await {
            Ok(Held::Yes) => return Ok(()),
            Ok(Held::Full { wait, ago }) => {
                let again = wait.unwrap_or(ACCOUNT_AGAIN);
                self.registry.carrier_is_full(carrier, Instant::now().into_std(), again, &ago);
                NoRoom::Account(wait.map_or(PassedOver::CarrierAtChannels, |_| PassedOver::CarrierAtCps))
            }
            Err(error) => NoRoom::Store(error),
        };
        self.registry.not_sent(to);
        self.registry.release(&to.trunk.name, carrier, id);
        Err(refused)
    }

    /// One is over: its place on the account is free.
    pub(crate) async fn free_canary(&self, id: &AttemptId, to: &Assignment) {
        if self.account(&to.trunk.carrier).is_some() {
            self.durably("free a canary's place", || self.store.free_account(id)).await;
        }
    }

    /// Places one over the trunk whose slots are taken for `id`, follows it to its end, and tells health.
    pub(crate) async fn place_canary(&self, id: &AttemptId, to: &Assignment, canary: &Canary) -> CanaryEnded {
        let trunk = &to.trunk;
        let request = request(canary);
        let began = Instant::now().into_std();
        let place = Place::on(trunk, id);
        let _slots = Slots { registry: &self.registry, place: &place };
        let (hang_up, mut canceled) = watch::channel(false);
        let run = Run {
            calls: self,
            call: None,
            place: &place,
            request: &request,
            began,
            started_at: self.clock.now(),
            sent_to: Some(to.incarnation.as_str()),
            // It has rung: that was all it was for.
            when_rung: (canary.expects == CanaryExpects::Rings).then_some(&hang_up),
            canceled: &mut canceled,
        };
        let reading = Reading { early_media: trunk.early_media, timer_b: to.timer_b };
        let beep = Playable::Builtin(Builtin::Beep);
        let Ended { ending, may_live_on } = run.send(&beep, to, reading).await;
        if may_live_on {
            self.registry.abandon(&trunk.node, id.clone(), self.clock.now());
        }
        let met = met(&ending, canary.expects);
        let as_expected = met == Met::AsExpected;
        let told = CanaryEnded { as_expected, ending: ending.class, sip_code: ending.sip_code };
        let call = health::Call {
            ending,
            began,
            waited: Duration::from_secs(PROGRESS_S.into()),
            party: Party::Canary,
            destination: Destination::of(&request.to),
            caller: trunk.caller_ids.first().cloned(),
            load: to.load,
        };
        self.registry.canary_ended(Instant::now().into_std(), &trunk.name, &trunk.node, call, met);
        self.registry.canary_over(id);
        self.metrics.fleet.canary_ended(trunk, met);
        tracing::info!(trunk = %trunk.name, attempt = %id, ending = %ending.class, sip = ending.sip_code,
            as_expected, "canary ended");
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_as_expected_by_what_the_number_is_for() {
        let of = |class, rang, expects| met(&Ending::without_answer(class, rang), expects) == Met::AsExpected;
        use CanaryExpects as E;
        use EndingClass as C;
        assert!(of(C::Answered, Rang::Yes, E::Answered) && !of(C::RingTimeout, Rang::Yes, E::Answered));
        assert!(of(C::Canceled, Rang::Yes, E::Rings) && of(C::Answered, Rang::Yes, E::Rings));
        assert!(
            !of(C::CarrierSilent, Rang::No, E::Rings) && !of(C::EndedAfterProgress, Rang::Maybe, E::Rings)
        );
        assert!(of(C::UserBusy, Rang::No, E::Busy) && !of(C::Congestion, Rang::No, E::Busy));
    }
}
