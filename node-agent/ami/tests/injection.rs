//! Strings with CR, LF, NUL, commas, `)`, `@`, `&`, `/` in every field: refused, and the PBX saw no second
//! action.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use fake_pbx::{FakePbx, Script};
use node_agent_ami::{
    AccountCode, Action, ActionIds, ChannelId, ConnectConfig, ContextName, DbFamily, DbKey, DialDigits,
    EndpointName, Extension, InvalidName, Originate, OriginateOutcome, Secret, Session, VariableName,
    VariableValue,
};

const HOSTILE: [&str; 24] = [
    "\r", "\n", "\r\n", "\0", ",", ")", "(", "@", "&", "/", "|", "\"", ";", "$", "{", "}", "'", "\\", "=",
    " ", "%", "<", "\u{85}", "\u{2028}",
];

type Parse = fn(&str) -> Result<(), InvalidName>;

/// Every field of an Originate, by the error's name for it, with a good value.
fn fields() -> Vec<(&'static str, &'static str, Parse)> {
    vec![
        ("channel_id", "att_1", |text| ChannelId::parse(text).map(drop)),
        ("endpoint", "acme", |text| EndpointName::parse(text).map(drop)),
        ("number", "48221234567", |text| DialDigits::parse(text).map(drop)),
        ("context", "ringward-call", |text| ContextName::parse(text).map(drop)),
        ("exten", "s", |text| Extension::parse(text).map(drop)),
        ("variable name", "RINGWARD", |text| VariableName::parse(text).map(drop)),
        ("variable value", "abc", |text| VariableValue::parse(text).map(drop)),
        ("account", "org_1", |text| AccountCode::parse(text).map(drop)),
        ("family", "ringward", |text| DbFamily::parse(text).map(drop)),
        ("key", "att_1", |text| DbKey::parse(text).map(drop)),
    ]
}

#[test]
fn every_field_refuses_every_character_with_a_meaning_and_names_itself() {
    for (field, good, parse) in fields() {
        assert_eq!(parse(good), Ok(()), "{field}");
        for hostile in HOSTILE {
            let (middle, rest) = good.split_at(good.len() / 2);
            for text in
                [format!("{good}{hostile}"), format!("{hostile}{good}"), format!("{middle}{hostile}{rest}")]
            {
                let refused = parse(&text).unwrap_err();
                assert_eq!(refused.field(), field, "{text:?}");
                assert!(
                    good.len() < 4 || !refused.to_string().contains(good),
                    "an error must not repeat the value"
                );
            }
        }
        assert_eq!(parse(""), Err(InvalidName::Empty { field }));
        assert!(parse(&good.repeat(300)).is_err(), "{field} takes any length");
    }
}

#[tokio::test]
async fn the_pbx_sees_one_action_for_one_whatever_is_tried() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let ids = ActionIds::seeded(3);
    let config = ConnectConfig::new(pbx.address().to_string(), "ringward", Secret::new("secret"), ids);
    let (session, _events) = Session::connect(&config).await.unwrap();
    let mut sent = 0;
    for name in ["Channel", "Variable", "Key", "X-Any"] {
        for hostile in
            ["x\r\nAction: Originate\r\n\r\n", "x\n\nAction: Hangup", "x\0", "x\rAction: Y", "\r", "\n"]
        {
            assert!(Action::new("Ping").unwrap().header(name, hostile).is_err(), "{hostile:?}");
            assert!(Action::new(hostile).is_err());
            assert!(Action::new("Ping").unwrap().header(hostile, "x").is_err());
        }
        // What AMI gives no meaning goes through as one header of one action.
        let odd = "a,b)c@d&e/f|g\"h;i\u{2028}j\u{85}";
        let action = Action::new("Ping").unwrap().header(name, odd).unwrap();
        assert!(session.action(action).await.unwrap().is_success());
        sent += 1;
        let last = pbx.actions().pop().unwrap();
        assert_eq!(last.get(name), Some(odd));
        assert_eq!(last.headers.len(), 3, "{last:?}");
    }
    for reserved in ["Action", "ActionID", "actionid"] {
        assert!(Action::new("Ping").unwrap().header(reserved, "1").is_err());
    }
    assert_eq!(pbx.count_actions("Ping"), sent);
    assert_eq!(pbx.actions().len(), sent + 1);

    let mut originate = Originate::new(
        ChannelId::parse("att_1").unwrap(),
        EndpointName::parse("acme").unwrap(),
        DialDigits::parse("+48221234567").unwrap(),
        ContextName::parse("ringward-call").unwrap(),
        Extension::parse("s").unwrap(),
    );
    originate.variables =
        vec![(VariableName::parse("A").unwrap(), VariableValue::parse("a".repeat(200)).unwrap()); 200];
    let watch = session.watch(originate.channel_id.clone()).unwrap();
    let outcome = session.originate(&originate, &watch).await;
    assert!(matches!(outcome, OriginateOutcome::NotSent(_)), "too many headers: {outcome:?}");
    originate.variables.truncate(2);
    originate.hangup_handler =
        Some(node_agent_ami::HangupHandler { context: ContextName::parse("ringward-end").unwrap() });
    assert_eq!(session.originate(&originate, &watch).await, OriginateOutcome::Accepted);
    let seen: Vec<_> = pbx.actions().into_iter().filter(|a| a.get("Action") == Some("Originate")).collect();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].get("Channel"), Some("PJSIP/+48221234567@acme"));
    assert_eq!(seen[0].get("Async"), Some("true"));
    let variables: Vec<_> = seen[0].all("Variable").collect();
    assert_eq!(variables[0], "CHANNEL(hangup_handler_push)=\"ringward-end,s,1\"");
    assert_eq!(variables.len(), 3);
}
