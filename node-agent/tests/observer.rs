//! The observer against the recorded answers of a real Asterisk, over real TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use node_agent::{
    clock::{Chance, Clock},
    gate::Gate,
    identity::{Identity, StateDir},
    metrics::Metrics,
    observer,
    settings::{ForeignCalls, Settings},
    spool::Spool,
    status::{Sight, Status},
};
use node_agent_ami::ActionIds;
use node_agent_protocol::{
    AmiState, ContactStatus, List, NumberRule, Policy, RegistrationStatus, Text, TrunkPolicy,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::watch,
    time::timeout,
};

type Asked = Arc<Mutex<Vec<String>>>;

/// Channels that there are: one that somebody else placed over acme.
const FOREIGN: &str = "PJSIP/acme-00000001";

/// Answers each action with what was recorded of it, under the ActionID that was asked with.
async fn replay() -> (SocketAddr, Asked) {
    replay_with(|_| None).await
}

/// The same, but for what `other` answers: without an end, and its ActionID is put in.
async fn replay_with(other: fn(&str) -> Option<&'static str>) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let (reading, mut writing) = stream.into_split();
                writing.write_all(b"Asterisk Call Manager/11.0.0\r\n").await.unwrap();
                let (mut lines, mut action) = (BufReader::new(reading).lines(), Vec::new());
                while let Ok(Some(line)) = lines.next_line().await {
                    if !line.is_empty() {
                        action.push(line);
                        continue;
                    }
                    let word =
                        action.first().and_then(|line| line.strip_prefix("Action: ")).unwrap_or_default();
                    let answer = match other(word) {
                        Some(told) => {
                            let of = |line: &&String| line.starts_with("ActionID: ");
                            told.replace("ActionID: ?", action.iter().find(of).unwrap())
                        }
                        None => answer(&action),
                    };
                    log.lock().unwrap().push(action.join("|"));
                    action.clear();
                    if writing.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

fn answer(action: &[String]) -> String {
    let value = |name: &str| {
        action.iter().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
    };
    let id = value("ActionID");
    let recorded = match value("Action") {
        "CoreSettings" => "core_settings".to_owned(),
        "CoreStatus" => "core_status".to_owned(),
        "PJSIPShowEndpoints" => "endpoints".to_owned(),
        "PJSIPShowEndpoint" => format!("endpoint_{}", value("Endpoint")),
        "PJSIPShowRegistrationsOutbound" => "registrations".to_owned(),
        "CoreShowChannels" => {
            return format!(
                "Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\nEvent: CoreShowChannelsComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: 0\r\n\r\n"
            );
        }
        _ => return format!("Response: Success\r\nActionID: {id}\r\nMessage: ok\r\n\r\n"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("core/tests/recorded/{recorded}.ami"));
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        if line.starts_with("ActionID: ") { format!("ActionID: {id}\r\n") } else { format!("{line}\r\n") }
    };
    text.lines().map(line).collect()
}

fn status(dir: &Path) -> Status {
    let state = StateDir::open(&dir.join("state")).unwrap();
    let spool = Spool::open(&state, Clock::system(), Chance::seeded(1)).unwrap();
    let gate = Gate::new(Settings::default().gate, None, spool.clone(), Arc::new(Metrics::new().unwrap()));
    let number = NumberRule { begins: Text::cut("+"), digits_min: 7, digits_max: 15 };
    let trunk = |endpoint: &str| TrunkPolicy {
        trunk: format!("{endpoint}-waw-1").parse().unwrap(),
        endpoint: endpoint.parse().unwrap(),
        channels_max: 1,
        cps_max: 1,
        number: number.clone(),
    };
    gate.take(&Policy {
        revision: 1,
        node: "waw-1".parse().unwrap(),
        trunks: List::first(["acme", "gone"].map(trunk)),
        channels_max: 1,
        cps_max: 1,
        contexts: List::default(),
        variables: List::default(),
        db_families: List::default(),
        hardening: None,
    });
    let identity = Identity {
        node: "waw-1".parse().unwrap(),
        key_pem: String::new(),
        certificate_pem: String::new(),
        ca_pem: String::new(),
        not_before_unix_s: 0,
        expires_unix_s: 1,
        fingerprint: String::new(),
        control_planes: Vec::new(),
    };
    Status::new(gate, spool, watch::Sender::new(Arc::new(identity)), Clock::system())
}

#[tokio::test]
async fn trunks_are_read_whole_findings_told_and_a_stopped_registration_taken_up_once() {
    let (address, asked) = replay().await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    let mut settings = Settings::default();
    (settings.observer.address, settings.observer.secret_file) = (address, secret);
    let status = status(dir.path());
    let mut snapshots = status.sight_changes();
    tokio::spawn(observer::observe(settings, status.clone(), ActionIds::seeded(1), Chance::seeded(2)));
    let is_up = |sight: &Arc<Sight>| matches!(sight.ami, AmiState::Up { .. });
    timeout(Duration::from_secs(5), snapshots.wait_for(is_up)).await.expect("nothing was seen").unwrap();

    let (seen, _) = status.observations();
    let asterisk = seen.asterisk.as_ref().unwrap();
    assert!(asterisk.version.as_str().starts_with("22.10.1") && asterisk.fully_booted);
    assert_eq!(asterisk.incarnation.as_str(), "2026-11-24 12:38:49");
    let names: Vec<_> = seen.endpoints.iter().map(|endpoint| endpoint.endpoint.as_str()).collect();
    assert_eq!(names, ["acme", "gone", "bare", "named", "pair"], "trunks come first");
    let (acme, gone) = (&seen.endpoints[0], &seen.endpoints[1]);
    assert_eq!(
        (acme.contacts[0].status, acme.contacts[0].qualify_rtt_us),
        (ContactStatus::Reachable, Some(661))
    );
    assert_eq!(acme.registration.as_ref().unwrap().status, RegistrationStatus::Stopped);
    assert_eq!(gone.contacts[0].status, ContactStatus::Unreachable);
    assert!(seen.host.memory_bytes.is_some() && seen.host.disk_free_bytes.is_none_or(|free| free > 0));

    let amiss: HashSet<_> = seen.findings.iter().map(|finding| finding.finding.as_str()).collect();
    assert!(amiss.is_superset(&HashSet::from(["registration_stopped", "endpoint_undeclared"])), "{amiss:?}");

    // One more reading: what was told is not told again, and Asterisk is not asked again to register.
    let told = seen.spool.facts;
    timeout(Duration::from_secs(8), snapshots.changed()).await.expect("not read again").unwrap();
    assert_eq!(status.observations().0.spool.facts, told);
    let asked = asked.lock().unwrap().clone();
    let named =
        |name: &str| asked.iter().filter(|action| action.starts_with(&format!("Action: {name}|"))).count();
    assert_eq!(named("PJSIPRegister"), 1);
    let details: HashSet<_> = asked.iter().filter_map(|action| action.split("Endpoint: ").nth(1)).collect();
    assert_eq!(details, HashSet::from(["acme", "gone"]), "only declared trunks are asked for one by one");
}

/// What is told of the calls that somebody else placed, after the first reading, and how often [`FOREIGN`] was to be hung up.
async fn foreign_calls(other: fn(&str) -> Option<&'static str>) -> (serde_json::Value, usize) {
    let (address, asked) = replay_with(other).await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    let mut settings = Settings::default();
    (settings.observer.address, settings.observer.secret_file) = (address, secret);
    settings.gate.foreign_calls = ForeignCalls::HangUp;
    let status = status(dir.path());
    let mut snapshots = status.sight_changes();
    tokio::spawn(observer::observe(settings, status.clone(), ActionIds::seeded(1), Chance::seeded(2)));
    let is_up = |sight: &Arc<Sight>| matches!(sight.ami, AmiState::Up { .. });
    timeout(Duration::from_secs(5), snapshots.wait_for(is_up)).await.expect("nothing was seen").unwrap();
    let told: serde_json::Value = serde_json::from_slice(&status.json(&Metrics::new().unwrap())).unwrap();
    let channel = format!("Channel: {FOREIGN}|");
    let asked = asked.lock().unwrap();
    let hangups =
        asked.iter().filter(|action| action.starts_with("Action: Hangup|") && action.contains(&channel));
    (told["evidence"]["foreign_calls"].clone(), hangups.count())
}

const LISTED: &str = "Response: Success\r\nActionID: ?\r\nEventList: start\r\n\r\n\
    Event: CoreShowChannel\r\nActionID: ?\r\nChannel: PJSIP/acme-00000001\r\nUniqueid: 1795522722.1\r\n\
    Application: AppDial\r\nApplicationData: (Outgoing Line)\r\n\r\n\
    Event: CoreShowChannelsComplete\r\nActionID: ?\r\nEventList: Complete\r\nListItems: 1\r\n\r\n";

#[tokio::test]
async fn a_foreign_call_is_counted_as_hung_up_when_asterisk_says_so() {
    let (told, asked) = foreign_calls(|action| (action == "CoreShowChannels").then_some(LISTED)).await;
    assert_eq!(asked, 1);
    assert_eq!(told, json!({"now": {"acme": 1}, "hung_up": {"acme": 1, "gone": 0}}));
}

/// It may have ended meanwhile, or the manager user may not: neither blinds the observer, nor is counted.
#[tokio::test]
async fn a_hang_up_that_asterisk_refuses_is_not_counted() {
    let refused = |action: &str| match action {
        "CoreShowChannels" => Some(LISTED),
        "Hangup" => Some("Response: Error\r\nActionID: ?\r\nMessage: No such channel\r\n\r\n"),
        _ => None,
    };
    let (told, asked) = foreign_calls(refused).await;
    assert_eq!(asked, 1);
    assert_eq!(told, json!({"now": {"acme": 1}, "hung_up": {"acme": 0, "gone": 0}}));
}
