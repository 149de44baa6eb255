//! Every number of trunk and node health, with its reason.
//!
//! The defaults are for carriers that are qualified every 2 to 30 s and trunks of 0 to 100 calls per second;
//! an alerting fleet has trunks that see a call per hour, so nothing here waits for volume alone.

use std::time::Duration;

/// The numbers for trunks. One value for the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// How long an outcome of a call is evidence. Five minutes: long enough for a quiet trunk to collect
    /// evidence from several destinations, short enough that a carrier's bad quarter of an hour is over
    /// when it is over.
    pub window: Duration,
    /// Most outcomes kept per trunk, so that a busy trunk is judged by its latest seconds: 128.
    pub outcomes_max: usize,
    /// Fewest destinations whose calls must fail before outcomes trip a trunk. Three: the evidence must
    /// stand without its worst destination, and one that remains alone could be barred as well.
    pub destinations_min: usize,
    /// Share of failed calls from which outcomes trip a trunk. 0.8: a carrier that fails half of them still
    /// carries calls that nobody else may be able to carry; it is degraded instead.
    pub trip_ratio: f64,
    /// Failed canaries in a row, with no customer's call getting through in between, that trip a trunk.
    /// Two: a single one may have met a busy phone at the other end.
    pub canary_failures_max: u32,
    /// Shortest wait for progress whose vain end is held against the trunk. Six seconds: mobile numbers
    /// abroad often need five to be found (PDD), and a customer may ask for a `progress_timeout_s` of 1.
    pub no_progress_min: Duration,

    /// The first back-off. Five seconds: a cable that was pulled and put back costs little more.
    pub back_off_min: Duration,
    /// The longest. Ten minutes: what an operator finds bearable after a long night's outage.
    pub back_off_max: Duration,
    /// Share of the back-off that is added by chance, so that a carrier which comes back is not tried by all
    /// trunks at once: 0.2.
    pub back_off_jitter: f64,
    /// How long a contact must have answered without a break before probation, from the second trip on.
    /// Ten seconds: a carrier that flaps every 3 s never gets there.
    pub steady_min: Duration,
    /// Calls that got through outside probation for one step of the back-off to be forgiven: 10.
    pub forgive_after: u32,

    /// Calls that must get through in probation. Five: with 1, 2, 4, 8, 16 at a time that is a ramp.
    pub probation_successes: u32,
    /// How long a trial call keeps its place in probation when nothing is heard of it. 40 s: a customer's
    /// progress and ring time-outs together, by default 33 s.
    pub trial_max: Duration,
    /// How long probation waits for a canary before it uses a customer's call: 15 s.
    pub canary_wait: Duration,
    /// How long contact and registration must hold in probation to end it, where no call had failed: 30 s,
    /// one slow qualify interval.
    pub probation_steady: Duration,

    /// Qualify round trip from which a trunk is degraded. 400 ms: a geostationary hop is below, a congested
    /// link is above.
    pub rtt_enter: Duration,
    /// Round trip below which it is no longer: 250 ms.
    pub rtt_leave: Duration,
    /// Round trips in a row beyond a threshold: 3, since a single OPTIONS says little.
    pub rtt_samples: u32,
    /// Share of calls that got through (ITU-T E.425: network effectiveness) below which a trunk is
    /// degraded: 0.7.
    pub effectiveness_enter: f64,
    /// Share from which it is no longer: 0.85.
    pub effectiveness_leave: f64,
    /// Fewest outcomes for that: 10.
    pub effectiveness_calls_min: usize,
    /// ASR below which a trunk is degraded: 0.1. Nights, and lists of dead numbers, are low too: this is
    /// only for the carrier that fakes ringing, which nothing else shows.
    pub asr_enter: f64,
    /// ASR from which it is no longer: 0.2.
    pub asr_leave: f64,
    /// Fewest outcomes for that: 30.
    pub asr_calls_min: usize,
    /// How long a trunk that its calls degraded stays so without any call: 10 min. It is used after the
    /// others, so it may get none, and no evidence would ever come.
    pub degraded_rest: Duration,

    /// Failures of one destination or caller id, in a window, that suspend it. Two: one may be chance.
    pub suspend_after: u32,
    /// The first suspension: 1 min.
    pub suspension_min: Duration,
    /// The longest: 1 h. A barred destination stays barred for days, and a trial an hour harms nobody.
    pub suspension_max: Duration,
    /// Most destinations and caller ids remembered per trunk: 64. Beyond, the one that is due first goes.
    pub suspensions_max: usize,

    /// Largest share of the trunks that outcomes of calls may keep out of service: 0.5. More than half of
    /// all carriers at once are rarely broken; more often what they share is (a number, a network, us).
    pub ejected_max: f64,
    /// Share of a route's trunks that must be usable; below, the route fails open: 0.5.
    pub panic_below: f64,
    /// Transitions kept per trunk for `why`: 16.
    pub history_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            window: s(300),
            outcomes_max: 128,
            destinations_min: 3,
            trip_ratio: 0.8,
            canary_failures_max: 2,
            no_progress_min: s(6),
            back_off_min: s(5),
            back_off_max: s(600),
            back_off_jitter: 0.2,
            steady_min: s(10),
            forgive_after: 10,
            probation_successes: 5,
            trial_max: s(40),
            canary_wait: s(15),
            probation_steady: s(30),
            rtt_enter: Duration::from_millis(400),
            rtt_leave: Duration::from_millis(250),
            rtt_samples: 3,
            effectiveness_enter: 0.7,
            effectiveness_leave: 0.85,
            effectiveness_calls_min: 10,
            asr_enter: 0.1,
            asr_leave: 0.2,
            asr_calls_min: 30,
            degraded_rest: s(600),
            suspend_after: 2,
            suspension_min: s(60),
            suspension_max: s(3_600),
            suspensions_max: 64,
            ejected_max: 0.5,
            panic_below: 0.5,
            history_max: 16,
        }
    }
}

/// The numbers for nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePolicy {
    /// Age of the last heartbeat from which a node is suspect. Six seconds: three of its heartbeats.
    pub heartbeat_max: Duration,
    /// How long a node without an AMI session is only suspect. Ten seconds: Asterisk restarts in five.
    pub lost_after: Duration,
    /// How long everything must hold before a node that was suspect or lost is alive. Three seconds: a
    /// restarting Asterisk accepts AMI before all its trunks are loaded.
    pub steady_min: Duration,
    /// Faults of its own (a name that does not resolve, an Originate refused) that make it suspect: 3.
    pub faults_max: usize,
    /// Within which time, and how long without another until they are forgotten: 1 min.
    pub faults_window: Duration,
    /// Transitions kept per node for `why`: 16.
    pub history_max: usize,
}

impl Default for NodePolicy {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            heartbeat_max: s(6),
            lost_after: s(10),
            steady_min: s(3),
            faults_max: 3,
            faults_window: s(60),
            history_max: 16,
        }
    }
}

/// The back-off after the `level`th evidence: doubled each time, up to `max`. Level 0 is none.
#[must_use]
pub(super) fn back_off(level: u32, min: Duration, max: Duration) -> Duration {
    match level.checked_sub(1) {
        None => Duration::ZERO,
        // Beyond 2^20 the maximum is certain, and the product stays in range.
        Some(doublings) => min.saturating_mul(1 << doublings.min(20)).min(max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_maximum() {
        let p = Policy::default();
        let at = |level| back_off(level, p.back_off_min, p.back_off_max).as_secs();
        assert_eq!([at(0), at(1), at(2), at(3), at(7), at(8), at(u32::MAX)], [0, 5, 10, 20, 320, 600, 600]);
    }

    #[test]
    fn thresholds_to_enter_and_to_leave_lie_apart() {
        let p = Policy::default();
        assert!(p.rtt_leave < p.rtt_enter);
        assert!(p.effectiveness_enter < p.effectiveness_leave);
        assert!(p.asr_enter < p.asr_leave);
    }
}
