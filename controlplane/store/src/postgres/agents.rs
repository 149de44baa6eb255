//! Agents on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::{ids::AuditId, names::NodeName};
use serde_json::json;
use sqlx::{PgConnection, types::time::OffsetDateTime};

use super::{PostgresStore, audit};
use crate::{
    AgentStore, StoreError,
    agent_rows::{CertificateRow, FactRow, TokenRow, select_certificates, select_facts, select_tokens},
    agents::{AgentFact, IssueCertificate, Issued, KeptFact, NodeCertificate, NodeToken, Sha256, Warrant},
    calls::Actor,
    columns::Micros,
    error::Failure,
};

#[async_trait]
impl AgentStore for PostgresStore {
    async fn create_node_token(
        &self,
        token: NodeToken,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<(), StoreError> {
        let input = (token, actor, audit_id);
        self.transaction("create node token", input, |c, (token, actor, id)| {
            Box::pin(create_token(c, token, actor, id))
        })
        .await
    }

    async fn node_token(&self, secret_sha256: &Sha256) -> Result<Option<NodeToken>, StoreError> {
        let row = sqlx::query_as::<_, TokenRow>(select_tokens!("WHERE secret_sha256 = $1"))
            .bind(secret_sha256.as_slice())
            .fetch_optional(&self.pool)
            .await;
        let token = row.and_then(|row| row.map(NodeToken::try_from).transpose());
        token.map_err(|error| self.failed("find node token", error))
    }

    async fn issue_certificate(&self, issue: IssueCertificate) -> Result<Issued, StoreError> {
        self.transaction("issue certificate", issue, |c, issue| Box::pin(issue_one(c, issue))).await
    }

    async fn node_certificate(&self, fingerprint: &Sha256) -> Result<Option<NodeCertificate>, StoreError> {
        let row = sqlx::query_as::<_, CertificateRow>(select_certificates!("WHERE fingerprint = $1"))
            .bind(fingerprint.as_slice())
            .fetch_optional(&self.pool)
            .await;
        let certificate = row.and_then(|row| row.map(NodeCertificate::try_from).transpose());
        certificate.map_err(|error| self.failed("find certificate", error))
    }

    async fn revoked_certificates(&self, at: OffsetDateTime) -> Result<Vec<Sha256>, StoreError> {
        let rows = sqlx::query_as::<_, CertificateRow>(select_certificates!(
            "WHERE revoked_at IS NOT NULL AND expires_at > $1"
        ))
        .bind(Micros::from(at))
        .fetch_all(&self.pool)
        .await;
        let all = rows.and_then(|rows| rows.into_iter().map(NodeCertificate::try_from).collect());
        let all: Vec<NodeCertificate> =
            all.map_err(|error: sqlx::Error| self.failed("list revoked certificates", error))?;
        Ok(all.into_iter().map(|certificate| certificate.fingerprint).collect())
    }

    async fn revoke_node(
        &self,
        node: &NodeName,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<u64, StoreError> {
        let input = (node.clone(), at, actor, audit_id);
        self.transaction("revoke node", input, |c, (node, at, actor, id)| {
            Box::pin(revoke(c, node, *at, actor, id))
        })
        .await
    }

    async fn keep_facts(
        &self,
        node: &NodeName,
        facts: Vec<AgentFact>,
        received_at: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let input = (node.clone(), facts, received_at);
        self.transaction("keep facts", input, |c, (node, facts, at)| Box::pin(keep(c, node, facts, *at)))
            .await
    }

    async fn facts_of_kinds(
        &self,
        node: &NodeName,
        kinds: &[&str],
        limit: u16,
    ) -> Result<Vec<KeptFact>, StoreError> {
        let rows = sqlx::query_as::<_, FactRow>(select_facts!(
            "WHERE node = $1 AND kind = ANY($2) ORDER BY id DESC LIMIT $3"
        ))
        .bind(node.as_str())
        .bind(kinds)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await;
        let facts = rows.and_then(|rows| rows.into_iter().map(KeptFact::try_from).collect());
        facts.map_err(|error| self.failed("list facts of kinds", error))
    }

    async fn agent_facts(&self, node: Option<&NodeName>, limit: u16) -> Result<Vec<KeptFact>, StoreError> {
        let rows = sqlx::query_as::<_, FactRow>(select_facts!(
            "WHERE $1::text IS NULL OR node = $1 ORDER BY received_at DESC, id DESC LIMIT $2"
        ))
        .bind(node.map(NodeName::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await;
        let facts = rows.and_then(|rows| rows.into_iter().map(KeptFact::try_from).collect());
        facts.map_err(|error| self.failed("list facts", error))
    }

    async fn erase_agents_past(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        self.transaction("erase agents' past", before, |c, before| Box::pin(erase(c, *before))).await
    }
}

async fn create_token(
    c: &mut PgConnection,
    token: &NodeToken,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO node_token (secret_sha256, node, created_at, expires_at, used_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(token.secret_sha256.as_slice())
    .bind(token.node.as_str())
    .bind(Micros::from(token.created_at))
    .bind(Micros::from(token.expires_at))
    .bind(token.used_at.map(Micros::from))
    .execute(&mut *c)
    .await?;
    let entry = audit::Entry {
        id: audit_id,
        org: None,
        at: token.created_at,
        actor,
        action: "node.token",
        target_type: "node",
        target_id: token.node.as_str(),
        changes: &json!({"expires_at": token.expires_at.unix_timestamp()}),
    };
    audit::write(c, entry).await
}

async fn issue_one(c: &mut PgConnection, issue: &IssueCertificate) -> Result<Issued, Failure> {
    let IssueCertificate { warrant, certificate, actor, audit_id } = issue;
    let now = certificate.issued_at;
    let (action, refused) = match warrant {
        Warrant::Token(hash) => ("node.join", use_token(c, hash, certificate).await?),
        Warrant::Certificate(held) => ("node.renew", check_held(c, held, certificate).await?),
    };
    if let Some(refused) = refused {
        return Ok(refused);
    }
    sqlx::query(
        "INSERT INTO node_certificate (fingerprint, node, issued_at, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, NULL)",
    )
    .bind(certificate.fingerprint.as_slice())
    .bind(certificate.node.as_str())
    .bind(Micros::from(now))
    .bind(Micros::from(certificate.expires_at))
    .execute(&mut *c)
    .await?;
    let entry = audit::Entry {
        id: audit_id,
        org: None,
        at: now,
        actor,
        action,
        target_type: "node",
        target_id: certificate.node.as_str(),
        changes: &json!({
            "fingerprint": hex(&certificate.fingerprint), "expires_at": certificate.expires_at.unix_timestamp(),
        }),
    };
    audit::write(c, entry).await?;
    Ok(Issued::Done)
}

/// Uses the token up, or says why not.
async fn use_token(
    c: &mut PgConnection,
    hash: &Sha256,
    certificate: &NodeCertificate,
) -> Result<Option<Issued>, Failure> {
    let now = Micros::from(certificate.issued_at);
    let used = sqlx::query(
        "UPDATE node_token SET used_at = $1
         WHERE secret_sha256 = $2 AND node = $3 AND used_at IS NULL AND expires_at > $1",
    )
    .bind(now)
    .bind(hash.as_slice())
    .bind(certificate.node.as_str())
    .execute(&mut *c)
    .await?;
    if used.rows_affected() == 1 {
        return Ok(None);
    }
    let row = sqlx::query_as::<_, TokenRow>(select_tokens!("WHERE secret_sha256 = $1"))
        .bind(hash.as_slice())
        .fetch_optional(c)
        .await?;
    let Some(token) = row.map(NodeToken::try_from).transpose()? else { return Ok(Some(Issued::Unknown)) };
    Ok(Some(if token.node != certificate.node {
        Issued::OtherNode
    } else if token.used_at.is_some() {
        Issued::Used
    } else {
        Issued::Expired
    }))
}

/// Why the certificate that the node holds is no warrant, if so.
async fn check_held(
    c: &mut PgConnection,
    held: &Sha256,
    certificate: &NodeCertificate,
) -> Result<Option<Issued>, Failure> {
    // A write, so that a revocation at the same time comes wholly before or wholly after.
    let row = sqlx::query_as::<_, CertificateRow>(
        "UPDATE node_certificate SET node = node WHERE fingerprint = $1
         RETURNING fingerprint, node, issued_at, expires_at, revoked_at",
    )
    .bind(held.as_slice())
    .fetch_optional(c)
    .await?;
    let Some(held) = row.map(NodeCertificate::try_from).transpose()? else {
        return Ok(Some(Issued::Unknown));
    };
    Ok(if held.node != certificate.node {
        Some(Issued::OtherNode)
    } else if held.revoked_at.is_some() {
        Some(Issued::Revoked)
    } else if held.expires_at <= certificate.issued_at {
        Some(Issued::Expired)
    } else {
        None
    })
}

async fn revoke(
    c: &mut PgConnection,
    node: &NodeName,
    at: OffsetDateTime,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<u64, Failure> {
    let tokens = sqlx::query("DELETE FROM node_token WHERE node = $1 AND used_at IS NULL")
        .bind(node.as_str())
        .execute(&mut *c)
        .await?
        .rows_affected();
    let revoked = sqlx::query(
        "UPDATE node_certificate SET revoked_at = $1
         WHERE node = $2 AND revoked_at IS NULL AND expires_at > $1",
    )
    .bind(Micros::from(at))
    .bind(node.as_str())
    .execute(&mut *c)
    .await?
    .rows_affected();
    let entry = audit::Entry {
        id: audit_id,
        org: None,
        at,
        actor,
        action: "node.revoke",
        target_type: "node",
        target_id: node.as_str(),
        changes: &json!({"certificates": revoked, "tokens": tokens}),
    };
    audit::write(c, entry).await?;
    Ok(revoked)
}

pub(super) async fn keep(
    c: &mut PgConnection,
    node: &NodeName,
    facts: &[AgentFact],
    received_at: OffsetDateTime,
) -> Result<u64, Failure> {
    let mut new = 0;
    for fact in facts {
        new += sqlx::query(
            "INSERT INTO agent_fact (node, id, kind, at_ms, received_at, body)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (node, id) DO NOTHING",
        )
        .bind(node.as_str())
        .bind(fact.id.as_str())
        .bind(&fact.kind)
        .bind(fact.at_ms)
        .bind(Micros::from(received_at))
        .bind(fact.body.to_string())
        .execute(&mut *c)
        .await?
        .rows_affected();
    }
    Ok(new)
}

async fn erase(c: &mut PgConnection, before: OffsetDateTime) -> Result<u64, Failure> {
    let mut erased = 0;
    for sql in [
        "DELETE FROM agent_fact WHERE received_at < $1",
        "DELETE FROM node_token WHERE expires_at < $1",
        "DELETE FROM node_certificate WHERE expires_at < $1",
    ] {
        erased += sqlx::query(sql).bind(Micros::from(before)).execute(&mut *c).await?.rows_affected();
    }
    Ok(erased)
}

fn hex(bytes: &Sha256) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
