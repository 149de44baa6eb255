//! The agent against a control plane of the test's own and a scripted Asterisk, over real sockets and TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and skips what it does not look at"
)]

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use controlplane_core::ids::{AttemptId, StreamId};
use fake_pbx::{FakePbx, Script};
use node_agent::{
    app::App,
    clock::{Chance, Clock},
    identity::StateDir,
    joining::{self, JoinError},
};
use node_agent_ami::{
    ADMITTED_BEFORE, Action, ActionIds, ChannelId, ConnectConfig, ContextName, DialDigits, EndpointName,
    Extension, HangupHandler, Originate, OriginateOutcome, Secret, Session, VariableName, VariableValue,
    WatchItem,
};
use node_agent_protocol::{
    AMI_LINK_USER, BarAnswer, Capabilities, Down, List, NumberRule, Policy, Text, TrunkPolicy, Up, fact_kind,
};
use rand::{SeedableRng, rngs::StdRng};
use time::OffsetDateTime;
use tokio::{sync::watch, time::timeout};

mod control_plane;
use control_plane::{ControlPlane, DAY, Link, NODE, as_bytes, get, settings};

const T0: i64 = 1_790_000_000;

fn clock(seconds: &Arc<AtomicI64>) -> Clock {
    let seconds = Arc::clone(seconds);
    Clock::of(move || OffsetDateTime::from_unix_timestamp(seconds.load(Ordering::SeqCst)).unwrap())
}

fn attempt(seed: u64) -> AttemptId {
    AttemptId::new(&mut StdRng::seed_from_u64(seed))
}

fn policy(revision: u64, channels_max: u32) -> Policy {
    let number = NumberRule { begins: Text::cut("+"), digits_min: 7, digits_max: 15 };
    let trunk = TrunkPolicy {
        trunk: "acme-waw-1".parse().unwrap(),
        endpoint: "acme".parse().unwrap(),
        channels_max,
        cps_max: 10,
        number,
    };
    Policy {
        revision,
        node: NODE.parse().unwrap(),
        trunks: List::first([trunk]),
        channels_max: 100,
        cps_max: 100,
        contexts: List::default(),
        variables: List::default(),
        db_families: List::default(),
        hardening: None,
    }
}

struct Bench {
    plane: ControlPlane,
    pbx: FakePbx,
    dir: tempfile::TempDir,
    app: App,
}

async fn bench() -> (Bench, Link) {
    bench_beside(FakePbx::start(Script::default()).await.unwrap()).await
}

async fn bench_beside(pbx: FakePbx) -> (Bench, Link) {
    let mut plane = ControlPlane::start(T0).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), pbx.address());
    let state = StateDir::open(&settings.state_dir).unwrap();
    joining::join(&plane.token(), &state).await.unwrap();
    let app = start(&dir, &pbx, 1).await;
    let link = plane.link().await;
    (Bench { plane, pbx, dir, app }, link)
}

async fn start(dir: &tempfile::TempDir, pbx: &FakePbx, seed: u64) -> App {
    let now = Arc::new(AtomicI64::new(T0));
    App::start(settings(dir.path(), pbx.address()), clock(&now), Chance::seeded(seed)).await.unwrap()
}

/// As the control plane does it: a Login that means nothing, then AMI as over a direct connection.
async fn ami(bench: &mut Bench, link: &mut Link, seed: u64) -> Session {
    let stream_id = StreamId::new(&mut StdRng::seed_from_u64(seed));
    link.send(&Down::OpenAmi { stream_id: stream_id.clone() }).await;
    let (path, socket) = bench.plane.socket().await;
    assert!(path.ends_with(&stream_id.to_string()), "{path}");
    let secret = Secret::new(AMI_LINK_USER);
    let config = ConnectConfig::new("link", AMI_LINK_USER, secret, ActionIds::seeded(seed));
    let (session, _events) = Session::over(as_bytes(socket), &config).await.unwrap();
    session
}

fn originate(attempt: &AttemptId) -> Originate {
    let mut originate = Originate::new(
        ChannelId::parse(attempt.as_str()).unwrap(),
        EndpointName::parse("acme").unwrap(),
        DialDigits::parse("+48221234567").unwrap(),
        ContextName::parse("ringward-call").unwrap(),
        Extension::parse("s").unwrap(),
    );
    originate.hangup_handler =
        Some(HangupHandler { context: ContextName::parse("ringward-record").unwrap() });
    let (name, value) = ("RINGWARD_ATTEMPT", attempt.as_str());
    originate.variables = vec![(VariableName::parse(name).unwrap(), VariableValue::parse(value).unwrap())];
    originate
}

async fn place(session: &Session, attempt: &AttemptId) -> OriginateOutcome {
    let originate = originate(attempt);
    let watch = session.watch(originate.channel_id.clone()).unwrap();
    session.originate(&originate, &watch).await
}

async fn takes_policy(bench: &Bench, link: &mut Link, policy: Policy) {
    let revision = policy.revision;
    link.send(&Down::Policy(Box::new(policy))).await;
    link.until(|up| match up {
        Up::Observations(seen) => (seen.policy_revision == revision).then_some(()),
        _ => None,
    })
    .await;
    assert!(bench.app.status().observations().1.contains(&"acme".to_owned()));
}

#[tokio::test]
async fn joining_makes_the_key_here_and_pins_the_ca() {
    let plane = ControlPlane::start(T0).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = StateDir::open(&path).unwrap();

    let mut wrong = plane.token();
    wrong.ca_sha256 = [1; 32];
    assert!(matches!(joining::join(&wrong, &state).await, Err(JoinError::Dial(_))));
    assert_eq!(
        plane.asked.lock().unwrap().joins,
        0,
        "the secret went to somebody who is not the control plane"
    );

    let mut used = plane.token();
    used.secret = node_agent_protocol::TokenSecret::new([3; 32]);
    let error = joining::join(&used, &state).await.unwrap_err().to_string();
    assert!(error.contains("token_unknown"), "{error}");

    let identity = joining::join(&plane.token(), &state).await.unwrap();
    assert_eq!(state.identity().unwrap(), Some(identity.clone()));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("identity.json"))), (0o700, 0o600));
    assert!(!format!("{identity:?}").contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_certificate_renews_itself_at_two_thirds() {
    let plane = ControlPlane::start(T0).await;
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    let first = joining::join(&plane.token(), &state).await.unwrap();
    let (identity, mut changes) = watch::channel(Arc::new(first.clone()));
    let now = Arc::new(AtomicI64::new(T0 + 20 * DAY - 2));
    let urls = plane.token().urls;
    let keeping = tokio::spawn(joining::keep_fresh(identity, urls, state.clone(), clock(&now)));
    assert!(timeout(Duration::from_millis(700), changes.changed()).await.is_err(), "renewed too early");
    assert_eq!(plane.asked.lock().unwrap().renewals, 0);
    now.store(T0 + 20 * DAY, Ordering::SeqCst);
    *plane.now_unix_s.lock().unwrap() = T0 + 20 * DAY;
    timeout(Duration::from_secs(10), changes.changed()).await.expect("not renewed").unwrap();
    let second = changes.borrow().clone();
    assert_eq!(second.expires_unix_s, T0 + 50 * DAY);
    assert_ne!(second.key_pem, first.key_pem, "the old key is used on");
    assert_eq!(state.identity().unwrap().as_ref(), Some(&*second), "not kept");
    keeping.abort();
}

#[tokio::test]
async fn facts_are_sent_until_they_are_acknowledged_and_state_is_fresh() {
    let (mut bench, mut link) = bench().await;
    let started = |up: Up| match up {
        Up::Facts { facts } => {
            facts.into_iter().find(|fact| fact.fact_kind.as_str() == fact_kind::AGENT_STARTED)
        }
        _ => None,
    };
    let fact = link.until(started).await;
    // The link breaks before the acknowledgement: the same fact comes again, by the same id.
    drop(link);
    let mut link = bench.plane.link().await;
    let again = link.until(started).await;
    assert_eq!(again.id, fact.id);
    link.send(&Down::Ack { fact_ids: List::first([fact.id.clone()]) }).await;
    let mut revisions = Vec::new();
    link.until(|up| match up {
        Up::Observations(seen) => {
            revisions.push(seen.revision);
            (seen.spool.facts == 0 && revisions.len() >= 3).then_some(())
        }
        Up::Facts { .. } => panic!("sent after the acknowledgement"),
        _ => None,
    })
    .await;
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    // What is acknowledged stays so over a restart, the rest does not get lost.
    drop(bench.app);
    drop(link);
    bench.app = start(&bench.dir, &bench.pbx, 2).await;
    let mut link = bench.plane.link().await;
    let next = link.until(started).await;
    assert_ne!(next.id, fact.id);
}

#[tokio::test]
async fn a_call_goes_through_the_gate_and_nothing_else_does() {
    let (mut bench, mut link) = bench().await;
    let session = ami(&mut bench, &mut link, 1).await;
    assert!(
        matches!(place(&session, &attempt(1)).await, OriginateOutcome::Rejected { .. }),
        "without a policy"
    );
    takes_policy(&bench, &mut link, policy(1, 2)).await;

    let id = attempt(2);
    let order = originate(&id);
    let watch = session.watch(order.channel_id.clone()).unwrap();
    assert_eq!(session.originate(&order, &watch).await, OriginateOutcome::Accepted);
    let ended = async {
        loop {
            match watch.next().await {
                WatchItem::Event(node_agent_ami::Event::Hangup { cause, .. }) => return cause,
                WatchItem::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(5), ended).await.unwrap(), Some(16));
    assert_eq!(bench.pbx.seen("+48221234567").invites, 1);
    assert_eq!(bench.app.status().observations().0.gate.channels, 0, "its channel is counted on");

    let shell = Action::new("Originate")
        .and_then(|action| action.header("Channel", "Local/s@default"))
        .and_then(|action| action.header("Application", "System"))
        .and_then(|action| action.header("Data", "id > /tmp/owned"));
    assert!(!session.action(shell.unwrap()).await.unwrap().is_success());
    assert_eq!(bench.pbx.count_actions("Originate"), 1, "it reached Asterisk");
    // Its Login was answered here: Asterisk saw the agent's own secret only.
    let users: Vec<_> =
        bench.pbx.actions().iter().filter_map(|a| a.get("Username").map(str::to_owned)).collect();
    assert!(users.iter().all(|user| user == "ringward"), "{users:?}");
    let told = link
        .until(|up| match up {
            Up::Facts { facts } => {
                facts.into_iter().find(|fact| fact.body.value()["reason"] == "application")
            }
            _ => None,
        })
        .await;
    assert_eq!(told.fact_kind.as_str(), fact_kind::GATE_REFUSED);
    let metrics = get(bench.app.metrics_address(), "/metrics").await;
    for line in [
        "ringward_agent_refused_total{kind=\"application\"} 1",
        "ringward_agent_originates_total 1",
        "ringward_agent_state{figure=\"policy_revision\"} 1",
        "ringward_agent_ami_up 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_barred_attempt_goes_through_on_no_stream_even_after_a_restart() {
    let (mut bench, mut link) = bench().await;
    takes_policy(&bench, &mut link, policy(1, 10)).await;
    let (one, two) = (ami(&mut bench, &mut link, 1).await, ami(&mut bench, &mut link, 2).await);
    let bar = |up: Up| match up {
        Up::Bar { attempt, answer } => Some((attempt, answer)),
        _ => None,
    };
    link.send(&Down::Bar { attempt: attempt(1), age_max_s: None }).await;
    assert_eq!(link.until(bar).await, (attempt(1), BarAnswer::Barred));
    for session in [&one, &two] {
        assert!(matches!(place(session, &attempt(1)).await, OriginateOutcome::Rejected { .. }));
    }
    assert_eq!(place(&one, &attempt(2)).await, OriginateOutcome::Accepted);
    link.send(&Down::Bar { attempt: attempt(2), age_max_s: None }).await;
    assert_eq!(link.until(bar).await, (attempt(2), BarAnswer::Admitted));
    // Of one attempt there is one Originate, whoever asks.
    let OriginateOutcome::Rejected { message } = place(&two, &attempt(2)).await else { panic!() };
    assert!(message.ends_with(ADMITTED_BEFORE), "{message}");
    assert_eq!(bench.pbx.count_actions("Originate"), 1);

    drop((one, two, link));
    drop(bench.app);
    bench.app = start(&bench.dir, &bench.pbx, 2).await;
    let mut link = bench.plane.link().await;
    link.send(&Down::Bar { attempt: attempt(2), age_max_s: None }).await;
    assert_eq!(link.until(bar).await, (attempt(2), BarAnswer::Admitted), "forgotten by a restart");
    link.send(&Down::Bar { attempt: attempt(3), age_max_s: None }).await;
    assert_eq!(link.until(bar).await, (attempt(3), BarAnswer::Barred), "the journal was whole");
}

#[tokio::test]
async fn after_a_reboot_only_attempts_younger_than_the_agent_are_barred() {
    let plane = ControlPlane::start(T0).await;
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), pbx.address());
    let state = StateDir::open(&settings.state_dir).unwrap();
    joining::join(&plane.token(), &state).await.unwrap();
    // A journal of another boot: what it does not tell of may have gone through.
    std::fs::write(settings.state_dir.join("attempts"), "another-boot 1 1\n").unwrap();
    let app = start(&dir, &pbx, 1).await;
    let mut bench = Bench { plane, pbx, dir, app };
    let mut link = bench.plane.link().await;
    for (seed, age_max_s, expected) in
        [(1, None, BarAnswer::Unknown), (2, Some(3_600), BarAnswer::Unknown), (3, Some(0), BarAnswer::Barred)]
    {
        link.send(&Down::Bar { attempt: attempt(seed), age_max_s }).await;
        let bar = |up: Up| match up {
            Up::Bar { answer, .. } => Some(answer),
            _ => None,
        };
        assert_eq!(link.until(bar).await, expected, "{age_max_s:?}");
    }
}

#[tokio::test]
async fn settled_flight_records_are_removed_and_others_stay() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let week = 7 * DAY;
    let keep = |seed, at: i64| {
        pbx.set_db("ringward", attempt(seed).as_str(), Some(&format!("1|end|Up|-|16|{at}")));
    };
    (1..=3).for_each(|seed| keep(seed, T0 - 60));
    keep(4, T0 - week - 1);
    pbx.set_db("ringward", "of-nobody", Some("1|end|Up|-|16|1"));
    pbx.set_db("phones", attempt(1).as_str(), Some("1|end|Up|-|16|1"));
    let (bench, mut link) = bench_beside(pbx).await;
    let asked = |up: Up| match up {
        Up::Attempts { records, .. } => Some(records.into_vec()),
        _ => None,
    };
    let mut expected: Vec<AttemptId> = (1..=4).map(attempt).collect();
    let mut records = link.until(asked).await;
    expected.sort_by_key(ToString::to_string);
    records.sort_by_key(ToString::to_string);
    assert_eq!(records, expected);
    let there = |seed| bench.pbx.db("ringward", attempt(seed).as_str()).is_some();
    // Of the third nothing is said: it is open.
    let settled = List::first([attempt(1), attempt(9)]);
    link.send(&Down::Attempts { settled, unknown: List::first([2, 4].map(attempt)) }).await;
    let gone = async {
        while there(1) || there(4) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.expect("settled, or unclaimed for a week, and still there");
    assert!(there(2) && there(3));
    assert!(
        bench.pbx.db("ringward", "of-nobody").is_some()
            && bench.pbx.db("phones", attempt(1).as_str()).is_some()
    );
    assert_eq!(bench.pbx.count_actions("DBDel"), 2, "what was not listed is not removed");
    let metrics = get(bench.app.metrics_address(), "/metrics").await;
    assert!(metrics.lines().any(|l| l == "ringward_agent_records_removed_total 2"), "{metrics}");
}

#[tokio::test]
async fn an_older_control_plane_is_not_asked_about_records() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    pbx.set_db("ringward", attempt(1).as_str(), Some("1|end|Up|-|16|1"));
    let (mut bench, link) = bench_beside(pbx).await;
    drop(link);
    let mut link = bench.plane.link_of(Capabilities::default()).await;
    let mut snapshots = 0;
    link.until(|up| {
        assert!(!matches!(up, Up::Attempts { .. }), "it would not know the message");
        snapshots += u32::from(matches!(up, Up::Observations(_)));
        (snapshots >= 3 && bench.pbx.count_actions("DBGetTree") > 0).then_some(())
    })
    .await;
    assert!(bench.pbx.db("ringward", attempt(1).as_str()).is_some());
}

#[tokio::test]
async fn an_agent_that_stops_ends_its_streams() {
    let (mut bench, mut link) = bench().await;
    let session = ami(&mut bench, &mut link, 1).await;
    drop(bench.app);
    timeout(Duration::from_secs(5), session.closed())
        .await
        .expect("its stream lives on without a gate's owner");
    let ended = async {
        while bench.pbx.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), ended).await.expect("a session is left at Asterisk");
}

#[tokio::test]
async fn without_asterisk_a_stream_is_refused_and_the_snapshot_says_why() {
    let (mut bench, mut link) = bench().await;
    bench.pbx.close_port();
    bench.pbx.cut_links();
    let stream_id = StreamId::new(&mut StdRng::seed_from_u64(9));
    link.send(&Down::OpenAmi { stream_id: stream_id.clone() }).await;
    let reason = link
        .until(|up| match up {
            Up::AmiRefused { stream_id: id, reason } => (id == stream_id).then_some(reason),
            _ => None,
        })
        .await;
    assert!(reason.as_str().contains(&bench.pbx.address().to_string()), "{reason}");
    link.until(|up| match up {
        Up::Observations(seen) => {
            matches!(seen.ami, node_agent_protocol::AmiState::Down { .. }).then_some(())
        }
        _ => None,
    })
    .await;
    bench.pbx.open_port().await.unwrap();
    ami(&mut bench, &mut link, 10).await;
}

#[tokio::test]
async fn every_replica_has_its_link_and_a_bar_through_one_holds_for_the_other() {
    let mut one = ControlPlane::start(T0).await;
    let mut two = one.replica().await;
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), pbx.address());
    let state = StateDir::open(&settings.state_dir).unwrap();
    joining::join(&one.token(), &state).await.unwrap();
    settings.control_planes = [one.token().urls, two.token().urls].concat();
    let app = App::start(settings, clock(&Arc::new(AtomicI64::new(T0))), Chance::seeded(3)).await.unwrap();
    let (mut first, mut second) = (one.link().await, two.link().await);
    let mut bench = Bench { plane: two, pbx, dir, app };
    takes_policy(&bench, &mut second, policy(2, 10)).await;
    // An older policy of a replica that lags is not taken.
    first.send(&Down::Policy(Box::new(policy(1, 0)))).await;
    first.send(&Down::Bar { attempt: attempt(1), age_max_s: None }).await;
    let answer = first
        .until(|up| match up {
            Up::Bar { answer, .. } => Some(answer),
            _ => None,
        })
        .await;
    assert_eq!(answer, BarAnswer::Barred);
    let session = ami(&mut bench, &mut second, 1).await;
    assert!(matches!(place(&session, &attempt(1)).await, OriginateOutcome::Rejected { .. }));
    assert_eq!(place(&session, &attempt(2)).await, OriginateOutcome::Accepted);
    // One replica dies: the other's link and stream go on.
    drop(first);
    drop(one);
    assert_eq!(place(&session, &attempt(3)).await, OriginateOutcome::Accepted);
}

#[tokio::test]
async fn a_policy_for_another_node_and_garbage_end_the_link_and_it_comes_again() {
    let (mut bench, mut link) = bench().await;
    let mut foreign = policy(9, 10);
    foreign.node = "fra-1".parse().unwrap();
    link.send(&Down::Policy(Box::new(foreign))).await;
    let mut link = bench.plane.link().await;
    assert_eq!(bench.app.status().observations().0.policy_revision, 0);
    link.raw("{\"kind\":\"bar\"}").await;
    let mut link = bench.plane.link().await;
    // What a newer control plane may say is skipped.
    link.raw("{\"kind\":\"weather\",\"sun\":true}").await;
    takes_policy(&bench, &mut link, policy(1, 10)).await;
}
