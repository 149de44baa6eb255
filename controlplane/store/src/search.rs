//! Calls as operators look for them: over all organisations, by number, by what customers have noted with them.
//!
//! A search is bounded by what it looks at, not by what it finds: where little fits, it says up to where it has looked,
//! and goes on from there when it is asked again.

use async_trait::async_trait;
use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
    number::E164,
};

use crate::{StoreError, calls::Call};

/// Calls that one search looks at, at most, where no number leads to them.
pub const LOOKED_AT_MAX: usize = 20_000;
/// Calls that are looked at by one statement.
pub(crate) const LOOK: usize = 2_000;

/// What is looked for. Everything that is `None` lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallSearch {
    /// One organisation's.
    pub org: Option<OrgId>,
    /// To this number. One that was erased is not found.
    pub to: Option<E164>,
    /// Those that are there now.
    pub status: Option<CallStatus>,
    /// With this in their metadata.
    pub metadata: Option<Noted>,
    /// Only what is older than this id.
    pub before: Option<CallId>,
    /// At most this many are found, 1 to 100.
    pub limit: u16,
}

/// What a customer has noted with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Under this key; `None`: under any.
    pub key: Option<String>,
    /// Exactly this.
    pub value: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallsFound {
    /// Newest first. A row that cannot be read is logged and passed over.
    pub calls: Vec<Call>,
    /// From where to look on; `None`: nothing older is there.
    pub next: Option<CallId>,
}

/// A search under way.
pub(crate) struct Looking {
    limit: usize,
    looked_at: usize,
    /// The last that was looked at.
    below: Option<String>,
    /// What fits, newest first.
    fits: Vec<String>,
}

impl Looking {
    pub(crate) fn new(search: &CallSearch) -> Self {
        let below = search.before.as_ref().map(|id| id.as_str().to_owned());
        Self { limit: usize::from(search.limit), looked_at: 0, below, fits: Vec::new() }
    }

    /// Only what is older than this is still to be looked at.
    pub(crate) fn below(&self) -> Option<&str> {
        self.below.as_deref()
    }

    /// Takes the next [`LOOK`] calls, newest first, or those that are left. `true`: the search is over.
    pub(crate) fn take(&mut self, rows: Vec<(String, bool)>) -> bool {
        let is_all = rows.len() < LOOK;
        for (id, fits) in rows {
            if fits && self.fits.len() == self.limit {
                return true;
            }
            self.looked_at += 1;
            if fits {
                self.fits.push(id.clone());
            }
            self.below = Some(id);
        }
        if is_all {
            self.below = None;
        }
        is_all || self.looked_at >= LOOKED_AT_MAX
    }

    pub(crate) fn fits(&self) -> Vec<&str> {
        self.fits.iter().map(String::as_str).collect()
    }

    /// With the calls of [`Self::fits`], in whatever order.
    pub(crate) fn found(self, mut calls: Vec<Call>) -> CallsFound {
        calls.sort_unstable_by(|a, b| b.id.cmp(&a.id));
        CallsFound { calls, next: self.below.and_then(|id| id.parse().ok()) }
    }
}

/// Searching.
#[async_trait]
pub trait SearchStore: Send + Sync {
    /// One call, whosoever it is.
    async fn call_of_any(&self, id: &CallId) -> Result<Option<Call>, StoreError>;
    /// The newest calls that fit.
    async fn search_calls(&self, search: CallSearch) -> Result<CallsFound, StoreError>;
}
