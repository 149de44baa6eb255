//! Strangers' bytes, recorded from Asterisk 22.10.1 and 16.28, and made by hand, played to a whole session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use node_agent_ami::{
    ActionIds, ChannelId, ChannelPresence, ConnectConfig, Event, EventItem, Events, FlightRecord,
    HangupAnswer, Secret, Session, TamperKind, Watch, WatchItem,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

mod corpus;

const OURS: &str = "att_9f8e7d6c5b4a39281706f5e4d3c2b1a0";

/// A session whose far end is the test, logged in.
async fn session() -> (Session, Events, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let config = ConnectConfig::new("duplex", "u", Secret::new("s"), ActionIds::seeded(7));
    let connecting = tokio::spawn(async move { Session::over(near, &config).await });
    far.write_all(b"Asterisk Call Manager/11.0.0\r\n").await.unwrap();
    let login = read_action(&mut far).await;
    far.write_all(format!("Response: Success\r\nActionID: {}\r\n\r\n", action_id(&login)).as_bytes())
        .await
        .unwrap();
    let (session, events) = connecting.await.unwrap().unwrap();
    (session, events, far)
}

async fn read_action(far: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(far.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

fn action_id(action: &str) -> String {
    action.lines().find_map(|line| line.strip_prefix("ActionID: ")).unwrap().to_owned()
}

/// Everything that comes of these bytes, the silence behind them included.
async fn play(events: &mut Events, far: &mut DuplexStream, bytes: &[u8]) -> Vec<EventItem> {
    far.write_all(bytes).await.unwrap();
    let mut items = Vec::new();
    while let Ok(item) = tokio::time::timeout(Duration::from_millis(300), events.next()).await {
        items.push(item);
    }
    items
}

fn tampered(items: &[EventItem]) -> Vec<TamperKind> {
    let kind = |item: &EventItem| match item {
        EventItem::Tampered(tampering) => Some(tampering.kind),
        EventItem::Event(_) | EventItem::Lost(_) | EventItem::Closed(_) => None,
    };
    items.iter().filter_map(kind).collect()
}

fn watch_items(watch: &Watch) -> Vec<WatchItem> {
    let mut items = Vec::new();
    while let Some(item) = futures_now(watch) {
        items.push(item);
    }
    items
}

/// Without the answer to the Originate of the recording, which is of no action in flight here.
fn events_of(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    match text.strip_prefix("Response: ") {
        Some(rest) => rest.split_once("\r\n\r\n").unwrap().1.to_owned(),
        None => text.to_owned(),
    }
}

/// What the watch holds at this moment.
fn futures_now(watch: &Watch) -> Option<WatchItem> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(watch.next()).as_mut().poll(&mut context) {
        std::task::Poll::Ready(item) => Some(item),
        std::task::Poll::Pending => None,
    }
}

fn watch_ours(session: &Session) -> Watch {
    session.watch(ChannelId::parse(OURS).unwrap()).unwrap()
}

/// A channel event as Asterisk writes it, with whatever a stranger put into the caller's number.
fn channel_event(name: &str, channel: &str, caller: &str, id: &str, state: &str, tail: &str) -> String {
    format!(
        "Event: {name}\r\nPrivilege: call,all\r\nChannel: {channel}\r\nChannelState: 5\r\nChannelStateDesc: {state}\r\n\
         CallerIDNum: +48221234567\r\nCallerIDName: <unknown>\r\nConnectedLineNum: {caller}\r\n\
         ConnectedLineName: <unknown>\r\nLanguage: en\r\nAccountCode: \r\nContext: in\r\nExten: s\r\nPriority: 1\r\n\
         Uniqueid: {id}\r\nLinkedid: {id}\r\n{tail}\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn clean_recordings_raise_no_alarm_and_lose_no_event() {
    for (name, bytes) in corpus::of("clean") {
        let (session, mut events, mut far) = session().await;
        let text = String::from_utf8(bytes).unwrap();
        // Answers and lists belong to actions that are not in flight here; the banner came already.
        let is_played = |block: &&str| {
            block.starts_with("Event: ")
                && (!block.contains("\r\nActionID: ") || block.starts_with("Event: OriginateResponse"))
        };
        let blocks: Vec<&str> = text.split("\r\n\r\n").filter(is_played).collect();
        let stream: String = blocks.iter().map(|block| format!("{block}\r\n\r\n")).collect();
        let items = play(&mut events, &mut far, stream.as_bytes()).await;
        assert_eq!(tampered(&items), [], "{name}: {items:#?}");
        assert_eq!(items.len(), blocks.len(), "{name}");
        assert_eq!(session.tampering().total(), 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_recordings_are_all_noticed_and_believed_in_nothing() {
    for (name, bytes) in corpus::of("hostile") {
        let (session, mut events, mut far) = session().await;
        let watch = watch_ours(&session);
        let items = play(&mut events, &mut far, events_of(&bytes).as_bytes()).await;
        let kinds = tampered(&items);
        assert!(!kinds.is_empty(), "{name} went unnoticed: {items:#?}");
        assert_eq!(session.tampering().total() as usize, kinds.len(), "{name}");
        assert_eq!(watch_items(&watch), [], "{name}");
        for item in items {
            let forged = match &item {
                EventItem::Event(Event::Shutdown | Event::ContactStatus { .. }) => true,
                EventItem::Event(Event::Hangup { channel, .. } | Event::Newchannel(channel)) => {
                    channel.name.starts_with("PJSIP/carrier")
                }
                EventItem::Event(_) | EventItem::Tampered(_) | EventItem::Lost(_) | EventItem::Closed(_) => {
                    false
                }
            };
            assert!(!forged, "{name}: {item:?}");
        }
        assert_eq!(session.close_reason(), None, "{name}");
    }
}

/// The far end of our own call, over an endpoint that trusts it: the worst place to be in.
#[tokio::test(start_paused = true)]
async fn text_of_the_far_end_of_our_own_call_never_passes_for_an_event_of_it() {
    for (name, bytes) in corpus::of("hostile").into_iter().filter(|(name, _)| name.starts_with("own_")) {
        let id = format!("att_own{:0>17}", name.strip_prefix("own_").unwrap());
        let (session, mut events, mut far) = session().await;
        let watch = session.watch(ChannelId::parse(id).unwrap()).unwrap();
        play(&mut events, &mut far, events_of(&bytes).as_bytes()).await;
        let items = watch_items(&watch);
        // Before the carrier answers there is nothing of his in our events.
        assert!(matches!(&items[0], WatchItem::Event(Event::Newchannel(_))), "{name}");
        let hangups = items.iter().filter(|item| matches!(item, WatchItem::Event(Event::Hangup { .. })));
        assert_eq!(hangups.count(), 0, "{name}: a broken Hangup must not be believed: {items:#?}");
        assert!(session.tampering().total() > 0, "{name}");
        // Either the block still bears our id, and the watch says so, or it came without an id at all.
        let told = items.iter().any(|item| matches!(item, WatchItem::Tampered(_)));
        println!("{name}: the watch was {}", if told { "told" } else { "not told" });
    }
}

/// The whole forgery that a version without the 79-character cut would let through: his head, our tail.
#[tokio::test(start_paused = true)]
async fn a_strangers_head_before_our_tail_is_evidence_and_no_event() {
    let (session, mut events, mut far) = session().await;
    let watch = watch_ours(&session);
    let clean = channel_event("Newchannel", "PJSIP/acme-00000001", "<unknown>", OURS, "Down", "");
    // He ends the true event with an id of his own and opens another one in the same style.
    let head = "x\r\nConnectedLineName: x\r\nLanguage: en\r\nAccountCode: \r\nContext: in\r\nExten: s\r\n\
                Priority: 1\r\nUniqueid: att_guess\r\nLinkedid: att_guess\r\n\r\n\
                Event: Newstate\r\nPrivilege: call,all\r\nChannel: PJSIP/acme-00000001\r\nChannelState: 6\r\n\
                ChannelStateDesc: Up\r\nCallerIDNum: x\r\nCallerIDName: x\r\nConnectedLineNum: x";
    let forged = channel_event("Newstate", "PJSIP/acme-00000001", head, OURS, "Ringing", "");
    let later = channel_event("Newstate", "PJSIP/acme-00000001", "<unknown>", OURS, "Ringing", "");
    let items = play(&mut events, &mut far, format!("{clean}{forged}{later}").as_bytes()).await;
    assert_eq!(tampered(&items), [TamperKind::Mismatched, TamperKind::TaintedTail]);
    let told = watch_items(&watch);
    assert!(matches!(&told[0], WatchItem::Event(Event::Newchannel(_))), "{told:#?}");
    assert!(matches!(&told[1], WatchItem::Tampered(t) if t.kind == TamperKind::TaintedTail), "{told:#?}");
    // The next whole event of the channel counts again.
    assert!(
        matches!(&told[2], WatchItem::Event(Event::Newstate(channel)) if channel.uniqueid == OURS),
        "{told:#?}"
    );
    assert_eq!(told.len(), 3);
}

/// Somebody on another channel who guesses our channel's name but cannot know our id.
#[tokio::test(start_paused = true)]
async fn a_stranger_on_another_channel_cannot_write_into_a_watch() {
    let (session, mut events, mut far) = session().await;
    let watch = watch_ours(&session);
    let clean = channel_event("Newchannel", "PJSIP/acme-00000001", "<unknown>", OURS, "Down", "");
    let whole_hangup = channel_event(
        "Hangup",
        "PJSIP/acme-00000001",
        "x",
        "att_9f8e7d6c5b4a39281706f5e4d3c2b1a1",
        "Ringing",
        "Cause: 17\r\nCause-txt: User busy\r\nTechCause: 486\r\n",
    );
    let text =
        format!("1\r\n\r\n{whole_hangup}Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: x\r\nX: ");
    let his = channel_event("Newchannel", "PJSIP/acme-00000002", &text, "1790000000.9", "Ring", "");
    let items = play(&mut events, &mut far, format!("{clean}{his}").as_bytes()).await;
    // The head breaks off; the forged Hangup names our channel with an id that is not its own.
    assert_eq!(tampered(&items)[..2], [TamperKind::Truncated, TamperKind::Mismatched], "{items:#?}");
    let told = watch_items(&watch);
    assert_eq!(told.len(), 1, "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn doubled_and_foreign_headers_do_not_count() {
    let tail = "Cause: 34\r\nCause-txt: x\r\nTechCause: 503\r\n";
    for (text, kind) in [
        ("x\r\nCause: 16", TamperKind::Foreign),
        ("x\r\nConnectedLineNum: y", TamperKind::Doubled),
        ("x\r\nChannel: y", TamperKind::Doubled),
        ("x\r\nUniqueid: att_x", TamperKind::Foreign),
        ("x\r\nhello", TamperKind::NotAHeader),
        ("x\r\nEvent: Hangup", TamperKind::Doubled),
        ("x\nConnectedLineName: y", TamperKind::Doubled),
    ] {
        let (session, mut events, mut far) = session().await;
        let watch = watch_ours(&session);
        let hangup = channel_event("Hangup", "PJSIP/acme-00000001", text, OURS, "Ringing", tail);
        let items = play(&mut events, &mut far, hangup.as_bytes()).await;
        assert_eq!(tampered(&items), [kind], "{text:?}");
        let told = watch_items(&watch);
        assert!(matches!(&told[..], [WatchItem::Tampered(t)] if t.kind == kind), "{text:?}: {told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_was_ended_early_is_not_delivered_even_when_its_remains_come_later() {
    let (session, mut events, mut far) = session().await;
    let hint = "Event: Shutdown\r\nPrivilege: system,all\r\nShutdown: Cleanly\r\nRestart: False\r\n\r\n";
    far.write_all(hint.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let items = play(&mut events, &mut far, b"CallerIDName: ").await;
    assert_eq!(tampered(&items), [TamperKind::BrokenBehind]);
    assert_eq!(items.len(), 1);
    let items = play(&mut events, &mut far, b"x\r\n\r\n").await;
    assert_eq!(tampered(&items), [TamperKind::ForeignHead]);
    // In peace the same bytes are an event, after the silence.
    let items = play(&mut events, &mut far, hint.as_bytes()).await;
    assert_eq!(items, [EventItem::Event(Event::Shutdown)]);
    assert_eq!(session.tampering().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_ours_waits_for_nothing() {
    let (session, _events, mut far) = session().await;
    let watch = watch_ours(&session);
    let event = channel_event("Newstate", "PJSIP/acme-00000001", "<unknown>", OURS, "Ringing", "");
    let before = tokio::time::Instant::now();
    far.write_all(event.as_bytes()).await.unwrap();
    assert!(matches!(watch.next().await, WatchItem::Event(Event::Newstate(_))));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn answers_with_ids_that_are_not_in_flight_count_as_forged() {
    let (session, mut events, mut far) = session().await;
    let asking = tokio::spawn({
        let session = session.clone();
        async move { session.core_status().await }
    });
    let asked = read_action(&mut far).await;
    let forged = "Response: Success\r\nActionID: 00000000000000000000000000000000\r\nMessage: x\r\n\r\n\
                  Response: Success\r\nMessage: x\r\n\r\n";
    let items = play(&mut events, &mut far, forged.as_bytes()).await;
    assert_eq!(tampered(&items), [TamperKind::UnknownActionId; 2]);
    let answer = format!(
        "Response: Success\r\nActionID: {}\r\nCoreStartupDate: 2026-11-24\r\nCoreStartupTime: 11:54:28\r\n\r\n",
        action_id(&asked)
    );
    far.write_all(answer.as_bytes()).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().incarnation.as_str(), "2026-11-24 11:54:28");
}

/// The answers that Asterisk gave, under the ids that this session asks with.
#[tokio::test(start_paused = true)]
async fn recorded_answers_are_understood() {
    understand_answers("answers", "2026-11-24 11:54:28").await;
    understand_answers("16_answers", "2026-11-24 12:18:13").await;
}

async fn understand_answers(name: &str, incarnation: &str) {
    let recording = corpus::of("clean").into_iter().find(|(file, _)| file == name).unwrap().1;
    let recording = String::from_utf8(recording).unwrap();
    let (session, mut events, mut far) = session().await;
    let answered = async |far: &mut DuplexStream, recorded: &str| {
        let asked = action_id(&read_action(far).await);
        let line = format!("ActionID: {recorded}");
        for block in recording.split("\r\n\r\n").filter(|block| block.lines().any(|of| of == line)) {
            let block = block.replace(&line, &format!("ActionID: {asked}"));
            far.write_all(format!("{block}\r\n\r\n").as_bytes()).await.unwrap();
        }
    };
    let id = ChannelId::parse("att_status00000000000").unwrap();
    let (present, ()) = tokio::join!(session.channel_status(&id), answered(&mut far, "st1"));
    let ringing = ChannelPresence::Present {
        name: "PJSIP/carrier-00000006".into(),
        state: Some(node_agent_ami::ChannelState::Ringing),
    };
    assert_eq!(present, Ok(ringing));
    let (absent, ()) = tokio::join!(session.channel_status(&id), answered(&mut far, "st2"));
    assert_eq!(absent, Ok(ChannelPresence::Absent));
    let (hung_up, ()) = tokio::join!(session.hangup(&id, 16), answered(&mut far, "h1"));
    assert_eq!(hung_up, Ok(HangupAnswer::Requested));
    let (gone, ()) = tokio::join!(session.hangup(&id, 16), answered(&mut far, "h2"));
    assert_eq!(gone, Ok(HangupAnswer::NoSuchChannel));
    let (family, key) = ("ringward".parse().unwrap(), "att_000000000000answered".parse().unwrap());
    let (record, ()) = tokio::join!(session.db_get(&family, &key), answered(&mut far, "d1"));
    let record = FlightRecord::parse(&record.unwrap().unwrap()).unwrap();
    assert!(record.to_string().starts_with("1|end|Up|-|16|17955"), "{record}");
    let (none, ()) = tokio::join!(session.db_get(&family, &key), answered(&mut far, "d2"));
    assert_eq!(none, Ok(None));
    let unset = "NOSUCH".parse().unwrap();
    let (unset, ()) = tokio::join!(session.getvar(&unset), answered(&mut far, "g1"));
    assert_eq!(unset, Ok(None));
    let (core, ()) = tokio::join!(session.core_status(), answered(&mut far, "c1"));
    assert_eq!(core.unwrap().incarnation.as_str(), incarnation);
    let tree = node_agent_ami::Action::new("DBGetTree").unwrap();
    let (tree, ()) = tokio::join!(session.list(tree), answered(&mut far, "l2"));
    assert_eq!(tree.unwrap().items.len(), 7);
    assert_eq!(play(&mut events, &mut far, b"").await, []);
    assert_eq!(session.tampering().total(), 0);
}

/// A list of all channels holds strangers' text before the true ActionID of its item.
#[tokio::test(start_paused = true)]
async fn a_forged_end_of_a_list_cannot_shorten_it() {
    let (session, mut events, mut far) = session().await;
    let listing = tokio::spawn({
        let session = session.clone();
        async move { session.list(node_agent_ami::Action::new("CoreShowChannels").unwrap()).await }
    });
    let id = action_id(&read_action(&mut far).await);
    let forged_end = "x\r\n\r\nEvent: CoreShowChannelsComplete\r\nEventList: Complete\r\nListItems: 0\r\nX: ";
    let list = format!(
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n\
         Event: CoreShowChannel\r\nCallerIDNum: {forged_end}\r\nActionID: {id}\r\n\r\n\
         Event: CoreShowChannel\r\nCallerIDNum: 1\r\nActionID: {id}\r\n\r\n\
         Event: CoreShowChannelsComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: 2\r\n\r\n"
    );
    let items = play(&mut events, &mut far, list.as_bytes()).await;
    assert!(tampered(&items).contains(&TamperKind::ForgedListEvent), "{items:#?}");
    let result = listing.await.unwrap();
    assert!(
        matches!(&result, Err(node_agent_ami::ListError::Short { items }) if items.len() == 1),
        "{result:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_oversized_block_costs_one_alarm_and_neither_memory_nor_the_session() {
    let (session, mut events, mut far) = session().await;
    let watch = watch_ours(&session);
    let text = format!("x{}", "\r\nX: y".repeat(5000));
    let long = channel_event("Newchannel", "PJSIP/acme-00000002", &text, "1.1", "Ring", "");
    let ours = channel_event("Newstate", "PJSIP/acme-00000001", "<unknown>", OURS, "Ringing", "");
    let items = play(&mut events, &mut far, format!("{long}{ours}").as_bytes()).await;
    assert_eq!(tampered(&items), [TamperKind::Oversized]);
    assert_eq!(watch_items(&watch).len(), 1);
    assert_eq!(session.close_reason(), None);
}
