//! Commands on nodes' agents: `node token`, `node revoke`, `node show`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    client::Door,
    commands::{Done, encoded_name, show},
    table::cell,
};

pub(super) async fn token(door: &Door, name: &str, urls: &[String]) -> Done {
    let body = if urls.is_empty() { json!({}) } else { json!({"urls": urls}) };
    let token =
        door.post_to("nodes", name, &format!("/admin/v1/nodes/{}/token", encoded_name(name)), &body).await?;
    // Only the command on stdout, so that it can be piped to the node.
    show(door, &token, || format!("{}\n", cell(&token, "command")));
    if !door.json {
        eprintln!("Run it on the node as root, within an hour. It can be used once.");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn revoke(door: &Door, name: &str) -> Done {
    let answer = door
        .post_to("nodes", name, &format!("/admin/v1/nodes/{}/revoke", encoded_name(name)), &json!({}))
        .await?;
    show(door, &answer, || {
        format!(
            "{} is revoked: its link is cut, certificates refused from now on: {}.\n",
            cell(&answer, "node"),
            cell(&answer, "certificates")
        )
    });
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show_agent(door: &Door, name: &str) -> Done {
    let agent = door.get_of("nodes", name, &format!("/admin/v1/nodes/{}/agent", encoded_name(name))).await?;
    show(door, &agent, || lines(&agent));
    Ok(ExitCode::SUCCESS)
}

/// What is amiss with a node's trunks, a line each.
pub(super) fn findings(agent: &Value) -> Vec<String> {
    let line = |finding: &Value| {
        format!("{} {}: {}", cell(finding, "finding"), cell(finding, "subject"), cell(finding, "fix"))
    };
    agent["findings"].as_array().into_iter().flatten().map(line).collect()
}

fn lines(agent: &Value) -> String {
    let linked = if agent["linked"] == true { "linked" } else { "not linked" };
    let mut text = format!("{}  {linked}\n", cell(agent, "node"));
    let members = [
        ("agent", "agent_version"),
        ("lacking", "lacking"),
        ("observed ms ago", "observed_ms_ago"),
        ("clock off by ms", "clock_offset_ms"),
        ("certificate ends", "certificate_expires_at"),
        ("policy", "policy_revision"),
    ];
    for (label, member) in members {
        if !agent[member].is_null() {
            text.push_str(&format!("  {label}: {}\n", cell(agent, member)));
        }
    }
    let firewall = &agent["firewall"];
    if !firewall.is_null() {
        let left = firewall["reverts_in_ms"].as_u64();
        let left = left.map_or_else(String::new, |ms| format!(", reverts in {} s", ms / 1_000));
        text.push_str(&format!(
            "  firewall: {} {}{left}\n",
            cell(firewall, "state"),
            cell(firewall, "reason")
        ));
        for line in firewall["plan"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    for line in findings(agent) {
        text.push_str(&format!("  finding {line}\n"));
    }
    let seen = &agent["observations"];
    for endpoint in seen["endpoints"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "  endpoint {}: {} channels, registration {}\n",
            cell(endpoint, "endpoint"),
            endpoint["channels"],
            endpoint["registration"]["status"].as_str().unwrap_or("none")
        ));
        for contact in endpoint["contacts"].as_array().into_iter().flatten() {
            text.push_str(&format!(
                "    {} {} {} µs\n",
                cell(contact, "uri"),
                cell(contact, "status"),
                contact["qualify_rtt_us"]
            ));
        }
    }
    for fact in agent["facts"].as_array().into_iter().flatten() {
        text.push_str(&format!("  fact {} {}\n", cell(fact, "kind"), fact["body"]));
    }
    text
}
