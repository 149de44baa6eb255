//! The client against a scripted PBX over real TCP: every outcome of an Originate, every way to lose a link.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use fake_pbx::{Ending, FakePbx, Fault, Plan, Script};
use node_agent_ami::{
    Action, ActionError, ActionIds, AskError, ChannelId, ChannelPresence, CloseReason, ConnectConfig,
    ConnectError, ContextName, DbFamily, DbKey, DialDigits, EndpointName, Event, EventItem, Extension,
    FlightPhase, FlightRecord, HangupAnswer, HangupHandler, ListError, NotSent, Originate, OriginateOutcome,
    Secret, Session, TamperKind, Unresolved, Watch, WatchItem,
};

const NUMBER: &str = "+380501234567";

fn config(pbx: &FakePbx) -> ConnectConfig {
    let ids = ActionIds::from_os().unwrap();
    ConnectConfig::new(pbx.address().to_string(), "ringward", Secret::new("secret"), ids)
}

async fn start() -> (FakePbx, Session) {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let (session, _events) = Session::connect(&config(&pbx)).await.unwrap();
    (pbx, session)
}

fn originate(n: u32, number: &str) -> Originate {
    let id = ChannelId::parse(format!("att_{n:028x}")).unwrap();
    let endpoint = EndpointName::parse("acme").unwrap();
    let (context, exten) = (ContextName::parse("ringward-call").unwrap(), Extension::parse("s").unwrap());
    let mut originate = Originate::new(id, endpoint, DialDigits::parse(number).unwrap(), context, exten);
    originate.hangup_handler = Some(HangupHandler { context: ContextName::parse("ringward-end").unwrap() });
    originate.timeout = Duration::from_secs(1);
    originate
}

async fn place(session: &Session, n: u32, number: &str) -> (OriginateOutcome, Watch) {
    let originate = originate(n, number);
    let watch = session.watch(originate.channel_id.clone()).unwrap();
    let outcome = session.originate(&originate, &watch).await;
    (outcome, watch)
}

/// Reads until Hangup, an OriginateResponse Failure without a channel, or the end of the link.
async fn story(watch: &Watch) -> Vec<WatchItem> {
    let (mut items, mut began) = (Vec::new(), false);
    loop {
        let item =
            tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("the story stalled");
        let end = match &item {
            WatchItem::Event(Event::Hangup { .. }) | WatchItem::LinkLost(_) => true,
            WatchItem::Event(Event::OriginateResponse { success: false, .. }) => !began,
            WatchItem::Event(_) => {
                began = true;
                false
            }
            WatchItem::Tampered(_) | WatchItem::Overflowed { .. } => false,
        };
        items.push(item);
        if end {
            return items;
        }
    }
}

fn ending(items: &[WatchItem]) -> Option<(Option<u16>, Option<u16>, bool)> {
    let rang = items.iter().any(|item| {
        matches!(item, WatchItem::Event(Event::Newstate(c)) if c.state == node_agent_ami::ChannelState::Ringing)
    });
    items.iter().find_map(|item| match item {
        WatchItem::Event(Event::Hangup { cause, tech_cause, .. }) => Some((*tech_cause, *cause, rang)),
        WatchItem::Event(_)
        | WatchItem::Tampered(_)
        | WatchItem::Overflowed { .. }
        | WatchItem::LinkLost(_) => None,
    })
}

#[tokio::test]
async fn each_ending_is_told_by_its_watch() {
    let (pbx, session) = start().await;
    let answered = Ending::Answer { talk: Duration::from_millis(5) };
    let bye = Ending::AnswerThenBye { talk: Duration::from_millis(5) };
    for (n, (plan, expected)) in [
        (answered, (None, Some(16), true)),
        (bye, (None, Some(0), true)),
        (Ending::Busy486, (Some(486), Some(17), true)),
        (Ending::Declined603, (Some(603), Some(21), true)),
        (Ending::Sip(503), (Some(503), Some(34), false)),
        (Ending::ProgressThenSip(500), (Some(500), Some(41), false)),
        (Ending::NoAnswer, (Some(480), Some(19), true)),
        (Ending::SilentTrying, (Some(480), Some(19), false)),
        (Ending::Silent, (Some(408), Some(18), false)),
        (Ending::DnsFailure, (Some(503), Some(34), false)),
    ]
    .into_iter()
    .enumerate()
    {
        pbx.set_ending(NUMBER, plan.clone());
        let (outcome, watch) = place(&session, n as u32, NUMBER).await;
        assert_eq!(outcome, OriginateOutcome::Accepted);
        assert_eq!(ending(&story(&watch).await), Some(expected), "{plan:?}");
    }
    assert_eq!(session.tampering().total(), 0);
}

#[tokio::test]
async fn a_contact_that_is_down_makes_no_channel_and_a_refusal_is_rejected() {
    let (pbx, session) = start().await;
    pbx.set_ending(NUMBER, Ending::ContactDown);
    let (outcome, watch) = place(&session, 1, NUMBER).await;
    assert_eq!(outcome, OriginateOutcome::Accepted);
    let items = story(&watch).await;
    assert!(
        matches!(&items[..], [WatchItem::Event(Event::OriginateResponse { success: false, .. })]),
        "{items:?}"
    );
    pbx.set_ending(NUMBER, Ending::Rejected("Extension does not exist.".into()));
    let (outcome, _watch) = place(&session, 2, NUMBER).await;
    assert_eq!(outcome, OriginateOutcome::Rejected { message: "Extension does not exist.".into() });
    assert_eq!(pbx.seen(NUMBER).invites, 0);
}

#[tokio::test]
async fn an_id_that_is_a_prefix_of_a_living_one_is_refused_as_asterisk_does() {
    let (pbx, session) = start().await;
    pbx.set_default(Ending::NoAnswer);
    let mut long = originate(1, NUMBER);
    long.channel_id = ChannelId::parse("att_10").unwrap();
    let mut short = long.clone();
    short.channel_id = ChannelId::parse("att_1").unwrap();
    let living = session.watch(long.channel_id.clone()).unwrap();
    assert_eq!(session.originate(&long, &living).await, OriginateOutcome::Accepted);
    let refused = session.watch(short.channel_id.clone()).unwrap();
    assert_eq!(session.originate(&short, &refused).await, OriginateOutcome::Accepted);
    assert_eq!(story(&refused).await.len(), 1);
    assert_eq!(pbx.seen(NUMBER).invites, 1);
}

#[tokio::test]
async fn the_order_of_events_and_answers_does_not_matter() {
    let (pbx, session) = start().await;
    let order =
        Plan::of(Ending::Sip(503)).with(Fault::EventsBeforeResponse).with(Fault::OriginateResponseLast);
    pbx.set_ending(NUMBER, order);
    let (outcome, watch) = place(&session, 1, NUMBER).await;
    assert_eq!(outcome, OriginateOutcome::Accepted);
    assert!(matches!(watch.next().await, WatchItem::Event(Event::Newchannel(_))));
    assert_eq!(ending(&story(&watch).await), Some((Some(503), Some(34), false)));
    assert!(matches!(watch.next().await, WatchItem::Event(Event::OriginateResponse { success: false, .. })));
}

#[tokio::test]
async fn a_link_that_is_cut_leaves_the_outcome_that_can_be_proven() {
    for (fault, accepted, invites) in [
        (Fault::DropAfterQueued, true, 1),
        (Fault::DropBeforeAnswer, false, 1),
        (Fault::DropWithoutCall, false, 0),
    ] {
        let (pbx, session) = start().await;
        pbx.set_ending(NUMBER, Plan::of(Ending::answer()).with(fault));
        let (outcome, watch) = place(&session, 1, NUMBER).await;
        match outcome {
            OriginateOutcome::Accepted => assert!(accepted, "{fault:?}"),
            OriginateOutcome::Unresolved(Unresolved::LinkLost(_)) => assert!(!accepted, "{fault:?}"),
            other @ (OriginateOutcome::NotSent(_)
            | OriginateOutcome::Rejected { .. }
            | OriginateOutcome::Unresolved(Unresolved::Timeout)) => panic!("{fault:?}: {other:?}"),
        }
        assert!(matches!(story(&watch).await.last(), Some(WatchItem::LinkLost(_))));
        session.closed().await;
        // What is asked of a dead session provably does not leave.
        let (outcome, _watch) = place(&session, 2, NUMBER).await;
        assert!(matches!(outcome, OriginateOutcome::NotSent(NotSent::LinkDown(_))), "{outcome:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(pbx.seen(NUMBER).invites, invites, "{fault:?}");
        assert_eq!(pbx.count_actions("Originate"), 1);
    }
}

#[tokio::test]
async fn no_answer_and_a_wrong_action_id_are_unresolved() {
    for fault in [Fault::NeverAnswered, Fault::WrongActionId] {
        let pbx = FakePbx::start(Script::default()).await.unwrap();
        let mut config = config(&pbx);
        config.action_timeout = Duration::from_millis(150);
        let (session, _events) = Session::connect(&config).await.unwrap();
        pbx.set_ending(NUMBER, Plan::of(Ending::Busy486).with(fault));
        let (outcome, watch) = place(&session, 1, NUMBER).await;
        assert_eq!(outcome, OriginateOutcome::Unresolved(Unresolved::Timeout), "{fault:?}");
        // Its events came all the same, the one that bears the ActionID among them.
        let items = story(&watch).await;
        assert_eq!(ending(&items), Some((Some(486), Some(17), true)));
        let told = |item: &WatchItem| matches!(item, WatchItem::Event(Event::OriginateResponse { .. }));
        assert!(items.iter().any(told), "{items:#?}");
        let forged = u64::from(fault == Fault::WrongActionId);
        assert_eq!(session.tampering().get(TamperKind::UnknownActionId), forged);
    }
}

#[tokio::test]
async fn a_watch_of_another_channel_or_session_sends_nothing() {
    let (pbx, session) = start().await;
    let (other, _events) = Session::connect(&config(&pbx)).await.unwrap();
    let one = originate(1, NUMBER);
    let foreign = other.watch(one.channel_id.clone()).unwrap();
    let wrong = session.watch(originate(2, NUMBER).channel_id).unwrap();
    for watch in [&foreign, &wrong] {
        let outcome = session.originate(&one, watch).await;
        assert_eq!(outcome, OriginateOutcome::NotSent(NotSent::WrongWatch));
    }
    assert!(session.watch(originate(2, NUMBER).channel_id).is_err());
    drop(wrong);
    assert!(session.watch(originate(2, NUMBER).channel_id).is_ok());
    assert_eq!(pbx.count_actions("Originate"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_in_flight_on_one_session_each_keep_their_own_ending() {
    let (pbx, session) = start().await;
    let endings = [
        (Ending::Answer { talk: Duration::from_millis(20) }, (None, Some(16), true)),
        (Ending::Busy486, (Some(486), Some(17), true)),
        (Ending::Sip(503), (Some(503), Some(34), false)),
        (Ending::Silent, (Some(408), Some(18), false)),
    ];
    let mut calls = Vec::new();
    for n in 0..1000_u32 {
        let number = format!("+3805{n:08}");
        let (ending_of, expected) = endings[n as usize % endings.len()].clone();
        pbx.set_ending(&number, ending_of);
        let session = session.clone();
        calls.push(tokio::spawn(async move {
            let (outcome, watch) = place(&session, n, &number).await;
            assert_eq!(outcome, OriginateOutcome::Accepted);
            assert_eq!(ending(&story(&watch).await), Some(expected), "{number}");
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(pbx.seen_in_all().invites, 1000);
    assert_eq!(session.tampering().total(), 0);
}

#[tokio::test]
async fn half_lines_change_nothing() {
    let script = Script { half_lines: true, ..Script::default() };
    let pbx = FakePbx::start(script).await.unwrap();
    let (session, _events) = Session::connect(&config(&pbx)).await.unwrap();
    pbx.set_ending(NUMBER, Ending::Busy486);
    let (_, watch) = place(&session, 1, NUMBER).await;
    assert_eq!(ending(&story(&watch).await), Some((Some(486), Some(17), true)));
    assert_eq!(session.tampering().total(), 0);
}

#[tokio::test]
async fn a_flood_with_a_slow_reader_loses_nothing_of_a_watch_and_tells_of_the_rest() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut config = config(&pbx);
    config.events_max = 100;
    let (session, mut events) = Session::connect(&config).await.unwrap();
    assert_eq!(events.next().await, EventItem::Event(Event::FullyBooted));
    pbx.set_ending(NUMBER, Ending::Busy486);
    pbx.flood(20_000);
    let (outcome, watch) = place(&session, 1, NUMBER).await;
    pbx.flood(20_000);
    assert_eq!(outcome, OriginateOutcome::Accepted);
    let items = story(&watch).await;
    assert_eq!(ending(&items), Some((Some(486), Some(17), true)));
    assert_eq!(items.len(), 8, "{items:#?}");
    // An answer behind the flood: all of it has been read from the socket, though nobody took an event.
    session.core_status().await.unwrap();
    session.close();
    let (mut kept, mut lost) = (0, 0);
    loop {
        match events.next().await {
            EventItem::Event(_) => kept += 1,
            EventItem::Lost(count) => lost += count,
            EventItem::Tampered(tampering) => panic!("{tampering:?}"),
            EventItem::Closed(_) => break,
        }
    }
    assert_eq!((kept, lost), (100, 39_900));
}

#[tokio::test]
async fn a_watch_that_overflows_says_so() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut config = config(&pbx);
    config.watch_events_max = 2;
    let (session, _events) = Session::connect(&config).await.unwrap();
    pbx.set_ending(NUMBER, Ending::Sip(503));
    let (_, watch) = place(&session, 1, NUMBER).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(watch.next().await, WatchItem::Event(Event::Newchannel(_))));
    assert!(matches!(watch.next().await, WatchItem::Event(Event::DialBegin { .. })));
    assert_eq!(watch.next().await, WatchItem::Overflowed { lost: 4 });
}

#[tokio::test]
async fn questions_are_answered_with_facts() {
    let (pbx, session) = start().await;
    pbx.set_ending(NUMBER, Ending::NoAnswer);
    let one = originate(1, NUMBER);
    let id = one.channel_id.clone();
    assert_eq!(session.channel_status(&id).await, Ok(ChannelPresence::Absent));
    let watch = session.watch(id.clone()).unwrap();
    assert_eq!(session.originate(&one, &watch).await, OriginateOutcome::Accepted);
    while !matches!(watch.next().await, WatchItem::Event(Event::DialState { .. })) {}
    let presence = session.channel_status(&id).await.unwrap();
    let ringing = node_agent_ami::ChannelState::Ringing;
    assert_eq!(
        presence,
        ChannelPresence::Present { name: "PJSIP/acme-00000001".into(), state: Some(ringing) }
    );
    assert_eq!(session.core_status().await.unwrap().current_calls, Some(1));
    assert_eq!(session.hangup(&id, 16).await, Ok(HangupAnswer::Requested));
    assert_eq!(ending(&story(&watch).await), Some((None, Some(16), false)));
    assert_eq!(session.hangup(&id, 16).await, Ok(HangupAnswer::NoSuchChannel));
    let (family, key) = (DbFamily::parse("ringward").unwrap(), DbKey::parse(id.as_str()).unwrap());
    let record = FlightRecord::parse(&session.db_get(&family, &key).await.unwrap().unwrap()).unwrap();
    assert_eq!((record.phase, record.state, record.q850), (FlightPhase::End, ringing, Some(16)));
    assert_eq!(session.db_get(&family, &DbKey::parse("nosuch").unwrap()).await, Ok(None));
    pbx.set_global("RINGWARD_VERSION", "7");
    assert_eq!(session.getvar(&"RINGWARD_VERSION".parse().unwrap()).await, Ok(Some("7".into())));
    assert_eq!(session.getvar(&"NOSUCH".parse().unwrap()).await, Ok(None));
    let refused = session.list(Action::new("Nonsense").unwrap()).await;
    assert!(matches!(refused, Err(ListError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_restart_shows_as_another_incarnation_and_an_absent_channel() {
    let (pbx, session) = start().await;
    pbx.set_ending(NUMBER, Ending::NoAnswer);
    let before = session.core_status().await.unwrap().incarnation;
    let (_, watch) = place(&session, 1, NUMBER).await;
    assert_eq!(session.core_status().await.unwrap().incarnation, before);
    pbx.restart();
    assert!(matches!(story(&watch).await.last(), Some(WatchItem::LinkLost(CloseReason::PeerClosed))));
    let (session, _events) = Session::connect(&config(&pbx)).await.unwrap();
    assert_ne!(session.core_status().await.unwrap().incarnation, before);
    assert_eq!(session.channel_status(watch.id()).await, Ok(ChannelPresence::Absent));
}

#[tokio::test]
async fn a_frozen_pbx_is_found_out_by_its_pings_and_its_answers_are_unresolved() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut config = config(&pbx);
    config.ping_interval = Duration::from_millis(30);
    config.ping_timeout = Duration::from_millis(100);
    let (session, _events) = Session::connect(&config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert!(session.ping_rtt().is_some());
    pbx.freeze(true);
    let outcome = place(&session, 1, NUMBER).await.0;
    assert_eq!(outcome, OriginateOutcome::Unresolved(Unresolved::LinkLost(CloseReason::PingTimeout)));
    assert_eq!(session.closed().await, CloseReason::PingTimeout);
    config.connect_timeout = Duration::from_millis(100);
    let stalled = Session::connect(&config).await.unwrap_err();
    assert!(matches!(stalled, ConnectError::TimedOut { stage: "banner", .. }), "{stalled:?}");
}

#[tokio::test]
async fn an_action_that_waits_behind_a_stalled_link_is_taken_back_and_never_arrives() {
    // A link that takes no bytes: nobody reads the far end of this pipe after the login.
    let (near, mut far) = tokio::io::duplex(256);
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut config = config(&pbx);
    config.action_timeout = Duration::from_millis(100);
    let connecting = tokio::spawn({
        let config = config.clone();
        async move { Session::over(near, &config).await }
    });
    let login = log_in(&mut far).await;
    assert!(login.contains("Action: Login"));
    let (session, _events) = connecting.await.unwrap().unwrap();
    // The first one fills the pipe and is stuck in the middle: nobody can say what became of it.
    let long = Action::new("DBGet").unwrap().header("Key", "k".repeat(600)).unwrap();
    let stuck = tokio::spawn({
        let session = session.clone();
        async move { session.action(long).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let behind = place(&session, 1, NUMBER).await.0;
    assert_eq!(behind, OriginateOutcome::NotSent(NotSent::Busy));
    assert_eq!(stuck.await.unwrap(), Err(ActionError::Unresolved(Unresolved::Timeout)));
    // The link runs again: the first action's rest comes, the second never does.
    session.action(Action::new("Later").unwrap()).await.unwrap_err();
    let mut text = Vec::new();
    let _ = tokio::time::timeout(
        Duration::from_millis(200),
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut text),
    )
    .await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("Action: DBGet") && !text.contains("Originate"), "{text}");
}

async fn log_in(far: &mut tokio::io::DuplexStream) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    far.write_all(b"Asterisk Call Manager/11.0.0\r\n").await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(far.read_u8().await.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("ActionID: ")).unwrap();
    far.write_all(format!("Response: Success\r\nActionID: {id}\r\n\r\n").as_bytes()).await.unwrap();
    text
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_the_session_in_order() {
    let (pbx, session) = start().await;
    pbx.freeze(true);
    for _ in 0..100 {
        let asking = session.core_status();
        assert!(tokio::time::timeout(Duration::from_millis(1), asking).await.is_err());
    }
    pbx.freeze(false);
    assert!(session.core_status().await.is_ok());
    // The late answers to what was given up are no tampering.
    assert_eq!(session.tampering().total(), 0);
}

#[tokio::test]
async fn a_list_that_is_cut_is_an_error() {
    let (near, mut far) = tokio::io::duplex(4096);
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let config = config(&pbx);
    let connecting = tokio::spawn(async move { Session::over(near, &config).await });
    log_in(&mut far).await;
    let (session, _events) = connecting.await.unwrap().unwrap();
    let listing = tokio::spawn(async move { session.list(Action::new("CoreShowChannels").unwrap()).await });
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(tokio::io::AsyncReadExt::read_u8(&mut far).await.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("ActionID: ")).unwrap();
    let half = format!(
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\nEvent: CoreShowChannel\r\nActionID: {id}\r\n\r\n"
    );
    tokio::io::AsyncWriteExt::write_all(&mut far, half.as_bytes()).await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut far).await.unwrap();
    let cut = listing.await.unwrap();
    assert!(
        matches!(&cut, Err(ListError::Cut { items, cause: Unresolved::LinkLost(_) }) if items.len() == 1),
        "{cut:?}"
    );
}

#[tokio::test]
async fn a_closed_session_answers_every_question_with_not_sent() {
    let (_pbx, session) = start().await;
    session.close();
    let asked = session.core_status().await;
    assert_eq!(asked, Err(AskError::NotSent(NotSent::LinkDown(CloseReason::ClosedHere))));
}
