//! `cargo lab bench ban`: from the packet that earns a ban to the first packet that is dropped for it, by capture on the PBX's
//! cable, beside fail2ban 1.0.2 on the same attack in the same run.
//!
//! A guesser names five accounts that do not exist, then goes on guessing each millisecond until nobody answers him; the fifth
//! is what decides, for both. He does so from one address after the other, at a PBX with the agent and at one with fail2ban. Where
//! packets are dropped is told by who is answered: the last request that was, and the first one after which none was any more.
use super::{Measured, build, empty, round, spread::Spread};
use crate::output;
use anyhow::{Context as _, ensure};
use lab::{
    Build, ControlPlane, Fail2ban, Guesses, Guessing, Hardening, Lab, Passed, Pbx, Plan, Reach, Setup, Wire,
    pause,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Guesses that earn a ban: 22 points each, of 100. fail2ban is set to as many.
const TRIES: u32 = 5;
/// The one that decides, numbered from 0.
const DECIDER: u32 = TRIES - 1;
const GUESSING: Guessing = Guessing {
    slow: TRIES - 1,
    slow_every: Duration::from_millis(10),
    every: Duration::from_millis(1),
    at_most: Duration::from_secs(10),
};
/// The product's own bound of 60 bans a minute would hold the later ones back.
const BANS_PER_MINUTE: u32 = 10_000;
/// For the capture to be written.
const WRITTEN_WITHIN: Duration = Duration::from_millis(500);
/// From the event that decides; what Asterisk takes to write it is not the product's.
const P99_MS_MAX: f64 = 20.0;
const HOUR_MS: f64 = 3_600_000.0;

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[&["--release", "-p", "controlplane", "-p", "node-agent"]])?;
    Fail2ban::fetch()?;
    let hardening = Hardening::On { forgeable_bans_per_minute_max: BANS_PER_MINUTE };
    let lab = Lab::up(Plan { reach: Reach::Agent, agents: Build::Release, hardening, ..Plan::default() })?;
    let (ours, peers) = (lab.pbx("pbx-1")?, lab.pbx("pbx-2")?);
    let plane = ControlPlane::open(Setup::new(&empty()?).release().agents_at(lab.root_address()))?;
    plane.declare(&lab.fleet_toml())?;
    let agent = ours.agent().context("no agent")?;
    plane.join(&agent)?;
    agent.start()?;
    let _sshd = lab.confirm_rules(ours, &agent)?;
    let log = peers.host().folder().join("log/security.log");
    let fail2ban = Fail2ban::start(peers.host(), &[&log], TRIES)?;
    let (our_wire, peers_wire) = (Wire::tap(ours.host())?, Wire::tap(peers.host())?);
    let attacker = lab.attacker();
    let addresses = attacker.more_addresses();
    output::note(&format!("{} attackers, one after the other, at both", addresses.len()));
    for source in addresses {
        for pbx in [ours, peers] {
            let seen = attacker.guess(*source, pbx, GUESSING)?;
            ensure!(seen.is_cut_off, "{source} was never cut off at {}: {seen:?}", pbx.name());
        }
    }
    pause(WRITTEN_WITHIN);
    let banned = |bans: &BTreeSet<Ipv4Addr>| addresses.iter().all(|address| bans.contains(address));
    ensure!(banned(&ours.banned()?), "somebody was cut off by something else than his ban");
    ensure!(banned(&fail2ban.banned()?.into_iter().collect()), "fail2ban has not banned everybody");
    let us = Drops::of(&our_wire.passed()?, addresses, ours)?;
    let peer = Drops::of(&peers_wire.passed()?, addresses, peers)?;
    let name = format!("fail2ban {}", lab::FAIL2BAN_VERSION);
    let lines = vec![
        format!("from the packet that decides, ms{:>26}{:>9}{:>9}", "p50", "p99", "most"),
        format!("  Ringward: to the first packet dropped   {}", us.dropped),
        format!("            to the last packet answered   {}", us.answered),
        format!("            from Asterisk's event to the drop {}", us.told),
        format!("  {name}: to the first dropped    {}", peer.dropped),
        format!("                  to the last answered    {}", peer.answered),
        format!(
            "  {} attackers' addresses each; target: p99 of {P99_MS_MAX} ms from the event",
            us.dropped.count()
        ),
    ];
    let met = us.told.at(0.99) <= P99_MS_MAX;
    let mut figures = us.json();
    figures["fail2ban_p50_ms"] = round(peer.dropped.at(0.5)).into();
    let mut peer = peer.json();
    peer["name"] = name.into();
    Ok(Measured {
        bench: "ban",
        figures,
        peer,
        targets: json!({"event_to_drop_p99_ms": P99_MS_MAX}),
        met,
        lines,
    })
}

/// What the wire of one PBX tells.
struct Drops {
    dropped: Spread,
    answered: Spread,
    /// From the moment that Asterisk's event carries to the first packet that was dropped.
    told: Spread,
}

impl Drops {
    fn of(passed: &[Passed], addresses: &[Ipv4Addr], pbx: &Pbx) -> anyhow::Result<Self> {
        let log = std::fs::read_to_string(pbx.host().folder().join("log/security.log"))?;
        let (mut dropped, mut answered, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for source in addresses {
            let one = one(passed, *source);
            let (decided, first_dropped, last_answered) =
                one.with_context(|| format!("no drop of {source} on the wire of {}", pbx.name()))?;
            let event_ms = event_ms(&log, *source).with_context(|| format!("no event of {source}"))?;
            dropped.push(ms(first_dropped.saturating_sub(decided)));
            answered.push(ms(last_answered.saturating_sub(decided)));
            told.push((ms(first_dropped) - event_ms).rem_euclid(HOUR_MS));
        }
        Ok(Drops { dropped: Spread::of(dropped), answered: Spread::of(answered), told: Spread::of(told) })
    }

    fn json(&self) -> Value {
        let (dropped, answered, told) = (&self.dropped, &self.answered, &self.told);
        json!({
            "attackers": dropped.count(),
            "packet_to_drop_p50_ms": round(dropped.at(0.5)), "packet_to_drop_p99_ms": round(dropped.at(0.99)),
            "packet_to_drop_max_ms": round(dropped.at(1.0)),
            "packet_to_last_answered_p50_ms": round(answered.at(0.5)),
            "packet_to_last_answered_p99_ms": round(answered.at(0.99)),
            "event_to_drop_p50_ms": round(told.at(0.5)), "event_to_drop_p99_ms": round(told.at(0.99)),
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The moments of the deciding request, of the first dropped one, and of the last that was answered.
fn one(passed: &[Passed], source: Ipv4Addr) -> Option<(Duration, Duration, Duration)> {
    let numbered = |passed: &Passed| Some((Guesses::number(&passed.call_id)?, passed.at));
    let asked = passed.iter().filter(|one| one.from == source && one.code.is_none());
    let asked: BTreeMap<u32, Duration> = asked.filter_map(numbered).collect();
    let answers = passed.iter().filter(|one| one.to == source && one.code.is_some());
    let (last, _) = answers.filter_map(numbered).max()?;
    let last = last.max(DECIDER);
    Some((*asked.get(&DECIDER)?, *asked.get(&(last + 1))?, *asked.get(&last)?))
}

/// When Asterisk wrote the deciding event, in ms of its hour: its clock is the capture's, its time zone may be another.
fn event_ms(log: &str, source: Ipv4Addr) -> Option<f64> {
    let session = format!("SessionID=\"guess-{DECIDER}-{source}-");
    let line = log.lines().find(|line| line.contains("InvalidAccountID") && line.contains(&session))?;
    // 2026-11-28T22:06:01.123+0000
    let (_, stamp) = line.split_once("EventTV=\"")?;
    let minute: f64 = stamp.get(14..16)?.parse().ok()?;
    let second: f64 = stamp.get(17..23)?.parse().ok()?;
    Some((minute * 60.0 + second) * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_told_by_who_was_answered_last() {
        let (attacker, pbx) = (Ipv4Addr::new(192, 0, 2, 101), Ipv4Addr::new(192, 0, 2, 11));
        let message = |n: u32, at_ms: u64, code: Option<u16>| Passed {
            at: Duration::from_millis(at_ms),
            from: if code.is_none() { attacker } else { pbx },
            to: if code.is_none() { pbx } else { attacker },
            call_id: format!("guess-{n}-x"),
            method: "REGISTER".into(),
            code,
        };
        let mut passed: Vec<_> = (0..10).map(|n| message(n, 100 + u64::from(n), None)).collect();
        // The answer to the seventh overtakes that to the sixth, which is lost.
        passed.extend([0, 1, 2, 3, 4, 6].map(|n| message(n, 120, Some(401))));
        let at = Duration::from_millis;
        assert_eq!(one(&passed, attacker), Some((at(104), at(107), at(106))));
        assert_eq!(one(&passed, pbx), None);
        passed.extend([message(9, 130, Some(401))]);
        assert_eq!(one(&passed, attacker), None, "he was answered to the end");
        let line = |name: &str, n: u32| {
            format!(
                "[x] SECURITY[1] a.c: SecurityEvent=\"{name}\",EventTV=\"2026-11-28T22:06:01.123+0000\",\
                 SessionID=\"guess-{n}-192.0.2.101-1f\""
            )
        };
        let log =
            [line("ChallengeSent", 4), line("InvalidAccountID", 3), line("InvalidAccountID", 4)].join("\n");
        assert_eq!(event_ms(&log, attacker), Some(361_123.0));
        assert_eq!(event_ms(&log, pbx), None);
    }
}
