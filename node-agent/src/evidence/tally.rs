//! What goes to the control plane: counts in a while instead of each offence, so that a flood fills no spool.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use node_agent_core::{
    moment::UnixMs,
    offence::{Kind, Offence, Source},
    rules::{JailName, Proof},
};
use node_agent_protocol::fact_kind;
use serde_json::{Value, json};

/// Addresses that are told apart for one jail and kind.
const SOURCES_MAX: usize = 1024;
/// Things that were told of and are not told again for a while.
const TOLD_MAX: usize = 1024;
/// The while.
const TOLD_FOR_MS: u64 = 3_600_000;
/// Findings of one while; more are counted and no more.
const FINDINGS_MAX: u32 = 50;

/// A fact's kind and body.
pub(super) type Told = (&'static str, Value);

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    sources: BTreeSet<Source>,
}

/// Since the last report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    offences: BTreeMap<(JailName, Kind), Seen>,
    held: BTreeMap<Proof, (u64, IpNet)>,
    findings: u32,
    /// Until when these are not told again.
    told: BTreeMap<String, UnixMs>,
}

impl Tally {
    pub(super) fn offence(&mut self, jail: &JailName, offence: &Offence) {
        let seen = self.offences.entry((jail.clone(), offence.kind)).or_default();
        seen.count += 1;
        if seen.sources.len() < SOURCES_MAX {
            seen.sources.insert(offence.source);
        }
    }

    /// The breaker held a ban back.
    pub(super) fn held(&mut self, proof: Proof, source: Source) {
        let (count, last) = self.held.entry(proof).or_insert((0, source.net()));
        (*count, *last) = (*count + 1, source.net());
    }

    /// A finding, unless it was told of within the hour or too many were.
    pub(super) fn finding(
        &mut self,
        finding: &'static str,
        subject: &str,
        fix: &str,
        now: UnixMs,
    ) -> Option<Told> {
        let key = format!("{finding} {subject}");
        self.told.retain(|_, until| *until > now);
        if self.told.contains_key(&key) || self.told.len() >= TOLD_MAX || self.findings >= FINDINGS_MAX {
            return None;
        }
        self.findings += 1;
        self.told.insert(key, now.plus_s(TOLD_FOR_MS / 1000));
        Some((fact_kind::FINDING, json!({"finding": finding, "subject": subject, "fix": fix})))
    }

    /// Everything since the last report, which is so many seconds ago.
    pub(super) fn report(&mut self, seconds: u64) -> Vec<Told> {
        self.findings = 0;
        let mut facts = Vec::new();
        for ((jail, kind), seen) in std::mem::take(&mut self.offences) {
            if kind == Kind::Tampering {
                let source = seen.sources.first().map(|source| source.net().addr());
                let body = json!({"tampering": format!("{jail}_line_breaks"), "count": seen.count, "source": source});
                facts.push((fact_kind::TAMPERING, body));
            }
            let body = json!({
                "jail": jail, "offence": kind, "count": seen.count, "sources": seen.sources.len(),
                "seconds": seconds,
            });
            facts.push((fact_kind::OFFENCES, body));
        }
        for (proof, (count, last)) in std::mem::take(&mut self.held) {
            let body = json!({
                "finding": "bans_held_back", "subject": proof.as_str(), "count": count, "last": last,
                "fix": "More addresses earn a ban than the breaker lets through in a minute. Look at who they are \
                        (`ringward-agent jail status`): forged packets, or rules that are too strict; then raise \
                        rules.bans_per_minute_max or rules.forgeable_bans_per_minute_max",
            });
            facts.push((fact_kind::FINDING, body));
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use node_agent_core::offence::Transport;

    use super::*;

    fn source(n: u32) -> Source {
        Source::V4(std::net::Ipv4Addr::from_bits(0xc000_0200 + n))
    }

    fn offence(kind: Kind, n: u32) -> Offence {
        Offence { kind, source: source(n), transport: Transport::Udp, account: None }
    }

    #[test]
    fn a_flood_is_a_few_facts() {
        let (mut tally, jail) = (Tally::default(), "asterisk".parse().unwrap());
        for n in 0..100_000 {
            tally.offence(&jail, &offence(Kind::InvalidAccount, n));
            tally.held(Proof::Forgeable, source(n));
        }
        tally.offence(&jail, &offence(Kind::Tampering, 66));
        let facts = tally.report(30);
        let kinds: Vec<_> = facts.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [fact_kind::OFFENCES, fact_kind::TAMPERING, fact_kind::OFFENCES, fact_kind::FINDING]
        );
        assert_eq!(facts[0].1["count"], 100_000);
        assert_eq!(facts[0].1["sources"], SOURCES_MAX);
        assert_eq!(facts[1].1["source"], "192.0.2.66");
        assert!(tally.report(30).is_empty());
    }

    #[test]
    fn a_finding_is_told_once_an_hour_and_many_are_not_all_told() {
        let mut tally = Tally::default();
        let mut told =
            |n: u64, at: u64| tally.finding("old_password", &n.to_string(), "", UnixMs(at)).is_some();
        assert!(told(1, 0) && !told(1, 1) && told(1, TOLD_FOR_MS));
        assert_eq!((2..10_000).filter(|n| told(*n, TOLD_FOR_MS)).count(), FINDINGS_MAX as usize - 2);
        for n in 0..200 {
            tally.report(30);
            for m in 0..100 {
                tally.finding("old_password", &format!("{n} {m}"), "", UnixMs(TOLD_FOR_MS));
            }
        }
        assert!(tally.told.len() <= TOLD_MAX);
    }
}
