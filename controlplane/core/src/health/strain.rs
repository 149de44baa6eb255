//! Why a trunk that works is used after others: round trip, calls that get through, calls answered.
//!
//! Each strain has a threshold to enter and another to leave, so that a figure which hovers does not make
//! the trunk hop. Strains from calls rest on the same rule as trips (see [`super::outcomes`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Customers, Policy,
    evidence::{Strain, rtt_us},
    outcomes::Outcomes,
};

/// The strains of one trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Strains {
    slow: bool,
    few_through: bool,
    few_answered: bool,
    spared: bool,
    /// The latest round trip.
    rtt_us: Option<u64>,
    /// Round trips in a row that speak for the other side of the threshold.
    rtt_against: u32,
}

impl Strains {
    /// A qualify round trip. The same figure to the µs is the same OPTIONS, told again by a snapshot.
    pub(super) fn round_trip(&mut self, rtt: Duration, policy: &Policy) {
        if self.rtt_us.replace(rtt_us(rtt)) == Some(rtt_us(rtt)) {
            return;
        }
        let against = if self.slow { rtt < policy.rtt_leave } else { rtt >= policy.rtt_enter };
        self.rtt_against = if against { self.rtt_against + 1 } else { 0 };
        if self.rtt_against >= policy.rtt_samples {
            self.slow = !self.slow;
            self.rtt_against = 0;
        }
    }

    /// Weighs the outcomes of calls anew.
    pub(super) fn calls(&mut self, outcomes: &Outcomes, customers: Customers, policy: &Policy) {
        self.few_through = outcomes.effectiveness_low(customers, policy).unwrap_or(self.few_through);
        self.few_answered = outcomes.asr_low(customers, policy).unwrap_or(self.few_answered);
    }

    /// It would have been tripped.
    pub(super) fn spare(&mut self) {
        self.spared = true;
    }

    /// A call got through: there was no need to trip it.
    pub(super) fn got_through(&mut self) {
        self.spared = false;
    }

    /// Forgets what calls have shown.
    pub(super) fn forget_calls(&mut self) {
        self.few_through = false;
        self.few_answered = false;
        self.spared = false;
    }

    pub(super) const fn by_calls(&self) -> bool {
        self.few_through || self.few_answered || self.spared
    }

    pub(super) const fn any(&self) -> bool {
        self.slow || self.by_calls()
    }

    pub(super) const fn rtt_us(&self) -> Option<u64> {
        self.rtt_us
    }

    /// Those that hold.
    pub(super) fn list(&self) -> Vec<Strain> {
        let all = [
            (self.slow, Strain::SlowRoundTrip),
            (self.few_through, Strain::FewGetThrough),
            (self.few_answered, Strain::FewAnswered),
            (self.spared, Strain::Spared),
        ];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, strain)| strain).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(samples: &[u64]) -> bool {
        let mut strains = Strains::default();
        for ms in samples {
            strains.round_trip(Duration::from_millis(*ms), &Policy::default());
        }
        strains.any()
    }

    #[test]
    fn three_long_round_trips_in_a_row_and_three_short_ones_back() {
        assert!(!after(&[500, 510]));
        assert!(!after(&[500, 510, 30, 520, 530]));
        assert!(after(&[500, 510, 520]));
        assert!(after(&[500, 510, 520, 300, 310, 320]), "between the thresholds it stays");
        assert!(after(&[500, 510, 520, 30, 31]));
        assert!(!after(&[500, 510, 520, 30, 31, 32]));
    }

    #[test]
    fn one_options_told_three_times_is_one() {
        assert!(!after(&[500, 500, 500, 500]));
    }

    proptest! {
        #[test]
        fn round_trips_between_the_thresholds_change_nothing(start in any::<bool>(), samples in prop::collection::vec(250u64..400, 0..50)) {
            let mut all = if start { vec![500, 501, 502] } else { vec![] };
            all.extend(samples);
            prop_assert_eq!(after(&all), start);
        }
    }
}
