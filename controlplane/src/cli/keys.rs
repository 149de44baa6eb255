//! `key …` and `org …`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use controlplane_core::names::nearest;
use serde_json::{Value, json};

use super::{
    client::{Door, Failure},
    commands::{Done, encoded_id, show},
    table::{cell, rows, table},
};

/// Entries of one page; lists are read whole.
const PAGE: u16 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Makes a key and shows it, once.
    Create(CreateArgs),
    /// Every key, without its secret.
    List {
        /// Only this organisation's: its id or slug.
        #[arg(long)]
        org: Option<String>,
    },
    /// Makes a key that takes another one's place, and shows it, once. Both open until the former one ends.
    Rotate {
        /// The former key's id.
        id: String,
        /// How long the former key opens on, in seconds, 604800 at most; without it, a day.
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
    },
    /// Ends a key at once.
    Revoke {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// What people call it.
    #[arg(long)]
    name: String,
    /// An operator's key instead of a customer's.
    #[arg(long)]
    operator: bool,
    /// An operator's role: viewer, operator or admin; without it, operator.
    #[arg(long, requires = "operator")]
    role: Option<String>,
    /// A customer's organisation, by its id or slug; without it, the first.
    #[arg(long, conflicts_with = "operator")]
    org: Option<String>,
    /// A scope of a customer's key (repeatable); none: all.
    #[arg(long, conflicts_with = "operator")]
    scope: Vec<String>,
    /// A test key: what it asks for never reaches a carrier.
    #[arg(long, conflicts_with = "operator")]
    test: bool,
    /// When it ends by itself, as 2027-01-01T00:00:00Z; without it, never.
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// Makes an organisation.
    Create {
        /// What it is called in commands, for good: 1 to 63 of a-z, 0-9 and -.
        slug: String,
        /// What people call it; without it, the slug.
        #[arg(long)]
        name: Option<String>,
    },
    /// One line each.
    List,
    /// One organisation.
    Show {
        /// Its id or slug.
        org: String,
    },
    /// Gives it another name; the slug stays.
    Rename {
        /// Its id or slug.
        org: String,
        /// What people shall call it.
        name: String,
    },
    /// Refuses all its keys until it is resumed. Calls that were accepted go on.
    Suspend {
        /// Its id or slug.
        org: String,
    },
    /// Lets its keys in again.
    Resume {
        /// Its id or slug.
        org: String,
    },
}

pub(super) async fn key(door: &Door, command: &KeyCommand) -> Done {
    match command {
        KeyCommand::Create(args) => create(door, args).await,
        KeyCommand::List { org } => {
            let path = match org {
                Some(org) => format!("/admin/v1/keys?org={}&", org_id(door, org).await?),
                None => "/admin/v1/keys?".to_owned(),
            };
            let list = whole(door, &path).await?;
            let header =
                ["KEY", "NAME", "PREFIX", "ORG", "ROLE", "SCOPES", "LAST USED", "EXPIRES", "REVOKED"];
            let members =
                ["id", "name", "prefix", "org", "role", "scopes", "last_used_at", "expires_at", "revoked_at"];
            show(door, &list, || table(&header, rows(&list, &members)));
            Ok(ExitCode::SUCCESS)
        }
        KeyCommand::Rotate { id, overlap } => {
            let mut body = json!({});
            if let Some(overlap) = overlap {
                body["overlap_s"] = (*overlap).into();
            }
            let key = door.post(&format!("/admin/v1/keys/{}/rotate", encoded_id(id)), &body).await?;
            shown_once(door, &key);
            Ok(ExitCode::SUCCESS)
        }
        KeyCommand::Revoke { id } => {
            let answer = door.post(&format!("/admin/v1/keys/{}/revoke", encoded_id(id)), &json!({})).await?;
            show(door, &answer, || format!("{} is revoked.\n", cell(&answer, "id")));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn create(door: &Door, args: &CreateArgs) -> Done {
    let mut body = json!({"name": args.name, "operator": args.operator});
    if let Some(role) = &args.role {
        body["role"] = role.as_str().into();
    }
    if let Some(org) = &args.org {
        body["org"] = org_id(door, org).await?.into();
    }
    if !args.scope.is_empty() {
        body["scopes"] = args.scope.clone().into();
    }
    if args.test {
        body["livemode"] = false.into();
    }
    if let Some(at) = &args.expires_at {
        body["expires_at"] = at.as_str().into();
    }
    let key = door.post("/admin/v1/keys", &body).await?;
    shown_once(door, &key);
    Ok(ExitCode::SUCCESS)
}

fn shown_once(door: &Door, key: &Value) {
    show(door, key, || {
        format!(
            "{}  {}\nThe key, shown this once: {}\n",
            cell(key, "id"),
            cell(key, "name"),
            cell(key, "secret")
        )
    });
}

/// A list with all its pages; `path` ends with `?` or `&`.
async fn whole(door: &Door, path: &str) -> Result<Value, Failure> {
    let mut list = door.get(&format!("{path}limit={PAGE}")).await?;
    loop {
        let entries = list["data"].as_array().cloned().unwrap_or_default();
        let (true, Some(last)) = (list["has_more"] == true, entries.last().map(|entry| cell(entry, "id")))
        else {
            return Ok(list);
        };
        let mut next = door.get(&format!("{path}limit={PAGE}&starting_after={last}")).await?;
        let more = next["data"].as_array().cloned().unwrap_or_default();
        if more.is_empty() {
            return Ok(list);
        }
        next["data"] = entries.into_iter().chain(more).collect();
        list = next;
    }
}

/// The id of an organisation that is named by it or by its slug.
pub(super) async fn org_id(door: &Door, named: &str) -> Result<String, Failure> {
    if named.starts_with("org_") {
        return Ok(encoded_id(named));
    }
    let list = whole(door, "/admin/v1/orgs?").await?;
    let found = list["data"].as_array().into_iter().flatten().find(|org| org["slug"] == named);
    let missing = || {
        let slugs = list["data"].as_array().into_iter().flatten().filter_map(|org| org["slug"].as_str());
        let near = nearest(named, slugs).map_or_else(String::new, |near| format!("\n  Did you mean {near}?"));
        Failure::not_found(format!("there is no organisation {named}: see `ringward org list`{near}"))
    };
    found.map(|org| cell(org, "id")).ok_or_else(missing)
}

pub(super) async fn org(door: &Door, command: &OrgCommand) -> Done {
    let answer = match command {
        OrgCommand::Create { slug, name } => {
            let mut body = json!({"slug": slug});
            if let Some(name) = name {
                body["name"] = name.as_str().into();
            }
            door.post("/admin/v1/orgs", &body).await?
        }
        OrgCommand::List => {
            let list = whole(door, "/admin/v1/orgs?").await?;
            show(door, &list, || org_table(rows(&list, &ORG)));
            return Ok(ExitCode::SUCCESS);
        }
        OrgCommand::Show { org } => door.get(&format!("/admin/v1/orgs/{}", org_id(door, org).await?)).await?,
        OrgCommand::Rename { org, name } => {
            let path = format!("/admin/v1/orgs/{}", org_id(door, org).await?);
            door.patch(&path, &json!({"name": name})).await?
        }
        OrgCommand::Suspend { org } => {
            door.post(&format!("/admin/v1/orgs/{}/suspend", org_id(door, org).await?), &json!({})).await?
        }
        OrgCommand::Resume { org } => {
            door.post(&format!("/admin/v1/orgs/{}/resume", org_id(door, org).await?), &json!({})).await?
        }
    };
    show(door, &answer, || org_table([ORG.iter().map(|member| cell(&answer, member)).collect()]));
    Ok(ExitCode::SUCCESS)
}

const ORG: [&str; 5] = ["id", "slug", "name", "created_at", "suspended_at"];

fn org_table(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    table(&["ORG", "SLUG", "NAME", "CREATED", "SUSPENDED"], rows)
}
