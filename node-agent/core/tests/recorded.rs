//! What the agent makes of a real Asterisk's answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, path::Path};

use node_agent_ami::{Block, Decoder, Limits, Message};
use node_agent_core::observe::{
    ContactStatus, FindingKind, RegistrationStatus, Seen, contacts, endpoint_of, endpoints, findings,
    has_tech_cause, registrations,
};

fn recorded(name: &str) -> Vec<Message> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(format!("{name}.ami"));
    let mut decoder = Decoder::past_banner(Limits::default());
    decoder.push(&std::fs::read(path).unwrap());
    let mut messages = Vec::new();
    while let Some(Block::Message(message)) = decoder.next_block().unwrap() {
        messages.push(message);
    }
    messages
}

#[test]
fn endpoints_contacts_and_registrations() {
    let (endpoints, left_out) = endpoints(&recorded("endpoints"));
    let names: Vec<_> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!((names.as_slice(), left_out), (["acme", "bare", "gone", "named", "pair"].as_slice(), 0));
    assert_eq!(endpoints[4].contacts, ["sip:127.0.0.1:5060", "sip:u@127.0.0.1:5061;transport=udp"]);

    let acme = contacts(&recorded("endpoint_acme"));
    assert_eq!(
        (acme.len(), acme[0].status, acme[0].qualify_rtt_us),
        (1, ContactStatus::Reachable, Some(661))
    );
    let gone = contacts(&recorded("endpoint_gone"));
    assert_eq!((gone[0].status, gone[0].qualify_rtt_us), (ContactStatus::Unreachable, None));
    assert_eq!(contacts(&recorded("endpoint_named"))[0].status, ContactStatus::NonQualified);
    assert_eq!(contacts(&recorded("endpoint_pair")).len(), 2);

    let registrations = registrations(&recorded("registrations"));
    assert_eq!(registrations[0].status, RegistrationStatus::Stopped);
    assert_eq!(registrations[1].status, RegistrationStatus::Unregistered);
    assert_eq!(endpoint_of(&registrations[0], &endpoints).unwrap().as_str(), "acme");
    // Three endpoints have a contact at that host: it could be any of them.
    assert_eq!(endpoint_of(&registrations[1], &endpoints), None);
}

#[test]
fn what_is_amiss_is_found_with_its_remedy() {
    let (endpoints, _) = endpoints(&recorded("endpoints"));
    let registrations = registrations(&recorded("registrations"));
    let declared = BTreeSet::from(["acme", "named", "pair", "bare", "nosuch"]);
    let seen = Seen {
        endpoints: &endpoints,
        registrations: &registrations,
        declared: Some(&declared),
        hears_keys: None,
    };
    let found = findings(seen);
    let found: Vec<_> = found.iter().map(|finding| (finding.kind, finding.subject.as_str())).collect();
    let expected = [
        (FindingKind::ContactIsName, "named"),
        (FindingKind::SeveralContacts, "pair"),
        (FindingKind::NoContact, "bare"),
        (FindingKind::RegistrationStopped, "acme-reg"),
        (FindingKind::Undeclared, "gone"),
        (FindingKind::Missing, "nosuch"),
    ];
    assert_eq!(found, expected);
    let before_policy = findings(Seen { declared: None, ..seen });
    assert_eq!(before_policy.len(), 1);
}

#[test]
fn which_versions_say_the_sip_answer() {
    let settings = recorded("core_settings");
    assert!(has_tech_cause(&settings[0].text("AsteriskVersion").unwrap()));
    for (version, has) in [
        ("16.28.0", false),
        ("20.16.2", false),
        ("20.17.0", true),
        ("21.12.0", false),
        ("22.6.0", false),
        ("22.7.0", true),
        ("23.0.0", true),
        ("GIT-master", false),
    ] {
        assert_eq!(has_tech_cause(version), has, "{version}");
    }
}
