//! `webhook deliveries|replay`.

use std::process::ExitCode;

use serde_json::json;

use super::{
    client::Door,
    commands::{Done, encoded_name, show},
    table::{rows, table},
};

const MEMBERS: [&str; 8] =
    ["event", "type", "endpoint", "state", "tries", "last_status", "last_error", "next_try_at"];
const HEADER: [&str; 8] = ["EVENT", "TYPE", "ENDPOINT", "STATE", "TRIES", "STATUS", "ERROR", "NEXT"];

/// What is delivered where, newest first.
pub(super) async fn deliveries(door: &Door, endpoint: Option<&str>, state: Option<&str>, limit: u16) -> Done {
    let mut path = format!("/admin/v1/webhooks/deliveries?limit={limit}");
    for (name, value) in [("endpoint", endpoint), ("state", state)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", encoded_name(value)));
        }
    }
    let answer = door.get(&path).await?;
    show(door, &answer, || table(&HEADER, rows(&answer, &MEMBERS)));
    Ok(ExitCode::SUCCESS)
}

/// Sends an event again.
pub(super) async fn replay(door: &Door, event: &str, endpoint: &str) -> Done {
    let path = format!("/admin/v1/webhooks/deliveries/{}/replay", encoded_name(event));
    let answer = door.post(&path, &json!({ "endpoint": endpoint })).await?;
    show(door, &answer, || format!("{event} is sent to {endpoint} again.\n"));
    Ok(ExitCode::SUCCESS)
}
