//! `replicas`: the control planes that share one database.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    client::Door,
    commands::{Done, show},
    table::{cell, rows, table},
};

fn is(replica: &Value, what: &str) -> bool {
    replica[what] == true
}

fn all(list: &Value) -> impl Iterator<Item = &Value> {
    list["data"].as_array().into_iter().flatten()
}

fn since(ms: &Value) -> String {
    match ms.as_u64().unwrap_or(0) {
        ms @ 0..=9_999 => format!("{ms} ms"),
        ms @ 10_000..=119_999 => format!("{} s", ms / 1_000),
        ms @ 120_000..=7_199_999 => format!("{} min", ms / 60_000),
        ms => format!("{} h", ms / 3_600_000),
    }
}

/// How many live, and who leads; empty where one control plane has the database to itself.
pub(super) fn line(list: &Value) -> String {
    if !is(list, "enabled") {
        return String::new();
    }
    let alive = all(list).filter(|replica| is(replica, "alive")).count();
    let leader = all(list).find(|replica| is(replica, "leads"));
    let leads = leader
        .map_or_else(|| "nobody leads".to_owned(), |replica| format!("{} leads", cell(replica, "name")));
    // Of the dead only what they have left is of interest.
    let left =
        all(list).filter(|replica| !is(replica, "alive")).filter_map(|replica| replica["calls"].as_u64());
    let left = match left.sum::<u64>() {
        0 => String::new(),
        calls => format!(", {calls} calls of dead ones wait to be claimed"),
    };
    format!("Replicas {alive} alive, {leads}{left}\n")
}

fn text(list: &Value) -> String {
    if !is(list, "enabled") {
        return "This control plane has its database to itself: replicas.enabled is off.\n".to_owned();
    }
    let shown: Vec<Value> = all(list)
        .map(|replica| {
            let state = if is(replica, "alive") { "alive" } else { "dead" };
            let does = match (is(replica, "leads"), is(replica, "is_this")) {
                (true, true) => "leads, answers this",
                (true, false) => "leads",
                (false, true) => "answers this",
                (false, false) => "",
            };
            json!({
                "name": replica["name"], "id": replica["id"], "state": state, "started_at": replica["started_at"],
                "sign": format!("{} ago", since(&replica["sign_age_ms"])), "calls": replica["calls"], "does": does,
            })
        })
        .collect();
    let list = json!({"data": shown});
    let header = ["NAME", "ID", "STATE", "STARTED", "LAST SIGN", "CALLS", ""];
    table(&header, rows(&list, &["name", "id", "state", "started_at", "sign", "calls", "does"]))
}

/// Exit code 1: nobody leads, so that nothing is done that only one may do.
pub(super) async fn replicas(door: &Door) -> Done {
    let list = door.get("/admin/v1/replicas").await?;
    show(door, &list, || text(&list));
    let is_led = !is(&list, "enabled") || all(&list).any(|replica| is(replica, "leads"));
    Ok(if is_led { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str, alive: bool, leads: bool, sign_age_ms: u64, calls: u64) -> Value {
        json!({
            "name": name, "id": format!("rep_{name}"), "is_this": leads, "started_at": "2026-11-24T12:00:00Z",
            "alive": alive, "leads": leads, "sign_age_ms": sign_age_ms, "calls": calls,
        })
    }

    #[test]
    fn who_lives_who_leads_and_what_the_dead_have_left() {
        let mut list = json!({"enabled": true, "data": [
            replica("cp-1", true, true, 210, 7), replica("cp-2", true, false, 90, 0), replica("cp-3", false, false, 125_000, 2),
        ]});
        assert_eq!(line(&list), "Replicas 2 alive, cp-1 leads, 2 calls of dead ones wait to be claimed\n");
        let lines = text(&list);
        let lines: Vec<&str> = lines.lines().collect();
        assert!(lines[1].contains("alive") && lines[1].ends_with("leads, answers this"), "{lines:?}");
        assert!(lines[1].contains("210 ms ago") && lines[3].contains("dead"), "{lines:?}");
        assert!(lines[3].contains("2 min ago"), "{lines:?}");
        list["data"] = json!([replica("cp-2", true, false, 90, 0)]);
        assert_eq!(line(&list), "Replicas 1 alive, nobody leads\n");
        assert_eq!(line(&json!({"enabled": false, "data": []})), "");
    }
}
