use proptest::prelude::*;

use super::*;

/// The example of the contract, whole.
const EXAMPLE: &str = r#"
[[carrier]]
name = "acme"
signalling = ["192.0.2.21/32"]
media = ["192.0.2.0/24"]
cps_max = 20
channels_max = 60

[[carrier]]
name = "beta"

[[node]]
name = "waw-1"
region = "eu-east"

[[node]]
name = "fra-1"
timer_b_ms = 32000
ami = { address = "192.0.2.11:5038", username = "ringward", secret_file = "secrets/fra-1", security = { username = "watch", secret_file = "/etc/x" } }

[[trunk]]
name = "acme-waw-1"
node = "waw-1"
carrier = "acme"
endpoint = "acme"
number_format = "e164_plus"
caller_ids = ["+48221234567"]
caller_id_in = "from"
early_media = "maybe"
cps_max = 10
channels_max = 30
weight = 1

[[trunk]]
name = "beta-fra-1"
node = "fra-1"
carrier = "beta"
endpoint = "beta"
number_format = "national"
number_prefix = "0"
country_code = "48"
on_480 = "other"
early_media = "not_ringing"

[[route]]
prefix = "+"
tiers = [["acme-waw-1"], ["beta-fra-1"]]

[[route]]
prefix = "+48"
tiers = [
    ["acme-waw-1", "beta-fra-1"],
]
"#;

fn example() -> Fleet {
    Fleet::parse(EXAMPLE).unwrap()
}

fn number(text: &str) -> E164 {
    text.parse().unwrap()
}

/// The problems of the example with one text replaced.
fn problems(from: &str, to: &str) -> Vec<String> {
    assert!(EXAMPLE.contains(from), "{from}");
    let error = Fleet::parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
    error.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_contracts_example_is_read_with_its_defaults() {
    let fleet = example();
    let acme = fleet.trunk(&"acme-waw-1".parse().unwrap()).unwrap();
    assert_eq!((acme.weight, acme.on_480, acme.caller_id_in), (1, OnRefusal::Stop, CallerIdIn::From));
    assert!(acme.may_present(&number("+48221234567")) && !acme.may_present(&number("+48221234568")));
    let beta = fleet.trunk(&"beta-fra-1".parse().unwrap()).unwrap();
    assert_eq!((beta.cps_max, beta.channels_max, beta.on_480), (10, 30, OnRefusal::Other));
    assert_eq!(beta.dialled(&number("+48221234567")), "0221234567");
    assert!(beta.may_present(&number("+48221234568")));
    let waw = fleet.node(&"waw-1".parse().unwrap()).unwrap();
    assert_eq!((waw.region.as_str(), waw.timer_b_ms, &waw.ami), ("eu-east", 6_400, &None));
    let fra = fleet.node(&"fra-1".parse().unwrap()).unwrap();
    let ami = fra.ami.as_ref().unwrap();
    assert_eq!((fra.region.as_str(), ami.address.port(), ami.tls), ("default", 5038, false));
    let beta = fleet.carrier(&"beta".parse().unwrap()).unwrap();
    assert_eq!((beta.cps_max, beta.channels_max), (None, None));
    let waw_1 = "waw-1".parse().unwrap();
    assert_eq!(fleet.trunks_of(&waw_1).map(|t| t.name.as_str()).collect::<Vec<_>>(), ["acme-waw-1"]);
    assert_eq!(Fleet::parse("").unwrap(), Fleet::default());
}

/// What is looked up for each snapshot is what a look through all of the fleet would find, also after a merge.
#[test]
fn trunks_of_a_node_and_routes_of_a_trunk_are_found_as_by_looking_through_all() {
    let more = r#"
[[carrier]]
name = "acme"
[[node]]
name = "waw-1"
[[node]]
name = "ber-1"
[[trunk]]
name = "acme-ber-1"
node = "ber-1"
carrier = "acme"
endpoint = "acme"
[[trunk]]
name = "second-waw-1"
node = "waw-1"
carrier = "acme"
endpoint = "second"
[[route]]
prefix = "+49"
tiers = [["second-waw-1"], ["acme-ber-1"]]
"#;
    let example = example();
    let merged = Fleet::merge_without_prune(&example, &Fleet::parse(more).unwrap());
    let stored = serde_json::from_value(serde_json::to_value(&merged).unwrap()).unwrap();
    assert_eq!(merged, stored);
    for fleet in [&example, &merged, &stored] {
        for node in fleet.nodes() {
            let found: Vec<_> = fleet.trunks_of(&node.name).map(|t| &t.name).collect();
            let all: Vec<_> = fleet.trunks().filter(|t| t.node == node.name).map(|t| &t.name).collect();
            assert_eq!(found, all);
        }
        for trunk in fleet.trunks() {
            let found: Vec<_> = fleet.routes_of(&trunk.name).map(|r| &r.prefix).collect();
            let serves = |route: &&Route| route.tiers.iter().flatten().any(|name| *name == trunk.name);
            let all: Vec<_> = fleet.routes().filter(serves).map(|r| &r.prefix).collect();
            assert_eq!(found, all);
        }
    }
    assert_eq!(merged.trunks_of(&"waw-1".parse().unwrap()).count(), 2);
    assert_eq!(merged.routes_of(&"acme-waw-1".parse().unwrap()).count(), 2);
    assert_eq!(merged.trunks_of(&"nobody".parse().unwrap()).count(), 0);
}

#[test]
fn the_longest_prefix_wins() {
    let fleet = example();
    let prefix = |to| fleet.route_for(&number(to)).map(|r| r.prefix.as_str());
    assert_eq!(prefix("+48221234567"), Some("+48"));
    assert_eq!(prefix("+49301234567"), Some("+"));
    assert_eq!(Fleet::default().route_for(&number("+48221234567")), None);
}

#[test]
fn stored_as_json_nothing_is_lost() {
    let fleet = example();
    let json = serde_json::to_value(&fleet).unwrap();
    assert_eq!(json["trunk"][0]["name"], "acme-waw-1");
    assert_eq!(serde_json::from_value::<Fleet>(json).unwrap(), fleet);
    assert!(serde_json::from_str::<Fleet>(r#"{"trunks": []}"#).is_err());
}

#[test]
fn an_unknown_node_is_named_with_its_line_and_the_likely_one() {
    assert_eq!(
        problems("node = \"waw-1\"", "node = \"waw-9\""),
        ["line 23: trunk[0].node: trunk \"acme-waw-1\": node \"waw-9\" is not declared; \
          declared nodes: waw-1, fra-1 (did you mean \"waw-1\"?)"]
    );
}

#[test]
fn an_unknown_field_is_named_with_its_line_and_the_likely_one() {
    let found = problems("region =", "regoin =");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("line 14: node[0].regoin: node \"waw-1\": unknown field `regoin`"),
        "{found:?}"
    );
    assert!(found[0].ends_with("(did you mean \"region\"?)"), "{found:?}");
    let found = problems("[[trunk]]", "[[trunks]]");
    assert!(found[0].starts_with("line 21: unknown field `trunks`"), "{found:?}");
    assert!(found[0].ends_with("(did you mean \"trunk\"?)"), "{found:?}");
    let found = problems("security = {", "security = { tls = true,");
    assert!(
        found[0].starts_with("line 19: node[1].ami.security.tls: node \"fra-1\": unknown field"),
        "{found:?}"
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let found = problems("weight = 1", "weight = ");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("line 32: "), "{found:?}");
    assert!(!found[0].contains('\n'));
}

#[test]
fn wrong_values_say_what_to_write() {
    for (from, to, says) in [
        (
            "weight = 1",
            "weight = 101",
            "line 32: trunk[0].weight: trunk \"acme-waw-1\": 101 is out of bounds: write 1 to 100",
        ),
        ("weight = 1", "weight = -1", "-1 is out of bounds"),
        (
            "cps_max = 20",
            "cps_max = 0",
            "line 6: carrier[0].cps_max: carrier \"acme\": 0 is out of bounds: write 1 to 10000",
        ),
        ("channels_max = 30", "channels_max = 100001", "write 1 to 100000"),
        ("\"192.0.2.21/32\"", "\"192.0.2.21\"", "write 192.0.2.21/32"),
        ("\"192.0.2.0/24\"", "\"192.0.2.1/24\"", "write 192.0.2.0/24 or 192.0.2.1/32"),
        ("\"192.0.2.0/24\"", "\"0.0.0.0/0\"", "too wide"),
        ("\"192.0.2.0/24\"", "\"::/0\"", "too wide"),
        ("\"192.0.2.0/24\"", "\"sip.example\"", "not a network"),
        ("192.0.2.11:5038", "192.0.2.11", "write host:port"),
        ("192.0.2.11:5038", "192.0.2.11:0", "write host:port"),
        ("\"+48221234567\"", "\"48221234567\"", "not an E.164 number"),
        ("prefix = \"+48\"", "prefix = \"48\"", "route[1].prefix: route \"48\": write + or"),
        ("number_prefix = \"0\"", "number_prefix = \"000000000\"", "up to 8 digits"),
        ("country_code = \"48\"", "country_code = \"+48\"", "without a plus"),
        ("early_media = \"maybe\"", "early_media = \"mabye\"", "(did you mean \"maybe\"?)"),
        ("endpoint = \"acme\"\n", "", "line 21: trunk[0]: trunk \"acme-waw-1\": missing field `endpoint`"),
        ("endpoint = \"acme\"", "endpoint = \"a/b\"", "endpoint \"a/b\""),
        ("\"ringward\"", "\"ring\\nward\"", "visible ASCII"),
    ] {
        let found = problems(from, to);
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert!(found[0].contains(says), "{to}: {found:?}");
    }
}

#[test]
fn contradictions_are_found() {
    for (from, to, says) in [
        (
            "name = \"beta\"",
            "name = \"acme\"",
            "line 10: carrier[1].name: carrier \"acme\": declared already as carrier[0]",
        ),
        ("name = \"fra-1\"", "name = \"waw-1\"", "node[1].name: node \"waw-1\": declared already"),
        (
            "name = \"beta-fra-1\"",
            "name = \"acme-waw-1\"",
            "trunk[1].name: trunk \"acme-waw-1\": declared already",
        ),
        ("prefix = \"+48\"", "prefix = \"+\"", "route[1].prefix: route \"+\": declared already as route[0]"),
        ("country_code = \"48\"", "", "needs the country_code"),
        ("[[\"acme-waw-1\"], [", "[[\"beta-fra-1\"], [", "stands twice"),
        ("[[\"acme-waw-1\"], [\"beta-fra-1\"]]", "[[\"acme-waw-1\"], []]", "every tier needs a trunk"),
        ("[[\"acme-waw-1\"], [\"beta-fra-1\"]]", "[]", "every tier needs a trunk"),
        (
            "    [\"acme-waw-1\", \"beta-fra-1\"]",
            "    [\"acme-waw-1\",\n\"beta-fra-2\"]",
            "line 53: route[1].tiers: route \"+48\": trunk \"beta-fra-2\" is not declared",
        ),
    ] {
        let found = problems(from, to);
        assert!(found[0].contains(says), "{to}: {found:?}");
    }
    let twice = EXAMPLE
        .replace("node = \"fra-1\"", "node = \"waw-1\"")
        .replace("endpoint = \"beta\"", "endpoint = \"acme\"");
    let error = Fleet::parse(&twice).unwrap_err().to_string();
    assert!(error.contains("endpoint \"acme\" of node \"waw-1\" is trunk \"acme-waw-1\" already"), "{error}");
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let text = EXAMPLE.replace("weight = 1", "weight = 0").replace("cps_max = 20", "cps_max = \"x\"");
    let found = Fleet::parse(&text).unwrap_err();
    assert_eq!(
        found.problems.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(),
        ["carrier[0].cps_max", "trunk[0].weight"]
    );
    let text = EXAMPLE
        .replace("node = \"waw-1\"", "node = \"x\"")
        .replace("carrier = \"beta\"", "carrier = \"y\"")
        .replace("tiers = [[\"acme-waw-1\"]", "tiers = [[\"z\"]");
    let found = Fleet::parse(&text).unwrap_err();
    let keys: Vec<_> = found.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["trunk[0].node", "trunk[1].carrier", "route[0].tiers"]);
    assert_eq!(found.to_string().lines().count(), 3);
}

#[test]
fn a_long_list_of_names_is_cut() {
    let nodes: String = (0..50).map(|n| format!("[[node]]\nname = \"n{n}\"\n")).collect();
    let trunk = "[[carrier]]\nname = \"c\"\n[[trunk]]\nname = \"t\"\nnode = \"zzz\"\ncarrier = \"c\"\nendpoint = \"e\"\n";
    let error = Fleet::parse(&format!("{nodes}{trunk}")).unwrap_err().to_string();
    assert!(error.ends_with("n8, n9 and 40 more"), "{error}");
}

#[test]
fn management_networks_are_of_all_nodes_or_of_those_they_name() {
    let office = "[[management]]\nname = \"office\"\nnetworks = [\"198.51.100.0/28\", \"2001:db8:a::/48\"]\n";
    let bastion =
        "[[management]]\nname = \"bastion\"\nnetworks = [\"203.0.113.5/32\"]\nnodes = [\"waw-1\"]\n";
    let fleet = Fleet::parse(&format!("{EXAMPLE}{office}{bastion}")).unwrap();
    let of = |node: &str| {
        let node = node.parse().unwrap();
        fleet.managements_of(&node).map(|m| m.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("waw-1"), of("fra-1")),
        (vec!["bastion".to_owned(), "office".to_owned()], vec!["office".to_owned()])
    );
    // What an earlier release stored is read, and what it can read is stored where there are none.
    let old = Fleet::parse(EXAMPLE).unwrap();
    let stored = serde_json::to_value(&old).unwrap();
    assert!(stored.get("management").is_none());
    assert_eq!(serde_json::from_value::<Fleet>(stored).unwrap(), old);
    let lines: Vec<_> = Fleet::diff(&old, &fleet).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["+ management bastion", "+ management office"]);
    assert_eq!(Fleet::merge_without_prune(&fleet, &old), fleet);
    for (text, says) in [
        (
            office.replace("\"198.51.100.0/28\"", "\"0.0.0.0/0\""),
            "too wide for a network that is never banned",
        ),
        (office.replace("[\"198.51.100.0/28\", \"2001:db8:a::/48\"]", "[]"), "name a network, as in"),
        (bastion.replace("waw-1", "waw-9"), "node \"waw-9\" is not declared"),
        (format!("{office}{office}"), "management \"office\": declared already as management[0]"),
        (office.replace("networks", "network"), "unknown field `network`"),
    ] {
        let error = Fleet::parse(&format!("{EXAMPLE}{text}")).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("line "), "{text}: {error}");
    }
}

#[test]
fn a_diff_reads_as_lines_with_removals_last() {
    let old = example();
    let text = EXAMPLE
        .replace("weight = 1", "weight = 2")
        .replace("[\"+48221234567\"]", "[]")
        .replace("channels_max = 60", "")
        .replace("name = \"fra-1\"", "name = \"fra-2\"")
        .replace("node = \"fra-1\"", "node = \"fra-2\"");
    let new = Fleet::parse(&text).unwrap();
    let lines: Vec<_> = Fleet::diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "~ carrier acme: channels_max 60 → none",
            "+ node fra-2",
            "~ trunk acme-waw-1: caller_ids [\"+48221234567\"] → [], weight 1 → 2",
            "~ trunk beta-fra-1: node \"fra-1\" → \"fra-2\"",
            "- node fra-1",
        ]
    );
    let changes = Fleet::diff(&old, &new);
    assert_eq!(changes.iter().filter(|c| c.is_removal()).count(), 1);
    assert_eq!(serde_json::to_value(&changes[0]).unwrap()["fields"][0]["from"], 60);
    assert_eq!(Fleet::diff(&old, &old), []);
}

#[test]
fn without_prune_what_is_not_wanted_stays_and_may_contradict() {
    let current = example();
    let wanted = Fleet::parse("[[carrier]]\nname = \"acme\"\ncps_max = 5").unwrap();
    let merged = Fleet::merge_without_prune(&current, &wanted);
    assert_eq!(merged.carrier(&"acme".parse().unwrap()).unwrap().cps_max, Some(5));
    assert_eq!(merged.trunks().len(), 2);
    assert_eq!(merged.check(), Ok(()));
    assert!(Fleet::diff(&current, &merged).iter().all(|c| !c.is_removal()));

    let renamed = Fleet::parse(&EXAMPLE.replace("acme-waw-1", "acme-new")).unwrap();
    let error = Fleet::merge_without_prune(&current, &renamed).check().unwrap_err();
    assert!(error.problems[0].message.contains("is trunk \"acme-new\" already"), "{error}");
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(cut in 0..EXAMPLE.len(), with in "[\\PC\n]{0,12}", length in 0_usize..30) {
        let end = (cut + length).min(EXAMPLE.len());
        let text = format!("{}{with}{}", &EXAMPLE[..cut], &EXAMPLE[end..]);
        match Fleet::parse(&text) {
            Ok(fleet) => {
                let json = serde_json::to_string(&fleet).unwrap();
                prop_assert_eq!(fleet.check(), Ok(()));
                prop_assert_eq!(serde_json::from_str::<Fleet>(&json).unwrap(), fleet);
            }
            Err(error) => {
                let lines = text.lines().count();
                prop_assert!(!error.problems.is_empty());
                prop_assert!(error.problems.iter().all(|p| p.line.is_none_or(|l| (1..=lines + 1).contains(&l))));
            }
        }
    }
}
