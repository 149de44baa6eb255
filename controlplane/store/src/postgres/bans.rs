//! Bans on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::{ids::AuditId, names::NodeName};
use ipnet::IpNet;
use serde_json::json;
use sqlx::{PgConnection, types::time::OffsetDateTime};

use super::{PostgresStore, agents::keep, audit};
use crate::{
    BanStore, StoreError,
    ban_rows::{
        EntryRow, HeadRow, RefusalRow, action, audited, entries, kind, once_each, or_longer, reported,
        select_entries, touch,
    },
    bans::{
        BANS_MAX, BANS_OF_NODE_MAX, BanFact, BanReport, Changes, Entry, EntryPage, KeptRefusal, LiftEntry,
        ListKind, NewEntry, Put, PutEntries, REFUSALS_OF_NODE_MAX, Taken,
    },
    calls::Actor,
    columns::{Micros, Word, kept},
    error::Failure,
};

#[async_trait]
impl BanStore for PostgresStore {
    async fn put_entries(&self, put: PutEntries) -> Result<Put, StoreError> {
        self.transaction("put bans", put, |c, put| Box::pin(put_all(c, put))).await
    }

    async fn lift_entry(&self, lift: LiftEntry) -> Result<bool, StoreError> {
        self.transaction("lift a ban", lift, |c, lift| Box::pin(lift_one(c, lift))).await
    }

    async fn take_ban_facts(
        &self,
        node: &NodeName,
        facts: Vec<BanFact>,
        received_at: OffsetDateTime,
        audit_id: AuditId,
    ) -> Result<Taken, StoreError> {
        let input = (node.clone(), facts, received_at, audit_id);
        self.transaction("take facts about bans", input, |c, (node, facts, at, audit_id)| {
            Box::pin(take(c, node, facts, *at, audit_id))
        })
        .await
    }

    async fn ban_changes(&self, after: i64, limit: u16) -> Result<Changes, StoreError> {
        let operation = "read changes of bans";
        let mut moment = self.reading(operation).await?;
        changes(&mut moment, after, limit).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn ban_revision(&self) -> Result<i64, StoreError> {
        let revision = sqlx::query_scalar("SELECT revision FROM ban_head").fetch_one(&self.pool).await;
        revision.map_err(|error| self.failed("read the bans' revision", error))
    }

    async fn entries(
        &self,
        kind: ListKind,
        page: EntryPage,
        at: OffsetDateTime,
    ) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query_as::<_, EntryRow>(select_entries!(
            "WHERE kind = $1 AND lifted_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
                AND ($3::text IS NULL OR origin = $3) AND ($4::text IS NULL OR source = $4)
                AND ($5::bigint IS NULL OR revision < $5) ORDER BY revision DESC LIMIT $6"
        ))
        .bind(kind.as_str())
        .bind(Micros::from(at))
        .bind(page.origin)
        .bind(page.source)
        .bind(page.before)
        .bind(i64::from(page.limit))
        .fetch_all(&self.pool)
        .await;
        rows.and_then(entries).map_err(|error| self.failed("list bans", error))
    }

    async fn entries_of(&self, nets: &[IpNet], at: OffsetDateTime) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query_as::<_, EntryRow>(select_entries!(
            "WHERE net = ANY($1) AND lifted_at IS NULL
                AND (expires_at IS NULL OR expires_at > $2) ORDER BY kind, revision"
        ))
        .bind(texts(nets))
        .bind(Micros::from(at))
        .fetch_all(&self.pool)
        .await;
        rows.and_then(entries).map_err(|error| self.failed("find bans", error))
    }

    async fn entry_nets(&self, kind: ListKind, at: OffsetDateTime) -> Result<Vec<IpNet>, StoreError> {
        let operation = "list banned networks";
        let mut moment = self.reading(operation).await?;
        nets(&mut moment, kind, at).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn entry_counts(&self, at: OffsetDateTime) -> Result<Vec<(ListKind, String, u64)>, StoreError> {
        let rows = sqlx::query_as::<_, (String, String, i64)>(
            "SELECT kind, origin, count(*) FROM ban_list
             WHERE lifted_at IS NULL AND (expires_at IS NULL OR expires_at > $1) GROUP BY kind, origin",
        )
        .bind(Micros::from(at))
        .fetch_all(&self.pool)
        .await;
        let read = |(word, origin, count): (String, String, i64)| {
            Ok((kind(&word)?, origin, u64::try_from(count).unwrap_or(0)))
        };
        let counts = rows.and_then(|rows| rows.into_iter().map(read).collect());
        counts.map_err(|error| self.failed("count bans", error))
    }

    async fn ban_refusals(&self, nets: Option<&[IpNet]>, limit: u16) -> Result<Vec<KeptRefusal>, StoreError> {
        let rows = sqlx::query_as::<_, RefusalRow>(
            "SELECT node, net, reason, refused_at FROM ban_refusal
             WHERE $1::text[] IS NULL OR net = ANY($1)
             ORDER BY refused_at DESC, node, net LIMIT $2",
        )
        .bind(nets.map(texts))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await;
        let refusals = rows.map(|rows| rows.into_iter().map(KeptRefusal::from).collect());
        refusals.map_err(|error| self.failed("list refusals of bans", error))
    }

    async fn prune_bans(&self, at: OffsetDateTime, lifted_before: OffsetDateTime) -> Result<u64, StoreError> {
        let input = (at, lifted_before);
        self.transaction("prune bans", input, |c, (at, before)| Box::pin(prune(c, *at, *before))).await
    }
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

async fn put_all(c: &mut PgConnection, put: &PutEntries) -> Result<Put, Failure> {
    let wanted = once_each(&put.entries);
    let held = count(c, put.kind, None, put.at).await?;
    let new = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
    // Those that are held already are counted twice: near the bound, less is taken rather than more.
    if held.saturating_add(new) > put.kind.max() {
        return Ok(Put::Full);
    }
    let changed = insert(c, put.kind, &wanted, put.at).await?;
    let lifted = match put.kind {
        ListKind::Ban => 0,
        ListKind::Allow => {
            let bans = nets(c, ListKind::Ban, put.at).await?;
            let touched: Vec<IpNet> =
                bans.into_iter().filter(|net| wanted.iter().any(|entry| touch(&entry.net, net))).collect();
            lift_nets(c, ListKind::Ban, &touched, None, put.at).await?
        }
    };
    let (action, target) = action(put);
    let entry = audit::Entry {
        id: &put.audit_id,
        org: None,
        at: put.at,
        actor: &put.actor,
        action,
        target_type: put.kind.as_str(),
        target_id: &target,
        changes: &audited(put, changed, lifted),
    };
    audit::write(c, entry).await?;
    Ok(Put::Done { changed, lifted })
}

async fn count(
    c: &mut PgConnection,
    kind: ListKind,
    origin: Option<&str>,
    at: OffsetDateTime,
) -> Result<u64, Failure> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM ban_list
         WHERE kind = $1 AND ($2::text IS NULL OR origin = $2) AND lifted_at IS NULL
             AND (expires_at IS NULL OR expires_at > $3)",
    )
    .bind(kind.as_str())
    .bind(origin)
    .bind(Micros::from(at))
    .fetch_one(c)
    .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Takes the next `n` revisions; the first of them.
async fn revisions(c: &mut PgConnection, n: usize) -> Result<i64, Failure> {
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    let last: i64 = sqlx::query_scalar("UPDATE ban_head SET revision = revision + $1 RETURNING revision")
        .bind(n)
        .fetch_one(c)
        .await?;
    Ok(last - n + 1)
}

/// How many are new or longer.
async fn insert(
    c: &mut PgConnection,
    kind: ListKind,
    wanted: &[&NewEntry],
    at: OffsetDateTime,
) -> Result<u64, Failure> {
    if wanted.is_empty() {
        return Ok(0);
    }
    let first = revisions(c, wanted.len()).await?;
    let last = first + i64::try_from(wanted.len()).unwrap_or(0);
    let column = |of: fn(&NewEntry) -> &str| wanted.iter().map(|entry| of(entry)).collect::<Vec<_>>();
    let optional =
        |of: fn(&NewEntry) -> Option<&str>| wanted.iter().map(|entry| of(entry)).collect::<Vec<_>>();
    // All in one statement: each is a way to the server and back otherwise.
    let changed = sqlx::query(concat!(
        "INSERT INTO ban_list (kind, net, origin, author, reason, jail, evidence, source, created_at, changed_at,
             expires_at, lifted_at, revision, lift_revision)
         SELECT $1, net, origin, author, reason, jail, evidence, source, $2, $2, expires_at, NULL, revision, NULL
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
             $10::timestamptz[], $11::bigint[])
             AS e (net, origin, author, reason, jail, evidence, source, expires_at, revision)",
        or_longer!()
    ))
    .bind(kind.as_str())
    .bind(Micros::from(at))
    .bind(wanted.iter().map(|entry| entry.net.to_string()).collect::<Vec<_>>())
    .bind(column(|entry| &entry.origin))
    .bind(column(|entry| &entry.author))
    .bind(column(|entry| &entry.reason))
    .bind(optional(|entry| entry.jail.as_deref()))
    .bind(optional(|entry| entry.evidence.as_deref()))
    .bind(optional(|entry| entry.source.as_deref()))
    .bind(wanted.iter().map(|entry| entry.expires_at.map(kept)).collect::<Vec<_>>())
    .bind((first..last).collect::<Vec<_>>())
    .execute(c)
    .await?
    .rows_affected();
    Ok(changed)
}

/// Lifts these, where they hold and are of this origin; how many.
async fn lift_nets(
    c: &mut PgConnection,
    kind: ListKind,
    nets: &[IpNet],
    origin: Option<&str>,
    at: OffsetDateTime,
) -> Result<u64, Failure> {
    if nets.is_empty() {
        return Ok(0);
    }
    let first = revisions(c, nets.len()).await?;
    let last = first + i64::try_from(nets.len()).unwrap_or(0);
    let lifted = sqlx::query(
        "UPDATE ban_list SET lifted_at = $1, changed_at = $1, revision = e.revision, lift_revision = e.revision
         FROM unnest($2::text[], $3::bigint[]) AS e (net, revision)
         WHERE ban_list.kind = $4 AND ban_list.net = e.net AND ($5::text IS NULL OR ban_list.origin = $5)
             AND ban_list.lifted_at IS NULL AND (ban_list.expires_at IS NULL OR ban_list.expires_at > $1)",
    )
    .bind(Micros::from(at))
    .bind(texts(nets))
    .bind((first..last).collect::<Vec<_>>())
    .bind(kind.as_str())
    .bind(origin)
    .execute(c)
    .await?
    .rows_affected();
    Ok(lifted)
}

async fn lift_one(c: &mut PgConnection, lift: &LiftEntry) -> Result<bool, Failure> {
    if lift_nets(c, lift.kind, &[lift.net], None, lift.at).await? == 0 {
        return Ok(false);
    }
    let entry = audit::Entry {
        id: &lift.audit_id,
        org: None,
        at: lift.at,
        actor: &lift.actor,
        action: match lift.kind {
            ListKind::Ban => "ban.remove",
            ListKind::Allow => "allow.remove",
        },
        target_type: lift.kind.as_str(),
        target_id: &lift.net.to_string(),
        changes: &json!({"reason": lift.reason}),
    };
    audit::write(c, entry).await?;
    Ok(true)
}

async fn take(
    c: &mut PgConnection,
    node: &NodeName,
    facts: &[BanFact],
    at: OffsetDateTime,
    audit_id: &AuditId,
) -> Result<Taken, Failure> {
    let mut taken = Taken::default();
    let (mut bans, mut lifts) = (Vec::new(), Vec::new());
    for BanFact { fact, report } in facts {
        if keep(c, node, std::slice::from_ref(fact), at).await? == 0 {
            continue;
        }
        taken.new += 1;
        match report {
            None => {}
            Some(BanReport::Made(entry)) => bans.push(entry.clone()),
            Some(BanReport::Lifted(net)) => {
                // In the order of the facts: what was made in the same message is lifted too.
                bans.retain(|ban: &NewEntry| ban.net != *net);
                lifts.push(*net);
            }
            Some(BanReport::Refused { net, reason }) => refuse(c, node, net, reason, at).await?,
        }
    }
    taken.changed += lift_nets(c, ListKind::Ban, &lifts, Some(node.as_str()), at).await?;
    let wanted = once_each(&bans);
    if !wanted.is_empty() {
        let of_all = BANS_MAX.saturating_sub(count(c, ListKind::Ban, None, at).await?);
        let of_node =
            BANS_OF_NODE_MAX.saturating_sub(count(c, ListKind::Ban, Some(node.as_str()), at).await?);
        let room = usize::try_from(of_all.min(of_node)).unwrap_or(usize::MAX).min(wanted.len());
        let (placed, left) = wanted.split_at(room);
        taken.full += u64::try_from(left.len()).unwrap_or(u64::MAX);
        taken.changed += insert(c, ListKind::Ban, placed, at).await?;
    }
    if taken.changed > 0 {
        let entry = audit::Entry {
            id: audit_id,
            org: None,
            at,
            actor: &Actor { node: Some(node.clone()), ..Actor::default() },
            action: "ban.report",
            target_type: "node",
            target_id: node.as_str(),
            changes: &reported(&wanted, &lifts, taken.changed),
        };
        audit::write(c, entry).await?;
    }
    Ok(taken)
}

async fn refuse(
    c: &mut PgConnection,
    node: &NodeName,
    net: &IpNet,
    reason: &str,
    at: OffsetDateTime,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO ban_refusal (node, net, reason, refused_at)
         SELECT $1, $2, $3, $4::timestamptz WHERE (SELECT count(*) FROM ban_refusal WHERE node = $1) < $5
         ON CONFLICT (node, net) DO UPDATE SET reason = excluded.reason, refused_at = excluded.refused_at",
    )
    .bind(node.as_str())
    .bind(net.to_string())
    .bind(reason)
    .bind(Micros::from(at))
    .bind(i64::try_from(REFUSALS_OF_NODE_MAX).unwrap_or(i64::MAX))
    .execute(c)
    .await?;
    Ok(())
}

async fn changes(c: &mut PgConnection, after: i64, limit: u16) -> Result<Changes, Failure> {
    let head = sqlx::query_as::<_, HeadRow>("SELECT list, revision, lifts_known_from FROM ban_head")
        .fetch_one(&mut *c)
        .await?;
    let rows =
        sqlx::query_as::<_, EntryRow>(select_entries!("WHERE revision > $1 ORDER BY revision LIMIT $2"))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(c)
            .await?;
    let HeadRow { list, revision, lifts_known_from } = head;
    Ok(Changes { list, head: revision, lifts_known_from, entries: entries(rows)? })
}

async fn nets(c: &mut PgConnection, kind: ListKind, at: OffsetDateTime) -> Result<Vec<IpNet>, Failure> {
    let rows = sqlx::query_as::<_, (Word<IpNet>,)>(
        "SELECT net FROM ban_list
         WHERE kind = $1 AND lifted_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(kind.as_str())
    .bind(Micros::from(at))
    .fetch_all(c)
    .await?;
    Ok(rows.into_iter().map(|(net,)| net.0).collect())
}

async fn prune(
    c: &mut PgConnection,
    at: OffsetDateTime,
    lifted_before: OffsetDateTime,
) -> Result<u64, Failure> {
    let (at, lifted_before) = (Micros::from(at), Micros::from(lifted_before));
    // What was lifted once is kept as long as a lift, since a node may still hold the ban from before.
    let forgotten = sqlx::query_as::<_, (Option<i64>,)>(
        "DELETE FROM ban_list
         WHERE lifted_at < $2 OR (expires_at < $1 AND lift_revision IS NULL) OR expires_at < $2
         RETURNING lift_revision",
    )
    .bind(at)
    .bind(lifted_before)
    .fetch_all(&mut *c)
    .await?;
    if let Some(last) = forgotten.iter().filter_map(|(lift,)| *lift).max() {
        sqlx::query("UPDATE ban_head SET lifts_known_from = greatest(lifts_known_from, $1)")
            .bind(last)
            .execute(&mut *c)
            .await?;
    }
    let refusals = sqlx::query(
        "DELETE FROM ban_refusal WHERE NOT EXISTS (
             SELECT 1 FROM ban_list WHERE kind = 'ban' AND ban_list.net = ban_refusal.net AND lifted_at IS NULL
                 AND (expires_at IS NULL OR expires_at > $1))",
    )
    .bind(at)
    .execute(c)
    .await?
    .rows_affected();
    Ok(u64::try_from(forgotten.len()).unwrap_or(u64::MAX) + refusals)
}
