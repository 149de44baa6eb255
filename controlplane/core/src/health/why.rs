//! Why a trunk or a node is as it is: state, since when, evidence, and what comes next.
//!
//! Plain values for `trunk why`, the API and the console. Times are spans up to now, so that a page reads
//! right whatever the clocks of those who read it say.

use std::time::Instant;

use serde::Serialize;

use super::{
    Cause, Contact, Evidence, Lack, NodeEvidence, NodeHealth, NodeState, Registration, Scope, Strain, Tally,
    TrunkHealth, TrunkState,
    evidence::History,
    moment::{Moment, millis},
    state::{Proof, State},
};

/// Why a trunk is as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// Its state.
    pub state: TrunkState,
    /// For how long, in ms.
    pub for_ms: u64,
    /// All of it in one line for a human.
    pub sentence: String,
    /// What tripped it, where it is tripped.
    pub cause: Option<Cause>,
    /// What would change it next.
    pub next: Option<Next>,
    /// Failures in a row that the back-off has grown by.
    pub back_off_level: u32,
    /// The back-off that goes with them, without its jitter.
    pub back_off_ms: u64,
    /// Why it is used after others.
    pub strains: Vec<Strain>,
    /// What qualify says; none where it is not qualified.
    pub contact: Option<Contact>,
    /// The latest round trip.
    pub qualify_rtt_us: Option<u64>,
    /// What the registration says; none where it does not register.
    pub registration: Option<Registration>,
    /// Recent calls that did not get through, of those that count.
    pub not_through: Tally,
    /// Recent calls that nobody answered, of those that count (1 − ASR).
    pub not_answered: Tally,
    /// What it does not take.
    pub suspensions: Vec<Suspension>,
    /// How it came to this, the latest first.
    pub history: Vec<Change<TrunkState, Evidence>>,
}

impl Why {
    /// Answer-seizure ratio of the calls that count; none without any.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a window has at most some hundred outcomes")]
    pub fn asr(&self) -> Option<f64> {
        let Tally { failed, calls, .. } = self.not_answered;
        (calls > 0).then(|| 1.0 - failed as f64 / calls as f64)
    }
}

/// A destination or caller id that is suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspension {
    /// Which.
    pub scope: Scope,
    /// After so many failures.
    pub failures: u32,
    /// For so long from now, in ms.
    pub ends_in_ms: u64,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Next {
    /// In how many ms; none where an event brings it.
    pub in_ms: Option<u64>,
    /// What.
    pub what: String,
}

/// A change of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change<S, E> {
    /// From this state.
    pub from: S,
    /// To this one.
    pub to: S,
    /// So long ago, in ms.
    pub ago_ms: u64,
    /// The evidence.
    pub evidence: E,
    /// The evidence for a human.
    pub sentence: String,
}

fn changes<S: Copy, E: Clone + ToString>(history: &History<S, E>, at: Moment) -> Vec<Change<S, E>> {
    let change = |kept: &super::evidence::Kept<S, E>| Change {
        from: kept.from,
        to: kept.to,
        ago_ms: millis(at.since(kept.at)),
        evidence: kept.evidence.clone(),
        sentence: kept.evidence.to_string(),
    };
    history.iter().rev().map(change).collect()
}

/// A span as people say it.
fn spoken(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}

impl TrunkHealth {
    /// Why it is as it is.
    #[must_use]
    pub fn why(&self, now: Instant) -> Why {
        let at = self.clock.moment(now);
        let (inner, facts) = (&self.inner, &self.inner.facts);
        let history = changes(&inner.history, at);
        let next = self.next(at);
        let for_ms = millis(at.since(inner.since));
        let suspensions: Vec<_> = (facts.suspensions.in_force(at))
            .map(|s| Suspension {
                scope: s.scope.clone(),
                failures: s.failures,
                ends_in_ms: millis(s.until.since(at)),
            })
            .collect();
        let mut sentence = format!("{} for {}", self.state(), spoken(for_ms));
        if let Some(latest) = history.first() {
            sentence += &format!(": {}", latest.sentence);
        }
        if let Some(next) = &next {
            sentence += &match next.in_ms {
                Some(ms) => format!("; in {} {}", spoken(ms), next.what),
                None => format!("; {}", next.what),
            };
        }
        for suspension in &suspensions {
            sentence += &format!("; no {} for {}", suspension.scope, spoken(suspension.ends_in_ms));
        }
        Why {
            state: self.state(),
            for_ms,
            sentence,
            cause: match inner.state {
                State::Tripped { cause, .. } => Some(cause),
                State::Unknown | State::Healthy | State::Degraded | State::Probation(_) | State::Disabled => {
                    None
                }
            },
            next,
            back_off_level: inner.level,
            back_off_ms: millis(self.back_off_span()),
            strains: facts.strains.list(),
            contact: facts.contact,
            qualify_rtt_us: facts.strains.rtt_us(),
            registration: facts.registration,
            not_through: facts.outcomes.effectiveness(),
            not_answered: facts.outcomes.answers(),
            suspensions,
            history,
        }
    }

    fn next(&self, at: Moment) -> Option<Next> {
        let in_ms = |moment: Moment| Some(millis(moment.since(at)));
        let event = |what: &str| Some(Next { in_ms: None, what: what.to_owned() });
        let needed = self.policy.probation_successes;
        match (&self.inner.state, self.inner.proof) {
            (State::Unknown, _) => event("good news or a call that gets through makes it healthy"),
            (State::Healthy, _) => None,
            (State::Degraded, _) => event("figures back within their limits make it healthy"),
            (State::Disabled, _) => event("an operator may enable it"),
            (State::Tripped { until, failed_again: true, .. }, _) => {
                Some(Next { in_ms: in_ms(*until), what: "a longer back-off, for it failed again".to_owned() })
            }
            (State::Tripped { until, failed_again: false, .. }, proof) => {
                let what = match (self.inner.facts.down(), proof) {
                    (Some((cause, _)), _) => format!("probation, unless {cause} holds"),
                    (None, Proof::Call) => "probation, where calls must get through".to_owned(),
                    (None, Proof::Facts) => "probation".to_owned(),
                };
                Some(Next { in_ms: in_ms(*until), what })
            }
            (State::Probation(p), Proof::Call) if p.wants_canary(at) => {
                event("a canary is tried before customers' calls")
            }
            (State::Probation(p), Proof::Call) => {
                event(&format!("{} of {needed} calls got through; OPTIONS do not count", p.successes))
            }
            (State::Probation(p), Proof::Facts) => Some(Next {
                in_ms: in_ms(p.until),
                what: format!(
                    "healthy, if contact and registration hold, or after {needed} calls ({} so far)",
                    p.successes
                ),
            }),
        }
    }
}

/// Why a node is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeWhy {
    /// Its state.
    pub state: NodeState,
    /// Whether an operator drains it.
    pub draining: bool,
    /// For how long it has been in its state, in ms.
    pub for_ms: u64,
    /// What is missing.
    pub lack: Lack,
    /// All of it in one line for a human.
    pub sentence: String,
    /// In how many ms it is looked at again; none where an event brings that.
    pub next_in_ms: Option<u64>,
    /// How it came to this, the latest first.
    pub history: Vec<Change<NodeState, NodeEvidence>>,
}

impl NodeHealth {
    /// Why it is as it is.
    #[must_use]
    pub fn why(&self, now: Instant) -> NodeWhy {
        let at = self.clock.moment(now);
        let for_ms = millis(self.age(now));
        let lack = self.inner.lack;
        let missing = NodeEvidence { lack, for_ms: 0 };
        let draining = if self.inner.draining { "; an operator drains it" } else { "" };
        NodeWhy {
            state: self.state(),
            draining: self.inner.draining,
            for_ms,
            lack,
            sentence: format!("{} for {}: {missing}{draining}", self.state(), spoken(for_ms)),
            next_in_ms: self.next_deadline().map(|due| millis(due.saturating_duration_since(now))),
            history: changes(&self.inner.history, at),
        }
    }
}
