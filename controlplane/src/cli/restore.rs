//! `restore`, `held list|release`: a database from a backup, and what it says is open.

mod postgres;

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use controlplane_store::{calls::Actor, restoring::HoldOpen};
use serde_json::json;

use super::{
    client::{Door, Failure},
    commands::{Done, show, show_list},
    table::cell,
};
use crate::{
    calls::chain,
    clock::{Chance, Clock},
    settings::Settings,
};

/// What a backup has of each kind of database.
const SQLITE: &str = "ringward.db";
const POSTGRES: &str = "ringward.dump";

/// Which backup, and of which control plane.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup: a folder as the backup timer leaves it.
    #[arg(value_name = "FOLDER", required_unless_present = "hold_only")]
    folder: Option<PathBuf>,
    /// The database is restored already, by other means: only holds what is open in it.
    #[arg(long, conflicts_with = "folder")]
    hold_only: bool,
    /// A TOML file with the server's settings.
    #[arg(long, env = "RINGWARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's data directory; without it, as the server's settings say.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What is held since a backup was restored.
#[derive(Debug, Subcommand)]
pub(super) enum HeldCommand {
    /// Calls and incidents that were open in the backup: no phone rings for one until it is released.
    List,
    /// Lets them go on; phones may ring again for what had ended since the backup.
    Release(ReleaseArgs),
}

/// Which.
#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// Ids of calls and incidents.
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Puts a backup in the place of the database, and holds what it says is open. The server must not run.
pub(super) async fn restore(args: &RestoreArgs) -> Done {
    let mut settings =
        Settings::load(args.config.as_deref()).map_err(|error| Failure::usage(error.to_string()))?;
    if let Some(dir) = &args.data_dir {
        settings.data_dir.clone_from(dir);
    }
    let failed = |error: &dyn std::error::Error| Failure::local(chain(error));
    let url = settings.database_url();
    as_owner(&settings.data_dir)?;
    let (clock, chance) = (Clock::system(), Chance::from_os().map_err(|error| failed(&error))?);
    let at = clock.now();
    let hold = HoldOpen { at, actor: Actor::default(), audit_id: chance.audit_id(at) };
    let held = match (&args.folder, url.strip_prefix("sqlite://")) {
        (Some(folder), None) => {
            let keys = keys(folder)?;
            postgres::replace(&url, &folder.join(POSTGRES), &hold, || copy_keys(&keys, &settings.data_dir))
                .await?
        }
        (folder, path) => {
            if let (Some(folder), Some(path)) = (folder, path) {
                let keys = keys(folder)?;
                // Whoever serves it would write into a file that is gone.
                let alone = controlplane_store::sqlite::alone(path).await.map_err(|error| failed(&error))?;
                is_file(&folder.join(SQLITE))?;
                copy_keys(&keys, &settings.data_dir)?;
                // Last: then nothing is left to fail before what is open in it is held.
                replace(Path::new(path), &folder.join(SQLITE))?;
                drop(alone);
            }
            let store = controlplane_store::open(&url).await.map_err(|error| failed(&error))?;
            store.hold_open(hold).await.map_err(|error| failed(&error))?;
            store.held().await.map_err(|error| failed(&error))?.len()
        }
    };
    println!(
        "{held} calls and incidents are held in {}: they may have ended since",
        controlplane_store::place(&url)
    );
    println!("Next: start the server, `ringward held list`, `ringward held release`");
    Ok(ExitCode::SUCCESS)
}

fn copy_keys(keys: &[PathBuf], data_dir: &Path) -> Result<(), Failure> {
    keys.iter().try_for_each(|file| copy(file, &data_dir.join(file.file_name().unwrap_or_default())))
}

/// Files that another user owns the server cannot write.
fn as_owner(data_dir: &Path) -> Result<(), Failure> {
    let owner = match fs::metadata(data_dir) {
        Ok(meta) => meta.uid(),
        Err(error) => {
            return Err(Failure::local(format!("the data directory {}: {error}", data_dir.display())));
        }
    };
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the data directory {} belongs to user {owner}: run this as that user, as in\n  runuser -u ringward -- ringward \
         restore …",
        data_dir.display(),
    )))
}

/// The former file stays beside it: it may be wanted, if only for what can be read of it.
fn replace(path: &Path, backup: &Path) -> Result<(), Failure> {
    let new = with_end(path, ".restoring");
    copy(backup, &new)?;
    for end in ["", "-wal", "-shm"] {
        let (from, to) = (with_end(path, end), with_end(path, &format!(".replaced{end}")));
        remove(&to)?;
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot("rename", &from, &error)),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(&new, path).map_err(|error| cannot("rename", &new, &error))
}

/// What a backup has beside the database: the agents' CA, and keys that open and sign.
fn keys(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| cannot("read", folder, &error))?;
    let is_key = |path: &PathBuf| !path.ends_with(SQLITE) && !path.ends_with(POSTGRES);
    let keys: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_key).collect();
    keys.iter().try_for_each(|key| is_file(key))?;
    Ok(keys)
}

/// It can be read, and is not a folder, of which a backup has none.
fn is_file(path: &Path) -> Result<(), Failure> {
    let meta = fs::File::open(path).and_then(|file| file.metadata());
    if meta.map_err(|error| cannot("read", path, &error))?.is_file() {
        return Ok(());
    }
    Err(Failure::local(format!(
        "{} is no file: a backup is a folder with a database and keys, and nothing else",
        path.display()
    )))
}

/// What was there before is there until the copy is whole.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let new = with_end(to, ".copied");
    remove(&new)?;
    let mut source = fs::File::open(from).map_err(|error| cannot("read", from, &error))?;
    let target = fs::File::options().write(true).create_new(true).mode(0o600).open(&new);
    let mut target = target.map_err(|error| cannot("write", &new, &error))?;
    std::io::copy(&mut source, &mut target).map_err(|error| cannot("write", &new, &error))?;
    target.sync_all().map_err(|error| cannot("write", &new, &error))?;
    fs::rename(&new, to).map_err(|error| cannot("rename", &new, &error))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("remove", path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::local(format!("cannot {what} {}: {error}", path.display()))
}

pub(super) async fn held(door: &Door, command: &HeldCommand) -> Done {
    match command {
        HeldCommand::List => {
            let list = door.get("/admin/v1/held").await?;
            show_list(
                door,
                &list,
                &["ID", "ORG", "HELD SINCE"],
                &["id", "org", "held_at"],
                "Nothing is held.",
            );
        }
        HeldCommand::Release(args) => {
            let body = if args.all { json!({}) } else { json!({"ids": args.ids}) };
            let answer = door.post("/admin/v1/held/release", &body).await?;
            show(door, &answer, || format!("{} released\n", cell(&answer, "released")));
        }
    }
    Ok(ExitCode::SUCCESS)
}
