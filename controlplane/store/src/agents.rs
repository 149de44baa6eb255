//! Agents: tokens to join with, the certificates they hold, and the facts they report.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, FactId},
    names::NodeName,
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// SHA-256 of a certificate (DER), or of a token's secret.
pub type Sha256 = [u8; 32];

/// A token that lets one node join once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeToken {
    /// Hash of its secret.
    pub secret_sha256: Sha256,
    /// Whose.
    pub node: NodeName,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From then on it is worth nothing.
    pub expires_at: OffsetDateTime,
    /// When it was used.
    pub used_at: Option<OffsetDateTime>,
}

/// A certificate that was issued to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// SHA-256 of it.
    pub fingerprint: Sha256,
    /// Whose.
    pub node: NodeName,
    /// When.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// By what a node gets a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warrant {
    /// A token's hash, with the node that claims it.
    Token(Sha256),
    /// The fingerprint of the certificate that it holds.
    Certificate(Sha256),
}

/// A certificate about to be handed out: signed already, and worth nothing until this is written.
#[derive(Debug, Clone)]
pub struct IssueCertificate {
    /// Why it may have it.
    pub warrant: Warrant,
    /// What it gets. `issued_at` is now.
    pub certificate: NodeCertificate,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What came of [`AgentStore::issue_certificate`]. Only the first wrote anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issued {
    /// Done; a token is used up by it.
    Done,
    /// There is no such token or certificate.
    Unknown,
    /// The token, or the certificate, is another node's.
    OtherNode,
    /// The token was used before.
    Used,
    /// The token, or the certificate, ended before.
    Expired,
    /// The certificate was revoked.
    Revoked,
}

/// What a node reported.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentFact {
    /// Made by the node, once.
    pub id: FactId,
    /// What kind.
    pub kind: String,
    /// When, by the node's clock, in ms since 1970.
    pub at_ms: i64,
    /// What.
    pub body: serde_json::Value,
}

/// A fact as it is read back.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptFact {
    /// Who reported it.
    pub node: NodeName,
    /// When it came first.
    pub received_at: OffsetDateTime,
    /// What.
    pub fact: AgentFact,
}

/// Agents.
#[async_trait]
pub trait AgentStore {
    /// Makes a token, with its audit row.
    async fn create_node_token(
        &self,
        token: NodeToken,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<(), StoreError>;
    /// The token with this hash, used or not, expired or not.
    async fn node_token(&self, secret_sha256: &Sha256) -> Result<Option<NodeToken>, StoreError>;
    /// Records a certificate and uses up its token, with an audit row, if the warrant holds. Of any number
    /// at the same time with one token, one is done.
    async fn issue_certificate(&self, issue: IssueCertificate) -> Result<Issued, StoreError>;
    /// The certificate with this fingerprint, revoked or not, expired or not.
    async fn node_certificate(&self, fingerprint: &Sha256) -> Result<Option<NodeCertificate>, StoreError>;
    /// Fingerprints of every revoked certificate that would still hold at `at`.
    async fn revoked_certificates(&self, at: OffsetDateTime) -> Result<Vec<Sha256>, StoreError>;
    /// Revokes every certificate of a node and takes back its unused tokens, with an audit row. How many
    /// certificates it was; a node that holds nothing is written to the audit log all the same.
    async fn revoke_node(
        &self,
        node: &NodeName,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<u64, StoreError>;
    /// Keeps facts; those that the node reported before stay as they were. How many were new.
    async fn keep_facts(
        &self,
        node: &NodeName,
        facts: Vec<AgentFact>,
        received_at: OffsetDateTime,
    ) -> Result<u64, StoreError>;
    /// The latest facts of these kinds of a node, newest first.
    async fn facts_of_kinds(
        &self,
        node: &NodeName,
        kinds: &[&str],
        limit: u16,
    ) -> Result<Vec<KeptFact>, StoreError>;
    /// The latest facts, of one node or of all, newest first.
    async fn agent_facts(&self, node: Option<&NodeName>, limit: u16) -> Result<Vec<KeptFact>, StoreError>;
    /// Erases facts received, and tokens and certificates ended, before `before`. How many rows.
    async fn erase_agents_past(&self, before: OffsetDateTime) -> Result<u64, StoreError>;
}
