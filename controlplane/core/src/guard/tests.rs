use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::fleet::Fleet;

fn e164(text: &str) -> E164 {
    text.parse().unwrap()
}

fn policy(json: &str) -> Policy {
    let policy: Policy = serde_json::from_str(json).unwrap();
    policy.validate().unwrap();
    policy
}

/// One trunk, one route for everything.
fn fleet(trunk: &str) -> Fleet {
    Fleet::parse(&format!(
        "[[carrier]]\nname = \"acme\"\n[[node]]\nname = \"waw-1\"\n[[trunk]]\nname = \"t\"\nnode = \"waw-1\"\ncarrier = \
         \"acme\"\nendpoint = \"acme\"\n{trunk}\n[[route]]\nprefix = \"+\"\ntiers = [[\"t\"]]\n"
    ))
    .unwrap()
}

fn rule(policy: &Policy, to: &str) -> Option<Rule> {
    decide(policy, &fleet(""), &e164(to), None).decision.err().map(|denied| denied.rule())
}

/// Country and kind of numbers that cost, and of some that are easily taken for others.
#[test]
fn each_number_is_of_its_country_and_kind() {
    for (number, country, kind) in [
        ("+48221234567", "PL", NumberKind::Fixed),
        ("+48501234567", "PL", NumberKind::Mobile),
        ("+48701234567", "PL", NumberKind::Premium),
        ("+48801123456", "PL", NumberKind::SharedCost),
        ("+380501234567", "UA", NumberKind::Mobile),
        ("+12025550123", "US", NumberKind::FixedOrMobile),
        ("+19002345678", "US", NumberKind::Premium),
        ("+18762345678", "JM", NumberKind::Mobile),
        ("+18092345678", "DO", NumberKind::FixedOrMobile),
        ("+12684641234", "AG", NumberKind::Mobile),
        ("+447911123456", "GG", NumberKind::Mobile),
        ("+447400123456", "GB", NumberKind::Mobile),
        ("+447012345678", "GB", NumberKind::Personal),
        ("+449012345678", "GB", NumberKind::Premium),
        ("+448431234567", "GB", NumberKind::Premium),
        ("+498001234567", "DE", NumberKind::TollFree),
        ("+499001234567", "DE", NumberKind::Premium),
        ("+390612345678", "IT", NumberKind::Fixed),
        ("+393123456789", "IT", NumberKind::Mobile),
        ("+33899123456", "FR", NumberKind::Premium),
        ("+77011234567", "KZ", NumberKind::Mobile),
        ("+79123456789", "RU", NumberKind::Mobile),
        ("+870773111632", "+870", NumberKind::Satellite),
        ("+881612345678", "+881", NumberKind::Satellite),
        ("+882161234567", "+882", NumberKind::InternationalNetwork),
        ("+883510001234567", "+883", NumberKind::InternationalNetwork),
        ("+979123456789", "+979", NumberKind::InternationalPremium),
        ("+80012345678", "+800", NumberKind::TollFree),
        ("+80812345678", "+808", NumberKind::SharedCost),
        ("+48000000000", "PL", NumberKind::Unassigned),
    ] {
        let destination = Destination::of(&e164(number));
        let found = (destination.country.as_ref().map(Country::as_str), destination.kind);
        assert_eq!(found, (Some(country), kind), "{number}");
    }
    for nobodys in ["+9991234567", "+2101234567", "+123456789012345"] {
        assert_eq!(Destination::of(&e164(nobodys)).country, None, "{nobodys}");
    }
}

#[test]
fn a_fresh_policy_allows_nothing() {
    for number in ["+48221234567", "+12025550123", "+870773111632", "+9991234567"] {
        assert_eq!(rule(&Policy::default(), number), Some(Rule::NothingOpen), "{number}");
    }
}

#[test]
fn each_refusal_names_its_rule() {
    let policy = policy(
        r#"{"countries": {"PL": ["fixed", "mobile"], "US": ["mobile"], "+881": ["satellite"]},
            "prefixes": {"+4822": "deny", "+48221": "allow", "+48701": "allow", "+4999": "allow"},
            "caller_ids": ["+48221110000"]}"#,
    );
    for (number, denied) in [
        ("+48501234567", None),
        ("+48221234567", None),
        ("+48000234567", Some(Rule::Unassigned)),
        ("+48421234567", None),
        ("+48222234567", Some(Rule::Prefix)),
        ("+48701234567", None),
        ("+48703234567", Some(Rule::NumberType)),
        ("+48801123456", Some(Rule::NumberType)),
        ("+12025550123", None),
        ("+18762345678", Some(Rule::Country)),
        ("+19002345678", Some(Rule::NumberType)),
        ("+881612345678", None),
        ("+870773111632", Some(Rule::Country)),
        ("+979123456789", Some(Rule::Country)),
        ("+9991234567", Some(Rule::Unassigned)),
        ("+49991234", None),
    ] {
        assert_eq!(rule(&policy, number), denied, "{number}");
    }
    let from = |from: &str| decide(&policy, &fleet(""), &e164("+48501234567"), Some(&e164(from))).decision;
    assert_eq!(from("+48221110000"), Ok(Opened::Country));
    assert_eq!(from("+48221110001"), Err(Denied::CallerId));
}

/// As dialled: the same number is harmless on one trunk and a call for help on another.
#[test]
fn emergency_numbers_are_denied_as_the_trunk_dials_them() {
    let national = |code: &str, prefix: &str| {
        format!("number_format = \"national\"\ncountry_code = \"{code}\"\nnumber_prefix = \"{prefix}\"")
    };
    for (trunk, number, code) in [
        (national("48", ""), "+48112000000", Some("112")),
        (national("48", ""), "+48999123456", Some("999")),
        (national("48", ""), "+48997123456", Some("997")),
        (national("1", ""), "+19112345678", Some("911")),
        (national("44", ""), "+44999123456", Some("999")),
        (national("49", ""), "+4911012345", Some("110")),
        // What the prefix makes of it.
        (national("48", "11"), "+48221234567", Some("112")),
        (national("48", "99"), "+48912345678", Some("999")),
        (national("39", ""), "+391181234", Some("118")),
        (national("33", ""), "+33171234567", None),
        (national("48", "0"), "+48112000000", None),
        (national("48", ""), "+48221234567", None),
        (national("48", ""), "+4915112345678", None),
        // Delhi: +91 11 2… in international form is nobody's emergency.
        ("number_format = \"e164\"".to_owned(), "+911123456789", None),
        ("number_format = \"e164_plus\"".to_owned(), "+19112345678", None),
        (national("91", ""), "+911123456789", Some("112")),
        (national("91", "0"), "+911123456789", None),
    ] {
        let fleet = fleet(&trunk);
        let to = e164(number);
        let found = emergency(fleet.trunk(&"t".parse().unwrap()).unwrap(), &to);
        assert_eq!(found.is_some(), code.is_some(), "{trunk} {number}: {found:?}");
        // Whatever is open.
        let open = policy(&format!(r#"{{"prefixes": {{"+": "allow", "{number}": "allow"}}}}"#));
        let denied = decide(&open, &fleet, &to, None).decision.err().map(|denied| denied.rule());
        assert_eq!(denied, code.map(|_| Rule::Emergency), "{trunk} {number}");
    }
}

#[test]
fn policies_are_checked_when_they_are_set() {
    for wrong in [
        r#"{"countries": {"pl": ["fixed"]}}"#,
        r#"{"countries": {"XX": ["fixed"]}}"#,
        r#"{"countries": {"+48": ["fixed"]}}"#,
        r#"{"countries": {"PL": ["landline"]}}"#,
        r#"{"prefixes": {"48": "allow"}}"#,
        r#"{"caller_ids": ["48221110000"]}"#,
        r#"{"country": {}}"#,
    ] {
        assert!(serde_json::from_str::<Policy>(wrong).is_err(), "{wrong}");
    }
    let unassigned: Policy = serde_json::from_str(r#"{"countries": {"PL": ["unassigned"]}}"#).unwrap();
    assert_eq!(unassigned.validate().unwrap_err().param, "countries");
    assert!(policy(r#"{"countries": {"PL": []}, "prefixes": {"+48": "deny"}}"#).is_closed());
}

fn kinds() -> impl Strategy<Value = BTreeSet<NumberKind>> {
    prop::collection::btree_set(prop::sample::select(NumberKind::ALL), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is open elsewhere: a number of a country that is not named is never allowed but by a prefix of it.
    #[test]
    fn what_is_not_named_is_closed(
        opened in prop::collection::btree_map(prop::sample::select(vec!["PL", "UA", "US", "IT", "+881"]), kinds(), 0..4),
        digits in "(48|380|1|39|881|49|979|44)[1-9][0-9]{6,9}",
    ) {
        let countries = opened.iter().map(|(country, kinds)| (country.parse().unwrap(), kinds.clone())).collect();
        let policy = Policy { countries, ..Policy::default() };
        let to = e164(&format!("+{digits}"));
        let verdict = decide(&policy, &fleet(""), &to, None);
        let country = verdict.destination.country.clone();
        let named = country.is_some_and(|country| opened.contains_key(country.as_str()));
        prop_assert!(named || verdict.decision.is_err());
        let dear = matches!(verdict.destination.kind, NumberKind::Premium | NumberKind::Satellite
            | NumberKind::SharedCost | NumberKind::InternationalPremium | NumberKind::Unassigned);
        let said = opened.values().any(|kinds| kinds.contains(&verdict.destination.kind));
        prop_assert!(!dear || said || verdict.decision.is_err());
        // A prefix closes what a country opens, whatever else is said.
        let closed = Policy { prefixes: [(to.as_str().parse().unwrap(), Access::Deny)].into(), ..policy };
        prop_assert!(decide(&closed, &fleet(""), &to, None).decision.is_err());
    }

    /// No trunk dials 112, 911 or 999, nor anything that begins so, whatever its prefix and the customer's digits.
    #[test]
    fn nothing_that_begins_as_a_call_for_help_is_dialled(
        prefix in "[0-9]{0,3}", code in "[1-9][0-9]{0,2}", digits in "[1-9][0-9]{6,14}",
    ) {
        let fleet = fleet(&format!(
            "number_format = \"national\"\ncountry_code = \"{code}\"\nnumber_prefix = \"{prefix}\""
        ));
        let to = e164(&format!("+{digits}"));
        let dialled = fleet.trunk(&"t".parse().unwrap()).unwrap().dialled(&to);
        let open = policy(r#"{"prefixes": {"+": "allow"}}"#);
        if ["112", "911", "999"].iter().any(|code| dialled.starts_with(code)) {
            prop_assert!(decide(&open, &fleet, &to, None).decision.is_err(), "{dialled}");
        }
    }
}
