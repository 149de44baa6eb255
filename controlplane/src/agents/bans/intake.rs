//! What nodes' facts about bans mean.
//!
//! A node's word bans in the whole fleet, so it goes through the same guard as an operator's order, lasts no longer
//! than from now, and lifts only what that node has banned. A fact that cannot be read is kept and means nothing.

use controlplane_core::names::NodeName;
use controlplane_store::{
    StoreError,
    bans::{BanFact, BanReport, ListKind, NewEntry, Taken},
};
use ipnet::IpNet;
use node_agent_core::bans::counted;
use node_agent_protocol::{BanLifted, BanMade, BanRefused, Fact, FactBody, fact_kind};
use time::{Duration, OffsetDateTime};

use super::{Bans, guard::Guard};
use crate::agents::facts::stored;

/// Whether this fact is one of those that mean something for the fleet's bans.
pub(in crate::agents) fn is_about_bans(fact: &Fact) -> bool {
    matches!(fact.fact_kind.as_str(), fact_kind::BAN | fact_kind::UNBAN | fact_kind::BAN_REFUSED)
}

impl Bans {
    /// Makes a node's facts about bans durable, and does what they mean. How many were new.
    pub(in crate::agents) async fn take(&self, node: &NodeName, facts: &[Fact]) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let allowed = self.store.entry_nets(ListKind::Allow, now).await?;
        let protected = self.protected();
        let guard = Guard { widths: self.widths, protected: &protected, allowed: &allowed };
        let facts: Vec<BanFact> = facts
            .iter()
            .map(|fact| BanFact { report: self.report(node, &guard, fact, now), fact: stored(fact.clone()) })
            .collect();
        let refusals =
            facts.iter().filter(|fact| matches!(fact.report, Some(BanReport::Refused { .. }))).count();
        let Taken { new, changed, full } =
            self.store.take_ban_facts(node, facts, now, self.audit_id()).await?;
        if new > 0 {
            self.metrics.refused(node.as_str(), u64::try_from(refusals).unwrap_or(u64::MAX));
        }
        if full > 0 {
            tracing::error!(%node, bans = full, "a node's bans find no place in the fleet's list: they hold there alone");
            self.metrics.refused(super::CONTROL_PLANE, full);
        }
        if changed > 0 {
            self.look().await;
        }
        Ok(new)
    }

    fn report(
        &self,
        node: &NodeName,
        guard: &Guard<'_>,
        fact: &Fact,
        now: OffsetDateTime,
    ) -> Option<BanReport> {
        match fact.fact_kind.as_str() {
            fact_kind::BAN => {
                let made = read::<BanMade>(node, &fact.body)?;
                match guard.admit(made.net) {
                    Ok(net) => entry(node, net, made, fact.at_unix_ms, now).map(BanReport::Made),
                    Err(refusal) => {
                        tracing::warn!(%node, %refusal, "a node's ban is not shared");
                        self.metrics.refused(super::CONTROL_PLANE, 1);
                        None
                    }
                }
            }
            fact_kind::UNBAN => Some(BanReport::Lifted(counted(read::<BanLifted>(node, &fact.body)?.net))),
            fact_kind::BAN_REFUSED => {
                let BanRefused { net, reason } = read(node, &fact.body)?;
                tracing::warn!(%node, %net, %reason, "a node refuses a ban of the fleet");
                Some(BanReport::Refused { net: counted(net), reason: reason.as_str().to_owned() })
            }
            _ => None,
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(node: &NodeName, body: &FactBody) -> Option<T> {
    let read = body.read();
    if read.is_none() {
        tracing::warn!(%node, "a fact about a ban cannot be read: it is kept, and means nothing");
    }
    read
}

/// `None`: it is over already. A node whose clock is ahead makes no ban longer than it says.
fn entry(
    node: &NodeName,
    net: IpNet,
    made: BanMade,
    at_unix_ms: i64,
    now: OffsetDateTime,
) -> Option<NewEntry> {
    let expires_at = match made.seconds {
        None => None,
        Some(seconds) => {
            let lasts = Duration::seconds(i64::from(seconds));
            let made_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_unix_ms) * 1_000_000);
            let end = made_at.map_or(now, |at| at.min(now)).checked_add(lasts)?;
            if end <= now {
                return None;
            }
            Some(end)
        }
    };
    Some(NewEntry {
        net,
        origin: node.as_str().to_owned(),
        author: made.author.as_str().to_owned(),
        reason: made.reason.as_str().to_owned(),
        jail: made.jail.map(|jail| jail.as_str().to_owned()),
        evidence: made.evidence.map(|evidence| evidence.as_str().to_owned()),
        source: None,
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use node_agent_protocol::Text;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn no_clock_makes_a_ban_longer_than_it_says() {
        let made = |seconds| BanMade {
            net: "203.0.113.9/32".parse().unwrap(),
            author: Text::cut("jail sip"),
            reason: Text::default(),
            jail: None,
            evidence: None,
            seconds,
        };
        let node = "waw-1".parse().unwrap();
        let end = |seconds, at_s: i64| {
            let made = made(seconds);
            let at_ms = (NOW.unix_timestamp() + at_s).saturating_mul(1_000);
            entry(&node, made.net, made, at_ms, NOW).map(|entry| entry.expires_at)
        };
        let after = |seconds| Some(Some(NOW + Duration::seconds(seconds)));
        assert_eq!(end(Some(600), 0), after(600));
        assert_eq!(end(Some(600), -100), after(500));
        assert_eq!(end(Some(600), 86_400), after(600));
        assert_eq!(end(Some(600), -600), None);
        assert_eq!(end(Some(600), i64::MAX / 4_000), after(600));
        assert_eq!(end(None, -600), Some(None));
    }
}
