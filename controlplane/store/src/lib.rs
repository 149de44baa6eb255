//! The control plane's durable facts.
//!
//! [`Store`] is the port: coarse methods, each a whole transaction, grouped by noun. Two adapters carry it
//! out, [`sqlite`] and [`postgres`], mirrored file by file, and one contract suite (`tests/contract`)
//! holds both to it. What is written is durable through power loss when a method returns.

mod agent_rows;
pub mod agents;
pub mod audio;
mod audio_rows;
pub mod audit;
mod audit_rows;
mod ban_rows;
pub mod bans;
pub mod calls;
mod columns;
pub mod error;
mod event_rows;
pub mod events;
mod fan;
pub mod fleet;
mod gathering;
pub mod guard;
pub mod health;
mod health_rows;
mod key_rows;
pub mod keys;
mod lenient;
pub mod oncall;
mod oncall_rows;
mod open;
pub mod orgs;
mod place;
pub mod postgres;
pub mod privacy;
mod progress;
mod readable;
pub mod replicas;
pub mod restoring;
mod rows;
pub mod search;
pub mod sessions;
pub mod sqlite;
pub mod status;
pub mod traces;
mod webhook_rows;
pub mod webhooks;

pub use agents::AgentStore;
pub use audio::AudioStore;
pub use audit::AuditStore;
pub use bans::BanStore;
pub use calls::CallStore;
pub use error::StoreError;
pub use events::EventStore;
pub use fleet::FleetStore;
pub use guard::GuardStore;
pub use health::HealthStore;
pub use keys::KeyStore;
pub use oncall::OnCallStore;
use open::migration_refused;
pub use open::{open, open_shared};
pub use orgs::OrgStore;
pub use place::place;
pub use privacy::PrivacyStore;
pub use replicas::ReplicaStore;
pub use restoring::RestoreStore;
pub use search::SearchStore;
pub use sessions::SessionStore;
pub use status::StatusStore;
pub use traces::TraceStore;
pub use webhooks::WebhookStore;

/// Everything that the control plane keeps.
pub trait Store:
    AgentStore
    + AudioStore
    + AuditStore
    + BanStore
    + CallStore
    + EventStore
    + FleetStore
    + GuardStore
    + HealthStore
    + KeyStore
    + OnCallStore
    + OrgStore
    + PrivacyStore
    + RestoreStore
    + ReplicaStore
    + SearchStore
    + SessionStore
    + StatusStore
    + TraceStore
    + WebhookStore
    + Send
    + Sync
{
}
impl<
    T: AgentStore
        + AudioStore
        + AuditStore
        + BanStore
        + CallStore
        + EventStore
        + FleetStore
        + GuardStore
        + HealthStore
        + KeyStore
        + OnCallStore
        + OrgStore
        + PrivacyStore
        + RestoreStore
        + ReplicaStore
        + SearchStore
        + SessionStore
        + StatusStore
        + TraceStore
        + WebhookStore
        + Send
        + Sync,
> Store for T
{
}
