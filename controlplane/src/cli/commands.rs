//! What each command asks of the door, and how its answer looks to a person.

use std::{io::Read, path::Path, process::ExitCode, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    BootstrapArgs, CallListArgs, PlaceArgs,
    client::{Door, Failure},
    keys::org_id,
    table::{cell, rows, table},
};
use crate::{bootstrap, settings::Settings};

/// Between two looks at a call that is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// A node's finding that an agent tells of too.
const DIALPLAN_TOO_OLD: &str = "dialplan_too_old";
/// Findings of a node that `status` names; `node show` has all.
const FINDINGS_MAX: usize = 5;

pub(super) type Done = Result<ExitCode, Failure>;

/// Prints the answer as JSON, or as `people` want it.
pub(super) fn show(door: &Door, answer: &Value, people: impl FnOnce() -> String) {
    if let Some(screen) = door.screen() {
        let text = if door.json { format!("{answer}\n") } else { people() };
        if !screen.put(&text, door.json) {
            door.end();
        }
    } else if door.json {
        println!("{answer:#}");
    } else {
        print!("{}", people());
    }
}

/// A list as a table, or a sentence with the next command where it is empty.
pub(super) fn show_list(door: &Door, list: &Value, header: &[&str], members: &[&str], empty: &str) {
    show(door, list, || {
        if list["data"].as_array().is_none_or(Vec::is_empty) {
            format!("{empty}\n")
        } else {
            table(header, rows(list, members))
        }
    });
}

pub(super) async fn bootstrap(door: &Door, args: &BootstrapArgs) -> Done {
    let data_dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => {
            Settings::load(args.config.as_deref())
                .map_err(|error| Failure::usage(error.to_string()))?
                .data_dir
        }
    };
    let token = bootstrap::read(&data_dir).map_err(|error| {
        Failure::local(format!(
            "{error}\n  `ringward serve` writes it into its data directory. Name that with --data-dir or \
             RINGWARD_DATA_DIR, and run this as its user."
        ))
    })?;
    let key = door.post("/admin/v1/bootstrap", &json!({"token": token, "force": args.force})).await?;
    show(door, &key, || {
        format!(
            "An operator key. It is shown this once:\n\n  export RINGWARD_OPERATOR_KEY={}\n\nNext: ringward apply -f fleet.toml\n",
            cell(&key, "secret")
        )
    });
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(door: &Door) -> Done {
    let nodes = door.get("/admin/v1/nodes").await?;
    let trunks = door.get("/admin/v1/trunks").await?;
    let routes = door.get("/admin/v1/routes").await?;
    let agents = door.get("/admin/v1/agents").await?;
    let calls = door.get("/admin/v1/calls?limit=10").await?;
    // Whoever may only look is not told of it.
    let held = door.get("/admin/v1/held").await.unwrap_or_default();
    // An older control plane knows of none.
    let replicas = door.get("/admin/v1/replicas").await.unwrap_or_default();
    let all = json!({
        "nodes": nodes["data"], "trunks": trunks["data"], "routes": routes["data"], "agents": agents["data"],
        "calls": calls["data"], "held": held["data"], "replicas": replicas["data"],
    });
    show(door, &all, || {
        let (lost, refused) = (but(&nodes, is_alive), but(&trunks, is_usable));
        let count = |list: &Value| list["data"].as_array().map_or(0, Vec::len);
        let mut text = format!(
            "Nodes {} of {} alive, trunks {} of {} usable\n",
            count(&nodes) - lost.len(),
            count(&nodes),
            count(&trunks) - refused.len(),
            count(&trunks)
        );
        text.push_str(&super::replicas::line(&replicas));
        if count(&held) > 0 {
            text.push_str(&format!(
                "  {} calls and incidents are held since a backup was restored: `ringward held list`\n",
                count(&held)
            ));
        }
        for panic in but(&routes, |route| route["panic_for_ms"].is_null()) {
            text.push_str(&format!(
                "  PANIC on route {}: too few trunks are held to work, so calls are tried over all of them\n",
                cell(&panic, "prefix")
            ));
        }
        for node in but(&nodes, |node| node["draining"] != true) {
            text.push_str(&format!("  {} draining: an operator drains it\n", cell(&node, "name")));
        }
        for agent in agents["data"].as_array().into_iter().flatten() {
            for line in super::agents::findings(agent).iter().take(FINDINGS_MAX) {
                text.push_str(&format!("  {} finding {line}\n", cell(agent, "node")));
            }
        }
        let strained = but(&trunks, |trunk| !is_usable(trunk) || trunk["state"] == "healthy");
        let is_told = |node: &Value| {
            let mut of =
                agents["data"].as_array().into_iter().flatten().filter(|agent| agent["node"] == node["name"]);
            of.any(|agent| {
                super::agents::findings(agent).iter().any(|line| line.starts_with(DIALPLAN_TOO_OLD))
            })
        };
        for node in but(&nodes, |node| node["finding"].is_null() || is_told(node)) {
            let (name, fix) = (cell(&node, "name"), cell(&node, "finding"));
            text.push_str(&format!("  {name} finding {DIALPLAN_TOO_OLD}: {fix}\n"));
        }
        for item in lost.iter().chain(&refused).chain(&strained) {
            text.push_str(&format!(
                "  {} {}: {}\n",
                cell(item, "name"),
                cell(item, "state"),
                cell(item, "reason")
            ));
        }
        if count(&nodes) == 0 {
            text.push_str("No fleet is declared. Next: ringward apply -f fleet.toml\n");
        }
        text
    });
    let well = but(&nodes, is_alive).is_empty() && but(&trunks, is_usable).is_empty();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn is_alive(node: &Value) -> bool {
    node["state"] == "alive"
}

fn is_usable(trunk: &Value) -> bool {
    trunk["usable"] == true
}

/// The items of a list that are not as they should be.
fn but(list: &Value, good: impl Fn(&Value) -> bool) -> Vec<Value> {
    list["data"].as_array().into_iter().flatten().filter(|item| !good(item)).cloned().collect()
}

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(failed)
}

fn changes(answer: &Value) -> String {
    let lines = |member: &str| -> Vec<String> {
        answer[member]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|l| l.as_str().map(str::to_owned))
            .collect()
    };
    let mut text: String = lines("changes").iter().map(|line| format!("{line}\n")).collect();
    let kept = lines("kept");
    if !kept.is_empty() {
        text.push_str("Kept, although the file lacks it (--prune removes it):\n");
        kept.iter().for_each(|line| text.push_str(&format!("  {}\n", line.trim_start_matches("- "))));
    }
    text
}

async fn offer(door: &Door, file: &Path, prune: bool, dry_run: bool) -> Result<Value, Failure> {
    let text = read(file)?;
    let in_force = door.get("/admin/v1/fleet").await?;
    let revision = in_force["revision"].as_i64().unwrap_or(0);
    let path = format!("/admin/v1/fleet?expected_revision={revision}&prune={prune}&dry_run={dry_run}");
    door.post_text(&path, text).await
}

pub(super) async fn apply(door: &Door, file: &Path, prune: bool, dry_run: bool) -> Done {
    let answer = offer(door, file, prune, dry_run).await?;
    show(door, &answer, || {
        let revision = cell(&answer, "revision");
        match (answer["changes"].as_array().is_none_or(Vec::is_empty), dry_run) {
            (true, _) => format!("{}Nothing to change: revision {revision} is in force.\n", changes(&answer)),
            (false, true) => format!("{}Dry run: nothing was changed.\n", changes(&answer)),
            (false, false) => format!("{}Revision {revision} is in force.\n", changes(&answer)),
        }
    });
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn diff(door: &Door, file: &Path, prune: bool) -> Done {
    let answer = offer(door, file, prune, true).await?;
    show(door, &answer, || changes(&answer));
    let differs = answer["changes"].as_array().is_some_and(|changes| !changes.is_empty());
    Ok(if differs { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

pub(super) async fn nodes(door: &Door) -> Done {
    let list = door.get("/admin/v1/nodes").await?;
    let header = ["NODE", "REGION", "STATE", "DRAINING", "SINCE", "AMI RTT MS", "TAMPERING", "REASON"];
    let members = ["name", "region", "state", "draining", "since", "ami_rtt_ms", "tampering", "reason"];
    show_list(door, &list, &header, &members, "No node is declared. Next: ringward apply -f fleet.toml");
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn trunks(door: &Door) -> Done {
    let list = door.get("/admin/v1/trunks").await?;
    let header = ["TRUNK", "NODE", "CARRIER", "STATE", "USABLE", "CHANNELS", "MAX", "RTT MS", "REASON"];
    let members = [
        "name",
        "node",
        "carrier",
        "state",
        "usable",
        "channels",
        "channels_max",
        "qualify_rtt_ms",
        "reason",
    ];
    show_list(door, &list, &header, &members, "No trunk is declared. Next: ringward apply -f fleet.toml");
    Ok(ExitCode::SUCCESS)
}

/// A number or a text for a query string: its plus must not become a space.
pub(super) fn encoded(number: &str) -> String {
    number
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

pub(super) async fn explain(door: &Door, number: &str) -> Done {
    let answer = door.get(&format!("/admin/v1/routes/explain?to={}", encoded(number))).await?;
    show(door, &answer, || {
        let considered = json!({"data": answer["considered"]});
        let head = match answer["trunk"].as_str() {
            Some(trunk) => format!("{number} would go by {trunk} (route {})\n", cell(&answer, "route")),
            None => format!("{number} would not be dialled now: {}\n", cell(&answer, "choice")),
        };
        let panic = if answer["panic"] == true {
            "Panic: too few trunks are held to work, so the others are tried too, as a last resort.\n"
        } else {
            ""
        };
        head + panic + &table(&["TIER", "TRUNK", "VERDICT"], rows(&considered, &["tier", "trunk", "verdict"]))
    });
    Ok(if answer["trunk"].is_string() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A call and its attempts.
fn call(answer: &Value) -> String {
    let mut text = format!(
        "{}  {}  {}{}{}\n",
        cell(answer, "id"),
        cell(answer, "to"),
        cell(answer, "status"),
        answer["reason"].as_str().map_or_else(String::new, |r| format!(" ({r})")),
        answer["outcome"].as_str().map_or_else(String::new, |o| format!(", outcome {o}")),
    );
    let attempts = json!({"data": answer["attempts"]});
    if answer["attempts"].as_array().is_some_and(|a| !a.is_empty()) {
        let header = ["NODE", "TRUNK", "CARRIER", "STATUS", "ENDING", "SIP", "RANG", "KEY", "STARTED"];
        let members =
            ["node", "trunk", "carrier", "status", "reason", "sip_code", "rang", "key", "started_at"];
        text.push_str(&table(&header, rows(&attempts, &members)));
    }
    text
}

pub(super) async fn place(door: &Door, args: &PlaceArgs) -> Done {
    let message = match (&args.text, &args.language) {
        (Some(text), Some(language)) => json!({"text": text, "language": language}),
        (Some(text), None) => json!({"text": text}),
        (None, _) => json!({"audio_id": args.audio}),
    };
    let mut body = json!({
        "to": args.to, "message": message, "on_unknown": args.on_unknown,
        "ring_timeout_s": args.ring_timeout,
    });
    if args.acknowledge {
        body["acknowledgement"] = json!({});
    }
    if let Some(from) = &args.from {
        body["from"] = from.as_str().into();
    }
    let mut answer = door.post("/admin/v1/calls", &body).await?;
    if args.no_wait {
        show(door, &answer, || call(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let path = format!("/admin/v1/calls/{}", cell(&answer, "id"));
    let mut seen = Value::Null;
    loop {
        if answer["status"] != seen && !door.json {
            eprintln!("{}", cell(&answer, "status"));
            seen = answer["status"].clone();
        }
        if answer["ended_at"].is_string() {
            break;
        }
        sleep(FOLLOW_EVERY).await;
        answer = door.get(&path).await?;
    }
    show(door, &answer, || call(&answer));
    Ok(if answer["status"] == "completed" { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(super) async fn show_call(door: &Door, id: &str) -> Done {
    let answer = door.get(&format!("/admin/v1/calls/{}", encoded_id(id))).await?;
    show(door, &answer, || call(&answer));
    if answer["ended_at"].is_string() {
        door.end();
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn calls(door: &Door, args: &CallListArgs) -> Done {
    let org = match &args.org {
        Some(named) => Some(org_id(door, named).await?),
        None => None,
    };
    let mut path = format!("/admin/v1/calls?limit={}", args.limit);
    for (name, value) in [
        ("to", &args.to),
        ("metadata", &args.metadata),
        ("status", &args.status),
        ("org", &org),
        ("starting_after", &args.after),
    ] {
        path += &value.as_ref().map_or_else(String::new, |text| format!("&{name}={}", encoded_name(text)));
    }
    let list = door.get(&path).await?;
    let header = ["CALL", "TO", "STATUS", "REASON", "OUTCOME", "CREATED"];
    let members = ["id", "to", "status", "reason", "outcome", "created_at"];
    let is_search =
        args.to.is_some() || args.metadata.is_some() || args.status.is_some() || args.org.is_some();
    let empty = if is_search || args.after.is_some() {
        "No such call."
    } else {
        "No calls yet. Next: ringward call place +48221234567"
    };
    show_list(door, &list, &header, &members, empty);
    let is_once = !door.json && door.screen().is_none();
    if let Some(next) = list["next"].as_str().filter(|_| is_once) {
        eprintln!("There may be older ones: ringward call list … --after {next}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn cancel(door: &Door, id: &str) -> Done {
    let answer = door.post(&format!("/admin/v1/calls/{}/cancel", encoded_id(id)), &json!({})).await?;
    show(door, &answer, || call(&answer));
    Ok(ExitCode::SUCCESS)
}

/// A name as a path's part.
pub(super) fn encoded_name(name: &str) -> String {
    name.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.') {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// An id as a path's part: what is no id must not become another path.
pub(super) fn encoded_id(id: &str) -> String {
    id.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b == b'_' {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
