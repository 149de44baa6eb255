//! `ringward apply`: what changes is told before, done whole or not at all, and in force at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Fleet, NUMBER, configure, eventually, talks};

fn lines(answer: &Value, member: &str) -> Vec<String> {
    answer[member].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Another carrier's trunk on a node, and a route that has it alone.
fn with_beta(toml: &str) -> String {
    let (before, _) = toml.split_once("[[route]]").unwrap();
    format!(
        "{before}[[carrier]]\nname = \"beta\"\n[[trunk]]\nname = \"beta-waw-1\"\nnode = \"waw-1\"\ncarrier = \
         \"beta\"\nendpoint = \"beta\"\n[[route]]\nprefix = \"+\"\ntiers = [[\"beta-waw-1\"]]\n"
    )
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let fleet = Fleet::small().await;
    let before = fleet.operator.get("/admin/v1/fleet").await.is(200);
    let told = fleet.apply(&with_beta(&fleet.toml()), "?dry_run=true").await.is(200);
    assert_eq!((&told["applied"], &told["revision"]), (&json!(false), &before["revision"]));
    let changes = lines(&told, "changes");
    assert!(changes.contains(&"+ carrier beta".to_owned()), "{changes:?}");
    assert!(changes.contains(&"+ trunk beta-waw-1".to_owned()), "{changes:?}");
    assert!(changes.iter().any(|line| line.starts_with("~ route +: tiers")), "{changes:?}");
    assert_eq!(fleet.operator.get("/admin/v1/fleet").await.is(200), before);
    assert_eq!(fleet.trunk("beta-waw-1").await, Value::Null);
    // The same file again changes nothing either.
    let told = fleet.apply(&fleet.toml(), "").await.is(200);
    assert_eq!((&told["applied"], &told["changes"]), (&json!(false), &json!([])));
}

#[tokio::test]
async fn a_new_trunk_is_used_and_a_removed_one_is_not_without_a_restart() {
    let fleet = Fleet::small().await;
    configure(fleet.pbx("waw-1"), "beta", "sip:192.0.2.22:5060");
    let applied = fleet.apply(&with_beta(&fleet.toml()), "").await.is(200);
    assert_eq!((&applied["applied"], &applied["kept"]), (&json!(true), &json!([])));
    eventually("the new trunk is usable", async || fleet.trunk("beta-waw-1").await["usable"] == true).await;
    let ended = fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    assert_eq!(ended.each("trunk"), ["beta-waw-1"]);
    // Back, without pruning: what the file lacks is kept, and told.
    let kept = fleet.apply(&fleet.toml(), "").await.is(200);
    assert_eq!(lines(&kept, "kept"), ["- carrier beta", "- trunk beta-waw-1"]);
    assert_eq!(fleet.trunk("beta-waw-1").await["usable"], true);
    // And with it.
    let pruned = fleet.apply(&fleet.toml(), "?prune=true").await.is(200);
    assert_eq!(lines(&pruned, "changes"), ["- carrier beta", "- trunk beta-waw-1"]);
    assert_eq!(fleet.trunk("beta-waw-1").await, Value::Null);
    for _ in 0..4 {
        let ended = fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
        assert_eq!(ended.each("trunk"), ["acme-waw-1"]);
    }
    assert_eq!(fleet.originates("waw-1", "beta"), 1);
}

/// A call over a trunk that is removed meanwhile ends as any other.
#[tokio::test]
async fn a_call_outlives_its_trunk() {
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"]).first_carrier_first().start().await;
    fleet.callee(NUMBER, talks(400));
    let call = fleet.call(NUMBER).place().await;
    call.becomes("in_progress").await;
    let toml = fleet.toml();
    let (head, tail) = toml.split_once("[[trunk]]\nname = \"acme-waw-1\"").unwrap();
    let (_, rest) = tail.split_once("[[trunk]]").unwrap();
    let without = format!("{head}[[trunk]]{rest}").replace("[\"acme-waw-1\"], ", "");
    fleet.apply(&without, "?prune=true").await.is(200);
    let ended = call.ends_as("completed", "played").await;
    assert_eq!(ended.each("trunk"), ["acme-waw-1"]);
    let ended = fleet.call("+48220000000").place().await.ends_as("completed", "played").await;
    assert_eq!(ended.each("trunk"), ["beta-waw-1"]);
}

/// So does a call over a node that is removed: its session is kept for as long as the call needs it.
#[tokio::test]
async fn a_call_outlives_its_node() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"]).start().await;
    fleet.callee(NUMBER, talks(500));
    let call = fleet.call(NUMBER).or_fail().place().await;
    let now = call.becomes("in_progress").await;
    let node = now["attempts"][0]["node"].as_str().unwrap();
    let toml = fleet.toml();
    let (before, after) = toml.split_once(&format!("[[node]]\nname = \"{node}\"")).unwrap();
    let rest = after.split_once("[[node]]").map_or_else(
        || after.split_once("[[route]]").map(|(_, rest)| format!("[[route]]{rest}")),
        |(_, rest)| Some(format!("[[node]]{rest}")),
    );
    let trunk = format!("\"acme-{node}\"");
    let without = format!("{before}{}", rest.unwrap());
    let without = without.replace(&format!("{trunk}, "), "").replace(&format!(", {trunk}"), "");
    fleet.apply(&without, "?prune=true").await.is(200);
    let ended = call.ends_as("completed", "played").await;
    assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1));
    eventually("its session is closed", async || fleet.pbx(node).sessions() == 0).await;
    let next = fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    assert_ne!(next.each("node"), [node]);
}

#[tokio::test]
async fn an_apply_on_a_revision_that_has_passed_is_refused() {
    let fleet = Fleet::small().await;
    let revision = fleet.operator.get("/admin/v1/fleet").await.is(200)["revision"].as_i64().unwrap();
    let changed = |weight: u8| fleet.toml().replace("endpoint =", &format!("weight = {weight}\nendpoint ="));
    let query = format!("?expected_revision={revision}");
    let applied = fleet.apply(&changed(2), &query).await.is(200);
    assert_eq!(applied["revision"], revision + 1);
    let stale = fleet.apply(&changed(3), &query).await.is_problem(409, "stale_revision");
    assert_eq!(stale["revision"], revision + 1);
    fleet.apply(&changed(3), &format!("{query}&dry_run=true")).await.is_problem(409, "stale_revision");
    let now = fleet.operator.get("/admin/v1/fleet").await.is(200);
    assert_eq!(now["revision"], revision + 1);
    // Of many at once that looked at the same revision, one wins.
    let query = format!("?expected_revision={}", revision + 1);
    let files: Vec<_> = (10..20).map(changed).collect();
    let answers = futures_util::future::join_all(files.iter().map(|toml| fleet.apply(toml, &query))).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.is_problem(409, "stale_revision");
    }
}

/// Whoever asked may be gone before the answer: what the database took is in force all the same.
#[tokio::test]
async fn an_apply_whose_asker_left_is_whole() {
    let mut fleet = Fleet::small().await;
    for n in 0..60_u64 {
        let toml = fleet.toml().replace("endpoint =", &format!("weight = {}\nendpoint =", n + 2));
        let asked = fleet.apply(&toml, "");
        // Gone at any moment of it.
        let _ = tokio::time::timeout(Duration::from_micros(500 + n * 100), asked).await;
    }
    let in_force = async |fleet: &Fleet| {
        fleet.operator.get("/admin/v1/fleet").await.is(200)["revision"].as_i64().unwrap()
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = in_force(&fleet).await;
    assert!(before > 1, "some were taken");
    fleet.kill().await;
    fleet.start_again().await;
    assert_eq!(in_force(&fleet).await, before, "as stored");
}

/// Another replica's apply is noticed at the latest when this one's is refused, and is in force here then.
#[tokio::test]
async fn a_revision_that_another_process_made_is_taken_up() {
    let fleet = Fleet::small().await;
    let revision = fleet.operator.get("/admin/v1/fleet").await.is(200)["revision"].as_i64().unwrap();
    fleet.database.run("UPDATE declared_fleet SET revision = revision + 1").await;
    let toml = fleet.toml().replace("endpoint =", "weight = 2\nendpoint =");
    let stale = fleet.apply(&toml, "").await.is_problem(409, "stale_revision");
    assert_eq!(stale["revision"], revision + 1);
    let applied = fleet.apply(&toml, "").await.is(200);
    assert_eq!(applied["revision"], revision + 2);
}

#[tokio::test]
async fn a_broken_file_tells_every_problem_with_its_line_and_changes_nothing() {
    let fleet = Fleet::small().await;
    let before = fleet.operator.get("/admin/v1/fleet").await.is(200);
    let broken = "\
[[carrier]]
name = \"acme\"
cps_max = 0

[[node]]
name = \"waw-1\"
regoin = \"eu\"

[[trunk]]
name = \"acme waw\"
node = \"waw-1\"
carrier = \"acme\"
endpoint = \"acme\"

[[route]]
prefix = \"48\"
tiers = [[\"acme-waw-1\"]]
";
    let body = fleet.apply(broken, "").await.is_problem(422, "invalid_fleet");
    let told: Vec<_> = body["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| (problem["line"].as_u64().unwrap(), problem["key"].as_str().unwrap().to_owned()))
        .collect();
    let expected =
        [(3, "carrier[0].cps_max"), (7, "node[0].regoin"), (10, "trunk[0].name"), (16, "route[0].prefix")];
    assert_eq!(told, expected.map(|(line, key)| (line, key.to_owned())), "{body}");
    let hint = body["problems"][1]["message"].as_str().unwrap();
    assert!(hint.contains("did you mean \"region\""), "{hint}");
    // Names that nobody declares.
    let unknown = fleet.toml().replace("node = \"waw-1\"", "node = \"waw-2\"");
    let body = fleet.apply(&unknown, "").await.is_problem(422, "invalid_fleet");
    let message = body["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("waw-2") && message.contains("waw-1"), "{message}");
    let unknown = fleet.toml().replace("tiers = [[\"acme-waw-1\"", "tiers = [[\"acme-waw-9\"");
    fleet.apply(&unknown, "?dry_run=true").await.is_problem(422, "invalid_fleet");
    for text in
        ["[[carrier]", "name = ", "carrier = 7", "\u{feff}[[carrier]]\nname = 1", "[[mode]]\nname = \"x\""]
    {
        fleet.apply(text, "").await.is_problem(422, "invalid_fleet");
    }
    // One byte more than may be.
    let too_large = "#".repeat(16 * 1024 * 1024 + 1);
    fleet.apply(&too_large, "").await.is_problem(413, "too_large");
    for query in ["?prun=true", "?prune=yes", "?expected_revision=x"] {
        fleet.apply(&fleet.toml(), query).await.is_problem(400, "malformed");
    }
    assert_eq!(fleet.operator.get("/admin/v1/fleet").await.is(200), before);
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

/// A file that would leave a dangling name is refused as a whole.
#[tokio::test]
async fn an_empty_file_prunes_everything_and_calls_find_no_route() {
    let fleet = Fleet::small().await;
    let told = fleet.apply("", "").await.is(200);
    assert_eq!((&told["applied"], told["kept"].as_array().unwrap().len()), (&json!(false), 4));
    let told = fleet.apply("", "?prune=true").await.is(200);
    assert_eq!(told["applied"], true);
    fleet.call(NUMBER).place().await.ends_as("failed", "no_healthy_route").await;
    eventually("the session is given up", async || fleet.pbx("waw-1").sessions() == 0).await;
}

/// The fleet in force survives a kill.
#[tokio::test]
async fn the_fleet_is_durable() {
    let mut fleet = Fleet::small().await;
    let before = fleet.operator.get("/admin/v1/fleet").await.is(200);
    fleet.kill().await;
    fleet.start_again().await;
    assert_eq!(fleet.operator.get("/admin/v1/fleet").await.is(200), before);
    fleet.all_trunks_are_usable(true).await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

#[tokio::test]
async fn who_would_be_chosen_and_why_is_explained() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"]).start().await;
    let explain = async |query: &str| fleet.operator.get(&format!("/admin/v1/routes/explain?{query}")).await;
    let told = explain("to=%2B48221234567").await.is(200);
    assert_eq!((&told["choice"], &told["route"]), (&json!("trunk"), &json!("+")));
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    eventually("it is known to be lost", async || fleet.node("waw-1").await["up"] == false).await;
    let told = explain("to=%2B48221234567").await.is(200);
    assert_eq!(told["trunk"], "acme-fra-1");
    let passed = told["considered"].as_array().unwrap().iter().find(|c| c["trunk"] == "acme-waw-1").unwrap();
    assert_eq!(passed["verdict"], "node_down", "{told}");
    for query in ["to=48221234567", "to=%2B48221234567&form=x", ""] {
        explain(query).await.is_problem(400, "malformed");
    }
}
