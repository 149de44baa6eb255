//! Links that break while a call is under way, and PBXes that die: reconciled, never assumed.

use std::time::Duration;

use fake_pbx::{CoreStatus, Ending, FakePbx, Fault, Plan, Script};
use tokio::time::{Instant, sleep};

use crate::fixture::{AMI_SECRET, Call, Ended, Fleet, NUMBER, eventually, slowly, talks};

/// Two nodes, one carrier, and time enough to find a node again that comes back.
async fn pair() -> Fleet {
    pair_with_patience(5_000).await
}

async fn pair_with_patience(reconcile_timeout_ms: u64) -> Fleet {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .settings(move |settings| settings.reconcile_timeout_ms = reconcile_timeout_ms)
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet
}

/// The node that carries the call's last attempt.
async fn carrying<'f>(fleet: &'f Fleet, call: &Call<'_>) -> &'f FakePbx {
    let now = call.now().await;
    let attempt = now["attempts"].as_array().unwrap().last().unwrap();
    fleet.pbx(attempt["node"].as_str().unwrap())
}

async fn nothing_lives(fleet: &Fleet) {
    eventually("no channel is left", async || fleet.pbxes().all(|pbx| pbx.live_channels().is_empty())).await;
}

#[tokio::test]
async fn a_link_that_drops_at_queued_loses_nothing() {
    let fleet = pair().await;
    for (n, fault) in [Fault::DropAfterQueued, Fault::DropBeforeAnswer].into_iter().enumerate() {
        for (m, on_unknown) in ["retry", "fail"].into_iter().enumerate() {
            let number = format!("+4822000{n}00{m}");
            fleet.callee(&number, Plan::of(talks(300)).with(fault));
            let request = fleet.call(&number).with("on_unknown", on_unknown);
            let ended = request.place().await.ends_as("completed", "played").await;
            assert_eq!(ended.attempts().len(), 1, "{fault:?} {on_unknown}: {}", ended.text());
            assert_eq!(fleet.seen(&number).invites, 1, "{fault:?} {on_unknown}");
            fleet.all_trunks_are_usable(true).await;
        }
    }
}

#[tokio::test]
async fn an_ending_that_fell_into_a_cut_is_read_from_the_flight_record() {
    let fleet = pair().await;
    let rows = [
        (talks(5), "completed", "played", "answered"),
        (Ending::Busy486, "busy", "user_busy", "user_busy"),
        (Ending::Sip(603), "busy", "declined", "declined"),
    ];
    for (n, (ending, status, reason, class)) in rows.into_iter().enumerate() {
        let number = format!("+4822000100{n}");
        fleet.callee(&number, Plan::of(ending).with(Fault::DropAfterQueued));
        let ended = fleet.call(&number).or_fail().place().await.ends_as(status, reason).await;
        assert_eq!((ended.endings(), fleet.seen(&number).invites), (vec![class], 1));
        fleet.all_trunks_are_usable(true).await;
    }
}

/// "queued" was not heard and no channel came: absence proves nothing, the customer decides.
#[tokio::test]
async fn an_originate_that_vanished_is_unknown() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 4_000)
        .start()
        .await;
    let vanishes = Plan::of(talks(5)).with(Fault::DropWithoutCall);
    let (fail, retry) = ("+48220000001", "+48220000002");
    fleet.pbxes().for_each(|pbx| pbx.set_ending(fail, vanishes.clone()));
    // One node loses it; the other one carries it.
    fleet.pbx("waw-1").set_ending(retry, vanishes.clone());
    fleet.pbx("fra-1").set_ending(retry, talks(5));
    let failed = fleet.call(fail).or_fail().place().await.ends_as("failed", "outcome_unknown").await;
    assert_eq!((failed.endings(), failed.outcome()), (vec!["unknown"], "unknown"));
    fleet.all_trunks_are_usable(true).await;
    let retried = fleet.call(retry).place().await.ends_as("completed", "played").await;
    assert!(retried.endings() == ["unknown", "answered"] || retried.endings() == ["answered"]);
    assert_eq!(fleet.seen(retry).answers, 1);
}

/// A gate that says so has let its Originate through: this refusal is no proof that nothing was sent.
#[tokio::test]
async fn a_refusal_of_a_repeated_attempt_is_reconciled() {
    let fleet = pair().await;
    let repeated = Ending::Rejected("Refused by the node's gate: repeated_attempt".to_owned());
    fleet.pbxes().for_each(|pbx| pbx.set_ending(NUMBER, repeated.clone()));
    let failed = fleet.call(NUMBER).or_fail().place().await.ends_as("failed", "outcome_unknown").await;
    assert_eq!(failed.endings(), ["unknown"]);
}

async fn cut_when(status: &str, ending: Ending) -> (Fleet, Ended) {
    let fleet = pair().await;
    slowly(&fleet, Duration::from_millis(400));
    fleet.callee(NUMBER, ending);
    let call = fleet.call(NUMBER).or_fail().place().await;
    call.becomes(status).await;
    let pbx = carrying(&fleet, &call).await;
    pbx.cut_links();
    let ended = call.ends().await;
    (fleet, ended)
}

/// The link is cut for a moment at each stage: the call goes on and is followed to its end.
#[tokio::test]
async fn a_cut_at_any_stage_is_only_a_cut() {
    let run = async |status: &str, ending: Ending, reason: &str| {
        let (fleet, ended) = cut_when(status, ending).await;
        assert_eq!(ended.0["reason"], reason, "cut at {status}: {}", ended.text());
        assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1), "cut at {status}");
    };
    tokio::join!(
        run("initiated", talks(300), "played"),
        run("ringing", talks(300), "played"),
        run("in_progress", talks(500), "played"),
        run("ringing", Ending::Busy486, "user_busy"),
        run("ringing", Ending::RingThenSip(503), "ring_timeout"),
        run("initiated", Ending::Sip(486), "user_busy"),
    );
}

/// The node does not come back in time: `fail` ends, `retry` dials elsewhere, and what lived on is hung up.
#[tokio::test]
async fn a_node_that_stays_away_is_given_up_and_its_survivor_hung_up() {
    for (on_unknown, status, reason, attempts) in
        [("fail", "failed", "interrupted", 1), ("retry", "completed", "played", 2)]
    {
        let fleet = pair_with_patience(1_000).await;
        let call = fleet.call(NUMBER).with("on_unknown", on_unknown).with("ring_timeout_s", 30);
        fleet.pbxes().for_each(|pbx| pbx.set_ending(NUMBER, Ending::NoAnswer));
        let call = call.place().await;
        call.becomes("ringing").await;
        let pbx = carrying(&fleet, &call).await;
        for other in fleet.pbxes().filter(|other| other.address() != pbx.address()) {
            other.set_ending(NUMBER, talks(5));
        }
        pbx.close_port();
        pbx.cut_links();
        let ended = call.ends_as(status, reason).await;
        assert_eq!(ended.attempts().len(), attempts);
        assert_eq!((ended.endings()[0], ended.each("rang")[0]), ("interrupted", "yes"));
        assert_eq!(pbx.live_channels().len(), 1, "it lives on, unheard");
        pbx.open_port().await.unwrap();
        nothing_lives(&fleet).await;
        assert_eq!(fleet.seen(NUMBER).invites as usize, attempts);
    }
}

/// `kill -9` of Asterisk and a new start: its calls are gone, and no new channel is taken for an old one.
#[tokio::test]
async fn a_pbx_that_died_interrupts_its_calls() {
    for (stage, on_unknown, status, reason, attempts) in [
        ("ringing", "fail", "failed", "interrupted", 1),
        ("ringing", "retry", "completed", "played", 2),
        ("in_progress", "fail", "failed", "interrupted", 1),
        ("in_progress", "retry", "completed", "played", 2),
        ("initiated", "fail", "failed", "outcome_unknown", 1),
        ("initiated", "retry", "completed", "played", 2),
    ] {
        let fleet = pair().await;
        let ending = match stage {
            "ringing" => Ending::NoAnswer,
            "initiated" => Ending::SilentTrying,
            _ => talks(60_000),
        };
        fleet.pbxes().for_each(|pbx| pbx.set_ending(NUMBER, ending.clone()));
        let call = fleet.call(NUMBER).with("on_unknown", on_unknown).place().await;
        call.becomes(stage).await;
        let pbx = carrying(&fleet, &call).await;
        fleet.pbxes().for_each(|pbx| pbx.set_ending(NUMBER, talks(5)));
        pbx.restart();
        let ended = call.ends_as(status, reason).await;
        assert_eq!(ended.attempts().len(), attempts, "{stage} {on_unknown}: {}", ended.text());
        assert_eq!(fleet.seen(NUMBER).invites as usize, attempts, "{stage} {on_unknown}");
    }
}

/// No node is up: the call waits, and goes on when one is back within patience.
#[tokio::test]
async fn a_call_waits_for_a_node_that_comes_back() {
    let fleet = pair().await;
    fleet.pbxes().for_each(|pbx| {
        pbx.close_port();
        pbx.cut_links();
    });
    eventually("both nodes are lost", async || {
        fleet.node("waw-1").await["up"] == false && fleet.node("fra-1").await["up"] == false
    })
    .await;
    let call = fleet.call(NUMBER).place().await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(call.now().await["status"], "queued");
    fleet.pbx("fra-1").open_port().await.unwrap();
    let ended = call.ends_as("completed", "played").await;
    assert_eq!(ended.each("node"), ["fra-1"]);
}

#[tokio::test]
async fn a_call_gives_up_when_no_node_comes_back() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| settings.patience_ms = 300)
        .before(|pbxes| pbxes.values().for_each(FakePbx::close_port))
        .start()
        .await;
    eventually("the node is lost and says why", async || {
        let node = fleet.node("waw-1").await;
        let reason = node["reason"].as_str().unwrap_or("").to_owned();
        node["up"] == false && reason.contains("is Asterisk running")
    })
    .await;
    let ended = fleet.call(NUMBER).place().await.ends_as("failed", "no_healthy_route").await;
    assert_eq!((ended.attempts().len(), ended.outcome()), (0, "not_tried"));
    // The deadline comes before patience: that is why it ends.
    let request = fleet.call(NUMBER).with("deadline_at", "2026-01-01T00:00:00Z");
    request.answer().await.is_problem(422, "invalid_field");
}

/// A wrong secret says so, and stops nobody else.
#[tokio::test]
async fn a_node_with_a_wrong_secret_does_not_stop_the_others() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .before(|pbxes| pbxes["waw-1"].refuse_login(true))
        .start()
        .await;
    eventually("the other node serves", async || fleet.trunk("acme-fra-1").await["usable"] == true).await;
    eventually("the refused node says why", async || {
        let node = fleet.node("waw-1").await;
        let reason = node["reason"].as_str().unwrap_or("").to_owned();
        node["up"] == false && reason.contains("manager.conf")
    })
    .await;
    let reason = fleet.node("waw-1").await["reason"].to_string();
    assert!(!reason.contains(AMI_SECRET), "{reason}");
    for _ in 0..4 {
        let ended = fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
        assert_eq!(ended.each("node"), ["fra-1"]);
    }
    assert_eq!(fleet.node("fra-1").await["up"], true);
}

#[tokio::test]
async fn a_missing_secret_file_names_the_file() {
    let fleet = Fleet::small().await;
    let toml = fleet.toml().replace("secret-waw-1", "no-such-file");
    fleet.apply(&toml, "").await.is(200);
    eventually("the node says which file", async || {
        fleet.node("waw-1").await["reason"].as_str().is_some_and(|reason| reason.contains("no-such-file"))
    })
    .await;
    // Put right, it serves again.
    fleet.apply(&fleet.toml(), "").await.is(200);
    fleet.all_trunks_are_usable(true).await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

/// A secret file that is put right is read again, without a restart and without another apply.
#[tokio::test]
async fn a_corrected_secret_file_brings_the_node_back() {
    let fleet = Fleet::small().await;
    let file = fleet.settings.data_dir.join("secret-waw-1");
    std::fs::write(&file, "wrong\n").unwrap();
    fleet.pbx("waw-1").cut_links();
    eventually("the login is refused", async || {
        fleet.node("waw-1").await["reason"].as_str().is_some_and(|reason| reason.contains("manager.conf"))
    })
    .await;
    // The same wrong secret is not sent again and again.
    sleep(Duration::from_secs(5)).await;
    let sent = fleet.pbx("waw-1").actions();
    assert_eq!(sent.iter().filter(|action| action.get("Secret") == Some("wrong")).count(), 1);
    std::fs::write(&file, AMI_SECRET).unwrap();
    let put_right = Instant::now();
    eventually("it is alive", async || fleet.node("waw-1").await["up"] == true).await;
    assert!(put_right.elapsed() < Duration::from_secs(10), "{:?}", put_right.elapsed());
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

/// The same for the session that reads security events.
#[tokio::test]
async fn a_corrected_secret_file_brings_the_security_events_back() {
    let fleet = Fleet::small().await;
    let file = fleet.settings.data_dir.join("secret-security");
    std::fs::write(&file, "wrong\n").unwrap();
    let login = "secret_file = \"secret-waw-1\", security = { username = \"ringward\", secret_file = \"secret-security\" }";
    let toml = fleet.toml().replace("secret_file = \"secret-waw-1\"", login);
    fleet.apply(&toml, "").await.is(200);
    fleet.all_trunks_are_usable(true).await;
    let refused = |fleet: &Fleet| {
        let logins = fleet.pbx("waw-1").actions();
        logins.iter().any(|action| action.get("Secret") == Some("wrong"))
    };
    eventually("the login is refused", async || refused(&fleet)).await;
    std::fs::write(&file, AMI_SECRET).unwrap();
    let put_right = Instant::now();
    eventually("both sessions are there", async || fleet.pbx("waw-1").sessions() == 2).await;
    assert!(put_right.elapsed() < Duration::from_secs(10), "{:?}", put_right.elapsed());
}

/// A question that is not answered in time is asked again; the session and the node are not given up.
#[tokio::test]
async fn one_slow_answer_does_not_take_a_node_out() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .before(|pbxes| {
            pbxes["waw-1"].change_script(|script| script.core_status = CoreStatus::Silent);
        })
        .start()
        .await;
    let pbx = fleet.pbx("waw-1");
    eventually("the question goes unanswered", async || {
        let node = fleet.node("waw-1").await;
        assert!(!node.to_string().contains("the classes"), "{node}");
        node["reason"].as_str().is_some_and(|reason| reason.contains("asking again"))
    })
    .await;
    let logins = pbx.logins();
    pbx.change_script(|script| script.core_status = CoreStatus::Answers);
    eventually("it is alive", async || fleet.node("waw-1").await["up"] == true).await;
    assert_eq!(pbx.logins(), logins, "by the same session");
}

/// A manager user that lacks a class is told so, and is asked again: the class may be given meanwhile.
#[tokio::test]
async fn a_refused_question_names_the_classes_and_is_asked_again() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .before(|pbxes| {
            pbxes["waw-1"].change_script(|script| script.core_status = CoreStatus::Refused);
        })
        .start()
        .await;
    eventually("the node says which classes", async || {
        fleet.node("waw-1").await["reason"].as_str().is_some_and(|reason| reason.contains("reporting"))
    })
    .await;
    fleet.pbx("waw-1").change_script(|script| script.core_status = CoreStatus::Answers);
    eventually("it is alive", async || fleet.node("waw-1").await["up"] == true).await;
}

/// A contact that is a name can ring twice in one attempt: the trunk is refused, and says why.
#[tokio::test]
async fn a_trunk_with_a_name_for_its_contact_is_refused_with_the_reason() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .before(|pbxes| {
            pbxes["waw-1"].set_global("PJSIP_CONTACT(acme@@1,uri)", "sip:sip.carrier.example:5060");
        })
        .start()
        .await;
    eventually("one is refused and one usable", async || {
        fleet.trunk("acme-waw-1").await["finding"].is_string()
            && fleet.trunk("acme-fra-1").await["usable"] == true
    })
    .await;
    let reason = fleet.trunk("acme-waw-1").await["reason"].to_string();
    assert!(reason.contains("sip.carrier.example") && reason.contains("twice"), "{reason}");
    for _ in 0..4 {
        let ended = fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
        assert_eq!(ended.each("trunk"), ["acme-fra-1"]);
    }
    assert_eq!(fleet.originates("waw-1", "acme"), 0);
    // Put right on the PBX, it is found so without a restart.
    fleet.pbx("waw-1").set_global("PJSIP_CONTACT(acme@@1,uri)", "sip:192.0.2.21:5060");
    fleet.all_trunks_are_usable(true).await;
}

#[tokio::test]
async fn an_unknown_endpoint_is_refused_with_the_reason() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| settings.patience_ms = 100)
        .before(|pbxes| pbxes["waw-1"].set_global("PJSIP_ENDPOINT(acme,aors)", ""))
        .start()
        .await;
    fleet.all_trunks_are_usable(false).await;
    let reason = fleet.trunk("acme-waw-1").await["reason"].to_string();
    assert!(reason.contains("pjsip show endpoint acme"), "{reason}");
    let ended = fleet.call(NUMBER).place().await.ends_as("failed", "no_healthy_route").await;
    assert_eq!(ended.outcome(), "not_tried");
}

/// Strangers' text in the stream of events changes no call; it is counted.
#[tokio::test]
async fn forged_events_change_no_call() {
    let fleet = pair().await;
    fleet.callee(NUMBER, talks(400));
    let call = fleet.call(NUMBER).or_fail().place().await;
    let up = call.becomes("in_progress").await;
    let attempt = up["attempts"][0]["id"].as_str().unwrap();
    let pbx = carrying(&fleet, &call).await;
    for forged in [
        "Event: Newexten\r\nPrivilege: dialplan,all\r\nCallerIDNum: x\r\n\r\nEvent: Shutdown\r\nShutdown: Cleanly\r\n\r\n".to_owned(),
        format!("Event: Hangup\r\nUniqueid: {attempt}\r\nCause: 17\r\nTechCause: 486\r\n\r\n"),
        "Response: Success\r\nActionID: 00000000000000000000000000000000\r\n\r\n".to_owned(),
    ] {
        pbx.inject(forged.as_bytes());
    }
    let ended = call.ends().await;
    assert_eq!(
        (&ended.0["status"], fleet.seen(NUMBER).invites),
        (&"completed".into(), 1),
        "{}",
        ended.text()
    );
}

/// A PBX that writes every byte apart is as good as another.
#[tokio::test]
async fn half_lines_make_no_difference() {
    let half = |script: &mut Script| script.half_lines = true;
    let fleet = Fleet::of(&["waw-1"], &["acme"]).script(half).start().await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}
