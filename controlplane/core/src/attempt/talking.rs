//! After the answer: keys, who answered, whether the message was heard.
//!
//! Only a key that ends the call by its meaning is kept, and the first of them decides: the dialplan ends the
//! call at it. It is told at once ([`Do::Heard`]), whether an event brought it or a flight record.

use std::time::Instant;

use super::{Answer, Attempt, Do, Event};
use crate::{
    ending::{EndedBy, Talk},
    request::{Key, Keys},
};

/// What an answered call is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listening {
    /// The keys that end it.
    pub keys: Keys,
    /// Whether a machine answered.
    pub machine: bool,
}

impl Attempt {
    /// Listens for this; `heard` is the key that an earlier process wrote.
    #[must_use]
    pub const fn listening(mut self, listening: Listening, heard: Option<Key>) -> Self {
        self.listening = listening;
        self.talk.key = heard;
        self
    }

    /// News that only an answered call has.
    pub(super) fn talks(&mut self, now: Instant, news: Event) -> Vec<Do> {
        let mut todo = self.up(now);
        match news {
            Event::Key(key) => todo.extend(self.heard(key)),
            Event::Machine(machine) => self.talk.machine = Some(machine),
            Event::Played => self.talk.played = true,
            Event::NoMedia => self.talk.no_media = true,
            Event::Accepted
            | Event::Rejected
            | Event::NotSent
            | Event::Unresolved
            | Event::Channel
            | Event::Progress
            | Event::Ringing
            | Event::Answered
            | Event::HungUp(_)
            | Event::OriginateFailed { .. }
            | Event::Cut
            | Event::Cancel
            | Event::Recorded(_)
            | Event::Settled(_) => {}
        }
        todo
    }

    fn heard(&mut self, key: Key) -> Option<Do> {
        if self.talk.key.is_some() || !self.listening.keys.has(key) {
            return None;
        }
        // Also where our own Hangup crossed it: somebody was there.
        self.answered = true;
        self.talk.key = Some(key);
        Some(Do::Heard(key))
    }

    /// What a flight record tells of it.
    pub(super) fn learn_talk(&mut self, talk: Talk) -> Option<Do> {
        self.talk.machine = self.talk.machine.or(talk.machine);
        self.talk.played |= talk.played;
        self.talk.no_media |= talk.no_media;
        talk.key.and_then(|key| self.heard(key))
    }

    /// Whether the flight record may know of something that decides: a key whose event was lost or was overtaken by
    /// the end of the call, or a verdict that came while nobody watched.
    pub(super) fn may_have_missed_a_key(&self) -> bool {
        let machine = self.listening.machine && self.blind && self.talk.key.is_none();
        self.answered && (machine || self.waits_for_a_key())
    }

    /// Whether its own Asterisk may have ended it while it spoke: that has no other cause than a callee's BYE may have.
    pub(super) fn may_have_been_stopped(&self, answer: Answer) -> bool {
        let by_nobody = self.ended_by == EndedBy::Carrier && answer.q850.unwrap_or(0) == 0;
        self.answered && by_nobody && !self.talk.played && !self.talk.no_media && self.talk.key.is_none()
    }

    pub(super) fn waits_for_a_key(&self) -> bool {
        !self.listening.keys.is_empty() && self.talk.key.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{
        super::{
            Live, Record, Settlement,
            tests::{LIMITS, Played, READING, any_event},
        },
        *,
    };
    use crate::{
        call::{AttemptStatus, Detection, Rang},
        ending::{Ending, EndingClass},
    };

    fn key(key: char) -> Key {
        key.try_into().unwrap()
    }

    /// 1 and 2 end the call.
    fn listening() -> Listening {
        Listening { keys: [key('1'), key('2')].into_iter().collect(), machine: true }
    }

    fn answered() -> Played {
        let mut p = Played::new();
        p.attempt = p.attempt.listening(listening(), None);
        p.at(0, Event::Accepted).at(100, Event::Ringing).at(900, Event::Answered);
        p
    }

    fn resumed(heard: Option<Key>) -> Played {
        let mut p = Played::new();
        let (age, up) = (Duration::from_secs(9), AttemptStatus::InProgress);
        p.attempt =
            Attempt::resumed(p.start, age, LIMITS, READING, up, Rang::Yes).listening(listening(), heard);
        p
    }

    const GONE: Event = Event::HungUp(Answer { sip_code: None, q850: Some(16) });

    fn end(p: &Played) -> Ending {
        let Some(Do::End(ending)) = p.done.last() else { panic!("{:?}", p.done) };
        *ending
    }

    fn heard(p: &Played) -> Vec<Key> {
        p.done.iter().filter_map(|d| if let Do::Heard(key) = d { Some(*key) } else { None }).collect()
    }

    fn record(ended: bool, talk: Talk) -> Record {
        Record { state: Live::Up, ended, answer: Answer::default(), talk, tells_keys: true, stopped: false }
    }

    #[test]
    fn the_first_key_that_ends_the_call_is_told_at_once_and_decides() {
        let mut p = answered();
        p.at(2_000, Event::Machine(Detection::Machine)).at(3_000, Event::Key(key('5')));
        assert_eq!(heard(&p), []);
        p.at(3_500, Event::Key(key('2')));
        assert_eq!(p.done.last(), Some(&Do::Heard(key('2'))));
        p.at(3_600, Event::Key(key('1'))).at(3_700, GONE);
        let talk = end(&p).talk;
        assert_eq!((talk.key, talk.machine), (Some(key('2')), Some(Detection::Machine)));
        assert_eq!((heard(&p), p.ending()), (vec![key('2')], (EndingClass::Answered, Rang::Yes)));
    }

    #[test]
    fn where_no_key_is_asked_for_none_is_heard() {
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(9, Event::Answered).at(50, Event::Key(key('1'))).at(99, GONE);
        assert_eq!((heard(&p), end(&p).talk.key), (vec![], None));
    }

    #[test]
    fn a_key_stays_heard_whatever_happens_to_the_pbx() {
        let cut = [Event::Cut, Event::Settled(Settlement::Absent)];
        let died = [Event::Cut, Event::Settled(Settlement::Recorded(record(false, Talk::NONE)))];
        let silent = [Event::NoMedia, GONE];
        for after in [cut, died, silent] {
            let mut p = answered();
            p.at(2_000, Event::Key(key('1')));
            for event in after {
                p.at(2_100, event);
            }
            assert_eq!(end(&p).talk.key, Some(key('1')), "{after:?}");
        }
        // Written by an earlier process.
        let mut p = resumed(Some(key('1')));
        p.at(100, Event::Settled(Settlement::Absent));
        assert_eq!((end(&p).talk.key, heard(&p)), (Some(key('1')), vec![]), "it is written already");
    }

    #[test]
    fn a_key_that_nobody_watched_is_found_in_the_record() {
        let talk = Talk { key: Some(key('1')), ..Talk::NONE };
        for (ended, class) in [(true, EndingClass::Answered), (false, EndingClass::Interrupted)] {
            let mut p = answered();
            p.at(2_000, Event::Cut).at(2_500, Event::Settled(Settlement::Recorded(record(ended, talk))));
            assert_eq!((heard(&p), end(&p).class, end(&p).talk), (vec![key('1')], class, talk));
        }
        // It was pressed during the cut; the channel is found, and goes at once.
        let mut p = answered();
        p.at(2_000, Event::Cut).at(2_500, Event::Settled(Settlement::Living(Live::Up))).at(2_600, GONE);
        assert_eq!(p.done.last(), Some(&Do::AskRecord));
        p.at(2_700, Event::Recorded(Some(record(true, talk))));
        assert_eq!((heard(&p), p.ending().0), (vec![key('1')], EndingClass::Answered));
    }

    /// The key came too late for its event, or its event was lost: the record is asked, once.
    #[test]
    fn a_key_that_crosses_the_end_of_the_call_is_found_in_the_record() {
        let talk = Talk { key: Some(key('1')), ..Talk::NONE };
        let mut p = answered();
        p.at(2_000, Event::Machine(Detection::Human)).at(3_000, GONE);
        assert_eq!(p.done.last(), Some(&Do::AskRecord));
        p.at(3_005, Event::Recorded(Some(record(true, talk))));
        assert_eq!((heard(&p), p.ending().0), (vec![key('1')], EndingClass::Answered));
        assert!(!end(&p).talk.untold);

        // None was pressed: the record says so, and is not asked again.
        let mut p = answered();
        p.at(3_000, GONE).at(3_001, GONE).at(3_005, Event::Recorded(Some(record(true, Talk::NONE))));
        assert_eq!((heard(&p), p.ending()), (vec![], (EndingClass::Answered, Rang::Yes)));
        assert_eq!(p.done.iter().filter(|d| **d == Do::AskRecord).count(), 1);
        assert!(!end(&p).talk.untold);

        // Who was heard has been heard, and who was not asked is not waited for.
        let mut p = answered();
        p.at(2_000, Event::Key(key('1'))).at(3_000, GONE);
        assert_eq!(p.ending().0, EndingClass::Answered);
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(9, Event::Answered).at(99, GONE);
        assert_eq!(p.ending().0, EndingClass::Answered);
    }

    /// A node that is gone with the record is not waited for longer than for any other answer, and then nobody knows.
    #[test]
    fn a_record_that_cannot_be_had_leaves_the_talk_untold() {
        // It does not answer.
        let mut p = answered();
        p.at(3_000, GONE).wait(5_000);
        assert_eq!((p.ending(), end(&p).talk.untold), ((EndingClass::Interrupted, Rang::Yes), true));
        // It is gone.
        let mut p = answered();
        p.at(3_000, GONE).at(3_010, Event::Cut).wait(8_009);
        assert_eq!(p.done.last(), Some(&Do::Reconcile));
        p.wait(8_010);
        assert_eq!((p.ending(), end(&p).talk.untold), ((EndingClass::Interrupted, Rang::Yes), true));
        // It is there, and has none.
        let mut p = answered();
        p.at(3_000, GONE).at(3_010, Event::Recorded(None));
        assert_eq!((p.ending(), end(&p).talk.untold), ((EndingClass::Answered, Rang::Yes), false));
        // A cut while it rang may hide an answer and a key.
        let mut p = Played::new();
        p.attempt = p.attempt.listening(listening(), None);
        p.at(0, Event::Accepted).at(10, Event::Ringing).at(100, Event::Cut).wait(5_100);
        assert!(end(&p).talk.untold);
        // What never was answered hides none.
        let mut p = Played::new();
        p.attempt = p.attempt.listening(listening(), None);
        p.at(0, Event::Accepted)
            .at(10, Event::Ringing)
            .at(100, Event::HungUp(Answer { sip_code: Some(486), q850: None }));
        assert_eq!((p.ending().0, end(&p).talk.untold), (EndingClass::UserBusy, false));
    }

    #[test]
    fn a_dialplan_that_hears_no_keys_is_told_from_a_callee_who_pressed_none() {
        let old = Record { tells_keys: false, ..record(true, Talk::NONE) };
        let mut p = answered();
        p.at(3_000, GONE).at(3_005, Event::Recorded(Some(old)));
        assert_eq!(p.ending(), (EndingClass::NoKeys, Rang::Yes));
        let mut p = answered();
        p.at(2_000, Event::Cut).at(2_500, Event::Settled(Settlement::Recorded(old)));
        assert_eq!(p.ending(), (EndingClass::NoKeys, Rang::Yes));
        // Nobody asked for any.
        let mut p = Played::new();
        p.at(0, Event::Accepted).at(9, Event::Answered).at(50, Event::Cut);
        p.at(99, Event::Settled(Settlement::Recorded(old)));
        assert_eq!(p.ending().0, EndingClass::Answered);
    }

    /// It was seen to be hung up: that is no interruption, also where the record cannot be had any more.
    #[test]
    fn an_answered_call_that_was_seen_to_end_is_no_interrupted_one() {
        let mut p = Played::new();
        let machine = Listening { machine: true, ..Listening::default() };
        p.attempt = p.attempt.listening(machine, None);
        p.at(0, Event::Accepted).at(900, Event::Answered);
        p.at(2_000, Event::Cut).at(2_500, Event::Settled(Settlement::Living(Live::Up))).at(2_600, GONE);
        p.at(2_700, Event::Cut).wait(7_701);
        assert_eq!((p.ending(), end(&p).talk.untold), ((EndingClass::Answered, Rang::Yes), false));
    }

    proptest! {
        /// A key that was heard is told once, and is in the ending.
        #[test]
        fn what_was_heard_is_told_once_and_not_forgotten(
            events in prop::collection::vec((0u64..5_000, any_event()), 0..25),
        ) {
            let mut p = answered();
            let mut ms = 1_000;
            for (gap, event) in events {
                ms += gap;
                p.at(ms, event);
            }
            prop_assert!(heard(&p).len() <= 1);
            if let Some(Do::End(ending)) = p.done.last() {
                prop_assert_eq!(ending.talk.key, heard(&p).first().copied());
            }
        }
    }
}
