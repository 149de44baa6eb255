//! What operators do for customers: organisations, keys, policies and limits.

use crate::Server;

#[test]
fn organisations_and_keys_are_made_listed_rotated_and_ended() {
    let server = Server::start();
    let (_, stdout, _) = server.ask("", &["bootstrap", "--json"]);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let key = json(&stdout)["secret"].as_str().unwrap().to_owned();
    let ask = |arguments: &[&str]| server.ask(&key, arguments);
    let (code, stdout, stderr) = ask(&["org", "create", "acme", "--name", "Acme GmbH"]);
    assert!(code == Some(0) && stdout.contains("Acme GmbH"), "{stdout}{stderr}");
    assert_eq!(ask(&["org", "create", "acme"]).0, Some(6));
    assert_eq!(ask(&["org", "show", "nobody"]).0, Some(5));
    assert!(ask(&["org", "rename", "acme", "Acme AG"]).1.contains("Acme AG"));
    assert!(ask(&["org", "list"]).1.contains("Acme AG"));
    let create =
        ["key", "create", "--name", "pager", "--org", "acme", "--test", "--scope", "calls:read", "--json"];
    let made = json(&ask(&create).1);
    assert!(made["secret"].as_str().unwrap().starts_with("rw_test_"), "{made}");
    let id = made["id"].as_str().unwrap();
    let rotated = json(&ask(&["key", "rotate", id, "--overlap", "60", "--json"]).1);
    assert_eq!(rotated["rotated_from"], made["id"]);
    let listed = json(&ask(&["key", "list", "--org", "acme", "--json"]).1);
    assert_eq!(listed["data"].as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(ask(&["key", "revoke", id]).0, Some(0));
    assert_eq!(ask(&["key", "revoke", id]).0, Some(5));
    assert!(ask(&["org", "suspend", "acme"]).1.contains("acme"));
    assert_eq!(ask(&["org", "resume", "acme"]).0, Some(0));
    // A viewer reads, and is told what it would take.
    let create = ["key", "create", "--name", "wallboard", "--operator", "--role", "viewer", "--json"];
    let viewer = json(&ask(&create).1)["secret"].as_str().unwrap().to_owned();
    assert_eq!(server.ask(&viewer, &["node", "list"]).0, Some(0));
    let (code, _, stderr) = server.ask(&viewer, &["key", "create", "--name", "x"]);
    assert!(code == Some(4) && stderr.contains("admin"), "{stderr}");
}

#[test]
fn policies_are_shown_changed_and_explained_and_limits_set() {
    let server = Server::start();
    let (_, stdout, _) = server.ask("", &["bootstrap", "--json"]);
    let key =
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["secret"].as_str().unwrap().to_owned();
    let ask = |arguments: &[&str]| server.ask(&key, arguments);
    assert!(ask(&["policy", "show"]).1.starts_with("Nothing is open: every call is refused."));
    let (code, stdout, _) = ask(&["policy", "explain", "+48221234567"]);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("denied (rule nothing_open)"), "{stdout}");
    let change = [
        "policy",
        "set",
        "--open",
        "PL=fixed",
        "--open",
        "UA",
        "--allow",
        "+48701",
        "--caller-id",
        "+48221110000",
    ];
    let (code, stdout, stderr) = ask(&change);
    assert_eq!(code, Some(0), "{stderr}");
    for line in
        ["PL     fixed\n", "UA     fixed, mobile\n", "+48701           allow\n", "caller ids: +48221110000\n"]
    {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    assert_eq!(ask(&["policy", "explain", "+48221234567", "--from", "+48221110000"]).0, Some(0));
    assert_eq!(ask(&["policy", "explain", "+48501234567"]).0, Some(1));
    let (code, _, stderr) = ask(&["policy", "set", "--open", "XX"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("countries"), "{stderr}");
    assert_eq!(ask(&["policy", "set", "--close", "PL", "--forget", "+48701"]).0, Some(0));
    assert!(!ask(&["policy", "show"]).1.contains("PL"));
    assert_eq!(ask(&["policy", "alarms"]).1, "No alarms since the start of the server.\n");

    assert_eq!(ask(&["limits", "show"]).1, "No limits beyond the server's settings.\n");
    let (code, stdout, stderr) = ask(&["limits", "set", "calls_per_day=1000", "cps_max=5"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("calls_per_day          1000\n"), "{stdout}");
    let (_, stdout, _) = ask(&["limits", "set", "calls_per_day="]);
    assert_eq!(stdout, "cps_max                5\n");
    assert_eq!(ask(&["limits", "set", "cps_max=0"]).0, Some(1));
    assert_eq!(ask(&["limits", "set", "cps_max"]).0, Some(2));
    assert_eq!(ask(&["limits", "show", "--org", "org_0000000000000000000000000z"]).0, Some(5));
    assert_eq!(ask(&["policy", "show", "--org", "nobody"]).0, Some(5));
    assert_eq!(ask(&["org", "create", "acme"]).0, Some(0));
    assert!(ask(&["policy", "set", "--org", "acme", "--open", "DE"]).1.starts_with("DE     fixed, mobile\n"));
    assert!(!ask(&["policy", "show"]).1.contains("DE"), "another organisation's");
    let made = ask(&["key", "create", "--name", "narrow", "--org", "acme", "--json"]).1;
    let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    let (_, stdout, _) = ask(&["limits", "set", "--key", &id, "requests_per_s=3"]);
    assert_eq!(stdout, "requests_per_s         3\n");
    assert_eq!(ask(&["limits", "set", "--key", &id, "--org", "acme", "requests_per_s=3"]).0, Some(2));
    assert_eq!(ask(&["limits", "set", "--org", "org_0000000000000000000000000z", "cps_max=1"]).0, Some(5));
}

#[test]
fn hooks_are_made_listed_shown_and_removed() {
    let server = Server::start();
    let (_, stdout, _) = server.ask("", &["bootstrap", "--json"]);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let key = json(&stdout)["secret"].as_str().unwrap().to_owned();
    let ask = |arguments: &[&str]| server.ask(&key, arguments);
    assert!(ask(&["hook", "list"]).1.starts_with("No hooks."));
    let create = [
        "hook",
        "create",
        "Night shift",
        "--to",
        "+48221234567",
        "--to",
        "+48221234568",
        "--only",
        "severity=page,critical",
        "--say",
        "{{/annotations/summary}}",
        "--rounds",
        "2",
        "--json",
    ];
    let (code, stdout, stderr) = ask(&create);
    assert_eq!(code, Some(0), "{stderr}");
    let made = json(&stdout);
    assert_eq!(made["only"], serde_json::json!({"severity": ["page", "critical"]}));
    assert_eq!((&made["kind"], &made["rounds"]), (&"alertmanager".into(), &2.into()));
    assert_eq!(made["speech"]["alert"], "{{/annotations/summary}}");
    let id = made["id"].as_str().unwrap();
    let (_, stdout, _) =
        ask(&["hook", "create", "Uptime", "--to", "+48221234567", "--json-kind", "--say", "{{/text}}"]);
    assert!(stdout.contains("takes alerts at /v1/hooks/json/hook_"), "{stdout}");
    assert!(ask(&["hook", "list"]).1.contains("Night shift"));
    assert_eq!(json(&ask(&["hook", "show", id]).1)["id"], id);
    let (code, _, stderr) = ask(&["hook", "create", "x", "--to", "112"]);
    assert!(code == Some(1) && stderr.contains("to"), "{stderr}");
    assert_eq!(ask(&["hook", "create", "x", "--to", "+48221234567", "--only", "severity"]).0, Some(2));
    assert_eq!(ask(&["hook", "delete", id]).0, Some(0));
    assert_eq!(ask(&["hook", "delete", id]).0, Some(5));
    assert!(ask(&["incident", "list", "--open"]).1.contains("No such incident."));
    for verb in ["show", "ack", "resolve"] {
        assert_eq!(ask(&["incident", verb, "inc_00000000000000000000000000"]).0, Some(5), "{verb}");
    }
}
