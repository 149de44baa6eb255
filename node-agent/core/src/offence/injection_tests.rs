//! Whatever a stranger writes: the address is the packet's source, or nobody's.

use std::path::Path;

use node_agent_ami::{Block, Decoder, Event, EventItem, Limits, Message, MessageKind, TamperKind, Tampering};
use proptest::prelude::*;

use super::{STRANGER_BYTES_MAX, finding};
use crate::offence::{Finding, Kind, Nobody};

/// The packet's source, and what a stranger would like to see banned.
const TRUE: &str = "192.0.2.66";
const VICTIM: &str = "203.0.113.9";

/// The forgeries, as the user part of a SIP URI after percent-decoding. `V` stands for the victim's address.
const SHAPES: [&str; 46] = [
    "x\r\nRemoteAddress: IPV4/UDP/V/1",
    "x\nRemoteAddress: IPV4/UDP/V/1",
    "x\r\nRemoteAddress:IPV4/UDP/V/1",
    "\r\nRemoteAddress: IPV4/TCP/V/1",
    "\r\nRemoteAddress: IPV4/TCP/V/1\r\n",
    "x\r\nremoteaddress: IPV4/UDP/V/1",
    "x\r\nLocalAddress: IPV4/UDP/V/1",
    "x\r\nSessionID: x\r\nLocalAddress: x",
    "x\r\nSessionID:\r\nLocalAddress:\r\nRemo",
    "x\r\n\r\n",
    "\r\n\r\n",
    "\n\n",
    "\n\n\n\n\n\n",
    "x\r\n\r\nRemoteAddress: IPV4/UDP/V/1",
    "\n\nRemoteAddress:IPV4/UDP/V/1",
    "\n\nRemoteAddress:IPV4/UDP/V/1\n\n",
    "x\r\n\r\nEvent: Shutdown\r\nX: ",
    "x\r\n\r\nEvent: Foo\r\nX: ",
    "x\r\n\r\nEvent: FailedACL\r\nX: ",
    "x\r\n\r\nEvent: ChallengeSent\r\nX: ",
    "x\r\n\r\nEvent: SuccessfulAuth\r\nX: ",
    "x\n\nEvent: SuccessfulAuth\n",
    "\n\nEvent:UserEvent\nUserEvent:x\nX:",
    "x\r\n\r\nResponse: Success\r\nX: ",
    "x\r\n\r\nResponse: Goodbye\r\n\r\n",
    "\n\nResponse:Error\nActionID:1\n",
    "x\r\nEvent: InvalidAccountID",
    "x\r\nPrivilege: security,all",
    "x\r\nService: AMI",
    "x\r\nAccountID: y",
    "x\r\nAccountID: y\r\nAccountID: z",
    "x\r\nSeverity: Error\r\nService: SIP",
    "x\r\nChallenge: \r\nResponse: ",
    "x\r\nRequestType: REGISTER",
    "x\r\nhello",
    "hello\r\n\r\nhello\r\n\r\nhello",
    ":\r\n:\r\n:\r\n",
    "x\rRemoteAddress: IPV4/UDP/V/1",
    "x\u{0}\r\nRemoteAddress: IPV4/UDP/V/1",
    "V",
    "IPV4/UDP/V/5060",
    "' from V' - Wrong password",
    "\r\n\r\nAsterisk Call Manager/11.0.0",
    "x\r\nMessage: Authentication failed\r",
    "x\r\n\r\nEvent: Shutdown\r\n\r\n",
    "x\r\n\r\n\r\n\r\nEvent: A\r\n\r\nEvent: B\r\n",
];

/// The stream in which Asterisk tells of one refused REGISTER, an honest login before and after it.
fn stream(event: &str, user: &str, cut_at: usize, call_id: &str, source: &str, more: &str) -> Vec<u8> {
    let bytes = user.as_bytes();
    let shown = bytes.get(..cut_at.min(bytes.len())).unwrap();
    let head = |name: &str| {
        format!(
            "Event: {name}\r\nPrivilege: security,all\r\nEventTV: 2026-11-24T12:18:42.523+0000\r\n\
             Severity: Error\r\nService: PJSIP\r\nEventVersion: 1\r\n"
        )
    };
    let tail = |source: &str, call_id: &str| {
        format!(
            "SessionID: {call_id}\r\nLocalAddress: IPV4/UDP/198.51.100.1/5060\r\nRemoteAddress: {source}\r\n"
        )
    };
    let honest = format!(
        "{}AccountID: 6001\r\n{}UsingPassword: 1\r\n\r\n",
        head("SuccessfulAuth"),
        tail("IPV4/UDP/198.51.100.77/5060", "honest@x")
    );
    let mut out = honest.clone().into_bytes();
    out.extend(head(event).into_bytes());
    out.extend(b"AccountID: ");
    out.extend(shown);
    out.extend(format!("\r\n{}{more}\r\n", tail(source, call_id)).into_bytes());
    out.extend(
        format!(
            "{}AccountID: <unknown>\r\n{}Challenge: \r\n\r\n",
            head("ChallengeSent"),
            tail(source, call_id)
        )
        .into_bytes(),
    );
    out.extend(honest.into_bytes());
    out
}

/// What the session of class `security` hands out for these bytes, by the rules of its router.
fn items(bytes: &[u8]) -> Vec<EventItem> {
    fn release(held: &mut Option<(Event, Message)>, well: bool, items: &mut Vec<EventItem>) {
        match held.take() {
            Some((event, _)) if well => items.push(EventItem::Event(event)),
            Some((_, message)) => items.push(item(TamperKind::BrokenBehind, message)),
            None => {}
        }
    }
    fn item(kind: TamperKind, message: Message) -> EventItem {
        EventItem::Tampered(Tampering { kind, event: None, message: Some(message) })
    }
    let mut decoder = Decoder::past_banner(Limits::default());
    decoder.push(bytes);
    let (mut held, mut items) = (None, Vec::new());
    while let Some(block) = decoder.next_block().unwrap() {
        let Block::Message(message) = block else { panic!("no banner here") };
        match message.kind() {
            MessageKind::Neither => {
                release(&mut held, false, &mut items);
                items.push(item(TamperKind::ForeignHead, message));
            }
            MessageKind::Response(_) => {
                release(&mut held, true, &mut items);
                items.push(item(TamperKind::UnknownActionId, message));
            }
            MessageKind::Event(_) => {
                release(&mut held, true, &mut items);
                match Event::read(message.clone()) {
                    Ok(event) => held = Some((event, message)),
                    Err((kind, message)) => items.push(item(kind, message)),
                }
            }
        }
    }
    release(&mut held, true, &mut items);
    items
}

/// Sources that were named by offences, and by logins.
fn named(bytes: &[u8]) -> (Vec<(Kind, String)>, Vec<String>) {
    let (mut offences, mut logins) = (Vec::new(), Vec::new());
    for item in items(bytes) {
        match finding(&item) {
            Finding::Offence(offence) => offences.push((offence.kind, offence.source.to_string())),
            Finding::Success(success) => logins.push(success.source.to_string()),
            Finding::Neutral | Finding::Nobody(_) => {}
        }
    }
    (offences, logins)
}

fn source_of(address: &str) -> String {
    format!("IPV4/UDP/{address}/5099")
}

#[test]
fn every_shape_names_the_packet_s_source_and_most_do_not_save_the_attacker() {
    let mut saved = Vec::new();
    for shape in SHAPES {
        for victim in [VICTIM, "9.9.9.9", "1.1.1.1"] {
            let user = shape.replace('V', victim);
            let bytes = stream("InvalidAccountID", &user, STRANGER_BYTES_MAX, "1@x", &source_of(TRUE), "");
            let (offences, logins) = named(&bytes);
            for (_, source) in &offences {
                assert_eq!(source, TRUE, "{user:?}");
            }
            assert!(offences.len() <= 1, "one packet counted as {offences:?} for {user:?}");
            // The honest logins around it are untouched, but the one that a stranger made look broken.
            assert!(logins.iter().all(|source| source == "198.51.100.77"), "{user:?}: {logins:?}");
            if offences.is_empty() {
                saved.push(user);
            }
        }
    }
    assert_eq!(saved, Vec::<String>::new(), "these shapes save who sends them");
}

#[test]
fn a_text_longer_than_asterisk_lets_through_counts_against_nobody() {
    for filler in ["x".repeat(64), format!("x\r\nX: {}", "y".repeat(64)), "X: y\r\n".repeat(12)] {
        let user = format!("{filler}\r\nRemoteAddress: {}", source_of(VICTIM));
        let bytes = stream("InvalidAccountID", &user, 400, "1@x", &source_of(TRUE), "");
        let findings: Vec<_> = items(&bytes).iter().map(finding).collect();
        assert!(findings.contains(&Finding::Nobody(Nobody::TooMuchText)), "{findings:?}");
        assert_eq!(named(&bytes).0, []);
    }
    // Nor does a whole tail of his own: either the bytes of it are too many, or there are two.
    let forged =
        format!("x\r\nSessionID: 1\r\nLocalAddress: {0}\r\nRemoteAddress: {0}\r\nX: ", source_of(VICTIM));
    assert_eq!(named(&stream("InvalidAccountID", &forged, 400, "1@x", &source_of(TRUE), "")).0, []);
}

#[test]
fn a_credential_is_never_kept() {
    let more = "Challenge: c\r\nResponse: r\r\nExpectedResponse: 5ebe2294ecd0e0f08eab7690d2a6ee69\r\n";
    let bytes = stream("ChallengeResponseFailed", "6001", STRANGER_BYTES_MAX, "1@x", &source_of(TRUE), more);
    let findings: Vec<_> = items(&bytes).iter().map(finding).collect();
    assert!(!format!("{findings:?}").contains("5ebe"), "{findings:?}");
    assert_eq!(named(&bytes).0, [(Kind::ChallengeResponseFailed, TRUE.to_owned())]);
    // The second event of one packet for an account that does not exist is not counted.
    let bytes =
        stream("ChallengeResponseFailed", "<unknown>", STRANGER_BYTES_MAX, "1@x", &source_of(TRUE), more);
    assert_eq!(named(&bytes).0, []);
}

#[test]
fn a_login_without_a_password_proves_nothing() {
    let login = |using: &str| {
        let more = format!("UsingPassword: {using}\r\n");
        let bytes = stream("SuccessfulAuth", "6001", STRANGER_BYTES_MAX, "1@x", &source_of(TRUE), &more);
        named(&bytes).1.contains(&TRUE.to_owned())
    };
    assert!(login("1") && !login("0"));
}

#[test]
fn recordings_of_real_asterisk_name_the_one_who_sent() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ami/tests/corpus");
    let mut named_in = 0;
    for file in std::fs::read_dir(corpus.join("hostile"))
        .unwrap()
        .chain(std::fs::read_dir(corpus.join("clean")).unwrap())
    {
        let path = file.unwrap().path();
        let is_security = path.file_stem().is_some_and(|stem| {
            let stem = stem.to_string_lossy();
            stem.trim_start_matches("16_").starts_with("reg_") || stem.contains("sec_")
        });
        if !is_security {
            continue;
        }
        let recorded = String::from_utf8_lossy(&std::fs::read(&path).unwrap())
            .replace("127.0.0.66", TRUE)
            .replace("127.0.0.1/", "198.51.100.1/");
        let (offences, _) = named(recorded.as_bytes());
        for (_, source) in &offences {
            assert!(source == TRUE || source == "198.51.100.1", "{}: {offences:?}", path.display());
        }
        // Logins that succeed at the second try aside, all of these hold an offence.
        let honest = path.to_string_lossy().ends_with("sec_auser.ami");
        assert!(honest || !offences.is_empty(), "{} names nobody", path.display());
        named_in += usize::from(!offences.is_empty());
    }
    assert!(named_in >= 15, "{named_in}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Forgeries out of the words that mean something here, cut where Asterisk cuts.
    #[test]
    fn no_text_names_a_victim(
        words in proptest::collection::vec(prop::sample::select(vec![
            "\r\n", "\n", "\r", ":", " ", "x", "\r\n\r\n", "\n\n", "Event:", "Event: ", "Response:", "RemoteAddress:",
            "RemoteAddress: ", "LocalAddress:", "SessionID:", "AccountID:", "IPV4/UDP/1.1.1.1/1", "IPV4/TCP/9.9.9.9/9",
            "1.1.1.1", "Shutdown", "FailedACL", "Foo", "Privilege:", "Service:", "PJSIP", "Challenge:", "\u{0}", "é",
        ]), 0..14),
        call_id in "[ -~]{0,80}",
        v6 in any::<bool>(),
    ) {
        let user = words.concat();
        let (address, source) =
            if v6 { ("2001:db8::/64", "IPV6/TLS/2001:db8::66/5061".to_owned()) } else { (TRUE, source_of(TRUE)) };
        let bytes = stream("InvalidAccountID", &user, STRANGER_BYTES_MAX, &call_id, &source, "");
        let (offences, logins) = named(&bytes);
        prop_assert!(offences.len() <= 1, "{:?}", offences);
        for (_, of) in offences {
            prop_assert_eq!(of, address);
        }
        prop_assert!(logins.iter().all(|of| of == "198.51.100.77"), "{:?}", logins);
    }
}
