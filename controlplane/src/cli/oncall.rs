//! `hook list|create|show|delete`, `incident list|show|ack|resolve`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    client::{Door, Failure},
    commands::{Done, encoded_name, show, show_list},
    table::{cell, table},
};

/// Where alerts come in.
#[derive(Debug, Subcommand)]
pub(super) enum HookCommand {
    /// One line each.
    List,
    /// Makes one, and prints where to post.
    Create(CreateArgs),
    /// All that is set, as JSON.
    Show {
        /// Its id.
        id: String,
    },
    /// Removes one: what came in by it is resolved.
    Delete {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// In your words, as "Night shift".
    name: String,
    /// Whom to phone, in this order (repeatable), as +48221234567.
    #[arg(long, value_name = "NUMBER", required_unless_present = "file")]
    to: Vec<String>,
    /// The caller id to present.
    #[arg(long, value_name = "NUMBER")]
    from: Option<String>,
    /// How often the list is gone through, 1 to 5.
    #[arg(long)]
    rounds: Option<u8>,
    /// Only alerts with one of these values, as severity=page,critical (repeatable).
    #[arg(long, value_name = "LABEL=VALUES")]
    only: Vec<String>,
    /// What is said of an alert, as "{{/annotations/summary}}".
    #[arg(long, value_name = "TEMPLATE")]
    say: Option<String>,
    /// Which voice, as en or pl.
    #[arg(long)]
    language: Option<String>,
    /// Takes what anything posts as JSON; --file has `json`, which says where to look.
    #[arg(long, requires = "say")]
    json_kind: bool,
    /// More members as JSON, as the API has them; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl CreateArgs {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = match &self.file {
            Some(file) => read(file)?,
            None => Map::new(),
        };
        let mut set = |member: &str, value: Value| body.insert(member.to_owned(), value);
        set("name", self.name.as_str().into());
        if !self.to.is_empty() {
            set("to", json!(self.to));
        }
        if let Some(from) = &self.from {
            set("from", from.as_str().into());
        }
        if let Some(rounds) = self.rounds {
            set("rounds", rounds.into());
        }
        if !self.only.is_empty() {
            let mut only = Map::new();
            for pair in &self.only {
                let wrong = || Failure::usage(format!("{pair}: write LABEL=VALUE, as severity=page"));
                let (label, values) = pair.split_once('=').ok_or_else(wrong)?;
                only.insert(label.to_owned(), values.split(',').collect());
            }
            set("only", only.into());
        }
        let kind = if self.json_kind { "json" } else { "alertmanager" };
        body.entry("kind").or_insert_with(|| kind.into());
        let speech = [("alert", &self.say), ("language", &self.language)];
        for (member, value) in
            speech.into_iter().filter_map(|(member, value)| Some((member, value.as_ref()?)))
        {
            let speech = body.entry("speech").or_insert_with(|| json!({}));
            speech[member] = value.as_str().into();
        }
        Ok(body.into())
    }
}

fn read(file: &PathBuf) -> Result<Map<String, Value>, Failure> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failure::local(format!("{}: {error}", file.display())))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

fn at(id: &str) -> String {
    format!("/admin/v1/hooks/{}", encoded_name(id))
}

pub(super) async fn hook(door: &Door, command: &HookCommand) -> Done {
    match command {
        HookCommand::List => {
            let list = door.get("/admin/v1/hooks").await?;
            let header = ["ID", "NAME", "KIND", "TO", "ROUNDS", "CREATED"];
            let members = ["id", "name", "kind", "to", "rounds", "created_at"];
            show_list(
                door,
                &list,
                &header,
                &members,
                "No hooks. Make one: ringward hook create NAME --to +48221234567",
            );
        }
        HookCommand::Create(args) => {
            let made = door.post("/admin/v1/hooks", &args.body()?).await?;
            show(door, &made, || format!("{} takes alerts at {}\n", cell(&made, "id"), cell(&made, "path")));
        }
        HookCommand::Show { id } => {
            let hook = door.get(&at(id)).await?;
            show(door, &hook, || format!("{hook:#}\n"));
        }
        HookCommand::Delete { id } => {
            let gone = door.delete(&at(id)).await?;
            show(door, &gone, || format!("{id} is removed, and what came in by it is resolved.\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What alerts have become.
#[derive(Debug, Subcommand)]
pub(super) enum IncidentCommand {
    /// Of all organisations, newest first.
    List {
        /// Only those that are escalating, acknowledged, unanswered or resolved.
        #[arg(long)]
        status: Option<String>,
        /// Only those that are not resolved.
        #[arg(long)]
        open: bool,
        /// How many, 1 to 100.
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// One with its alerts, and who was phoned.
    Show {
        /// Its id.
        id: String,
    },
    /// Takes note of it: nobody else is phoned.
    Ack {
        /// Its id.
        id: String,
    },
    /// Closes it.
    Resolve {
        /// Its id.
        id: String,
    },
}

fn incident_text(incident: &Value) -> String {
    let mut text = format!(
        "{}  {}  {}\nopened {}\n",
        cell(incident, "id"),
        cell(incident, "status"),
        cell(incident, "name"),
        cell(incident, "opened_at")
    );
    for (word, at, by) in
        [("acknowledged", "acknowledged_at", "acknowledged_by"), ("resolved", "resolved_at", "resolved_by")]
    {
        if incident[at].is_string() {
            text += &format!("{word} {} by {}\n", cell(incident, at), cell(incident, by));
        }
    }
    for alert in incident["alerts"].as_array().into_iter().flatten() {
        let over = if alert["firing"] == true { "" } else { " (over)" };
        text += &format!("  {}{over}\n", cell(alert, "text"));
    }
    let members = ["round", "to", "result", "problem", "call", "started_at"];
    let steps = incident["steps"].as_array().into_iter().flatten();
    let rows = steps.map(|step| members.iter().map(|member| cell(step, member)).collect());
    text + &table(&["ROUND", "TO", "RESULT", "PROBLEM", "CALL", "AT"], rows)
}

pub(super) async fn incident(door: &Door, command: &IncidentCommand) -> Done {
    let (id, verb) = match command {
        IncidentCommand::List { status, open, limit } => {
            let mut path = format!("/admin/v1/incidents?limit={limit}");
            if let Some(status) = status {
                path += &format!("&status={}", encoded_name(status));
            }
            if *open {
                path += "&open=true";
            }
            let list = door.get(&path).await?;
            let header = ["ID", "NAME", "STATUS", "ALERTS", "OPENED", "TAKEN BY"];
            let members = ["id", "name", "status", "alerts_seen", "opened_at", "acknowledged_by"];
            show_list(door, &list, &header, &members, "No such incident.");
            return Ok(ExitCode::SUCCESS);
        }
        IncidentCommand::Show { id } => {
            let incident = door.get(&format!("/admin/v1/incidents/{}", encoded_name(id))).await?;
            show(door, &incident, || incident_text(&incident));
            return Ok(ExitCode::SUCCESS);
        }
        IncidentCommand::Ack { id } => (id, "acknowledge"),
        IncidentCommand::Resolve { id } => (id, "resolve"),
    };
    let path = format!("/admin/v1/incidents/{}/{verb}", encoded_name(id));
    let incident = door.post(&path, &json!({})).await?;
    show(door, &incident, || format!("{id} is {}.\n", cell(&incident, "status")));
    Ok(ExitCode::SUCCESS)
}
