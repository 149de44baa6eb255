//! How calls end: every row of the cause table, over two nodes and two carriers.

use std::collections::BTreeMap;

use fake_pbx::{Ending, Fault, Plan};
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Call, Ended, Fleet, NUMBER, talks};

/// Acme is asked first, and beta answers whatever acme leaves.
async fn acme_then_beta() -> Fleet {
    let fleet = Fleet::square()
        .first_carrier_first()
        .nodes_have("timer_b_ms = 500")
        .script(|script| {
            script.default = talks(5).into();
            script.timer_b = std::time::Duration::from_millis(520);
        })
        .start()
        .await;
    fleet.carrier("beta", talks(5));
    fleet
}

/// The second attempt shares nothing with the first.
#[track_caller]
fn went_elsewhere(ended: &Ended, first: &str) {
    assert_eq!(ended.endings(), [first, "answered"], "{}", ended.text());
    for field in ["node", "trunk", "carrier"] {
        let each = ended.each(field);
        assert_ne!(each[0], each[1], "{field}: {}", ended.text());
    }
}

fn number(n: usize) -> String {
    format!("+48{:09}", 220_000_000 + n)
}

#[tokio::test]
async fn a_call_is_answered_and_played() {
    let fleet = Fleet::small().await;
    for (n, ending) in
        [talks(5), Ending::AnswerThenBye { talk: std::time::Duration::ZERO }].iter().enumerate()
    {
        fleet.callee(&number(n), ending.clone());
        let ended = fleet.call(&number(n)).place().await.ends_as("completed", "played").await;
        assert_eq!((ended.outcome(), ended.endings()), ("answered", vec!["answered"]));
        assert_eq!(ended.each("rang"), ["yes"]);
        assert_eq!(fleet.seen(&number(n)).answers, 1);
    }
}

/// What says nothing about the callee goes to another node, trunk and carrier, whatever `on_unknown` is.
#[tokio::test]
async fn faults_of_the_carrier_are_left_for_another_node_trunk_and_carrier() {
    let rows = [
        (500, "carrier_error"),
        (502, "carrier_error"),
        (504, "carrier_error"),
        (405, "carrier_error"),
        (503, "congestion"),
        (408, "carrier_timeout"),
        (401, "unauthorized"),
        (407, "unauthorized"),
        (403, "forbidden"),
        (488, "not_acceptable"),
        (606, "not_acceptable"),
        (302, "redirected"),
    ];
    for (n, (sip, class)) in rows.into_iter().enumerate() {
        // A fleet of its own for each: what its trunks have met before is nobody's question here.
        let fleet = acme_then_beta().await;
        fleet.carrier("acme", Ending::Sip(sip));
        let number = number(n);
        let ended = fleet.call(&number).or_fail().place().await.ends_as("completed", "played").await;
        went_elsewhere(&ended, class);
        assert_eq!((ended.outcome(), ended.each("rang")), ("answered", vec!["no", "yes"]), "{sip}");
        assert_eq!(ended.attempts()[0]["sip_code"], sip);
        let seen = fleet.seen(&number);
        assert_eq!((seen.invites, seen.rings, seen.answers), (2, 1, 1), "{sip}");
    }
}

/// What speaks for the callee, or happens after ringing, ends the call although it asks for a retry.
#[tokio::test]
async fn what_the_callee_did_is_never_tried_elsewhere() {
    let fleet = acme_then_beta().await;
    let rows = [
        (Ending::Sip(404), "failed", "invalid_number", "invalid_number", "no"),
        (Ending::Sip(410), "failed", "invalid_number", "invalid_number", "no"),
        (Ending::Sip(484), "failed", "invalid_number", "invalid_number", "no"),
        (Ending::Sip(485), "failed", "invalid_number", "invalid_number", "no"),
        (Ending::Sip(604), "failed", "invalid_number", "invalid_number", "no"),
        (Ending::Sip(480), "no_answer", "unreachable", "unreachable", "no"),
        (Ending::Sip(486), "busy", "user_busy", "user_busy", "no"),
        (Ending::Sip(600), "busy", "user_busy", "user_busy", "no"),
        (Ending::Sip(603), "busy", "declined", "declined", "no"),
        (Ending::Busy486, "busy", "user_busy", "user_busy", "yes"),
        (Ending::Declined603, "busy", "declined", "declined", "yes"),
        (Ending::RingThenSip(480), "no_answer", "ring_timeout", "ring_timeout", "yes"),
        (Ending::RingThenSip(503), "no_answer", "ring_timeout", "ended_after_ringing", "yes"),
        (Ending::RingThenSip(500), "no_answer", "ring_timeout", "ended_after_ringing", "yes"),
        (Ending::RingThenSip(404), "no_answer", "ring_timeout", "ended_after_ringing", "yes"),
        (Ending::RingThenSip(487), "no_answer", "ring_timeout", "ended_after_ringing", "yes"),
        (Ending::ProgressThenSip(404), "failed", "invalid_number", "invalid_number", "maybe"),
        (Ending::ProgressThenSip(486), "busy", "user_busy", "user_busy", "maybe"),
    ];
    for (n, (ending, status, reason, class, rang)) in rows.into_iter().enumerate() {
        fleet.carrier("acme", ending.clone());
        let number = number(n);
        let ended = fleet.call(&number).place().await.ends_as(status, reason).await;
        assert_eq!((ended.endings(), ended.each("rang")), (vec![class], vec![rang]), "{ending:?}");
        assert_eq!(ended.outcome(), "not_reached", "{ending:?}");
        assert_eq!(fleet.seen(&number).invites, 1, "{ending:?}");
    }
}

/// What nobody can know is decided by the customer: retry dials elsewhere, fail ends.
#[tokio::test]
async fn what_cannot_be_known_goes_as_on_unknown_says() {
    let rows = [
        (Ending::ProgressThenSip(503), "ended_after_progress"),
        (Ending::Silent, "carrier_silent"),
        (Ending::SilentTrying, "no_progress"),
    ];
    for (n, (ending, class)) in rows.into_iter().enumerate() {
        let fleet = acme_then_beta().await;
        fleet.carrier("acme", ending.clone());
        let (retry, fail) = (number(2 * n), number(2 * n + 1));
        let place = |number: String| {
            let request = fleet.call(&number).with("progress_timeout_s", 1);
            async move { request }
        };
        let (retried, failed) = tokio::join!(
            async { place(retry.clone()).await.place().await.ends_as("completed", "played").await },
            async {
                let request = place(fail.clone()).await.or_fail();
                request.place().await.ends_as("failed", "outcome_unknown").await
            },
        );
        went_elsewhere(&retried, class);
        assert_eq!(retried.each("rang")[0], "maybe", "{ending:?}");
        assert_eq!((failed.endings(), failed.outcome()), (vec![class], "unknown"), "{ending:?}");
        assert_eq!((fleet.seen(&retry).invites, fleet.seen(&fail).invites), (2, 1), "{ending:?}");
    }
}

/// No INVITE left, so the next one is safe, and no attempt of the customer's is used up.
#[tokio::test]
async fn what_sent_nothing_is_safe_to_leave() {
    let fleet = acme_then_beta().await;
    let rejected = Ending::Rejected("Originate failed".to_owned());
    let rows = [(Ending::ContactDown, "contact_down"), (rejected, "rejected")];
    for (n, (ending, class)) in rows.into_iter().enumerate() {
        fleet.carrier("acme", ending);
        let number = number(n);
        let request = fleet.call(&number).or_fail().attempts_max(1);
        went_elsewhere(&request.place().await.ends_as("completed", "played").await, class);
        assert_eq!(fleet.seen(&number).invites, 1, "{class}");
    }
    // A name that does not resolve looks like a 503 on the wire that nobody sent.
    fleet.carrier("acme", Ending::DnsFailure);
    let ended = fleet.call(&number(9)).or_fail().place().await.ends_as("completed", "played").await;
    went_elsewhere(&ended, "congestion");
    assert_eq!(fleet.seen(&number(9)).invites, 1);
}

#[tokio::test]
async fn when_nothing_was_ever_sent_the_call_says_so() {
    let fleet = Fleet::square().start().await;
    fleet.callee(NUMBER, Ending::ContactDown);
    let ended = fleet.call(NUMBER).place().await.ends_as("failed", "trunk_unavailable").await;
    // Each trunk again and again, as a PBX may just be restarting, for as long as patience lasts.
    assert!(ended.attempts().len() >= 8, "{}", ended.text());
    assert_eq!(ended.outcome(), "not_tried");
    assert_eq!(fleet.seen(NUMBER).invites, 0);
}

#[tokio::test]
async fn what_sent_nothing_is_dialled_again_when_its_trunk_is_back() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).start().await;
    fleet.callee(NUMBER, Ending::ContactDown);
    let call = fleet.call(NUMBER).or_fail().place().await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    fleet.callee(NUMBER, talks(5));
    let ended = call.ends_as("completed", "played").await;
    assert!(ended.attempts().len() >= 2, "{}", ended.text());
    assert_eq!(fleet.seen(NUMBER).invites, 1);
}

/// The other PBX being away is no reason to wait for it alone.
#[tokio::test]
async fn what_sent_nothing_is_dialled_again_although_another_pbx_is_away() {
    let fleet = Fleet::square().start().await;
    fleet.callee(NUMBER, Ending::ContactDown);
    fleet.pbx("fra-1").close_port();
    fleet.pbx("fra-1").cut_links();
    let call = fleet.call(NUMBER).or_fail().place().await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    fleet.callee(NUMBER, talks(5));
    let ended = call.ends_as("completed", "played").await;
    assert!(ended.attempts().iter().all(|attempt| attempt["node"] == "waw-1"), "{}", ended.text());
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_is_not_dialled() {
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).start().await;
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    let deadline = (time::OffsetDateTime::UNIX_EPOCH + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap())
        + time::Duration::milliseconds(1_500);
    let deadline = deadline.format(&time::format_description::well_known::Rfc3339).unwrap();
    let call = fleet.call(NUMBER).with("deadline_at", deadline).place().await;
    let id = call.id.clone();
    fleet.kill().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_600)).await;
    fleet.pbx("waw-1").open_port().await.unwrap();
    fleet.start_again().await;
    let ended = Call::again(&fleet, &id).ends_as("failed", "deadline_exceeded").await;
    assert_eq!((ended.attempts().len(), ended.outcome()), (0, "not_tried"));
    assert_eq!(fleet.seen(NUMBER).invites, 0);
}

#[tokio::test]
async fn a_phone_that_rings_out_is_not_rung_again() {
    let fleet = acme_then_beta().await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let request = fleet.call(NUMBER).with("ring_timeout_s", 1);
    let ended = request.place().await.ends_as("no_answer", "ring_timeout").await;
    assert_eq!((ended.endings(), ended.outcome()), (vec!["ring_timeout"], "not_reached"));
    let seen = fleet.seen(NUMBER);
    assert_eq!((seen.invites, seen.rings), (1, 1));
    assert!(fleet.pbxes().all(|pbx| pbx.live_channels().is_empty()));
}

/// The trunk says what its 183 means.
#[tokio::test]
async fn a_183_means_what_the_trunk_says() {
    for (means, status, reason, class) in [
        ("not_ringing", "completed", "played", "congestion"),
        ("ringing", "no_answer", "ring_timeout", "ended_after_ringing"),
        ("maybe", "failed", "outcome_unknown", "ended_after_progress"),
    ] {
        let lines = format!("early_media = \"{means}\"");
        let fleet = Fleet::square().first_carrier_first().trunks_have(&lines).start().await;
        fleet.carrier("acme", Ending::ProgressThenSip(503));
        let ended = fleet.call(NUMBER).or_fail().place().await.ends_as(status, reason).await;
        assert_eq!(ended.endings()[0], class, "{means}");
    }
}

/// 480 and 603 stop, unless the trunk says that its carrier misuses them.
#[tokio::test]
async fn a_trunk_may_say_that_its_480_and_603_are_its_own_faults() {
    let lines = "on_480 = \"other\"\non_603 = \"other\"";
    let fleet = Fleet::square().first_carrier_first().trunks_have(lines).start().await;
    for (n, (sip, class)) in [(480, "unreachable"), (603, "declined")].into_iter().enumerate() {
        fleet.carrier("acme", Ending::Sip(sip));
        let ended = fleet.call(&number(n)).or_fail().place().await.ends_as("completed", "played").await;
        went_elsewhere(&ended, class);
    }
}

#[tokio::test]
async fn attempts_max_is_kept_and_every_trunk_is_tried_once_at_most() {
    let fleet = Fleet::square().start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(Ending::Sip(503)));
    for (n, (attempts_max, attempts)) in [(1, 1), (2, 2), (3, 3), (10, 4)].into_iter().enumerate() {
        let request = fleet.call(&number(n)).attempts_max(attempts_max);
        let ended = request.place().await.ends_as("failed", "trunk_unavailable").await;
        assert_eq!(ended.endings(), vec!["congestion"; attempts]);
        assert_eq!(fleet.seen(&number(n)).invites as usize, attempts);
        let mut trunks = ended.each("trunk");
        trunks.sort_unstable();
        trunks.dedup();
        assert_eq!(trunks.len(), attempts, "a trunk was tried twice");
        assert_eq!(ended.outcome(), "not_reached");
    }
    let ended = fleet.call(NUMBER).place().await.ends().await;
    assert_eq!(ended.attempts().len(), 3, "the default");
}

/// No common codec and redirects are worth one other trunk, and a second one that says so is believed.
#[tokio::test]
async fn no_codec_is_worth_one_other_trunk() {
    let fleet = Fleet::square().start().await;
    for (n, sip) in [488, 606, 302].into_iter().enumerate() {
        fleet.callee(&number(n), Ending::Sip(sip));
        let request = fleet.call(&number(n)).attempts_max(4);
        let ended = request.place().await.ends_as("failed", "trunk_unavailable").await;
        assert_eq!(ended.attempts().len(), 2, "{sip}");
        assert_eq!(fleet.seen(&number(n)).invites, 2, "{sip}");
    }
}

/// An Asterisk without TechCause leaves the SIP code in the flight record.
#[tokio::test]
async fn without_tech_cause_the_flight_record_tells() {
    let fleet = Fleet::square().script(|script| script.tech_cause = false).start().await;
    for (n, (sip, reason)) in
        [(486, "user_busy"), (603, "declined"), (480, "unreachable")].into_iter().enumerate()
    {
        fleet.callee(&number(n), Ending::Sip(sip));
        let ended = fleet.call(&number(n)).place().await.ends().await;
        assert_eq!((&ended.0["reason"], ended.attempts().len()), (&json!(reason), 1), "{}", ended.text());
        assert_eq!(ended.attempts()[0]["sip_code"], sip);
    }
}

/// Without either, what is ambiguous about the callee is unknown: `fail` dials nobody twice.
#[tokio::test]
async fn without_tech_cause_and_record_an_ambiguous_end_is_unknown() {
    let script = |script: &mut fake_pbx::Script| {
        script.tech_cause = false;
        script.flight_recorder = false;
    };
    let fleet = Fleet::square().script(script).start().await;
    fleet.callee(NUMBER, Ending::Sip(603));
    let ended = fleet.call(NUMBER).or_fail().place().await.ends_as("failed", "outcome_unknown").await;
    assert_eq!((ended.endings(), fleet.seen(NUMBER).invites), (vec!["unknown"], 1));
}

/// Whatever order the events come in, an ending is read the same.
#[tokio::test]
async fn the_order_of_events_does_not_matter() {
    let fleet = acme_then_beta().await;
    let faults = [
        Fault::OriginateResponseLast,
        Fault::EventsBeforeResponse,
        Fault::NeverAnswered,
        Fault::WrongActionId,
        Fault::NoHangupEvent,
    ];
    let each = faults.into_iter().enumerate().map(|(n, fault)| {
        let (fleet, busy, congested) = (&fleet, number(2 * n), number(2 * n + 1));
        async move {
            fleet.callee(&busy, Plan::of(Ending::Busy486).with(fault));
            let ended = fleet.call(&busy).place().await.ends_as("busy", "user_busy").await;
            assert_eq!(fleet.seen(&busy).invites, 1, "{fault:?}: {}", ended.text());
            fleet.callee(&congested, Plan::of(Ending::Sip(503)).with(fault));
            let request = fleet.call(&congested).or_fail().attempts_max(2);
            let ended = request.place().await.ends_as("failed", "trunk_unavailable").await;
            assert_eq!(ended.endings(), ["congestion", "congestion"], "{fault:?}");
            assert_eq!(fleet.seen(&congested).invites, 2, "{fault:?}");
        }
    });
    join_all(each).await;
}

/// A hundred calls over two nodes and two carriers: as many on each trunk, give or take one.
#[tokio::test]
async fn a_hundred_calls_are_spread_evenly() {
    let fleet = Fleet::square().start().await;
    let calls = (0..100).map(|n| {
        let request = fleet.call(&number(n));
        async { request.place().await.ends_as("completed", "played").await }
    });
    let mut by_trunk = BTreeMap::<String, i32>::new();
    for ended in join_all(calls).await {
        assert_eq!(ended.attempts().len(), 1);
        *by_trunk.entry(ended.each("trunk")[0].to_owned()).or_default() += 1;
    }
    assert_eq!(by_trunk.len(), 4, "{by_trunk:?}");
    assert!(by_trunk.values().all(|count| (24..=26).contains(count)), "{by_trunk:?}");
    for (node, endpoint) in [("waw-1", "acme"), ("waw-1", "beta"), ("fra-1", "acme"), ("fra-1", "beta")] {
        let shown = by_trunk[&format!("{endpoint}-{node}")];
        assert_eq!(fleet.originates(node, endpoint), shown as usize, "what the API says, and what came");
    }
}

/// Half of the fleet is broken: every call is answered by the other half, and both sides count the same.
#[tokio::test]
async fn with_one_carrier_down_every_call_is_answered_by_the_other() {
    let fleet = Fleet::square().start().await;
    fleet.carrier("acme", Ending::Sip(503));
    let calls = (0..40).map(|n| {
        let request = fleet.call(&number(n)).or_fail();
        async { request.place().await.ends_as("completed", "played").await }
    });
    let ended = join_all(calls).await;
    for (n, call) in ended.iter().enumerate() {
        assert_eq!(fleet.seen(&number(n)).invites as usize, call.attempts().len());
        assert_eq!((fleet.seen(&number(n)).rings, fleet.seen(&number(n)).answers), (1, 1));
        if let [first, second] = call.attempts() {
            assert_ne!(first["node"], second["node"]);
            assert_eq!((&first["carrier"], &second["carrier"]), (&json!("acme"), &json!("beta")));
        }
    }
    assert!(ended.iter().any(|call| call.attempts().len() == 2), "acme was asked");
}

/// The caller id is the customer's, or the trunk's own.
#[tokio::test]
async fn the_caller_id_is_the_customers_or_the_trunks() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("caller_ids = [\"+48221110000\", \"+48221110001\"]")
        .settings(|settings| settings.patience_ms = 100)
        .start()
        .await;
    fleet.call(&number(1)).place().await.ends_as("completed", "played").await;
    let request = fleet.call(&number(2)).with("from", "+48221110001");
    request.place().await.ends_as("completed", "played").await;
    let request = fleet.call(&number(3)).with("from", "+48229999999");
    let ended = request.place().await.ends_as("failed", "no_healthy_route").await;
    assert_eq!(ended.outcome(), "not_tried");
    let actions = fleet.pbx("waw-1").actions();
    let callers: Vec<_> = actions.iter().filter_map(|action| action.get("CallerID")).collect();
    assert_eq!(callers, ["+48221110000", "+48221110001"]);
}
