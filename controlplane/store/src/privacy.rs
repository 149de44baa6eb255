//! What is kept of people for no longer than it must be: calls, their numbers and texts, recordings and events.

use async_trait::async_trait;
use controlplane_core::{
    ids::{CallId, OrgId},
    number::E164,
};
use time::OffsetDateTime;

use crate::StoreError;

/// What stands in a call in the place of its number once that is erased: of a country code that there is not.
pub const ERASED_NUMBER: &str = "+99900000000";
/// What stands in the place of an erased text.
pub const ERASED_TEXT: &str = "[erased]";

/// What is taken out of a call that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Whom it phoned.
    Number,
    /// What it said, and the customer's own words beside it.
    Text,
}

/// A number's calls to be made nobody's: a part of them, from one id on.
#[derive(Debug, Clone)]
pub struct ForgetNumber {
    /// Whose calls; `None`: everybody's.
    pub org: Option<OrgId>,
    /// The number.
    pub number: E164,
    /// Calls behind this one.
    pub after: Option<CallId>,
    /// Calls that are looked at.
    pub limit: u16,
    /// Now.
    pub at: OffsetDateTime,
}

/// What came of [`PrivacyStore::forget_number`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberForgotten {
    /// Calls from which number and texts were taken.
    pub calls: u64,
    /// Calls to it that have not ended: they were left as they are.
    pub open: u64,
    /// Where to go on; `None`: that was all.
    pub next: Option<CallId>,
}

/// Retention of what is of people.
#[async_trait]
pub trait PrivacyStore {
    /// Erases an organisation's calls that ended at this moment or before, with all that is kept of them. How many, at most
    /// `limit`.
    async fn erase_calls(&self, org: &OrgId, ended_by: OffsetDateTime, limit: u16)
    -> Result<u64, StoreError>;
    /// Takes a part out of an organisation's calls that ended at this moment or before. How many, at most `limit`.
    async fn strip_calls(
        &self,
        org: &OrgId,
        part: Part,
        ended_by: OffsetDateTime,
        at: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError>;
    /// Erases an organisation's events of before this moment, with what came of their deliveries; what is still to be numbered or
    /// delivered stays. How many, at most `limit`.
    async fn erase_events(&self, org: &OrgId, before: OffsetDateTime, limit: u16) -> Result<u64, StoreError>;
    /// Deletes an organisation's recordings that were made at this moment or before, as their owner would. How many, at most
    /// `limit`.
    async fn retire_recordings(
        &self,
        org: &OrgId,
        made_by: OffsetDateTime,
        at: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError>;
    /// Takes a number out of ended calls.
    async fn forget_number(&self, forget: ForgetNumber) -> Result<NumberForgotten, StoreError>;
}
