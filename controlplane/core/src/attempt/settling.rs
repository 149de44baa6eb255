//! What events do not tell is asked for: the flight recorder where only codes are missing, reconciliation
//! after a cut, and in the end the verdict on what cannot be known.

use std::time::Instant;

use super::{Answer, Attempt, Do, HANG_UPS_MAX, Live, Record, Settlement, State};
use crate::{
    call::{AttemptStatus, Rang},
    ending::{EndedBy, Ending, EndingClass, classify},
};

impl Attempt {
    pub(super) fn ask_record(&mut self, now: Instant, answer: Answer) -> Vec<Do> {
        self.state = State::AskingRecord { since: now, answer };
        vec![Do::AskRecord]
    }

    pub(super) fn recorded(&mut self, now: Instant, answer: Answer, record: Option<Record>) -> Vec<Do> {
        let Some(record) = record else { return self.end(now, answer) };
        self.gone |= record.ended;
        self.is_deaf = !record.tells_keys;
        self.learn(record.state);
        let mut todo: Vec<Do> = self.learn_talk(record.talk).into_iter().collect();
        let answer = Answer {
            sip_code: answer.sip_code.or(record.answer.sip_code),
            q850: answer.q850.or(record.answer.q850),
        };
        todo.extend(self.end_of_record(now, Record { answer, ..record }));
        todo
    }

    /// The end as a flight record tells it. A channel that rang and went without any SIP answer, sooner than anybody
    /// could have let it ring out, was ended by its own Asterisk: one that shuts down in order hangs its channels up,
    /// and writes their records. It says nothing of the callee.
    fn end_of_record(&mut self, now: Instant, record: Record) -> Vec<Do> {
        let rang_out = now >= self.begun + self.limits.ring;
        let by_itself = record.ended
            && record.state == Live::Ringing
            && record.answer.sip_code.is_none()
            && self.ended_by == EndedBy::Carrier
            && !self.answered;
        // A key that was heard is what came of it, and what was played to its end was not cut short, unless a key was
        // waited for.
        let cut_short = record.stopped
            && self.ended_by == EndedBy::Carrier
            && self.talk.key.is_none()
            && (!self.talk.played || self.waits_for_a_key());
        if cut_short || (by_itself && !rang_out) {
            return self.finish(EndingClass::Interrupted);
        }
        self.end(now, record.answer)
    }

    pub(super) fn reconcile(&mut self, now: Instant) -> Vec<Do> {
        self.state = State::Reconciling { since: now };
        self.blind = true;
        vec![Do::Reconcile]
    }

    pub(super) fn settled(&mut self, now: Instant, found: Settlement) -> Vec<Do> {
        match found {
            // A channel that does not die (Asterisk has deadlocks): its fate does not hold up the call's.
            Settlement::Living(live) if self.hang_ups >= HANG_UPS_MAX => {
                self.learn(live);
                self.talk.untold = self.waits_for_a_key();
                self.end(now, Answer::default())
            }
            // What we were ending when the link was cut is ended still.
            Settlement::Living(live) if self.ended_by != EndedBy::Carrier => {
                self.learn(live);
                self.hang_up(now, self.ended_by)
            }
            Settlement::Living(live) => {
                self.state = State::Sending;
                let mut todo = self.accepted(now);
                todo.extend(match live {
                    Live::Dialling => Vec::new(),
                    Live::Ringing => self.rings(now),
                    Live::Up => self.up(now),
                });
                self.channel = true;
                todo
            }
            Settlement::Recorded(record) if record.ended => {
                self.gone = true;
                self.is_deaf = !record.tells_keys;
                self.learn(record.state);
                let mut todo: Vec<Do> = self.learn_talk(record.talk).into_iter().collect();
                todo.extend(self.end_of_record(now, record));
                todo
            }
            // Answered, and gone without a word: Asterisk died while it played.
            Settlement::Recorded(record) => {
                self.learn(Live::Up);
                let mut todo: Vec<Do> = self.learn_talk(record.talk).into_iter().collect();
                todo.extend(self.finish(EndingClass::Interrupted));
                todo
            }
            // What Asterisk itself told weighs more than a gate's memory.
            Settlement::Barred if self.was_sent() => self.give_up_unasked(now),
            Settlement::Barred => {
                // Nothing was there to be missed.
                self.blind = false;
                self.finish(EndingClass::NotSent)
            }
            Settlement::Absent => self.give_up(now),
        }
    }

    /// Whether anything that Asterisk told, in this process or an earlier one, shows that it was sent.
    fn was_sent(&self) -> bool {
        self.accepted.is_some()
            || self.channel
            || self.answered
            || self.ringing
            || self.reported > AttemptStatus::Sending
    }

    /// The node did not say in time. What it would have said may still be found in its record.
    pub(super) fn give_up_unasked(&mut self, now: Instant) -> Vec<Do> {
        self.talk.untold = self.waits_for_a_key() && (self.answered || !self.gone);
        self.give_up(now)
    }

    /// It was answered and was seen to end, and its record does not come: what the callee did is not known.
    pub(super) fn end_untold(&mut self, now: Instant, answer: Answer) -> Vec<Do> {
        self.talk.untold = true;
        let told = classify(&self.evidence(now, answer), self.reading);
        let ending = Ending { class: EndingClass::Interrupted, ..told };
        self.state = State::Ended;
        vec![Do::End(ending)]
    }

    /// Nothing more can be learnt.
    fn give_up(&mut self, now: Instant) -> Vec<Do> {
        let was_seen_to_end = self.gone && self.answered && !self.talk.untold;
        if was_seen_to_end || (self.ended_by != EndedBy::Carrier && self.channel) {
            return self.end(now, Answer::default());
        }
        let class = if self.rang() == Rang::Yes { EndingClass::Interrupted } else { EndingClass::Unknown };
        self.finish(class)
    }

    pub(super) fn learn(&mut self, live: Live) {
        self.channel = true;
        match live {
            Live::Dialling => {}
            Live::Ringing => self.ringing = true,
            // It crossed our Hangup: the callee picked up, and heard nothing.
            Live::Up if self.ended_by != EndedBy::Carrier && !self.answered => self.ringing = true,
            Live::Up => self.answered = true,
        }
    }
}
