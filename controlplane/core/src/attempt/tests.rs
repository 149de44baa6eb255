//! The attempt machine: the measured event orders of Asterisk 22, cuts at every state, and properties over
//! random orders.

use proptest::prelude::*;

use super::*;
use crate::{call::Detection, ending::EarlyMedia, request::Key};

pub(super) const LIMITS: Limits = Limits {
    progress: Duration::from_secs(8),
    ring: Duration::from_secs(25),
    talk: Duration::from_secs(120),
    reconcile: Duration::from_secs(5),
};
pub(super) const READING: Reading =
    Reading { early_media: EarlyMedia::Maybe, timer_b: Duration::from_millis(6_400) };

pub(super) struct Played {
    pub(super) start: Instant,
    pub(super) attempt: Attempt,
    pub(super) done: Vec<Do>,
}

impl Played {
    pub(super) fn new() -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "an Instant can only be had from the clock; only differences count"
        )]
        let start = Instant::now();
        Self { start, attempt: Attempt::new(start, LIMITS, READING), done: Vec::new() }
    }

    pub(super) fn at(&mut self, ms: u64, event: Event) -> &mut Self {
        let now = self.start + Duration::from_millis(ms);
        self.done.extend(self.attempt.on_deadline(now));
        self.done.extend(self.attempt.handle(now, event));
        self
    }

    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        let now = self.start + Duration::from_millis(ms);
        self.done.extend(self.attempt.on_deadline(now));
        self
    }

    pub(super) fn ending(&self) -> (EndingClass, Rang) {
        match self.done.last() {
            Some(Do::End(ending)) => (ending.class, ending.rang),
            other => panic!("not ended: {other:?}, {:?}", self.attempt),
        }
    }
}

const fn hung(sip: u16, q850: u16) -> Event {
    Event::HungUp(Answer { sip_code: Some(sip), q850: Some(q850) })
}

#[test]
fn answered_played_and_hung_up() {
    let mut p = Played::new();
    p.at(1, Event::Accepted).at(2, Event::Channel).at(200, Event::Ringing).at(900, Event::Answered);
    p.at(3_990, Event::Played);
    p.at(4_000, Event::HungUp(Answer { sip_code: None, q850: Some(0) }));
    assert_eq!(p.ending(), (EndingClass::Answered, Rang::Yes));
    let reports: Vec<_> = p.done.iter().filter(|d| matches!(d, Do::Report(_))).collect();
    assert_eq!(reports.len(), 3);
}

#[test]
fn a_503_whose_originate_response_comes_before_its_hangup() {
    let mut p = Played::new();
    p.at(1, Event::Channel)
        .at(2, Event::Accepted)
        .at(3, Event::OriginateFailed { timed_out: false })
        .at(4, hung(503, 34));
    assert_eq!(p.ending(), (EndingClass::Congestion, Rang::No));
}

#[test]
fn an_originate_that_timed_out_at_the_pbx_while_we_slept() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Channel);
    p.done.extend(p.attempt.handle(p.start, Event::OriginateFailed { timed_out: true }));
    p.done.extend(p.attempt.handle(p.start, hung(480, 19)));
    assert_eq!(
        p.ending(),
        (EndingClass::NoProgress, Rang::Maybe),
        "a 480 of Asterisk's own is no callee away"
    );
}

#[test]
fn a_failure_without_a_channel_is_a_contact_that_is_down_once_the_recorder_agrees() {
    let mut p = Played::new();
    p.at(1, Event::Accepted).at(2, Event::OriginateFailed { timed_out: false }).wait(50);
    assert!(!p.done.contains(&Do::AskRecord));
    p.wait(103);
    assert_eq!(p.done.last(), Some(&Do::AskRecord));
    p.at(105, Event::Recorded(None));
    assert_eq!(p.ending(), (EndingClass::ContactDown, Rang::No));
}

#[test]
fn a_channel_whose_events_were_missed_is_found_in_the_recorder() {
    let mut p = Played::new();
    p.at(1, Event::Accepted).at(2, Event::OriginateFailed { timed_out: false }).wait(103);
    let answer = Answer { sip_code: Some(486), q850: Some(17) };
    p.at(
        105,
        Event::Recorded(Some(Record {
            state: Live::Ringing,
            ended: true,
            answer,
            talk: Talk::NONE,
            tells_keys: true,
            stopped: false,
        })),
    );
    assert_eq!(p.ending(), (EndingClass::UserBusy, Rang::Yes));
}

#[test]
fn a_carrier_that_says_trying_and_no_more_is_cut_off_at_the_progress_timeout() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Channel).wait(7_999);
    assert!(!p.done.contains(&Do::HangUp));
    p.wait(8_000);
    assert_eq!(p.done.last(), Some(&Do::HangUp));
    p.at(8_010, hung(487, 127));
    assert_eq!(p.ending(), (EndingClass::NoProgress, Rang::Maybe));
}

#[test]
fn ringing_starts_the_ring_timeout_and_ends_as_such() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Channel).at(7_000, Event::Ringing).wait(31_999);
    assert!(!p.done.contains(&Do::HangUp));
    p.wait(32_000).at(32_010, hung(487, 127));
    assert_eq!(p.ending(), (EndingClass::RingTimeout, Rang::Yes));
}

#[test]
fn an_answer_that_crosses_the_ring_timeout_is_no_answered_call() {
    let mut p = Played::new();
    p.at(0, Event::Accepted)
        .at(1, Event::Ringing)
        .wait(25_001)
        .at(25_002, Event::Answered)
        .at(25_003, hung(200, 16));
    assert_eq!(p.ending(), (EndingClass::RingTimeout, Rang::Yes));
}

#[test]
fn a_call_that_talks_too_long_is_ended_from_outside() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Answered).wait(120_001);
    assert_eq!(p.done.last(), Some(&Do::HangUp));
    p.at(120_010, Event::HungUp(Answer::default()));
    assert_eq!(p.ending(), (EndingClass::Answered, Rang::Yes));
}

#[test]
fn what_was_never_sent_is_told_apart_from_what_is_unresolved() {
    let mut p = Played::new();
    assert_eq!(p.at(1, Event::NotSent).ending(), (EndingClass::NotSent, Rang::No));
    let mut p = Played::new();
    assert_eq!(p.at(1, Event::Rejected).ending(), (EndingClass::Rejected, Rang::No));
    let mut p = Played::new();
    p.at(1, Event::Unresolved);
    assert_eq!(p.done, [Do::Reconcile]);
    p.wait(5_001);
    assert_eq!(p.ending(), (EndingClass::Unknown, Rang::Maybe));
}

#[test]
fn what_the_gate_has_barred_was_not_sent() {
    let mut p = Played::new();
    p.at(1, Event::Unresolved).at(300, Event::Settled(Settlement::Barred));
    assert_eq!(p.ending(), (EndingClass::NotSent, Rang::No));
    let Some(Do::End(ending)) = p.done.last() else { panic!() };
    assert!(!p.attempt.may_live_on(ending), "nothing of it can turn up");
    let mut p = Played::new();
    p.at(1, Event::Cancel).at(2, Event::Cut).at(300, Event::Settled(Settlement::Barred));
    assert_eq!(p.ending(), (EndingClass::NotSent, Rang::No));
}

#[test]
fn a_bar_does_not_undo_what_asterisk_told() {
    for told in [Event::Accepted, Event::Channel] {
        let mut p = Played::new();
        p.at(1, told).at(2, Event::Cut).at(300, Event::Settled(Settlement::Barred));
        assert_eq!(p.ending(), (EndingClass::Unknown, Rang::Maybe), "{told:?}");
    }
    let mut p = Played::new();
    p.at(1, Event::Ringing).at(2, Event::Cut).at(300, Event::Settled(Settlement::Barred));
    assert_eq!(p.ending(), (EndingClass::Interrupted, Rang::Yes));
}

#[test]
fn after_a_restart_a_bar_counts_for_what_was_stored_as_sending() {
    use AttemptStatus as Status;
    for (status, rang, expected) in [
        (Status::Sending, Rang::No, EndingClass::NotSent),
        (Status::Sending, Rang::Maybe, EndingClass::Unknown),
        (Status::Initiated, Rang::No, EndingClass::Unknown),
        (Status::Ringing, Rang::Yes, EndingClass::Interrupted),
        (Status::InProgress, Rang::Yes, EndingClass::Interrupted),
    ] {
        let mut p = Played::new();
        p.attempt = Attempt::resumed(p.start, Duration::from_secs(1), LIMITS, READING, status, rang);
        p.at(100, Event::Settled(Settlement::Barred));
        assert_eq!(p.ending().0, expected, "{status} {rang}");
    }
}

#[test]
fn a_cut_while_dialling_is_settled_by_what_is_found() {
    let cut = || {
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(1, Event::Channel).at(100, Event::Cut);
        assert_eq!(p.done.last(), Some(&Do::Reconcile));
        p
    };
    let answer = Answer { sip_code: Some(603), q850: Some(21) };
    let record = Record {
        state: Live::Dialling,
        ended: true,
        answer,
        talk: Talk::NONE,
        tells_keys: true,
        stopped: false,
    };
    assert_eq!(
        cut().at(200, Event::Settled(Settlement::Recorded(record))).ending(),
        (EndingClass::Declined, Rang::Maybe)
    );
    assert_eq!(
        cut().at(200, Event::Settled(Settlement::Absent)).ending(),
        (EndingClass::Unknown, Rang::Maybe)
    );
    assert_eq!(cut().wait(5_101).ending(), (EndingClass::Unknown, Rang::Maybe));

    let mut living = cut();
    living.at(200, Event::Settled(Settlement::Living(Live::Ringing))).at(900, Event::Answered);
    assert_eq!(living.done.last(), Some(&Do::Report(AttemptStatus::InProgress)));
    living.at(2_000, Event::HungUp(Answer { sip_code: None, q850: Some(16) }));
    assert_eq!(living.ending(), (EndingClass::Answered, Rang::Yes));
}

#[test]
fn a_pbx_that_dies_while_it_rings_or_speaks_is_an_interruption() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Ringing).at(100, Event::Cut).wait(5_101);
    assert_eq!(p.ending(), (EndingClass::Interrupted, Rang::Yes));
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(100, Event::Cut);
    let up = Record {
        state: Live::Up,
        ended: false,
        answer: Answer::default(),
        talk: Talk::NONE,
        tells_keys: true,
        stopped: false,
    };
    p.at(300, Event::Settled(Settlement::Recorded(up)));
    assert_eq!(p.ending(), (EndingClass::Interrupted, Rang::Yes));
}

/// An Asterisk that shuts down in order hangs up what rings, without a SIP answer, and writes its record.
#[test]
fn what_rang_and_was_ended_by_its_own_asterisk_is_an_interruption_until_it_may_have_rung_out() {
    let record = |sip_code| {
        let answer = Answer { sip_code, q850: Some(0) };
        Record {
            state: Live::Ringing,
            ended: true,
            answer,
            talk: Talk::NONE,
            tells_keys: true,
            stopped: false,
        }
    };
    let found = |at: u64, record| {
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(10, Event::Ringing).at(100, Event::Cut);
        p.at(at, Event::Settled(Settlement::Recorded(record))).ending()
    };
    assert_eq!(found(3_000, record(None)), (EndingClass::Interrupted, Rang::Yes));
    // The carrier had answered, after all.
    assert_eq!(found(3_000, record(Some(486))), (EndingClass::UserBusy, Rang::Yes));
    // Taken up later than it could have rung: an earlier process may have ended it for that.
    let resumed = |age: u64| {
        let mut p = Played::new();
        let age = Duration::from_secs(age);
        p.attempt = Attempt::resumed(p.start, age, LIMITS, READING, AttemptStatus::Ringing, Rang::Yes);
        p.at(100, Event::Settled(Settlement::Recorded(record(None)))).ending().0
    };
    assert_eq!((resumed(3), resumed(60)), (EndingClass::Interrupted, EndingClass::EndedAfterRinging));
    // What we were ending ourselves is not interrupted.
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(10, Event::Ringing).at(50, Event::Cancel).at(100, Event::Cut);
    p.at(900, Event::Settled(Settlement::Recorded(record(None))));
    assert_eq!(p.ending().0, EndingClass::Canceled);
}

/// An Asterisk that is stopped in order hangs up what speaks, with cause 0 as a callee's BYE may have: its record knows
/// which it was (measured on 22.10.1; `Shutdown` comes 1.1 s later).
#[test]
fn what_spoke_when_its_own_asterisk_stopped_is_an_interruption() {
    let hung = |q850| Event::HungUp(Answer { sip_code: None, q850: Some(q850) });
    let answer = Answer { sip_code: Some(200), q850: Some(0) };
    let end =
        Record { state: Live::Up, ended: true, answer, talk: Talk::NONE, tells_keys: true, stopped: true };
    let up = || {
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(1, Event::Ringing).at(900, Event::Answered);
        p
    };
    let mut stopped = up();
    stopped.at(2_000, hung(0));
    assert_eq!(stopped.done.last(), Some(&Do::AskRecord));
    assert_eq!(stopped.at(2_001, Event::Recorded(Some(end))).ending(), (EndingClass::Interrupted, Rang::Yes));
    let mut callee = up();
    callee.at(2_000, hung(0)).at(2_001, Event::Recorded(Some(Record { stopped: false, ..end })));
    assert_eq!(callee.ending(), (EndingClass::Answered, Rang::Yes));
    // Found after a cut.
    let mut cut = up();
    cut.at(2_000, Event::Cut).at(2_500, Event::Settled(Settlement::Recorded(end)));
    assert_eq!(cut.ending(), (EndingClass::Interrupted, Rang::Yes));
    // Nothing is asked where nothing can have been cut short.
    assert_eq!(up().at(2_000, hung(16)).ending().0, EndingClass::Answered);
    assert_eq!(up().at(1_900, Event::Played).at(2_000, hung(0)).ending().0, EndingClass::Answered);
    // What we were ending ourselves is not interrupted, and a record that cannot be had interrupts nothing.
    let mut canceled = up();
    canceled.at(1_900, Event::Cancel).at(2_000, hung(0));
    assert_eq!(canceled.ending().0, EndingClass::Answered);
    let mut silent = up();
    silent.at(2_000, hung(0)).wait(4_000);
    assert_eq!(silent.ending().0, EndingClass::Answered);
}

#[test]
fn a_cancel_reaches_an_originate_that_is_still_on_its_way() {
    let mut p = Played::new();
    p.at(1, Event::Cancel);
    assert_eq!(p.done, []);
    p.at(2, Event::Accepted);
    assert_eq!(p.done, [Do::HangUp]);
    p.at(5, hung(487, 127));
    assert_eq!(p.ending().0, EndingClass::Canceled);
}

#[test]
fn a_cancel_during_reconciliation_ends_what_is_found() {
    let mut p = Played::new();
    p.at(1, Event::Accepted).at(2, Event::Ringing).at(3, Event::Cut).at(4, Event::Cancel);
    p.at(300, Event::Settled(Settlement::Living(Live::Ringing)));
    assert_eq!(p.done.last(), Some(&Do::HangUp));
    p.at(305, hung(487, 127));
    assert_eq!(p.ending().0, EndingClass::Canceled);
}

#[test]
fn a_restarted_process_goes_on_from_what_was_stored() {
    let now = Played::new().start;
    let mut resumed =
        Attempt::resumed(now, Duration::ZERO, LIMITS, READING, AttemptStatus::Ringing, Rang::Yes);
    let done = resumed.handle(now, Event::Settled(Settlement::Living(Live::Ringing)));
    assert_eq!(done, [], "nothing new to report");
    assert_eq!(resumed.next_deadline(), Some(now + LIMITS.ring));
}

#[test]
fn a_silent_carrier_stays_silent_over_a_restart() {
    let p = Played::new();
    let record = |sip_code, q850| {
        let answer = Answer { sip_code, q850: Some(q850) };
        Event::Settled(Settlement::Recorded(Record {
            state: Live::Dialling,
            ended: true,
            answer,
            talk: Talk::NONE,
            tells_keys: true,
            stopped: false,
        }))
    };
    let resumed = || {
        Attempt::resumed(p.start, Duration::from_secs(8), LIMITS, READING, AttemptStatus::Initiated, Rang::No)
    };
    let ending = |event| match resumed().handle(p.start, event).first() {
        Some(Do::End(ending)) => (ending.class, ending.rang),
        other => panic!("{other:?}"),
    };
    assert_eq!(ending(record(None, 18)), (EndingClass::CarrierSilent, Rang::Maybe));
    assert_eq!(ending(record(Some(408), 18)), (EndingClass::CarrierSilent, Rang::Maybe));
    assert_eq!(ending(record(Some(503), 34)), (EndingClass::EndedAfterProgress, Rang::Maybe));
    assert_eq!(ending(record(Some(486), 17)).0, EndingClass::UserBusy);
}

#[test]
fn a_183_is_reported_so_that_it_outlives_this_process() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Channel).at(2, Event::Progress);
    assert_eq!(p.done.last(), Some(&Do::Report(AttemptStatus::Initiated)));
    assert_eq!(p.attempt.rang(), Rang::Maybe);
    let before = p.done.len();
    p.at(3, Event::Progress);
    assert_eq!(p.done.len(), before, "said once");
}

#[test]
fn an_answer_found_after_our_hangup_was_lost_is_no_answered_call() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Ringing).wait(25_001).at(25_002, Event::Cut);
    p.at(25_100, Event::Settled(Settlement::Living(Live::Up)));
    assert_eq!(p.done.last(), Some(&Do::HangUp));
    assert_eq!(p.at(25_200, hung(200, 16)).ending(), (EndingClass::RingTimeout, Rang::Yes));
}

#[test]
fn a_channel_that_does_not_die_is_given_up() {
    let mut p = Played::new();
    p.at(0, Event::Accepted).at(1, Event::Answered).wait(120_001);
    let mut ms = 120_001;
    for _ in 0..10 {
        ms += 2_001;
        p.wait(ms).at(ms, Event::Settled(Settlement::Living(Live::Up)));
    }
    assert_eq!(p.ending(), (EndingClass::Answered, Rang::Yes));
    assert_eq!(p.done.iter().filter(|d| matches!(d, Do::HangUp)).count(), usize::from(HANG_UPS_MAX));
    let Some(Do::End(ending)) = p.done.last() else { panic!() };
    assert!(p.attempt.may_live_on(ending), "the node goes on being asked for it");
}

fn key() -> impl Strategy<Value = Key> {
    prop::sample::select(&['1', '2', '5', '*'][..]).prop_map(|key| key.try_into().unwrap())
}

pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let live = || prop::sample::select(&[Live::Dialling, Live::Ringing, Live::Up][..]);
    let answer = || {
        (prop::option::of(100u16..700), prop::option::of(0u16..128))
            .prop_map(|(sip_code, q850)| Answer { sip_code, q850 })
    };
    let record = move || {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        (live(), any::<bool>(), answer(), prop::option::of(key()), flags).prop_map(
            |(state, ended, answer, key, (no_media, tells_keys, stopped))| {
                let talk = Talk { key: key.filter(|_| tells_keys), no_media, ..Talk::NONE };
                Record { state, ended, answer, talk, tells_keys, stopped }
            },
        )
    };
    prop_oneof![
        prop::sample::select(
            &[
                Event::Accepted,
                Event::Rejected,
                Event::NotSent,
                Event::Unresolved,
                Event::Channel,
                Event::Progress,
                Event::Ringing,
                Event::Answered,
                Event::Machine(Detection::Machine),
                Event::Played,
                Event::NoMedia,
                Event::OriginateFailed { timed_out: false },
                Event::OriginateFailed { timed_out: true },
                Event::Cut,
                Event::Cancel,
                Event::Settled(Settlement::Absent),
                Event::Settled(Settlement::Barred),
            ][..]
        ),
        key().prop_map(Event::Key),
        answer().prop_map(Event::HungUp),
        prop::option::of(record()).prop_map(Event::Recorded),
        live().prop_map(|live| Event::Settled(Settlement::Living(live))),
        record().prop_map(|record| Event::Settled(Settlement::Recorded(record))),
    ]
}

proptest! {
    /// Whatever comes, in whatever order: once an originate is settled, the machine always waits for
    /// something with a deadline, following the deadlines always ends it, and it ends once.
    #[test]
    fn no_order_of_events_leaves_it_stuck_or_ends_it_twice(
        events in prop::collection::vec((0u64..20_000, any_event()), 0..25),
    ) {
        let mut p = Played::new();
        let mut ms = 0;
        p.at(0, Event::Accepted);
        for (gap, event) in events {
            ms += gap;
            p.at(ms, event);
        }
        // Nobody answers any more; only deadlines are left.
        for _ in 0..10 {
            let Some(deadline) = p.attempt.next_deadline() else { break };
            let done = p.attempt.on_deadline(deadline);
            prop_assert!(!done.is_empty() || p.attempt.next_deadline() != Some(deadline), "stuck: {:?}", p.attempt);
            p.done.extend(done);
        }
        let ends = p.done.iter().filter(|d| matches!(d, Do::End(_))).count();
        prop_assert_eq!(ends, 1, "{:?}", p.done);
        prop_assert!(matches!(p.done.last(), Some(Do::End(_))));
    }

    /// A 180 is never forgotten, whatever follows.
    #[test]
    fn what_rang_has_rung(events in prop::collection::vec(any_event(), 0..25)) {
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(1, Event::Ringing);
        for (i, event) in events.into_iter().enumerate() {
            p.at(2 + i as u64, event);
        }
        if let Some(Do::End(ending)) = p.done.last() {
            prop_assert_eq!(ending.rang, Rang::Yes);
        }
    }

    /// A bar ends an attempt as not sent only if Asterisk told nothing of it, in whatever order things came.
    #[test]
    fn barred_never_follows_what_asterisk_told(
        events in prop::collection::vec((0u64..3_000, any_event()), 0..12),
    ) {
        let mut p = Played::new();
        let (mut ms, mut told) = (0, false);
        let ends = [(0, Event::Cut), (0, Event::Settled(Settlement::Barred))];
        for (gap, event) in events.into_iter().chain(ends) {
            ms += gap;
            if matches!(p.done.last(), Some(Do::End(_))) {
                break;
            }
            told |= matches!(event, Event::Accepted | Event::Channel | Event::Progress | Event::Ringing
                | Event::Answered | Event::Key(_) | Event::Machine(_) | Event::Played | Event::NoMedia | Event::HungUp(_));
            p.at(ms, event);
        }
        let not_sent = |d: &Do| matches!(d, Do::End(ending) if ending.class == EndingClass::NotSent);
        prop_assert!(!(told && p.done.iter().any(not_sent)), "{:?}", p.done);
    }

    /// Reports only go forward.
    #[test]
    fn reports_never_go_back(events in prop::collection::vec((0u64..5_000, any_event()), 0..25)) {
        let mut p = Played::new();
        let mut ms = 0;
        for (gap, event) in events {
            ms += gap;
            p.at(ms, event);
        }
        let reports: Vec<_> = p.done.iter().filter_map(|d| if let Do::Report(s) = d { Some(*s) } else { None }).collect();
        prop_assert!(reports.windows(2).all(|w| w[0] <= w[1]), "{:?}", reports);
    }
}
