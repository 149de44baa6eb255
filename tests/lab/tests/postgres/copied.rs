//! SQLite's database is copied by the host's own sqlite3, which is of another release than the one in the program.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lab::{ControlPlane, Lab, Plan, Setup, numbers};
use serde_json::json;
use tempfile::TempDir;

const BACKUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../controlplane/packaging/backup");

fn backup(data: &Path, into: &Path) -> Output {
    let mut command = Command::new(BACKUP);
    command.env_remove("RINGWARD_DATABASE_URL").env("RINGWARD_CONFIG", "/nonexistent");
    command.env("RINGWARD_DATA_DIR", data).env("RINGWARD_BACKUP_DIR", into).output().unwrap()
}

/// Debian 12's takes a JSON text that is absent for one that is not valid, and the check of that column for broken.
#[test]
fn a_database_with_events_is_backed_up_and_a_damaged_one_is_not() {
    lab::install_backup_tools().unwrap();
    let folder = TempDir::new().unwrap();
    let [data, damaged, backups] = ["data", "damaged", "backups"].map(|name| folder.path().join(name));
    for made in [&damaged, &backups] {
        fs::create_dir(made).unwrap();
    }
    let lab = Lab::up(Plan { pbxes: 1, carriers: 1, ..Plan::default() }).unwrap();
    let plane = ControlPlane::start_with(&lab, Setup::new(&data)).unwrap();
    let to = numbers::number(numbers::BUSY, 2);
    let id = plane.place(&json!({"to": to, "message": {"audio_id": "builtin:beep"}})).unwrap();
    plane.ended(&id, Duration::from_secs(20)).unwrap();

    let said = backup(&data, &backups);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let copy = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim());
    assert!(copy.join("ringward.db").is_file() && copy.join("agents-ca.pem").is_file());

    // The same with an index that knows no row of its table.
    let file = damaged.join("ringward.db");
    fs::copy(copy.join("ringward.db"), &file).unwrap();
    let spoil = "PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_incident_1')
        WHERE name = 'sqlite_autoindex_outbox_1';";
    assert!(Command::new("sqlite3").arg(&file).arg(spoil).status().unwrap().success());
    fs::remove_dir_all(&copy).unwrap();
    let said = backup(&damaged, &backups);
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(
        !said.status.success() && words.contains("the copy is damaged: row 1 missing from index"),
        "{words}"
    );
    assert_eq!(fs::read_dir(&backups).unwrap().count(), 0, "nothing that looks like one is left");
    plane.stop().unwrap();
}
