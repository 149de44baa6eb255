//! What a test key's call meets: by its number, which stands for an outcome. Nothing of it reaches a carrier.
//!
//! The numbers are +1 202 555 0100 to 0118. 555-0100 to 555-0199 are kept free in every area code of North America for
//! use in fiction (NANPA, "555 line numbers"), so that none of them is anybody's. What follows an ending, and how often
//! it is tried, is decided by the same rules as for any call ([`crate::failover`], [`crate::redial`]).

use std::time::Duration;

use crate::{
    call::{Detection, Rang, Reason},
    ending::{Ending, EndingClass, Talk},
    number::E164,
    request::{CallRequest, Key, KeyAction},
};

/// All but the last two digits.
const PREFIX: &str = "+120255501";
/// The last two digits of the last number.
const LAST: u8 = 18;
/// Between two things that happen.
pub const BEAT: Duration = Duration::from_millis(200);

/// What an attempt, or the call, meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// The call ends so, without an attempt.
    End(Reason),
    /// The call waits until its deadline, and ends so.
    Wait(Reason),
    /// An attempt.
    Attempt(Act),
}

/// An attempt of a rehearsal: each thing a [`BEAT`] after the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// How long it rings, if it does.
    pub rings: Option<Duration>,
    /// Whether it is answered.
    pub is_answered: bool,
    /// The key that is pressed then, and what it means.
    pub key: Option<(Key, KeyAction)>,
    /// How it ends.
    pub ending: Ending,
}

/// The last two digits of a number that stands for an outcome.
fn figure(to: &E164) -> Option<u8> {
    to.as_str().strip_prefix(PREFIX)?.parse().ok().filter(|figure| *figure <= LAST)
}

/// Whether the number stands for an outcome.
#[must_use]
pub fn knows(to: &E164) -> bool {
    to.as_str().len() == PREFIX.len() + 2 && figure(to).is_some()
}

/// What comes next after so many attempts of this round.
#[must_use]
pub fn scene(request: &CallRequest, attempts: usize) -> Scene {
    let ends = |class, sip_code, rings: bool| {
        let rang = if rings { Rang::Yes } else { Rang::No };
        let ending = Ending { sip_code, ..Ending::without_answer(class, rang) };
        Scene::Attempt(Act { rings: rings.then_some(BEAT), is_answered: false, key: None, ending })
    };
    let congested = ends(EndingClass::Congestion, Some(503), false);
    match figure(&request.to) {
        Some(0) => answered(request, Some(KeyAction::Acknowledge), None),
        Some(1) => answered(request, None, None),
        Some(2) => answered(request, Some(KeyAction::Escalate), None),
        Some(3) => answered(request, None, Some(Detection::Machine)),
        Some(4) => ends(EndingClass::UserBusy, Some(486), true),
        Some(5) => ends(EndingClass::Declined, Some(603), true),
        Some(6) => ends(EndingClass::RingTimeout, Some(487), true),
        Some(7) => ends(EndingClass::Unreachable, Some(480), false),
        Some(8) => ends(EndingClass::InvalidNumber, Some(404), false),
        Some(9) => Scene::End(Reason::NotPermitted),
        Some(10) => Scene::End(Reason::NoHealthyRoute),
        Some(11) => congested,
        Some(12) if attempts == 0 => congested,
        Some(12) => answered(request, Some(KeyAction::Acknowledge), None),
        Some(13) => Scene::End(Reason::MediaError),
        Some(14) => {
            let ending = Ending::without_answer(EndingClass::CarrierSilent, Rang::Maybe);
            Scene::Attempt(Act { rings: None, is_answered: false, key: None, ending })
        }
        Some(15) => ends(EndingClass::Interrupted, None, true),
        Some(16) => Scene::Wait(Reason::Throttled),
        Some(17) => Scene::Wait(Reason::DeadlineExceeded),
        Some(18) => {
            let ending =
                Ending { sip_code: Some(487), ..Ending::without_answer(EndingClass::RingTimeout, Rang::Yes) };
            let rings = Some(Duration::from_secs(request.ring_timeout_s.into()));
            Scene::Attempt(Act { rings, is_answered: false, key: None, ending })
        }
        // No call of a test key is accepted to another number.
        Some(_) | None => Scene::End(Reason::NotPermitted),
    }
}

/// A call that is answered, in which a key of this meaning is pressed, if the call gives that meaning to one.
fn answered(request: &CallRequest, presses: Option<KeyAction>, machine: Option<Detection>) -> Scene {
    let keys = request.acknowledgement.as_ref().map(|wanted| &wanted.keys);
    let key = keys.zip(presses).and_then(|(keys, action)| {
        keys.iter().find(|(_, means)| **means == action).map(|(key, means)| (*key, *means))
    });
    let talk = Talk { key: key.map(|(key, _)| key), machine, played: true, ..Talk::NONE };
    let ending = Ending {
        sip_code: Some(200),
        q850: Some(16),
        talk,
        ..Ending::without_answer(EndingClass::Answered, Rang::Yes)
    };
    Scene::Attempt(Act { rings: Some(BEAT), is_answered: true, key, ending })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        failover::{self, Next, Policy},
        fleet::OnRefusal,
    };

    fn request(figure: u8, more: serde_json::Value) -> CallRequest {
        let mut body = json!({"to": format!("{PREFIX}{figure:02}"), "message": {"audio_id": "builtin:beep"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    /// Plays a call through as the control plane does.
    fn reason(request: &CallRequest) -> (Reason, usize) {
        let mut earlier = Vec::new();
        loop {
            match scene(request, earlier.len()) {
                Scene::End(reason) | Scene::Wait(reason) => return (reason, earlier.len()),
                Scene::Attempt(act) => {
                    let (on_480, on_603) = (OnRefusal::Stop, OnRefusal::Stop);
                    let policy = Policy { request, canceled: false, on_480, on_603 };
                    let next = failover::next(&act.ending, &earlier, policy);
                    earlier.push(act.ending.class);
                    if let Next::Stop(reason) = next {
                        return (reason, earlier.len());
                    }
                }
            }
        }
    }

    #[test]
    fn each_number_has_its_outcome() {
        let acknowledged = json!({"acknowledgement": {"keys": {"1": "acknowledge", "2": "escalate"}}});
        let plain = json!({});
        for (figure, more, expected) in [
            (0, &acknowledged, (Reason::Acknowledged, 1)),
            (0, &plain, (Reason::Played, 1)),
            (1, &acknowledged, (Reason::AnsweredNoAck, 1)),
            (1, &plain, (Reason::Played, 1)),
            (2, &acknowledged, (Reason::Escalated, 1)),
            (3, &plain, (Reason::Machine, 1)),
            (4, &plain, (Reason::UserBusy, 1)),
            (5, &plain, (Reason::Declined, 1)),
            (6, &plain, (Reason::RingTimeout, 1)),
            (7, &plain, (Reason::Unreachable, 1)),
            (8, &plain, (Reason::InvalidNumber, 1)),
            (9, &plain, (Reason::NotPermitted, 0)),
            (10, &plain, (Reason::NoHealthyRoute, 0)),
            (11, &json!({"failover": {"attempts_max": 3}}), (Reason::TrunkUnavailable, 3)),
            (12, &acknowledged, (Reason::Acknowledged, 2)),
            (13, &plain, (Reason::MediaError, 0)),
            (14, &json!({"on_unknown": "fail"}), (Reason::OutcomeUnknown, 1)),
            (
                14,
                &json!({"on_unknown": "retry", "failover": {"attempts_max": 2}}),
                (Reason::OutcomeUnknown, 2),
            ),
            (15, &json!({"on_unknown": "fail"}), (Reason::Interrupted, 1)),
            (16, &plain, (Reason::Throttled, 0)),
            (17, &plain, (Reason::DeadlineExceeded, 0)),
            (18, &plain, (Reason::RingTimeout, 1)),
        ] {
            assert_eq!(reason(&request(figure, more.clone())), expected, "{figure} {more}");
        }
    }

    #[test]
    fn no_other_number_stands_for_anything() {
        for figure in 0..=LAST {
            assert!(knows(&request(figure, json!({})).to));
        }
        for number in
            ["+12025550119", "+12025550199", "+1202555010", "+120255501000", "+48221234567", "+12025560100"]
        {
            assert!(!knows(&number.parse().unwrap()), "{number}");
        }
    }
}
