//! Holds what was asked, what was told and what carriers saw against each other.
//!
//! What must hold, whatever was broken:
//! 1. Every call that was answered 201 exists, once; no call exists that nobody asked for; equal POSTs made one.
//! 2. Every call has ended, once: its log has the sequence 1, 2, 3, … without gaps, one terminal row, the last.
//! 3. No INVITE reaches a carrier that no attempt was written for.
//! 4. With `on_unknown: fail` a phone is heard once a round at most, and nothing is dialled in a round once it was heard.
//! 5. With `on_unknown: retry` a phone that rings wherever a carrier takes the call was heard, if a route was *fit* for it:
//!    neither its node nor its carrier was broken from [`SETTLE`] before the call's acceptance until its end. (What happens
//!    to the control plane excuses nothing: it takes its calls up again.)
//! 6. After an ending that says what the callee did, nothing is dialled in that round.
//! 7. What is told of an attempt's ringing, an answer, a busy callee is what the carrier saw; `canceled` only what a customer canceled.
//! 8. What is told as acknowledged has its key on the carrier's wire; and a key that acknowledges, pressed over a way that was
//!    fit, is told.
//! 9. At the end no node that lives has a channel open.
//! 10. A call has as many rounds as its customer's `redial` allows: none too many, none before its delay, none but after what
//!     he named, none while there was room for it too few; and none once the call is acknowledged, canceled or past its deadline.
//! 11. Every step of a call reached the webhook: signed, in order, under one id, as it was; and exactly one end by id, which
//!     is the call's.
//! 12. No carrier sees more channels than its account has, nor in any second more starts than that allows and one.
mod accounts;
mod events;
mod rounds;
mod rules;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::Duration};

pub(crate) use self::accounts::most_in_a_second;
use crate::history::{Dialog, History, Told};

/// How long after its mending a node or a carrier is still not counted on: the first back-off of a trunk. What needs
/// longer (a link is back within 20 s) is passed over for a way that was not touched.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// An accepted call does not exist.
    Lost,
    /// Two calls for one wish, or one that nobody wished.
    Doubled,
    /// A call has not ended.
    NotEnded,
    /// A call's log has no end, two, one that is not the last, or a gap.
    LogBroken,
    /// An INVITE that no attempt was written for.
    NotWritten,
    /// `fail`, and the phone was heard more than once in a round, or dialled in it after it was heard.
    RangTwice,
    /// `retry`, a fit route, and the phone was never heard.
    Unrung,
    /// Dialled again after the callee had answered for himself, and no redial was asked for after that.
    DialledAgain,
    /// What was told is not what was seen.
    ToldWrong,
    /// Acknowledged without a key.
    NotPressed,
    /// A key was pressed over a way that was fit, and its call is not acknowledged.
    Unheard,
    /// A channel was left open.
    LeftOpen,
    /// More rounds than were asked for, or one that was left out.
    RoundsOver,
    /// A round before its delay.
    RedialEarly,
    /// A round that was asked for did not come.
    NotRedialled,
    /// Dialled when the call was acknowledged, canceled or past its deadline.
    DialledWhenOver,
    /// A step of which no event arrived.
    Untold,
    /// A step, or the end, under two ids.
    ToldTwice,
    /// A step that came before the one before it was taken.
    OutOfOrder,
    /// An event without the endpoint's signature.
    Unsigned,
    /// More channels or starts than a carrier's account has.
    OverLimit,
}

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// The number of the call, or the node.
    pub of: String,
    /// In words.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.rule, self.of, self.how)
    }
}

/// What was found, and how much of it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Every broken promise.
    pub violations: Vec<Violation>,
    /// Calls with `fail`.
    pub fail: usize,
    /// Calls with `retry` that ring anywhere and had a fit route.
    pub retry_judged: usize,
    /// Calls with `retry` that ring anywhere, had no fit route all along, and were not heard.
    pub retry_excused: usize,
    /// Calls that were acknowledged.
    pub acknowledged: usize,
    /// INVITEs that came when their call had ended, by more than a second: a woken node's.
    pub late: usize,
    /// Rounds after the first.
    pub redials: usize,
    /// Calls whose deadline came before their last round.
    pub hurried: usize,
    /// Events that came, each try of them.
    pub posted: usize,
    /// Calls with one `call.finished`.
    pub finished: usize,
}

/// Everything of one number.
struct Matter<'a> {
    number: &'a str,
    told: &'a Told,
    /// In the order of their INVITEs.
    seen: &'a [&'a Dialog],
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let mut by_number: BTreeMap<&str, Vec<&Dialog>> = BTreeMap::new();
    for dialog in &history.seen {
        by_number.entry(&dialog.number).or_default().push(dialog);
    }
    for dialogs in by_number.values_mut() {
        dialogs.sort_by_key(|dialog| dialog.at);
    }
    let mut told: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for call in &history.told {
        told.entry(&call.number).or_default().push(call);
    }
    let mut posted = events::by_call(history);
    for asked in &history.asked {
        let calls = told.remove(asked.number.as_str()).unwrap_or_default();
        rules::accepted(asked, &calls, &mut verdict);
        let seen = by_number.remove(asked.number.as_str()).unwrap_or_default();
        let Some(told) = calls.first() else {
            if !seen.is_empty() {
                verdict.add(Rule::NotWritten, &asked.number, "dialled, and there is no such call".into());
            }
            continue;
        };
        let matter = Matter { number: &asked.number, told, seen: &seen };
        rules::ended(&matter, &mut verdict);
        rules::written(&matter, &mut verdict);
        rules::rings(asked, &matter, history, &mut verdict);
        rules::told(asked, &matter, &mut verdict);
        rules::keys(asked, &matter, history, &mut verdict);
        rounds::check(asked, &matter, &mut verdict);
        rounds::heard_once_a_round(asked, &matter, &mut verdict);
        events::check(&matter, &posted.remove(told.id.as_str()).unwrap_or_default(), &mut verdict);
    }
    // Calls that nobody asked for are told as such already.
    posted.retain(|call, _| !history.told.iter().any(|told| told.id == *call));
    for (call, posted) in posted {
        verdict.add(
            Rule::ToldWrong,
            call,
            format!("{} events of no call: {:?}", posted.len(), posted.first()),
        );
    }
    for (number, calls) in told {
        verdict.add(Rule::Doubled, number, format!("{} calls that nobody asked for", calls.len()));
    }
    for (number, seen) in by_number {
        verdict.add(Rule::NotWritten, number, format!("{} INVITEs of no call", seen.len()));
    }
    accounts::check(history, &mut verdict);
    for (node, channels) in history.left.iter().filter(|(_, channels)| *channels > 0) {
        verdict.add(Rule::LeftOpen, node, format!("{channels} channels"));
    }
    verdict
}

impl Verdict {
    fn add(&mut self, rule: Rule, of: &str, how: String) {
        self.violations.push(Violation { rule, of: of.to_owned(), how });
    }

    /// How often each promise was broken.
    #[must_use]
    pub fn by_rule(&self) -> BTreeMap<Rule, usize> {
        let mut counts = BTreeMap::new();
        for violation in &self.violations {
            *counts.entry(violation.rule).or_default() += 1;
        }
        counts
    }
}
