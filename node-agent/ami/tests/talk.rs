//! News of answered calls: what the dialplan tells reaches the attempt's watch, and nobody else can tell it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use fake_pbx::{Ending, FakePbx, Fault, Plan, Said, Script};
use node_agent_ami::{
    ActionIds, Block, CallNews, ChannelId, ConnectConfig, DbFamily, DbKey, Decoder, Event, Events,
    FlightRecord, HangupHandler, Limits, Message, Originate, OriginateOutcome, Secret, Session, TamperKind,
    Verdict, WatchItem,
};
use proptest::prelude::*;

mod corpus;

const OURS: &str = "att_9f8e7d6c5b4a39281706f5e4d3c2b1a0";
const ANOTHER: &str = "att_0f8e7d6c5b4a39281706f5e4d3c2b1a0";
const NUMBER: &str = "+380501234567";

fn told(name: &str, id: &str, attempt: &str, own: &[(&str, &str)]) -> Vec<(String, String)> {
    let head = [
        ("Event", "UserEvent"),
        ("Privilege", "user,all"),
        ("Channel", "PJSIP/acme-00000001"),
        ("ChannelState", "6"),
        ("ChannelStateDesc", "Up"),
        ("CallerIDNum", "+48221234567"),
        ("CallerIDName", "<unknown>"),
        ("ConnectedLineNum", "+48221234567"),
        ("ConnectedLineName", "<unknown>"),
        ("Language", "en"),
        ("AccountCode", ""),
        ("Context", "ringward-talk"),
        ("Exten", "1"),
        ("Priority", "5"),
        ("Uniqueid", id),
        ("Linkedid", id),
        ("UserEvent", name),
        ("Attempt", attempt),
    ];
    head.iter().chain(own).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(headers: &[(String, String)]) -> Result<Event, TamperKind> {
    Event::read(Message::from_pairs(headers.iter().map(|(n, v)| (n, v)))).map_err(|(kind, _)| kind)
}

#[test]
fn each_piece_of_news_has_its_own_form() {
    let amd: fn(&'static str) -> [(&'static str, &'static str); 2] =
        |verdict| [("Verdict", verdict), ("Cause", "LONGGREETING-1500-1500")];
    let no_cause = [("Verdict", "notsure"), ("Cause", "")];
    for (name, own, news) in [
        ("RingwardAnswered", &[][..], CallNews::Answered),
        ("RingwardKey", &[("Key", "1")], CallNews::Key('1')),
        ("RingwardKey", &[("Key", "*")], CallNews::Key('*')),
        ("RingwardKey", &[("Key", "#")], CallNews::Key('#')),
        ("RingwardMachine", &amd("human"), CallNews::Machine(Verdict::Human)),
        ("RingwardMachine", &amd("machine"), CallNews::Machine(Verdict::Machine)),
        ("RingwardMachine", &no_cause, CallNews::Machine(Verdict::NotSure)),
        ("RingwardPlayed", &[], CallNews::Played),
        ("RingwardMedia", &[], CallNews::NoMedia),
    ] {
        let attempt = ChannelId::parse(OURS).unwrap();
        assert_eq!(read(&told(name, OURS, OURS, own)), Ok(Event::Call { attempt, news }), "{name} {own:?}");
    }
    // Another dialplan's event is its own affair.
    assert!(matches!(read(&told("Else", OURS, OURS, &[("X", "y")])), Ok(Event::UserEvent { .. })));
}

#[test]
fn whatever_departs_from_its_form_is_tampering() {
    use TamperKind as K;
    let cause = ("Cause", "X");
    for (name, attempt, own, kind) in [
        ("RingwardKey", OURS, &[][..], K::Truncated),
        ("RingwardKey", OURS, &[("Key", "")], K::BadValue),
        ("RingwardKey", OURS, &[("Key", "11")], K::BadValue),
        ("RingwardKey", OURS, &[("Key", "A")], K::BadValue),
        ("RingwardKey", OURS, &[("Key", "1"), ("Key", "2")], K::Doubled),
        ("RingwardKey", OURS, &[("Key", "1"), ("More", "x")], K::Foreign),
        ("RingwardKey", ANOTHER, &[("Key", "1")], K::Mismatched),
        ("RingwardKey", "Att", &[("Key", "1")], K::BadValue),
        ("RingwardPlayed", OURS, &[("Key", "1")], K::Foreign),
        ("RingwardMachine", OURS, &[("Verdict", "HUMAN"), cause], K::BadValue),
        ("RingwardMachine", OURS, &[("Verdict", "human"), ("Cause", "a b")], K::BadValue),
        ("RingwardMachine", OURS, &[cause, ("Verdict", "human")], K::Foreign),
    ] {
        assert_eq!(read(&told(name, OURS, attempt, own)), Err(kind), "{name} {own:?}");
    }
}

/// What real dialplans on 22.10.1 and 16.28 told, read as it came.
#[test]
fn recorded_calls_tell_their_news() {
    use CallNews::{Answered, Key, Machine, NoMedia, Played};
    for (name, expected) in [
        ("talk_key", &[Answered, Key('*'), Key('1')][..]),
        ("talk_human", &[Answered, Machine(Verdict::Human), Played]),
        ("talk_machine", &[Answered, Machine(Verdict::Machine)]),
        ("talk_nomedia", &[Answered, NoMedia]),
    ] {
        for file in [name.to_owned(), format!("16_{name}")] {
            let bytes = corpus::of("clean").into_iter().find(|(of, _)| *of == file).unwrap().1;
            let mut decoder = Decoder::past_banner(Limits::default());
            decoder.push(&bytes);
            let mut news = Vec::new();
            while let Some(Block::Message(message)) = decoder.next_block().unwrap() {
                match Event::read(message) {
                    Ok(Event::Call { news: piece, .. }) => news.push(piece),
                    Ok(Event::UserEvent { name, .. }) => panic!("{file}: {name} was not understood"),
                    Ok(_) | Err((TamperKind::ForeignHead, _)) => {}
                    Err((kind, message)) => panic!("{file}: {kind:?} {message:?}"),
                }
            }
            assert_eq!(news, expected, "{file}");
        }
    }
}

proptest! {
    /// Headers added, taken away, doubled or changed anywhere: an event of this name either says what it said of
    /// our attempt, or says nothing of it.
    #[test]
    fn changed_anywhere_it_never_tells_another_key_of_our_attempt(
        changes in prop::collection::vec((0..22_usize, 0..4_u8, 0..8_usize), 1..4),
    ) {
        let pieces = [
            ("UserEvent", "RingwardKey"), ("Attempt", OURS), ("Attempt", ANOTHER), ("Key", "9"),
            ("Uniqueid", OURS), ("Channel", "PJSIP/acme-00000001"), ("Event", "UserEvent"), ("X", "y"),
        ];
        let mut headers = told("RingwardKey", OURS, OURS, &[("Key", "1")]);
        // What a stranger can touch: anything up to our own headers, which Asterisk writes behind his text.
        let mut his = headers.len() - 5;
        for (at, how, piece) in changes {
            let at = 2 + at % (his - 2);
            let (name, value) = pieces[piece];
            let piece = (name.to_owned(), value.to_owned());
            match how {
                0 => {
                    headers.insert(at, piece);
                    his += 1;
                }
                1 => headers[at] = piece,
                2 => headers[at].1 = piece.1,
                _ if his > 6 => {
                    headers.remove(at);
                    his -= 1;
                }
                _ => {}
            }
        }
        match read(&headers) {
            Ok(Event::Call { attempt, news }) => {
                prop_assert_eq!(attempt.as_str(), OURS);
                prop_assert_eq!(news, CallNews::Key('1'));
            }
            Ok(other) => prop_assert!(false, "{other:?}"),
            Err(_) => {}
        }
    }

    #[test]
    fn records_read_back(
        up in any::<bool>(), sip in prop::option::of(100..700_u16), q850 in prop::option::of(0..256_u16),
        epoch in 0..999_999_999_999_u64, key in prop::option::of(prop::sample::select(b"0123456789*#".to_vec())),
        machine in 0..4_u8, ending in 0..3_u8,
    ) {
        let dash = |n: Option<u16>| n.map_or("-".to_owned(), |n| n.to_string());
        let text = format!(
            "2|{}|Up|{}|{}|{epoch}|{}|{}|{}", if up { "up" } else { "end" }, dash(sip), dash(q850),
            key.map_or('-', char::from), ["-", "human", "machine", "notsure"][usize::from(machine)],
            ["-", "played", "nomedia"][usize::from(ending)],
        );
        prop_assert_eq!(FlightRecord::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn noise_is_no_record(text in "[12]\\|(up|end)\\|Up\\|[-0-9]{0,4}\\|[-0-9]{0,4}\\|[0-9]{0,13}(\\|[-1*a-z|]{0,9}){0,4}") {
        if let Ok(record) = FlightRecord::parse(&text) {
            let again = record.to_string();
            prop_assert_eq!(FlightRecord::parse(&again), Ok(record));
        }
    }
}

async fn start(plan: Plan) -> (FakePbx, Session, Events) {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    pbx.set_ending(NUMBER, plan);
    let config = ConnectConfig::new(
        pbx.address().to_string(),
        "ringward",
        Secret::new("secret"),
        ActionIds::seeded(9),
    );
    let (session, events) = Session::connect(&config).await.unwrap();
    (pbx, session, events)
}

/// Places a call and gives its news up to its end.
async fn news(session: &Session, variables: &[(&str, &str)]) -> Vec<CallNews> {
    let id = ChannelId::parse(OURS).unwrap();
    let (context, exten) = ("ringward-call".parse().unwrap(), "s".parse().unwrap());
    let mut originate =
        Originate::new(id.clone(), "acme".parse().unwrap(), NUMBER.parse().unwrap(), context, exten);
    originate.hangup_handler = Some(HangupHandler { context: "ringward-record".parse().unwrap() });
    originate.variables =
        variables.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let watch = session.watch(id).unwrap();
    assert_eq!(session.originate(&originate, &watch).await, OriginateOutcome::Accepted);
    let mut news = Vec::new();
    loop {
        match watch.next().await {
            WatchItem::Event(Event::Call { attempt, news: piece }) => {
                assert_eq!(attempt.as_str(), OURS);
                news.push(piece);
            }
            WatchItem::Event(Event::Hangup { .. }) | WatchItem::LinkLost(_) => return news,
            WatchItem::Event(_) => {}
            other @ (WatchItem::Tampered(_) | WatchItem::Overflowed { .. }) => panic!("{other:?}"),
        }
    }
}

fn record(pbx: &FakePbx) -> FlightRecord {
    FlightRecord::parse(&pbx.db("ringward", OURS).unwrap()).unwrap()
}

#[tokio::test]
async fn a_key_is_heard_by_its_watch_and_ends_the_call_if_it_is_one_that_does() {
    let ms = Duration::from_millis;
    let plan = Plan::pressing('5', ms(5)).saying(ms(10), Said::Key('*')).saying(ms(15), Said::Key('1'));
    let (pbx, session, _events) = start(plan).await;
    let news = news(&session, &[("RINGWARD_KEYS", "12"), ("RINGWARD_REPEAT_KEY", "s")]).await;
    let expected = [CallNews::Answered, CallNews::Key('5'), CallNews::Key('*'), CallNews::Key('1')];
    assert_eq!(news, expected);
    assert_eq!((record(&pbx).key, record(&pbx).played), (Some('1'), false));
}

#[tokio::test]
async fn a_machine_is_told_of_only_if_it_was_asked_for() {
    let plan = || Plan::of(Ending::answer()).saying(Duration::from_millis(5), Said::Machine("machine"));
    let (_pbx, session, _events) = start(plan()).await;
    assert_eq!(news(&session, &[]).await, [CallNews::Answered, CallNews::Played]);
    let (pbx, session, _events) = start(plan()).await;
    let verdict = CallNews::Machine(Verdict::Machine);
    let heard = news(&session, &[("RINGWARD_AMD", "hangup")]).await;
    assert_eq!(heard, [CallNews::Answered, verdict]);
    assert_eq!((record(&pbx).machine, record(&pbx).played), (Some(Verdict::Machine), false));
    let (pbx, session, _events) = start(plan()).await;
    let heard = news(&session, &[("RINGWARD_AMD", "leave")]).await;
    assert_eq!(heard, [CallNews::Answered, verdict, CallNews::Played]);
    assert_eq!((record(&pbx).machine, record(&pbx).played), (Some(Verdict::Machine), true));
}

#[tokio::test]
async fn a_missing_sound_is_told() {
    let plan = Plan::of(Ending::answer()).saying(Duration::from_millis(5), Said::NoMedia);
    let (pbx, session, _events) = start(plan).await;
    assert_eq!(news(&session, &[]).await, [CallNews::Answered, CallNews::NoMedia]);
    assert!(record(&pbx).no_media);
}

/// The worst moment for a cut: the key stands in the record, and nobody heard of it.
#[tokio::test]
async fn a_key_whose_event_is_lost_stands_in_the_record() {
    let plan = Plan::pressing('1', Duration::from_millis(5)).with(Fault::DropAtKey);
    let (pbx, session, _events) = start(plan).await;
    assert_eq!(news(&session, &[("RINGWARD_KEYS", "1")]).await, [CallNews::Answered]);
    let config = ConnectConfig::new(
        pbx.address().to_string(),
        "ringward",
        Secret::new("secret"),
        ActionIds::seeded(8),
    );
    let (session, _events) = Session::connect(&config).await.unwrap();
    let (family, key) = (DbFamily::parse("ringward").unwrap(), DbKey::parse(OURS).unwrap());
    let text = session.db_get(&family, &key).await.unwrap().unwrap();
    assert_eq!(FlightRecord::parse(&text).unwrap().key, Some('1'));
}
