//! The plan of numbers: what a carrier of the lab does with a call is written in the number.
//!
//! `+48 22 BBB NNNN`: BBB is the behaviour, NNNN tells calls apart. Digits may arrive with `+48`,
//! with `48` or as the national nine: the last seven decide.
//!
//! | BBB | What the carrier does |
//! |---|---|
//! | 200 | 180, answer after 200 ms, silence; hangs up after 120 s |
//! | 201 | answer at once, without 180 |
//! | 202 | 180, answer after 200 ms, the callee hangs up 1 s later |
//! | 210, 211, 212 | answer, after 3 s (and every 3 s, if there are more) the callee presses 1, 2, 5, and stays |
//! | 213, 214 | as 210, over a trunk that knows no telephone-event (tones in the audio), by SIP INFO |
//! | 215, 216 | as 210: `*` and then 1; 5 every half second, 31 times |
//! | 220 | answer, and nothing is said |
//! | 221 | answer, a short word, and silence: a human |
//! | 222 | answer, a greeting of some 5 s, a beep, silence: an answering machine |
//! | 000 | silent: the INVITE is dropped before the carrier's Asterisk sees it (counted all the same) |
//! | 100 | 100 Trying and no more |
//! | 180 | 180 for ever (5 minutes) |
//! | 183 | 183 with early media for ever |
//! | 184 | 183, after 500 ms 503 |
//! | 185 | 180, after 500 ms 503 |
//! | 186 | 180, after 500 ms 486 |
//! | 300–305 | 302 with a Contact of the carrier's choice |
//! | 4xx 5xx 6xx | that code at once: 486 busy, 603 declined, 503, 404, 403, 480, 488, … |
//!
//! A carrier-wide [`Behaviour`](crate::Behaviour) overrides the number, but not 000.

/// Answered after ringing.
pub const ANSWER: u16 = 200;
/// Answered at once.
pub const ANSWER_AT_ONCE: u16 = 201;
/// Answered, and the callee hangs up after a second.
pub const ANSWER_AND_HANG_UP: u16 = 202;
/// Answered, and 1 is pressed after 3 s.
pub const PRESS: u16 = 210;
/// Answered, and 2 is pressed.
pub const PRESS_2: u16 = 211;
/// Answered, and 5 is pressed.
pub const PRESS_5: u16 = 212;
/// Answered, and 1 is pressed as tones: the carrier's answer knows no telephone-event.
pub const PRESS_TONES: u16 = 213;
/// Answered, and 1 is pressed by SIP INFO.
pub const PRESS_INFO: u16 = 214;
/// Answered, and `*` is pressed, then 1.
pub const PRESS_AGAIN: u16 = 215;
/// Answered, and 5 is pressed again and again.
pub const PRESS_MANY: u16 = 216;
/// Answered without a word.
pub const MUTE: u16 = 220;
/// Answered by a human.
pub const HUMAN: u16 = 221;
/// Answered by a machine.
pub const VOICEMAIL: u16 = 222;
/// The INVITE is dropped.
pub const SILENT: u16 = 0;
/// 100 and no more.
pub const TRYING: u16 = 100;
/// 180 for ever.
pub const RING: u16 = 180;
/// 183 for ever.
pub const EARLY_MEDIA: u16 = 183;
/// 183, then 503.
pub const EARLY_MEDIA_THEN_503: u16 = 184;
/// 180, then 503.
pub const RING_THEN_503: u16 = 185;
/// 180, then 486.
pub const RING_THEN_486: u16 = 186;
/// Redirected with 302.
pub const REDIRECT: u16 = 302;
/// Busy.
pub const BUSY: u16 = 486;
/// Declined.
pub const DECLINED: u16 = 603;
/// The carrier has no capacity.
pub const UNAVAILABLE: u16 = 503;

/// The number, with `+`, of the `call`-th call (0 to 9999) that meets `behaviour` (one of BBB).
#[must_use]
pub fn number(behaviour: u16, call: u16) -> String {
    number_of_many(behaviour, u32::from(call % 10_000))
}

/// Fixed lines of Polish cities, each of which has room for ten thousand calls of a behaviour.
const CITIES: [u8; 7] = [22, 12, 32, 42, 61, 71, 81];
/// So many calls have a number of their own.
pub const CALLS_MAX: u32 = 10_000 * CITIES.len() as u32;

/// The same of more calls (0 to [`CALLS_MAX`], exclusive), for carriers that are simulated.
#[must_use]
pub fn number_of_many(behaviour: u16, call: u32) -> String {
    let city = CITIES.get((call % CALLS_MAX / 10_000) as usize).copied().unwrap_or(CITIES[0]);
    format!("+48{city}{:03}{:04}", behaviour % 1_000, call % 10_000)
}

/// What a number of this plan asks for: BBB.
#[must_use]
pub fn behaviour(number: &str) -> Option<u16> {
    let digits = number.len().checked_sub(7).and_then(|at| number.get(at..at + 3))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_eleven_digits_and_hold_the_behaviour() {
        assert_eq!(number(BUSY, 7), "+48224860007");
        assert_eq!(number(SILENT, 9_999), "+48220009999");
        assert_eq!(number_of_many(BUSY, 60_007), "+48814860007");
        assert_eq!(behaviour(&number_of_many(BUSY, 60_007)), Some(BUSY));
    }
}
