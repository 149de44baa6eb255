//! Rows of agents' tables, as both databases give them.

use controlplane_core::{ids::FactId, names::NodeName};
use sqlx::FromRow;

use crate::{
    agents::{AgentFact, KeptFact, NodeCertificate, NodeToken, Sha256},
    columns::{Micros, Word},
    rows::moment,
};

fn sha256(column: &'static str, bytes: Vec<u8>) -> Result<Sha256, sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{column} is not 32 bytes long").into()))
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_tokens {
    ($rest:literal) => {
        concat!("SELECT secret_sha256, node, created_at, expires_at, used_at FROM node_token ", $rest)
    };
}
pub(crate) use select_tokens;

#[derive(Debug, FromRow)]
pub(crate) struct TokenRow {
    secret_sha256: Vec<u8>,
    node: Word<NodeName>,
    created_at: Micros,
    expires_at: Micros,
    used_at: Option<Micros>,
}

impl TryFrom<TokenRow> for NodeToken {
    type Error = sqlx::Error;

    fn try_from(row: TokenRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            secret_sha256: sha256("secret_sha256", row.secret_sha256)?,
            node: row.node.0,
            created_at: row.created_at.0,
            expires_at: row.expires_at.0,
            used_at: moment(row.used_at),
        })
    }
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_certificates {
    ($rest:literal) => {
        concat!("SELECT fingerprint, node, issued_at, expires_at, revoked_at FROM node_certificate ", $rest)
    };
}
pub(crate) use select_certificates;

#[derive(Debug, FromRow)]
pub(crate) struct CertificateRow {
    fingerprint: Vec<u8>,
    node: Word<NodeName>,
    issued_at: Micros,
    expires_at: Micros,
    revoked_at: Option<Micros>,
}

impl TryFrom<CertificateRow> for NodeCertificate {
    type Error = sqlx::Error;

    fn try_from(row: CertificateRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            fingerprint: sha256("fingerprint", row.fingerprint)?,
            node: row.node.0,
            issued_at: row.issued_at.0,
            expires_at: row.expires_at.0,
            revoked_at: moment(row.revoked_at),
        })
    }
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_facts {
    ($rest:literal) => {
        concat!("SELECT node, id, kind, at_ms, received_at, body FROM agent_fact ", $rest)
    };
}
pub(crate) use select_facts;

#[derive(Debug, FromRow)]
pub(crate) struct FactRow {
    node: Word<NodeName>,
    id: Word<FactId>,
    kind: String,
    at_ms: i64,
    received_at: Micros,
    body: String,
}

impl TryFrom<FactRow> for KeptFact {
    type Error = sqlx::Error;

    fn try_from(row: FactRow) -> Result<Self, sqlx::Error> {
        let body = serde_json::from_str(&row.body).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Self {
            node: row.node.0,
            received_at: row.received_at.0,
            fact: AgentFact { id: row.id.0, kind: row.kind, at_ms: row.at_ms, body },
        })
    }
}
