//! `ban list|add|remove|why|import|export`, `allow list|add|remove`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Door, Failure},
    commands::{Done, encoded, read, show, show_list},
    table::cell,
    watch::{self, WatchArgs},
};

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// What is banned, the newest first.
    List(ListArgs),
    /// Bans an address or a network on every node.
    Add(AddArgs),
    /// Lifts a ban on every node.
    Remove(RemoveArgs),
    /// Whether an address is banned, by whom and on what evidence: exit code 0 banned, 1 not.
    Why {
        /// The address.
        address: String,
    },
    /// Bans every line of a list: addresses or networks, `#` begins a comment.
    Import {
        /// The list; `-` reads standard input.
        file: PathBuf,
        /// What the list is called; without it, its file's name.
        #[arg(long)]
        source: Option<String>,
        /// Why, for whoever asks.
        #[arg(long)]
        reason: Option<String>,
        /// For how long, as 90s, 30m, 12h or 7d; none: until it is removed.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        lasts: Option<u32>,
    },
    /// Prints what is banned as such a list.
    Export {
        /// Only what came from this list.
        #[arg(long)]
        source: Option<String>,
        /// Only what this node banned; `control_plane`: what operators did.
        #[arg(long)]
        origin: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AllowCommand {
    /// What is allowed, the newest first.
    List(ListArgs),
    /// Allows an address or a network: bans that touch it are lifted, and none is made.
    Add(AddArgs),
    /// Takes that back.
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only what this node did; `control_plane`: what operators did.
    #[arg(long)]
    origin: Option<String>,
    /// Only what came from this list.
    #[arg(long)]
    source: Option<String>,
    /// How many, 1 to 100.
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// Goes on after the entry with this revision.
    #[arg(long, value_name = "REVISION")]
    starting_after: Option<i64>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// An address, or a network as 192.0.2.0/24.
    net: String,
    /// Why, for the audit log and for whoever asks.
    #[arg(long)]
    reason: Option<String>,
    /// For how long, as 90s, 30m, 12h or 7d; none: until it is removed.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    lasts: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Exactly as it is listed.
    net: String,
    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,
}

/// A time as people write it, in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "write as 90s, 30m, 12h or 7d".to_owned();
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        Some(_) | None => (text, 1),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

/// A path with those parameters that are given.
fn with_query<const N: usize>(path: &str, parameters: [(&str, Option<String>); N]) -> String {
    let given =
        parameters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

async fn list(door: &Door, nouns: &str, args: &ListArgs, empty: &str) -> Done {
    let path = with_query(
        &format!("/admin/v1/{nouns}"),
        [
            ("limit", Some(args.limit.to_string())),
            ("starting_after", args.starting_after.map(|revision| revision.to_string())),
            ("origin", args.origin.clone()),
            ("source", args.source.clone()),
        ],
    );
    let mut answer = door.get(&path).await?;
    let header = ["NET", "ORIGIN", "AUTHOR", "REASON", "SOURCE", "SINCE", "UNTIL", "REFUSED BY", "REVISION"];
    let members =
        ["net", "origin", "author", "reason", "source", "created_at", "expires_at", "refused", "revision"];
    if !door.json {
        for entry in answer["data"].as_array_mut().into_iter().flatten() {
            let nodes: Vec<&str> = entry["refused_by"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|by| by["node"].as_str())
                .collect();
            if !nodes.is_empty() {
                entry["refused"] = nodes.join(" ").into();
            }
        }
    }
    show_list(door, &answer, &header, &members, empty);
    Ok(ExitCode::SUCCESS)
}

async fn add(door: &Door, nouns: &str, args: &AddArgs, done: impl Fn(&Value) -> String) -> Done {
    let mut body = json!({"net": args.net});
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    if let Some(seconds) = args.lasts {
        body["seconds"] = seconds.into();
    }
    let answer = door.post(&format!("/admin/v1/{nouns}"), &body).await?;
    show(door, &answer, || {
        let already = if answer["changed"] == false { " (it was, for at least as long)" } else { "" };
        format!("{}{already}.\n", done(&answer))
    });
    Ok(ExitCode::SUCCESS)
}

async fn remove(door: &Door, nouns: &str, args: &RemoveArgs, done: &str) -> Done {
    let mut body = json!({"net": args.net});
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    let answer = door.post(&format!("/admin/v1/{nouns}/remove"), &body).await?;
    show(door, &answer, || format!("{} {done}.\n", cell(&answer, "net")));
    Ok(ExitCode::SUCCESS)
}

/// What holds for an address, as people read it.
fn explained(answer: &Value) -> String {
    let address = cell(answer, "address");
    let mut text = match answer["verdict"].as_str().unwrap_or_default() {
        "banned" => format!("{address} is banned\n"),
        "allowed" => format!("{address} is not banned: an operator allows it\n"),
        "protected" => format!(
            "{address} is never banned: it is in {} ({})\n",
            cell(&answer["protected_by"], "net"),
            cell(&answer["protected_by"], "group")
        ),
        _ => format!("{address} is not banned\n"),
    };
    let entries =
        ["bans", "allows"].into_iter().flat_map(|list| answer[list].as_array().into_iter().flatten());
    for entry in entries {
        let until = entry["expires_at"]
            .as_str()
            .map_or("until it is removed".to_owned(), |_| format!("until {}", cell(entry, "expires_at")));
        text += &format!(
            "  {} {} by {} on {} since {}, {until}: {}\n",
            cell(entry, "object"),
            cell(entry, "net"),
            cell(entry, "author"),
            cell(entry, "origin"),
            cell(entry, "created_at"),
            cell(entry, "reason")
        );
        for (member, name) in [("source", "from list"), ("evidence", "evidence")] {
            if let Some(value) = entry[member].as_str() {
                text += &format!("    {name} {value}\n");
            }
        }
        for refusal in entry["refused_by"].as_array().into_iter().flatten() {
            text += &format!("    {} refuses it: {}\n", cell(refusal, "node"), cell(refusal, "reason"));
        }
    }
    text
}

async fn why(door: &Door, address: &str) -> Done {
    let answer = door.get(&format!("/admin/v1/bans/why?address={}", encoded(address))).await?;
    show(door, &answer, || explained(&answer));
    Ok(if answer["verdict"] == "banned" { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn import(door: &Door, command: &BanCommand) -> Done {
    let BanCommand::Import { file, source, reason, lasts } = command else {
        return Err(Failure::usage("not an import"));
    };
    let named = file.file_name().map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "-");
    let source = source
        .clone()
        .or(named)
        .ok_or_else(|| Failure::usage("name the list with --source: standard input has no name"))?;
    let path = with_query(
        "/admin/v1/bans/import",
        [
            ("source", Some(source)),
            ("reason", reason.clone()),
            ("seconds", lasts.map(|seconds| seconds.to_string())),
        ],
    );
    let answer = door.post_text(&path, read(file)?).await?;
    show(door, &answer, || {
        let mut text = format!(
            "{} taken from {}, {} of them new or longer; {} lines not taken.\n",
            cell(&answer, "taken"),
            cell(&answer, "source"),
            cell(&answer, "changed"),
            cell(&answer, "not_taken")
        );
        for complaint in answer["complaints"].as_array().into_iter().flatten() {
            text += &format!("  line {}: {}\n", cell(complaint, "line"), cell(complaint, "problem"));
        }
        text
    });
    Ok(if answer["not_taken"] == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn export(door: &Door, source: Option<String>, origin: Option<String>) -> Done {
    let path = with_query("/admin/v1/bans/export", [("source", source), ("origin", origin)]);
    let list = door.get_text(&path).await?;
    let answer = json!({"object": "ban_export", "nets": list.lines().collect::<Vec<_>>()});
    show(door, &answer, || list);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn ban(door: &Door, command: &BanCommand) -> Done {
    match command {
        BanCommand::List(args) => {
            watch::look(door, args.watch, async || list(door, "bans", args, "Nobody is banned.").await).await
        }
        BanCommand::Add(args) => {
            add(door, "bans", args, |answer| format!("{} is banned on every node", cell(answer, "net"))).await
        }
        BanCommand::Remove(args) => remove(door, "bans", args, "is banned no more").await,
        BanCommand::Why { address } => why(door, address).await,
        BanCommand::Import { .. } => import(door, command).await,
        BanCommand::Export { source, origin } => export(door, source.clone(), origin.clone()).await,
    }
}

pub(super) async fn allow(door: &Door, command: &AllowCommand) -> Done {
    match command {
        AllowCommand::List(args) => {
            let empty = "Nobody is allowed beyond fleet.toml.";
            watch::look(door, args.watch, async || list(door, "allows", args, empty).await).await
        }
        AllowCommand::Add(args) => {
            let done = |answer: &Value| {
                let (net, lifted) = (cell(answer, "net"), cell(answer, "bans_lifted"));
                format!("{net} is never banned from now on; {lifted} bans were lifted")
            };
            add(door, "allows", args, done).await
        }
        AllowCommand::Remove(args) => remove(door, "allows", args, "may be banned again").await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, s) in [("90", 90), ("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(s), "{text}");
        }
        for text in ["", "0", "-1s", "1.5h", "h", "99999999d", "7é"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_given_is_asked() {
        let path = with_query("/a", [("x", None), ("y", Some("a b&c".to_owned()))]);
        assert_eq!(path, "/a?y=a%20b%26c");
        assert_eq!(with_query("/a", [("x", None)]), "/a");
    }
}
