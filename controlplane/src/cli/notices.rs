//! `notice list|add|update|end|remove`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    client::Door,
    commands::{Done, encoded_id, show, show_list},
    table::cell,
};

/// What everybody reads on the public status page.
#[derive(Debug, Subcommand)]
pub(super) enum NoticeCommand {
    /// One line each, newest first.
    List,
    /// Says something new to everybody.
    Add {
        /// In one line, as "Calls to Poland are slow".
        title: String,
        /// What is known, and what comes next.
        text: String,
        /// Since when, or from when on, as 2026-12-01T22:00:00Z; without it: now.
        #[arg(long, value_name = "TIME")]
        starts_at: Option<String>,
    },
    /// Says more of one.
    Update {
        /// Its id.
        id: String,
        /// What is known now.
        text: String,
    },
    /// Says that one is over.
    End {
        /// Its id.
        id: String,
        /// What it was, in the end.
        text: String,
    },
    /// Takes one away, as if it had never been said.
    Remove {
        /// Its id.
        id: String,
    },
}

pub(super) async fn notice(door: &Door, command: &NoticeCommand) -> Done {
    match command {
        NoticeCommand::List => {
            let list = door.get("/admin/v1/notices").await?;
            let members = ["id", "title", "started_at", "ended_at"];
            let empty = "Nothing was said. Say something: ringward notice add TITLE TEXT";
            show_list(door, &list, &["ID", "TITLE", "SINCE", "OVER"], &members, empty);
        }
        NoticeCommand::Add { title, text, starts_at } => {
            let mut body = json!({"title": title, "text": text});
            if let Some(at) = starts_at {
                body["started_at"] = at.as_str().into();
            }
            let made = door.post("/admin/v1/notices", &body).await?;
            show(door, &made, || {
                let id = cell(&made, "id");
                format!("{id} is said to everybody. When it is over: ringward notice end {id} TEXT\n")
            });
        }
        NoticeCommand::Update { id, text } => more(door, id, text, false).await?,
        NoticeCommand::End { id, text } => more(door, id, text, true).await?,
        NoticeCommand::Remove { id } => {
            let gone: Value = door.delete(&format!("/admin/v1/notices/{}", encoded_id(id))).await?;
            show(door, &gone, || format!("{id} is not shown any more.\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn more(door: &Door, id: &str, text: &str, ends: bool) -> Result<(), super::client::Failure> {
    let path = format!("/admin/v1/notices/{}/updates", encoded_id(id));
    let notice = door.post(&path, &json!({"text": text, "ends": ends})).await?;
    let is = if ends { "is told to be over" } else { "is told more of" };
    show(door, &notice, || format!("{id} {is}.\n"));
    Ok(())
}
