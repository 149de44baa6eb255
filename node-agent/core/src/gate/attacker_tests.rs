//! An attacker who holds the control plane writes whatever he likes; a recording Asterisk tells what reached it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::HashMap, time::Instant};

use node_agent_ami::{Block, Decoder, EndpointName, Limits, Message, TamperKind};
use proptest::prelude::*;

use super::{Ledger, NodeLimits, NumberRule, Passed, Policy, RefusalKind, Report, Stream, TrunkLimits};
use crate::attempt_id::AttemptId;

const OURS: &str = "att_0123456789abcdefghjkmnpqr0";
const RECORDER: &str = "CHANNEL(hangup_handler_push)=\"ringward-record,s,1\"";

/// A gate, and everything that reached Asterisk.
struct Bench {
    stream: Stream,
    ledger: Ledger,
    now: Instant,
    reached: Vec<u8>,
    answered: Vec<u8>,
    reports: Vec<Report>,
}

impl Bench {
    #[allow(clippy::disallowed_methods, reason = "a test's origin of time")]
    fn new() -> Self {
        let node = NodeLimits { channels_max: 100, cps_max: 1000 };
        let mut ledger = Ledger::new(node, None);
        let number = NumberRule { begins: "+".to_owned(), digits_min: 7, digits_max: 15 };
        let limits = TrunkLimits { channels_max: 100, cps_max: 1000, number };
        let acme = EndpointName::parse("acme").unwrap();
        ledger.set_policy(Policy { trunks: HashMap::from([(acme, limits)]) }, node);
        let (reached, answered, reports) = Default::default();
        let mut bench =
            Self { stream: Stream::new(), ledger, now: Instant::now(), reached, answered, reports };
        bench.writes(
            b"Action: Login\r\nActionID: 0\r\nUsername: ringward-link\r\nSecret: x\r\nEvents: call\r\n\r\n",
        );
        assert!(bench.reached.is_empty(), "a login went through");
        bench.answered.clear();
        bench
    }

    fn take(&mut self, passed: Passed) {
        self.reached.extend(passed.to_asterisk);
        self.answered.extend(passed.to_control_plane);
        self.reports.extend(passed.reports);
    }

    fn writes(&mut self, bytes: &[u8]) {
        let passed = self.stream.control_plane_wrote(bytes, &mut self.ledger, self.now);
        self.take(passed);
    }

    fn asterisk(&mut self, text: &str) -> String {
        self.answered.clear();
        let bytes = text.replace('\n', "\r\n");
        let passed = self.stream.asterisk_wrote(bytes.as_bytes(), &mut self.ledger, self.now);
        self.take(passed);
        String::from_utf8(self.answered.clone()).unwrap().replace('\r', "")
    }

    fn refusals(&self) -> Vec<RefusalKind> {
        let kind = |report: &Report| match report {
            Report::Refused { kind, .. } => Some(*kind),
            Report::Tampered(_) | Report::Hidden => None,
        };
        self.reports.iter().filter_map(kind).collect()
    }
}

type Headers = Vec<(String, String)>;

fn originate() -> Headers {
    let headers = [
        ("Action", "Originate"),
        ("ActionID", "a1"),
        ("Channel", "PJSIP/+48221234567@acme"),
        ("ChannelId", OURS),
        ("Context", "ringward-call"),
        ("Exten", "s"),
        ("Priority", "1"),
        ("Timeout", "38000"),
        ("Async", "true"),
        ("CallerID", "+48221234560"),
        ("Variable", RECORDER),
        ("Variable", "RINGWARD_ATTEMPT=att_0123456789abcdefghjkmnpqr0"),
        ("Variable", "RINGWARD_AUDIO=hello-world"),
        ("Variable", "RINGWARD_REPEAT=2"),
        ("Variable", "RINGWARD_TIME_LIMIT=120"),
        ("Variable", "RINGWARD_KEYS=12h"),
        ("Variable", "RINGWARD_REPEAT_KEY=s"),
        ("Variable", "RINGWARD_ACK_TIMEOUT=8"),
        ("Variable", "RINGWARD_AMD=leave"),
    ];
    headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn bytes(headers: &[(String, String)]) -> Vec<u8> {
    Message::from_pairs(headers.iter().map(|(n, v)| (n, v))).encode()
}

/// Everything that Asterisk would read out of these bytes, as leniently as it reads.
fn as_asterisk_reads(bytes: &[u8]) -> Vec<Message> {
    let mut decoder = Decoder::past_banner(Limits::default());
    decoder.push(bytes);
    let mut actions = Vec::new();
    while let Some(Block::Message(message)) = decoder.next_block().unwrap() {
        actions.push(message);
    }
    actions
}

/// A name and a value of ours: nothing in it means anything to Asterisk, and what our dialplan reads is as it expects.
fn assert_harmless_variable(variable: &str) {
    let (name, value) = variable.split_once('=').unwrap();
    let word = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    assert!(name.starts_with("RINGWARD_") && word(name, "_"), "{variable:?}");
    assert!(!value.is_empty() && word(value, "_-.+:"), "{variable:?}");
    let digits = |max: u32| value.parse::<u32>().is_ok_and(|number| number <= max);
    let is_as_expected = match name {
        "RINGWARD_AUDIO" => word(value, "_-"),
        "RINGWARD_KEYS" => value.len() <= 12 && value.chars().all(|c| "0123456789sh".contains(c)),
        "RINGWARD_REPEAT_KEY" => "0123456789sh".contains(value) && value.len() == 1,
        "RINGWARD_ACK_TIMEOUT" => digits(600),
        "RINGWARD_REPEAT" => digits(100),
        "RINGWARD_TIME_LIMIT" => digits(7_200),
        "RINGWARD_AMD" => ["hangup", "continue", "leave"].contains(&value),
        _ => true,
    };
    assert!(is_as_expected, "{variable:?}");
}

/// Nothing of what reached Asterisk is anything but ours.
fn assert_harmless(reached: &[u8]) {
    for action in as_asterisk_reads(reached) {
        let text = |name: &str| action.text(name).unwrap_or_default().into_owned();
        assert!(action.malformed_lines() == 0 && action.headers()[0].name() == b"Action", "{action:?}");
        for forbidden in
            ["Application", "Data", "Command", "Filename", "Module", "Account", "Codecs", "OtherChannelId"]
        {
            assert!(action.get(forbidden).is_none(), "{forbidden} reached Asterisk: {action:?}");
        }
        match text("Action").as_str() {
            "Ping" | "CoreStatus" => assert_eq!(action.headers().len(), 2),
            "Status" | "Hangup" => assert!(AttemptId::parse(text("Channel").as_bytes()).is_ok()),
            "DBGet" => {
                assert_eq!(text("Family"), "ringward");
                assert!(AttemptId::parse(text("Key").as_bytes()).is_ok());
            }
            "Getvar" => assert!(text("Variable").starts_with("PJSIP_ENDPOINT(acme,"), "{action:?}"),
            "Originate" => {
                let channel = text("Channel");
                let (digits, endpoint) = channel.strip_prefix("PJSIP/").unwrap().split_once('@').unwrap();
                assert!(
                    endpoint == "acme" && digits.trim_start_matches('+').bytes().all(|b| b.is_ascii_digit())
                );
                assert_eq!(
                    (text("Context").as_str(), text("Exten").as_str(), text("Async").as_str()),
                    ("ringward-call", "s", "true")
                );
                for variable in action.all("Variable").filter(|variable| *variable != RECORDER.as_bytes()) {
                    assert_harmless_variable(std::str::from_utf8(variable).unwrap());
                }
            }
            other => panic!("{other} reached Asterisk"),
        }
    }
}

#[test]
fn an_honest_originate_goes_through_as_it_was_meant() {
    let mut bench = Bench::new();
    bench.writes(&bytes(&originate()));
    assert_eq!(bench.refusals(), []);
    assert_eq!(as_asterisk_reads(&bench.reached), as_asterisk_reads(&bytes(&originate())));
    assert_harmless(&bench.reached);
}

#[test]
fn everything_else_is_refused_by_its_kind_and_answered() {
    use RefusalKind as K;
    let cases: &[(&str, K)] = &[
        ("Action: Command\nActionID: x\nCommand: core stop now", K::UnknownAction),
        ("Action: GetConfig\nActionID: x\nFilename: manager.conf", K::UnknownAction),
        ("Action: UpdateConfig\nActionID: x\nSrcFilename: manager.conf", K::UnknownAction),
        ("Action: ModuleLoad\nActionID: x\nModule: app_system.so", K::UnknownAction),
        ("Action: DBPut\nActionID: x\nFamily: ringward\nKey: a\nVal: b", K::UnknownAction),
        ("Action: DBGetTree\nActionID: x\nFamily: ringward", K::UnknownAction),
        ("Action: Redirect\nActionID: x\nChannel: PJSIP/a-1", K::UnknownAction),
        ("Action: Setvar\nActionID: x\nVariable: SHELL(id)", K::UnknownAction),
        ("Action: AOCMessage\nActionID: x", K::UnknownAction),
        ("Action: originate\nActionID: x", K::UnknownAction),
        ("action: Ping\nActionID: x", K::Malformed),
        ("ActionID: x\nAction: Ping", K::Malformed),
        ("Action: Ping", K::Malformed),
        ("Action: Ping\nActionID: x y", K::Malformed),
        ("Action: Ping\nActionID: x\nno colon", K::Malformed),
        ("Action: Ping\nActionID: x\nX: a\tb", K::Malformed),
        ("Action: Ping\nActionID: x\nX: a\0b", K::Malformed),
        ("Action: Ping\nActionID: x\nAction: Command", K::RepeatedHeader),
        ("Action: Ping\nActionID: x\nActionID: y", K::RepeatedHeader),
        ("Action: Ping\nActionID: x\nCommand: id", K::UnknownHeader),
        ("Action: CoreStatus\nActionID: x\nData: id", K::Application),
        ("Action: Status\nActionID: x", K::MissingHeader),
        ("Action: Status\nActionID: x\nChannel: PJSIP/acme-00000001", K::NotOurs),
        ("Action: Status\nActionID: x\nChannel: ATT_0123456789abcdefghjkmnpqr0", K::NotOurs),
        (
            "Action: Status\nActionID: x\nChannel: att_0123456789abcdefghjkmnpqr0\nVariables: SHELL(id)",
            K::UnknownHeader,
        ),
        (
            "Action: Status\nActionID: x\nChannel: att_0123456789abcdefghjkmnpqr0\nAllVariables: true",
            K::UnknownHeader,
        ),
        ("Action: Hangup\nActionID: x\nChannel: /^PJSIP.*$/\nCause: 16", K::NotOurs),
        ("Action: Hangup\nActionID: x\nChannel: att_0123456789abcdefghjkmnpqr0\nCause: 999", K::BadValue),
        ("Action: Hangup\nActionID: x\nChannel: att_0123456789abcdefghjkmnpqr0\nCause: 016", K::BadValue),
        ("Action: DBGet\nActionID: x\nFamily: registrar\nKey: att_0123456789abcdefghjkmnpqr0", K::NotOurs),
        ("Action: DBGet\nActionID: x\nFamily: ringward\nKey: ../registrar", K::NotOurs),
        ("Action: Getvar\nActionID: x\nVariable: SHELL(id)", K::NotOurs),
        ("Action: Getvar\nActionID: x\nVariable: FILE(/etc/shadow)", K::NotOurs),
        ("Action: Getvar\nActionID: x\nVariable: PJSIP_ENDPOINT(phone,aors)", K::NotDeclared),
        ("Action: Getvar\nActionID: x\nVariable: PJSIP_ENDPOINT(acme,outbound_auth)", K::NotOurs),
        ("Action: Getvar\nActionID: x\nVariable: PJSIP_AOR(acme,contact)", K::NotOurs),
        ("Action: Getvar\nActionID: x\nVariable: PJSIP_CONTACT(acme@@1,uri)", K::NotOurs),
        (
            "Action: Getvar\nActionID: x\nVariable: PJSIP_ENDPOINT(acme,aors)\nChannel: PJSIP/x",
            K::UnknownHeader,
        ),
    ];
    for (text, kind) in cases {
        let mut bench = Bench::new();
        bench.writes(format!("{}\r\n\r\n", text.replace('\n', "\r\n")).as_bytes());
        assert_eq!(bench.refusals(), [*kind], "{text}");
        assert!(bench.reached.is_empty(), "{text}");
        assert!(bench.answered.starts_with(b"Response: Error\r\n"), "{text}");
    }
}

#[test]
fn an_originate_that_departs_anywhere_is_refused() {
    use RefusalKind as K;
    let with = |name: &str, value: &str| {
        let mut headers = originate();
        headers.iter_mut().filter(|(n, _)| n == name).take(1).for_each(|(_, v)| *v = value.to_owned());
        headers
    };
    let and = |name: &str, value: &str| {
        let mut headers = originate();
        headers.push((name.to_owned(), value.to_owned()));
        headers
    };
    let without = |name: &str| -> Headers { originate().into_iter().filter(|(n, _)| n != name).collect() };
    let cases = [
        (and("Application", "System"), K::Application),
        (and("application", "System"), K::Application),
        (and("Data", "rm -rf /"), K::Application),
        (and("DATA", "x"), K::Application),
        (and("Account", "x"), K::UnknownHeader),
        (and("Codecs", "ulaw"), K::UnknownHeader),
        (and("OtherChannelId", OURS), K::UnknownHeader),
        (and("EarlyMedia", "true"), K::UnknownHeader),
        (and("PreDialGoSub", "x"), K::UnknownHeader),
        (and("Channel", "PJSIP/+48221234567@acme"), K::RepeatedHeader),
        (and("channel", "Local/s@evil"), K::RepeatedHeader),
        (and("Context", "evil"), K::RepeatedHeader),
        (with("Channel", "Local/s@ringward-call"), K::BadValue),
        (with("Channel", "local/s@default/n"), K::BadValue),
        (with("Channel", "PJSIP/+48221234567@acme&PJSIP/1@acme"), K::BadValue),
        (with("Channel", "PJSIP/acme/sip:900@203.0.113.9"), K::BadValue),
        (with("Channel", "PJSIP/acme"), K::BadValue),
        (with("Channel", "pjsip/+48221234567@acme"), K::BadValue),
        (with("Channel", "PJSIP/+48221234567@phone"), K::NotDeclared),
        (with("Channel", "PJSIP/+48221234567@ACME"), K::NotDeclared),
        (with("Channel", "PJSIP/0900123@acme"), K::BadValue),
        (with("ChannelId", "att_short"), K::NotOurs),
        (with("ChannelId", "PJSIP/acme-1"), K::NotOurs),
        (with("Context", "default"), K::NotOurContext),
        (with("Context", "Ringward-Call"), K::NotOurContext),
        (with("Exten", "failed"), K::NotOurContext),
        (with("Priority", "2"), K::NotOurContext),
        (with("Timeout", "0"), K::BadValue),
        (with("Timeout", "-1"), K::BadValue),
        (with("Timeout", "99999999"), K::BadValue),
        (with("Async", "false"), K::BadValue),
        (with("CallerID", "\"Bank\" <+48221234567>"), K::BadValue),
        (without("Async"), K::MissingHeader),
        (without("ChannelId"), K::MissingHeader),
        (without("Timeout"), K::MissingHeader),
        (without("Variable"), K::NotOurVariable),
        (and("Variable", "SHELL(id)=x"), K::NotOurVariable),
        (and("Variable", "RINGWARD_X(evil)=x"), K::NotOurVariable),
        (and("Variable", "RINGWARD_X=a,SHELL(id)=b"), K::BadValue),
        (and("Variable", "RINGWARD_X=${SHELL(id)}"), K::BadValue),
        (and("Variable", "ringward_x=1"), K::NotOurVariable),
        (and("Variable", "CHANNEL(hangup_handler_push)=\"evil,s,1\""), K::NotOurVariable),
        (and("Variable", "__RINGWARD_X=1"), K::NotOurVariable),
        (and("Variable", RECORDER), K::RepeatedHeader),
        (and("Variable", "RINGWARD_ATTEMPT=att_0123456789abcdefghjkmnpqrw"), K::RepeatedHeader),
        (and("Variable", "RINGWARD_REPEAT=9"), K::RepeatedHeader),
        (and("Variable", "RINGWARD_Keys=9"), K::RepeatedHeader),
        // What the dialplan keeps for itself.
        (and("Variable", "rw_sound=/var/spool/asterisk/monitor/secret"), K::NotOurVariable),
        (and("Variable", "rw_left=9"), K::NotOurVariable),
        (and("Variable", "AMDSTATUS=HUMAN"), K::NotOurVariable),
        (and("Variable", "TIMEOUT(absolute)=0"), K::NotOurVariable),
    ];
    for (headers, kind) in cases {
        let mut bench = Bench::new();
        bench.writes(&bytes(&headers));
        assert_eq!(bench.refusals(), [kind], "{headers:?}");
        assert!(bench.reached.is_empty());
        assert_eq!(bench.ledger.channels(), 0, "a refused one counts as a channel");
    }
}

/// Each variable alone, with every value that it may not have.
#[test]
fn a_variable_holds_what_it_is_for_and_nothing_else() {
    let sha256 = "0123456789abcdef".repeat(4);
    let long = "a".repeat(201);
    let goes = |name: &str, value: &str| {
        let mut headers = originate();
        headers.retain(|(_, variable)| !variable.starts_with(&format!("{name}=")));
        headers.push(("Variable".to_owned(), format!("{name}={value}")));
        let mut bench = Bench::new();
        bench.writes(&bytes(&headers));
        assert_eq!(bench.reached.is_empty(), !bench.refusals().is_empty(), "{name}={value}");
        assert_harmless(&bench.reached);
        bench.refusals().is_empty()
    };
    for (name, good, bad) in [
        (
            "RINGWARD_AUDIO",
            &["beep", "hello-world", "tt-monkeys", &sha256][..],
            &[
                "/etc/passwd",
                "../monitor/x",
                "a.wav",
                "a:b",
                "a+b",
                "http://x/y",
                "a&b",
                "${X}",
                "",
                " ",
                &long,
            ][..],
        ),
        (
            "RINGWARD_KEYS",
            &["1", "12", "0123456789sh"],
            &["", "*", "#", "1*", "a", "S", "1,2", "0123456789sh1", "-"],
        ),
        ("RINGWARD_REPEAT_KEY", &["s", "h", "9"], &["", "*", "ss", "12", "x"]),
        ("RINGWARD_ACK_TIMEOUT", &["1", "60", "600"], &["", "601", "-1", "1.5", "8,x", "99999999999"]),
        (
            "RINGWARD_AMD",
            &["hangup", "continue", "leave"],
            &["", "HANGUP", "leave_message", "off", "1", "leave1"],
        ),
        ("RINGWARD_REPEAT", &["1", "10", "100"], &["", "101", "4294967295", "99999999999", "-1", "x"]),
        ("RINGWARD_TIME_LIMIT", &["1", "3600", "7200"], &["", "7201", "-1", "1.5", "x"]),
    ] {
        for value in good {
            assert!(goes(name, value), "{name}={value} was refused");
        }
        for value in bad {
            assert!(!goes(name, value), "{name}={value} went through");
        }
    }
}

#[test]
fn nothing_goes_before_the_login_and_nothing_twice() {
    let mut bench = Bench::new();
    bench.stream = Stream::new();
    bench.writes(b"Action: Ping\r\nActionID: x\r\n\r\n");
    assert_eq!(bench.refusals(), [RefusalKind::NotLoggedIn]);

    let mut bench = Bench::new();
    bench.writes(&bytes(&originate()));
    bench.writes(&bytes(&originate()));
    let mut again = originate();
    again[1].1 = "a2".to_owned();
    bench.writes(&bytes(&again));
    assert_eq!(bench.refusals(), [RefusalKind::RepeatedActionId, RefusalKind::RepeatedAttempt]);
    assert_eq!(as_asterisk_reads(&bench.reached).len(), 1);
}

#[test]
fn huge_lines_cost_one_refusal_and_no_memory() {
    let mut bench = Bench::new();
    bench.writes(b"Action: Ping\r\nActionID: x\r\nX: ");
    for _ in 0..1000 {
        bench.writes(&[b'a'; 4096]);
    }
    bench.writes(b"\r\n\r\nAction: Ping\r\nActionID: y\r\n\r\n");
    assert_eq!(bench.refusals(), [RefusalKind::Oversized]);
    assert_eq!(bench.reached, b"Action: Ping\r\nActionID: y\r\n\r\n");
}

/// Text with what could be smuggled in it.
fn hostile_text() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("\0"),
        Just("\r\n\r\n"),
        Just(": "),
        Just(","),
        Just("&"),
        Just("Application: System"),
        Just("Action: Command"),
        Just("Data: id"),
        Just("Local/s@x"),
        Just("acme"),
        Just("PJSIP/+48221234567@acme"),
        Just("ringward-call"),
        Just(OURS),
        Just("RINGWARD_X=1"),
        Just("RINGWARD_KEYS="),
        Just("RINGWARD_REPEAT_KEY="),
        Just("RINGWARD_AMD="),
        Just("RINGWARD_AUDIO="),
        Just("leave"),
        Just("s"),
        Just("/"),
        Just("${SHELL(id)}"),
        Just("true"),
        Just("1"),
        Just(" "),
        Just("\t"),
        Just("\u{7f}"),
        Just("é"),
    ];
    prop::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
}

fn header_name() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "Action",
        "ActionID",
        "Channel",
        "ChannelId",
        "Context",
        "Exten",
        "Priority",
        "Timeout",
        "Async",
        "CallerID",
        "Variable",
        "Application",
        "Data",
        "Account",
        "Codecs",
        "Command",
        "Family",
        "Key",
        "Cause",
        "channel",
        "DATA",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => hostile_text()]
}

fn hostile_action() -> impl Strategy<Value = Headers> {
    let names = prop::sample::select(vec![
        "Originate",
        "Originate",
        "Originate",
        "Command",
        "GetConfig",
        "UpdateConfig",
        "ModuleLoad",
        "DBPut",
        "DBGet",
        "Status",
        "Hangup",
        "Getvar",
        "Setvar",
        "Redirect",
        "Atxfer",
        "Ping",
        "Login",
        "ORIGINATE",
        "Logoff",
    ]);
    let change = (0..20_usize, header_name(), hostile_text(), 0..3_u8);
    (names, prop::collection::vec(change, 0..4), any::<u128>(), 0..200_u32).prop_map(
        |(name, changes, id, action_id)| {
            let mut headers = originate();
            let id = AttemptId::from_bits(id).to_string();
            headers.iter_mut().for_each(|(_, value)| *value = value.replace(OURS, &id));
            headers[0].1 = name.to_owned();
            headers[1].1 = format!("a{action_id}");
            for (at, name, value, how) in changes {
                let at = at.min(headers.len() - 1);
                match how {
                    0 => headers[at].1 = value,
                    1 => headers.insert(at, (name, value)),
                    _ => {
                        headers.remove(at);
                    }
                }
                if headers.is_empty() {
                    headers.push(("Action".to_owned(), "Ping".to_owned()));
                }
            }
            headers
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is written, however it is cut: what reaches Asterisk is ours, and the rest is counted and answered.
    #[test]
    fn no_hostile_action_reaches_asterisk(
        actions in prop::collection::vec(hostile_action(), 1..8),
        cuts in prop::collection::vec(1..40_usize, 1..50),
    ) {
        let mut bench = Bench::new();
        let wire: Vec<u8> = actions.iter().flat_map(|action| bytes(action)).collect();
        let (mut rest, mut cut) = (wire.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
            bench.writes(now);
            rest = later;
        }
        assert_harmless(&bench.reached);
        let admitted = as_asterisk_reads(&bench.reached);
        let originates = admitted.iter().filter(|a| a.get("Action") == Some(b"Originate")).count();
        prop_assert_eq!(bench.ledger.channels(), originates);
        // Every block is either written to Asterisk, answered here, or both counted and answered.
        let answers = as_asterisk_reads(&bench.answered);
        let errors = answers.iter().filter(|a| a.get("Response") == Some(b"Error")).count();
        prop_assert_eq!(errors, bench.refusals().len());
    }

    #[test]
    fn no_bytes_at_all_do_harm(wire in prop::collection::vec(any::<u8>(), 0..2000), text in hostile_text()) {
        let mut bench = Bench::new();
        bench.writes(&wire);
        bench.writes(text.as_bytes());
        assert_harmless(&bench.reached);
        let passed = bench.stream.asterisk_wrote(&wire, &mut bench.ledger, bench.now);
        prop_assert!(passed.to_asterisk.is_empty());
    }
}

fn snapshot(channel: &str, id: &str, caller: &str) -> String {
    format!(
        "Channel: {channel}\nChannelState: 5\nChannelStateDesc: Ringing\nCallerIDNum: {caller}\nCallerIDName: x\n\
         ConnectedLineNum: x\nConnectedLineName: x\nLanguage: en\nAccountCode: \nContext: in\nExten: s\nPriority: 1\n\
         Uniqueid: {id}\nLinkedid: {id}\n"
    )
}

fn event(name: &str, channel: &str, id: &str, caller: &str, rest: &str) -> String {
    format!("Event: {name}\nPrivilege: call,all\n{}{rest}\n", snapshot(channel, id, caller))
}

const HANGUP: &str = "Cause: 17\nCause-txt: User busy\nTechCause: 486\n";

#[test]
fn only_our_channels_are_heard_of() {
    let mut bench = Bench::new();
    bench.writes(&bytes(&originate()));
    let queued =
        bench.asterisk("Response: Success\nActionID: a1\nMessage: Originate successfully queued\n\n");
    assert!(queued.contains("queued"));
    let ours = event("Newchannel", "PJSIP/acme-1", OURS, "1", "");
    assert_eq!(bench.asterisk(&ours), ours);
    // Somebody's call on the same PBX.
    assert_eq!(
        bench.asterisk(&event("Newchannel", "PJSIP/phone-2", "1795521344.14", "+48600100200", "")),
        ""
    );
    assert_eq!(
        bench
            .asterisk("Event: DeviceStateChange\nPrivilege: call,all\nDevice: PJSIP/phone\nState: INUSE\n\n"),
        ""
    );
    assert_eq!(
        bench.asterisk(
            "Event: Registry\nPrivilege: system,all\nChannelType: PJSIP\nDomain: x\nStatus: Registered\n\n"
        ),
        ""
    );
    assert!(bench.ledger.is_live(OURS.parse().unwrap()));
    let gone = event("Hangup", "PJSIP/acme-1", OURS, "1", HANGUP);
    assert_eq!(bench.asterisk(&gone), gone);
    assert_eq!(bench.ledger.channels(), 0);
    assert_eq!(bench.reports.iter().filter(|report| **report == Report::Hidden).count(), 3);
}

#[test]
fn news_of_our_calls_pass_and_nobody_elses_user_events_do() {
    let mut bench = Bench::new();
    bench.writes(&bytes(&originate()));
    bench.asterisk("Response: Success\nActionID: a1\nMessage: Originate successfully queued\n\n");
    bench.asterisk(&event("Newchannel", "PJSIP/acme-1", OURS, "1", ""));
    let told = |id: &str, tail: &str| event("UserEvent", "PJSIP/acme-1", id, "1", tail);
    let key = told(OURS, &format!("UserEvent: RingwardKey\nAttempt: {OURS}\nKey: *\n"));
    assert_eq!(bench.asterisk(&key), key);
    // Our attempt's name on another channel, a key too many, another dialplan's event.
    let another = "1795521344.14";
    let stub = format!("Event: Hangup\nUniqueid: {OURS}\n\n");
    let named = event(
        "UserEvent",
        "PJSIP/x-2",
        another,
        "1",
        &format!("UserEvent: RingwardKey\nAttempt: {OURS}\nKey: 1\n"),
    );
    assert_eq!(bench.asterisk(&named), "Tampered: mismatched\n\n");
    assert_eq!(
        bench.asterisk(&told(OURS, &format!("UserEvent: RingwardKey\nAttempt: {OURS}\nKey: 12\n"))),
        stub
    );
    assert_eq!(bench.asterisk(&told(OURS, "UserEvent: Else\nSecret: x\n")), "");
}

#[test]
fn answers_to_nothing_and_items_of_others_are_kept_back() {
    let mut bench = Bench::new();
    assert_eq!(bench.asterisk("Response: Success\nActionID: guessed\n\n"), "Tampered: unknown_action_id\n\n");
    bench.writes(b"Action: Ping\r\nActionID: p1\r\n\r\n");
    for forged in
        ["Response: Success\nActionID: p1\nno colon\n\n", "Response: Success\nActionID: p1\nActionID: p2\n\n"]
    {
        assert_eq!(bench.asterisk(forged), "Tampered: unknown_action_id\n\n");
    }
    let pong = "Response: Success\nActionID: p1\nPing: Pong\n\n";
    assert_eq!(bench.asterisk(pong), pong);
    bench.writes(format!("Action: Status\r\nActionID: s1\r\nChannel: {OURS}\r\n\r\n").as_bytes());
    bench.asterisk(
        "Response: Success\nActionID: s1\nEventList: start\nMessage: Channel status will follow\n\n",
    );
    let stranger = format!(
        "Event: Status\nPrivilege: Call\n{}ActionID: s1\n\n",
        snapshot("PJSIP/phone-1", "17.1", "+48600100200")
    );
    assert_eq!(bench.asterisk(&stranger), "Tampered: forged_list_event\n\n");
    let ours =
        format!("Event: Status\nPrivilege: Call\n{}ActionID: s1\n\n", snapshot("PJSIP/acme-1", OURS, "1"));
    assert_eq!(bench.asterisk(&ours), ours);
    let end = "Event: StatusComplete\nActionID: s1\nEventList: Complete\nListItems: 1\n\n";
    assert_eq!(bench.asterisk(end), end);
    assert_eq!(bench.asterisk(&ours), "", "the list is over");
}

#[test]
fn a_strangers_text_comes_through_as_evidence_only() {
    let mut bench = Bench::new();
    bench.writes(&bytes(&originate()));
    bench.asterisk("Response: Success\nActionID: a1\nMessage: Originate successfully queued\n\n");
    bench.asterisk(&event("Newchannel", "PJSIP/acme-1", OURS, "1", ""));
    // A channel of ours beside somebody's: his number is in the event.
    let caller = snapshot("PJSIP/phone-2", "1795521344.14", "+48600100200");
    let dest = snapshot("PJSIP/acme-1", OURS, "1");
    let dest: String = dest.lines().map(|line| format!("Dest{line}\n")).collect();
    let dial = format!("Event: DialState\nPrivilege: call,all\n{caller}{dest}DialStatus: RINGING\n\n");
    assert_eq!(bench.asterisk(&dial), "");
    let alone = format!("Event: DialState\nPrivilege: call,all\n{dest}DialStatus: RINGING\n\n");
    assert_eq!(bench.asterisk(&alone), alone);
    // The far end of our call ends the true event early and puts a head of his own before its tail.
    let tail = snapshot("PJSIP/acme-1", OURS, "1").split_once("CallerIDName").unwrap().1.to_owned();
    let forged = format!(
        "Event: Newstate\nPrivilege: call,all\nChannel: PJSIP/acme-1\nChannelState: 5\nChannelStateDesc: Ringing\n\
         CallerIDNum: evil\n\nEvent: Hangup\nPrivilege: call,all\nChannel: PJSIP/acme-1\nChannelState: 6\n\
         ChannelStateDesc: Up\nCallerIDNum: 1\nCallerIDName{tail}{HANGUP}\n"
    );
    let heard = bench.asterisk(&forged);
    assert!(
        heard.starts_with("Event: Newstate\nChannel: PJSIP/acme-1\n\n"),
        "the client must be warned: {heard}"
    );
    assert!(!heard.contains("evil"));
    assert!(bench.ledger.is_live(OURS.parse().unwrap()), "a forged end freed a channel");
    assert!(bench.reports.contains(&Report::Tampered(TamperKind::Truncated)));
    // A broken block that bears our id.
    let broken = event("Hangup", "PJSIP/acme-1", OURS, "1\nUniqueid: x", HANGUP);
    assert_eq!(bench.asterisk(&broken), format!("Event: Hangup\nUniqueid: {OURS}\n\n"));
    // Ids by the hundred, before the true one.
    let many = format!("1\n{}", "Uniqueid: att_0000000000000000000000000g\n".repeat(200));
    let heard = bench.asterisk(&event("Newstate", "PJSIP/acme-1", OURS, &many, ""));
    assert!(heard.matches("Event: ").count() <= 4 && heard.contains(OURS), "{heard}");
    // A remainder that begins with nothing of Asterisk's.
    assert_eq!(bench.asterisk("@evil>: 1\nLanguage: en\n\n"), "Tampered: foreign_head\n\n");
}

#[test]
fn what_a_trunk_consists_of_can_be_asked_in_its_order() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, id: &str, variable: &str, value: &str| {
        bench.writes(format!("Action: Getvar\r\nActionID: {id}\r\nVariable: {variable}\r\n\r\n").as_bytes());
        bench
            .asterisk(&format!("Response: Success\nActionID: {id}\nVariable: {variable}\nValue: {value}\n\n"))
    };
    assert!(ask(&mut bench, "g1", "PJSIP_ENDPOINT(acme,aors)", "acme").contains("Value: acme"));
    assert!(ask(&mut bench, "g2", "PJSIP_AOR(acme,contact)", "acme@@392e9c").contains("392e9c"));
    assert!(
        ask(&mut bench, "g3", "PJSIP_CONTACT(acme@@392e9c,uri)", "sip:192.0.2.1").contains("sip:192.0.2.1")
    );
    assert_eq!(bench.refusals(), []);
    ask(&mut bench, "g4", "PJSIP_AOR(phone,contact)", "x");
    assert_eq!(bench.refusals(), [RefusalKind::NotOurs]);
}

/// Recordings of a real Asterisk, hostile ones among them: none of them is of a call that went through this gate.
#[test]
fn of_other_calls_nothing_is_heard_whatever_strangers_wrote_into_them() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../ami/tests/corpus");
    let mut seen = 0;
    for kind in ["clean", "hostile"] {
        for entry in std::fs::read_dir(corpus.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            for size in [1, 7, 100_000] {
                let mut bench = Bench::new();
                for chunk in std::fs::read(&path).unwrap().chunks(size) {
                    let passed = bench.stream.asterisk_wrote(chunk, &mut bench.ledger, bench.now);
                    bench.take(passed);
                }
                for block in as_asterisk_reads(&bench.answered) {
                    let event = block.text("Event").unwrap_or_default().into_owned();
                    let is_stub = block.headers().len() == 1 && block.get("Tampered").is_some();
                    let of_system = event == "FullyBooted" || event == "Shutdown";
                    assert!(is_stub || of_system, "{}: {block:?}", path.display());
                }
                assert!(bench.reached.is_empty());
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} recordings");
}
