//! Bugs on purpose: the chaos run shows that its checker finds them. Only `--features planted-bugs` compiles
//! this, never an optimised build, and without `PLANTED_BUG` it does nothing.

use std::{sync::LazyLock, time::Duration};

use controlplane_core::{
    call::Rang,
    ending::{Ending, EndingClass},
};
use controlplane_store::calls::Call;
use tokio::time::sleep;

use super::attempt::Ended;

#[cfg(not(debug_assertions))]
compile_error!("planted bugs are for tests: they have no place in an optimised build");

/// How late an attempt is written that was sent already.
const LATE: Duration = Duration::from_millis(1_500);

/// The bug of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// An Originate leaves before its attempt is written.
    WriteAfterSend,
    /// What was under way at a restart counts as never sent.
    ReconcileOff,
    /// An event counts as delivered before it was sent.
    SettleBeforeSend,
    /// A restart forgets which rounds a call has had, and begins them again.
    RoundsForgotten,
}

static BUG: LazyLock<Option<Bug>> = LazyLock::new(|| match std::env::var("PLANTED_BUG").as_deref() {
    Ok("write-after-send") => Some(Bug::WriteAfterSend),
    Ok("reconcile-off") => Some(Bug::ReconcileOff),
    Ok("settle-before-send") => Some(Bug::SettleBeforeSend),
    Ok("rounds-forgotten") => Some(Bug::RoundsForgotten),
    Ok(_) | Err(_) => None,
});

pub(crate) fn is(bug: Bug) -> bool {
    *BUG == Some(bug)
}

/// Waits until an attempt is written that was sent already.
pub(super) async fn late() {
    sleep(LATE).await;
}

/// What no reconciliation would have found.
pub(super) fn never_sent() -> Ended {
    Ended { ending: Ending::without_answer(EndingClass::NotSent, Rang::No), may_live_on: false }
}

/// A call as a process takes it up that looks only for what is under way.
pub(super) fn without_rounds(call: Call) -> Call {
    let attempts = call.attempts.into_iter().filter(|attempt| attempt.ending.is_none()).collect();
    Call { round: 1, redial_at: None, attempts, ..call }
}
