//! `policy show|set|explain`, `limits show|set`, `retention show|set`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    client::{Door, Failure},
    commands::{Done, encoded, encoded_id, show, show_list},
    keys::org_id,
    table::cell,
};

/// What a country opens where no kinds are named: what people have.
const KINDS: [&str; 2] = ["fixed", "mobile"];
/// The organisation that is there from the start, in an address.
const FIRST: &str = "default";

/// What an organisation may phone.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// What is open.
    Show(OrgArg),
    /// Opens and closes.
    Set(PolicyArgs),
    /// What organisations have suddenly phoned, newest first.
    Alarms,
    /// Whether a number may be phoned, and which rule says so: exit code 0 allowed, 1 denied.
    Explain {
        /// The number, as +48221234567.
        number: String,
        /// The caller id that would be presented.
        #[arg(long)]
        from: Option<String>,
        #[command(flatten)]
        org: OrgArg,
    },
}

/// How much an organisation or a key may have.
#[derive(Debug, Subcommand)]
pub(super) enum LimitsCommand {
    /// What is set.
    Show(WhoseArg),
    /// Sets limits, as calls_per_day=1000; an empty value takes one away.
    Set {
        #[command(flatten)]
        whose: WhoseArg,
        /// NAME=VALUE of requests_per_s, calls_per_day; of an organisation also open_calls_max, number_open_calls_max,
        /// cps_max, channels_max, weight.
        #[arg(required = true, value_name = "NAME=VALUE")]
        limits: Vec<String>,
    },
}

/// How long what is of an organisation is kept, in days.
#[derive(Debug, Subcommand)]
pub(super) enum RetentionCommand {
    /// What is set.
    Show(OrgArg),
    /// Sets days, as calls_days=30; an empty value takes one away.
    Set {
        #[command(flatten)]
        org: OrgArg,
        /// NAME=DAYS of calls_days (8 or more), numbers_days, texts_days, recordings_days, events_days (1 or more); none more than
        /// the server's settings say. recordings_days=0 where these say 0 too: until their owner deletes them.
        #[arg(required = true, value_name = "NAME=DAYS")]
        days: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct OrgArg {
    /// The organisation's id or slug; without it, the first one's.
    #[arg(long)]
    org: Option<String>,
}

impl OrgArg {
    /// Where what is set for it stands.
    async fn path(&self, door: &Door, what: &str) -> Result<String, Failure> {
        let id = match &self.org {
            Some(named) => org_id(door, named).await?,
            None => FIRST.to_owned(),
        };
        Ok(format!("/admin/v1/orgs/{id}/{what}"))
    }
}

#[derive(Debug, Args)]
pub(super) struct WhoseArg {
    #[command(flatten)]
    org: OrgArg,
    /// A key's id, instead of an organisation's.
    #[arg(long, conflicts_with = "org")]
    key: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(flatten)]
    org: OrgArg,
    /// A policy as JSON, instead of what is in force; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Opens a country, as PL or PL=fixed,mobile,toll_free (repeatable); without kinds: fixed and mobile.
    #[arg(long, value_name = "COUNTRY[=KINDS]")]
    open: Vec<String>,
    /// Closes a country (repeatable).
    #[arg(long, value_name = "COUNTRY")]
    close: Vec<String>,
    /// Opens all numbers that begin so, whatever they cost (repeatable).
    #[arg(long, value_name = "PREFIX")]
    allow: Vec<String>,
    /// Closes all numbers that begin so (repeatable).
    #[arg(long, value_name = "PREFIX")]
    deny: Vec<String>,
    /// Forgets what was said of a prefix (repeatable).
    #[arg(long, value_name = "PREFIX")]
    forget: Vec<String>,
    /// A number that may be presented as caller (repeatable).
    #[arg(long, value_name = "NUMBER")]
    caller_id: Vec<String>,
    /// One that may be no more (repeatable).
    #[arg(long, value_name = "NUMBER")]
    no_caller_id: Vec<String>,
}

impl PolicyArgs {
    /// Changes what is in force.
    fn change(&self, policy: &mut Value) {
        for open in &self.open {
            let (country, kinds) = open.split_once('=').unwrap_or((open, ""));
            let kinds: Vec<&str> = if kinds.is_empty() { KINDS.to_vec() } else { kinds.split(',').collect() };
            policy["countries"][country] = json!(kinds);
        }
        for (member, key) in self
            .close
            .iter()
            .map(|key| ("countries", key))
            .chain(self.forget.iter().map(|key| ("prefixes", key)))
        {
            if let Some(map) = policy[member].as_object_mut() {
                map.remove(key);
            }
        }
        for (prefix, access) in
            self.allow.iter().map(|key| (key, "allow")).chain(self.deny.iter().map(|key| (key, "deny")))
        {
            policy["prefixes"][prefix] = access.into();
        }
        if let Some(ids) = policy["caller_ids"].as_array_mut() {
            ids.retain(|id| !self.no_caller_id.iter().any(|gone| id == gone));
            ids.extend(self.caller_id.iter().map(|id| Value::from(id.as_str())));
        }
    }
}

fn policy_text(policy: &Value) -> String {
    let entries = |member: &str| policy[member].as_object().into_iter().flatten();
    let mut text = String::new();
    for (country, kinds) in entries("countries") {
        let kinds: Vec<&str> = kinds.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text += &format!("{country:<6} {}\n", kinds.join(", "));
    }
    for (prefix, access) in entries("prefixes") {
        text += &format!("{prefix:<16} {}\n", access.as_str().unwrap_or(""));
    }
    if text.is_empty() {
        text += "Nothing is open: every call is refused. Open a country: ringward policy set --open PL\n";
    }
    let callers: Vec<&str> =
        policy["caller_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let callers = if callers.is_empty() { "the trunks' own".to_owned() } else { callers.join(", ") };
    text + &format!("caller ids: {callers}\n")
}

pub(super) async fn policy(door: &Door, command: &PolicyCommand) -> Done {
    match command {
        PolicyCommand::Show(org) => {
            let policy = door.get(&org.path(door, "policy").await?).await?;
            show(door, &policy, || policy_text(&policy));
        }
        PolicyCommand::Alarms => {
            let list = door.get("/admin/v1/alarms").await?;
            let columns = ["at", "org", "kind", "country", "count", "max"];
            let header = ["AT", "ORG", "KIND", "COUNTRY", "COUNT", "MAX"];
            show_list(door, &list, &header, &columns, "No alarms since the start of the server.");
        }
        PolicyCommand::Set(args) => {
            let path = args.org.path(door, "policy").await?;
            let mut policy = match &args.file {
                Some(file) => read(file)?,
                None => door.get(&path).await?,
            };
            args.change(&mut policy);
            let policy = door.put(&path, &policy).await?;
            show(door, &policy, || policy_text(&policy));
        }
        PolicyCommand::Explain { number, from, org } => {
            let from = from.as_ref().map_or_else(String::new, |from| format!("&from={}", encoded(from)));
            let path = org.path(door, "policy/explain").await?;
            let answer = door.get(&format!("{path}?to={}{from}", encoded(number))).await?;
            show(door, &answer, || {
                let rule = answer["rule"].as_str().map_or_else(String::new, |rule| format!(" (rule {rule})"));
                let trunk =
                    answer["trunk"].as_str().map_or_else(String::new, |trunk| format!("\n  trunk {trunk}"));
                format!("{}{rule}: {}{trunk}\n", cell(&answer, "decision"), cell(&answer, "sentence"))
            });
            if answer["decision"] != "allowed" {
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &PathBuf) -> Result<Value, Failure> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failure::local(format!("{}: {error}", file.display())))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

async fn limits_path(door: &Door, whose: &WhoseArg) -> Result<String, Failure> {
    match &whose.key {
        Some(key) => Ok(format!("/admin/v1/keys/{}/limits", encoded_id(key))),
        None => whose.org.path(door, "limits").await,
    }
}

/// What is set, one a line; `nothing` where nothing is.
fn set_text(set: &Value, nothing: &str) -> String {
    let lines: Vec<String> =
        set.as_object().into_iter().flatten().map(|(name, value)| format!("{name:<22} {value}\n")).collect();
    if lines.is_empty() { format!("{nothing}\n") } else { lines.concat() }
}

/// Changes what stands at an address by NAME=VALUE; `example` is one.
async fn changed(door: &Door, path: &str, changes: &[String], example: &str) -> Result<Value, Failure> {
    let mut all: Map<String, Value> = door.get(path).await?.as_object().cloned().unwrap_or_default();
    for change in changes {
        let (name, value) = change
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{change}: write NAME=VALUE, as {example}")))?;
        if value.is_empty() {
            all.remove(name);
        } else {
            let number: u32 = value
                .parse()
                .map_err(|_| Failure::usage(format!("{change}: the value is a whole number")))?;
            all.insert(name.to_owned(), number.into());
        }
    }
    door.put(path, &Value::Object(all)).await
}

pub(super) async fn limits(door: &Door, command: &LimitsCommand) -> Done {
    let answer = match command {
        LimitsCommand::Show(whose) => door.get(&limits_path(door, whose).await?).await?,
        LimitsCommand::Set { whose, limits } => {
            changed(door, &limits_path(door, whose).await?, limits, "calls_per_day=1000").await?
        }
    };
    show(door, &answer, || set_text(&answer, "No limits beyond the server's settings."));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn retention(door: &Door, command: &RetentionCommand) -> Done {
    let answer = match command {
        RetentionCommand::Show(org) => door.get(&org.path(door, "retention").await?).await?,
        RetentionCommand::Set { org, days } => {
            changed(door, &org.path(door, "retention").await?, days, "calls_days=30").await?
        }
    };
    show(door, &answer, || set_text(&answer, "As the server's settings say."));
    Ok(ExitCode::SUCCESS)
}
