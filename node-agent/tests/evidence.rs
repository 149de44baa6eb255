//! From security events of a scripted Asterisk to what the whole agent decides and tells, over real sockets and TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and skips what it does not look at"
)]

use std::{path::Path, time::Duration};

use fake_pbx::{FakePbx, Script};
use node_agent::{
    app::App,
    clock::{Chance, Clock},
    identity::StateDir,
    joining,
    settings::{FirewallMode, Settings},
};
use node_agent_protocol::{Fact, Up, fact_kind};
use serde_json::Value;
use tokio::time::{sleep, timeout};

mod control_plane;
use control_plane::{ControlPlane, Link, get, settings};

const CREDENTIAL: &str = "c0ffee00c0ffee00c0ffee00c0ffee00";
const T0: i64 = 1_790_000_000;

struct Bench {
    _plane: ControlPlane,
    pbx: FakePbx,
    dir: tempfile::TempDir,
    app: App,
    link: Link,
}

async fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut plane = ControlPlane::start(T0).await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), pbx.address());
    settings.firewall.mode = FirewallMode::Simulate;
    change(&mut settings);
    let state = StateDir::open(&settings.state_dir).unwrap();
    joining::join(&plane.token(), &state).await.unwrap();
    let app = App::start(settings, Clock::system(), Chance::seeded(1)).await.unwrap();
    let link = plane.link().await;
    let bench = Bench { _plane: plane, pbx, dir, app, link };
    bench.until_it_listens().await;
    bench
}

impl Bench {
    async fn status(&self) -> Value {
        let answer = get(self.app.metrics_address(), "/status").await;
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    async fn until_it_listens(&self) {
        let up = async {
            while self.status().await["evidence"]["sources"]["security"] != "reads security events" {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), up).await.expect("the agent does not listen");
    }

    /// Until the counts of the jail `asterisk` are so.
    async fn until(&self, are_so: impl Fn(&Value) -> bool) {
        let so = async {
            while !are_so(&self.status().await["evidence"]["jails"]["asterisk"]) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(Duration::from_secs(20), so).await.is_err() {
            panic!("{}", self.status().await["evidence"]);
        }
    }

    async fn fact(&mut self, wanted: impl Fn(&Fact) -> bool) -> Value {
        let of_kind = |up| match up {
            Up::Facts { facts } => facts.into_iter().find(|fact| wanted(fact)),
            _ => None,
        };
        let fact = timeout(Duration::from_secs(20), self.link.until(of_kind)).await.expect("no such fact");
        fact.body.into_value()
    }

    /// The next ban that would have been made.
    async fn simulated(&mut self) -> Value {
        self.fact(|fact| fact.fact_kind.as_str() == fact_kind::BAN_SIMULATED).await
    }

    async fn finding(&mut self, finding: &str) -> Value {
        let is = |fact: &Fact| fact.fact_kind.as_str() == fact_kind::FINDING;
        self.fact(|fact| is(fact) && fact.body.value()["finding"] == finding).await
    }
}

fn event(name: &str, account: &str, call_id: u32, source: &str, more: &str) -> String {
    format!(
        "Event: {name}\r\nPrivilege: security,all\r\nEventTV: 2026-11-24T12:18:42.523+0000\r\nSeverity: Error\r\n\
         Service: PJSIP\r\nEventVersion: 1\r\nAccountID: {account}\r\nSessionID: {call_id}@x\r\n\
         LocalAddress: IPV4/UDP/198.51.100.1/5060\r\nRemoteAddress: {source}\r\n{more}\r\n"
    )
}

fn invalid(n: u32, source: &str) -> String {
    event("InvalidAccountID", &format!("u{n}"), n, source, "")
}

fn wrong(n: u32, source: &str) -> String {
    let more = format!("Challenge: {n}/a\r\nResponse: {n}\r\nExpectedResponse: {CREDENTIAL}\r\n");
    event("ChallengeResponseFailed", "100", n, source, &more)
}

fn files(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            all.extend(files(&entry.path()));
        } else if kind.is_file() {
            all.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn an_attacker_would_be_banned_an_office_with_an_old_password_warned_and_no_credential_kept() {
    let mut bench = bench(|_| {}).await;
    // One request, told of three times: its answer was lost.
    (0..3).for_each(|_| bench.pbx.inject(invalid(1, "IPV4/TCP/192.0.2.66/5060").as_bytes()));
    (1..=5).for_each(|n| bench.pbx.inject(invalid(n, "IPV4/TCP/192.0.2.66/5060").as_bytes()));
    let body = bench.simulated().await;
    assert_eq!(
        (&body["net"], &body["jail"], &body["seconds"]),
        (&"192.0.2.66/32".into(), &"asterisk".into(), &3600.into())
    );
    assert!(body["evidence"].as_str().unwrap().contains("\"offences\":5"), "{body}");

    // Asterisk is started anew: the session comes back by itself.
    bench.pbx.restart();
    sleep(Duration::from_millis(50)).await;
    bench.until_it_listens().await;
    (0..8).for_each(|n| bench.pbx.inject(wrong(n, "IPV4/UDP/198.51.100.7/5060").as_bytes()));
    assert_eq!(bench.finding("old_password").await["subject"], "100 at 198.51.100.7");

    bench
        .until(|asterisk| {
            asterisk["offences"]["challenge_response_failed"] == 8 && asterisk["verdicts"]["simulated"] == 1
        })
        .await;
    let metrics = get(bench.app.metrics_address(), "/metrics").await;
    for line in [
        "ringward_agent_offences_total{jail=\"asterisk\",kind=\"invalid_account\"} 5",
        "ringward_agent_evidence_repeated_total{jail=\"asterisk\"} 3",
        "ringward_agent_evidence_up{source=\"security\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let kept = files(bench.dir.path());
    assert!(kept.windows(13).any(|bytes| bytes == b"ban_simulated"), "nothing was kept at all");
    assert!(!kept.windows(CREDENTIAL.len()).any(|bytes| bytes == CREDENTIAL.as_bytes()));
}

#[tokio::test]
async fn who_writes_line_breaks_is_told_by_the_tail_and_chooses_no_victim() {
    let mut bench = bench(|_| {}).await;
    // Two are just a bar's worth, of which a little leaks away in between.
    for n in 0..3 {
        // As much as Asterisk lets through.
        let forged = "\nRemoteAddress: IPV4/UDP/192.0.2.9/1";
        bench.pbx.inject(event("InvalidAccountID", forged, n, "IPV4/UDP/192.0.2.66/5060", "").as_bytes());
    }
    assert_eq!(bench.simulated().await["net"], "192.0.2.66/32");
    let status = bench.status().await;
    assert_eq!(status["evidence"]["jails"]["asterisk"]["offences"]["tampering"], 3);
    assert!(!files(bench.dir.path()).windows(10).any(|bytes| bytes == b"192.0.2.9/"));
}

#[tokio::test]
async fn a_jail_that_is_a_dry_run_reports_and_orders_no_ban() {
    // The firewall is no dry run: an order would be tried, and told of as not enforced.
    let mut bench = bench(|settings| {
        settings.firewall.mode = FirewallMode::Off;
        settings.rules.jails.get_mut(&"asterisk".parse().unwrap()).unwrap().simulate = true;
    })
    .await;
    (1..=5).for_each(|n| bench.pbx.inject(invalid(n, "IPV4/TCP/192.0.2.66/5060").as_bytes()));
    let body = bench.simulated().await;
    assert_eq!((&body["net"], &body["seconds"]), (&"192.0.2.66/32".into(), &3600.into()));
    bench.until(|asterisk| asterisk["verdicts"]["simulated"] == 1).await;
    let asterisk = &bench.status().await["evidence"]["jails"]["asterisk"];
    assert_eq!(asterisk["mode"], "simulate");
    assert!(asterisk["verdicts"]["ban"].is_null() && asterisk["verdicts"]["failed"].is_null(), "{asterisk}");
}

#[tokio::test]
async fn where_the_firewall_is_off_it_is_said_that_nobody_is_banned() {
    let mut bench = bench(|settings| settings.firewall.mode = FirewallMode::Off).await;
    (0..10).for_each(|n| bench.pbx.inject(invalid(n, "IPV4/TCP/192.0.2.66/5060").as_bytes()));
    bench.finding("bans_not_enforced").await;
    let status = bench.status().await;
    assert!(status["evidence"]["jails"]["asterisk"]["verdicts"]["ban"].is_null());
}

#[tokio::test]
async fn a_crowd_of_forged_sources_trips_the_breaker() {
    let mut bench = bench(|settings| {
        settings.firewall.mode = FirewallMode::Off;
        settings.rules.forgeable_bans_per_minute_max = 3;
        let jail = settings.rules.jails.get_mut(&"asterisk".parse().unwrap()).unwrap();
        jail.threshold = 22;
    })
    .await;
    (0..50).for_each(|n| bench.pbx.inject(invalid(n, &format!("IPV4/UDP/203.0.113.{n}/5060")).as_bytes()));
    bench.finding("bans_not_enforced").await;
    bench.until(|asterisk| asterisk["verdicts"]["held"] == 47 && asterisk["verdicts"]["failed"] == 3).await;
}
