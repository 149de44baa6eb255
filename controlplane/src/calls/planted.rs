//! Bugs on purpose: the chaos run shows that its checker finds them. Only `--features planted-bugs` compiles
//! this, never an optimised build, and without `PLANTED_BUG` it does nothing.

use std::{sync::LazyLock, time::Duration};

use controlplane_core::{
    call::Rang,
    ending::{Ending, EndingClass},
};
use tokio::time::sleep;

use super::attempt::Ended;

#[cfg(not(debug_assertions))]
compile_error!("planted bugs are for tests: they have no place in an optimised build");

/// How late an attempt is written that was sent already.
const LATE: Duration = Duration::from_millis(1_500);

/// The bug of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// An Originate leaves before its attempt is written.
    WriteAfterSend,
    /// What was under way at a restart counts as never sent.
    ReconcileOff,
}

static BUG: LazyLock<Option<Bug>> = LazyLock::new(|| match std::env::var("PLANTED_BUG").as_deref() {
    Ok("write-after-send") => Some(Bug::WriteAfterSend),
    Ok("reconcile-off") => Some(Bug::ReconcileOff),
    Ok(_) | Err(_) => None,
});

pub(super) fn is(bug: Bug) -> bool {
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
