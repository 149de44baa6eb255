//! `trunk why|disable|enable|canary`, `node why|drain|undrain`.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    client::{Door, Failure},
    commands::{Done, encoded_name, show},
    table::{cell, rows, table},
};

/// Between two looks at whether a canary has ended.
const CANARY_LOOK: Duration = Duration::from_millis(250);
/// Longer than a canary lasts.
const CANARY_MAX: Duration = Duration::from_secs(60);

fn spoken(ms: &Value) -> String {
    match ms.as_u64().unwrap_or(0) / 1_000 {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}

/// How it came to this, the latest first.
fn history(answer: &Value) -> String {
    let changes: Vec<Value> = (answer["history"].as_array().into_iter().flatten())
        .map(|change| {
            json!({
                "ago": format!("{} ago", spoken(&change["ago_ms"])),
                "change": format!("{} → {}", cell(change, "from"), cell(change, "to")),
                "why": change["sentence"],
            })
        })
        .collect();
    if changes.is_empty() {
        return String::new();
    }
    let list = json!({"data": changes});
    format!("\n{}", table(&["WHEN", "CHANGE", "WHY"], rows(&list, &["ago", "change", "why"])))
}

fn fact(name: &str, value: &str) -> String {
    format!("  {name:<14} {value}\n")
}

/// An operator's hold: since when, and why.
fn hold(of: &Value) -> String {
    if of["hold"].is_null() {
        return String::new();
    }
    let hold = &of["hold"];
    let reason = hold["reason"].as_str().unwrap_or("no reason given");
    fact("held", &format!("by an operator since {}: {reason}", cell(hold, "since")))
}

fn tally(answer: &Value, member: &str) -> String {
    format!("{} of {}", cell(&answer[member], "failed"), cell(&answer[member], "calls"))
}

fn trunk(answer: &Value) -> String {
    let mut text = format!("{}: {}\n", cell(answer, "trunk"), cell(answer, "sentence"));
    let place = format!(
        "endpoint {} on {}, carrier {}",
        cell(answer, "endpoint"),
        cell(answer, "node"),
        cell(answer, "carrier")
    );
    text += &fact("is", &place);
    let standing = cell(answer, "standing");
    let takes = match standing.as_str() {
        "preferred" => "takes new calls".to_owned(),
        "reserve" => "takes new calls after others of its tier".to_owned(),
        why => format!("takes no new call: {why}"),
    };
    text += &fact("calls", &takes);
    text += &hold(answer);
    if answer["cause"].is_string() {
        text += &fact("cause", &cell(answer, "cause"));
    }
    let strains: Vec<&str> =
        answer["strains"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !strains.is_empty() {
        text += &fact("strains", &strains.join(", "));
    }
    if let Some(finding) = answer["finding"].as_str() {
        text += &fact("finding", finding);
    }
    if answer["node_health"]["state"] != "alive" || answer["node_health"]["draining"] == true {
        text += &fact("node", &cell(&answer["node_health"], "sentence"));
        text += &hold(&answer["node_health"]);
    }
    if answer["contact"].is_string() {
        let rtt = answer["qualify_rtt_us"].as_u64();
        let rtt = rtt.map_or_else(String::new, |us| format!(", {}.{} ms", us / 1_000, us % 1_000 / 100));
        text += &fact("contact", &format!("{}{rtt}", cell(answer, "contact")));
    }
    if answer["registration"].is_string() {
        text += &fact("registration", &cell(answer, "registration"));
    }
    text += &fact("not through", &format!("{} recent calls", tally(answer, "not_through")));
    text += &fact("not answered", &format!("{} recent calls", tally(answer, "not_answered")));
    if answer["last_canary"].is_object() {
        let last = &answer["last_canary"];
        text += &fact("canary", &format!("{}: {}", cell(last, "started_at"), canary_told(&last["ended"])));
    }
    if answer["back_off_level"].as_u64().is_some_and(|level| level > 0) {
        let level = format!("{} (level {})", spoken(&answer["back_off_ms"]), cell(answer, "back_off_level"));
        text += &fact("back-off", &level);
    }
    for suspension in answer["suspensions"].as_array().into_iter().flatten() {
        let scope = suspension["scope"].as_object().into_iter().flatten().next();
        let scope =
            scope.map_or_else(String::new, |(kind, of)| format!("{kind} {}", of.as_str().unwrap_or("")));
        let failures = cell(suspension, "failures");
        let ends = spoken(&suspension["ends_in_ms"]);
        text += &fact("spared for", &format!("{scope}, for {ends} more, after {failures} failures"));
    }
    text + &history(answer)
}

pub(super) async fn trunk_why(door: &Door, name: &str) -> Done {
    let answer = door.get_of("trunks", name, &format!("/admin/v1/trunks/{}/why", encoded_name(name))).await?;
    show(door, &answer, || trunk(&answer));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn node_why(door: &Door, name: &str) -> Done {
    let answer = door.get_of("nodes", name, &format!("/admin/v1/nodes/{}/why", encoded_name(name))).await?;
    show(door, &answer, || {
        let head = format!("{}: {}\n", cell(&answer, "node"), cell(&answer, "sentence"));
        head + &hold(&answer) + &history(&answer)
    });
    Ok(ExitCode::SUCCESS)
}

/// `word`: disable, enable, drain or undrain.
pub(super) async fn set_hold(door: &Door, nouns: &str, name: &str, word: &str, reason: Option<&str>) -> Done {
    let body = reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    let path = format!("/admin/v1/{nouns}/{}/{word}", encoded_name(name));
    let answer = door.post_to(nouns, name, &path, &body).await?;
    let is = match word {
        "disable" => "takes no new call",
        "drain" => "takes no new call; those under way go on to their end",
        "enable" => "is enabled; it takes calls as its health allows",
        _ => "takes calls again",
    };
    show(door, &answer, || {
        let already = if answer["changed"] == false { " (nothing changed: it was so before)" } else { "" };
        format!("{name} {is}{already}.\n")
    });
    Ok(ExitCode::SUCCESS)
}

fn canary_told(ended: &Value) -> String {
    if ended.is_null() {
        return "under way".to_owned();
    }
    let met = if ended["as_expected"] == true { "as expected" } else { "not as expected" };
    let sip = ended["sip_code"].as_u64().map_or_else(String::new, |code| format!(" (SIP {code})"));
    format!("{met}: {}{sip}", cell(ended, "ending"))
}

/// Places a canary, and tells what came of it.
pub(super) async fn canary(door: &Door, name: &str) -> Done {
    let path = format!("/admin/v1/trunks/{}/canary", encoded_name(name));
    let placed = door.post_to("trunks", name, &path, &json!({})).await?;
    let late = Instant::now() + CANARY_MAX;
    loop {
        let why = door.get(&format!("/admin/v1/trunks/{}/why", encoded_name(name))).await?;
        let last = &why["last_canary"];
        if last["attempt"] == placed["attempt"] && !last["ended"].is_null() {
            show(door, last, || format!("{name}: the canary is {}\n", canary_told(&last["ended"])));
            let is_well = last["ended"]["as_expected"] == true;
            return Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        if last["attempt"] != placed["attempt"] || Instant::now() >= late {
            return Err(Failure::local(format!(
                "the canary left over {name}, and what came of it is not known here\n  See `ringward trunk why {name}`."
            )));
        }
        sleep(CANARY_LOOK).await;
    }
}
