//! A PostgreSQL database is put back from the backup of the package's own program, by `ringward restore`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lab::postgres::Cluster;
use lab::{ControlPlane, Lab, Plan, Setup, numbers, pause, wait_until};
use serde_json::json;
use tempfile::TempDir;

const BACKUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../controlplane/packaging/backup");
/// From one round to the next.
const REDIAL_S: u64 = 12;
/// With all that a URL has a meaning for.
const PASSWORD: &str = "a@b:c/d%41 e";
const IN_URL: &str = "a%40b%3Ac%2Fd%2541%20e";

/// A server that asks for the password, and what makes backups and restores.
struct Site {
    folder: TempDir,
    cluster: Cluster,
    url: String,
}

impl Site {
    fn new() -> Self {
        let cluster = Cluster::start().unwrap();
        let url =
            cluster.url().replace("postgres@", &format!("ringward:{IN_URL}@")).replace("/postgres", "/calls");
        let site = Self { folder: TempDir::new().unwrap(), cluster, url };
        site.admin("postgres", &format!("CREATE ROLE ringward LOGIN PASSWORD '{PASSWORD}'"));
        site.admin("postgres", "CREATE DATABASE calls OWNER ringward");
        let rules = site.admin("postgres", "SHOW hba_file");
        let text = "host all ringward 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n";
        fs::write(rules.trim(), text).unwrap();
        site.admin("postgres", "SELECT pg_reload_conf()");
        let wrong = site.url.replace(IN_URL, "wrong");
        let refused =
            || !Command::new("psql").args([&wrong, "-c", "select 1"]).output().unwrap().status.success();
        wait_until("the server to ask for passwords", Duration::from_secs(10), "", refused).unwrap();
        fs::create_dir(site.path("backups")).unwrap();
        for program in ["pg_dump", "pg_restore"] {
            site.spy(program, "exec");
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Says what a program of PostgreSQL's was given as arguments, then is that program.
    fn spy(&self, program: &str, how: &str) {
        let folder = self.path("bin");
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "#!/bin/sh\necho {program} \"$@\" >>{}\n{how} /usr/bin/{program} \"$@\"\n",
            self.path("arguments").display()
        );
        let path = folder.join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn as_admin(&self, database: &str) -> String {
        format!("{}/{database}", self.cluster.url().trim_end_matches("/postgres"))
    }

    fn admin(&self, database: &str, sql: &str) -> String {
        let url = self.as_admin(database);
        let said = Command::new("psql").args([&url, "-v", "ON_ERROR_STOP=1", "-qtAc", sql]).output().unwrap();
        assert!(said.status.success(), "{sql}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap()
    }

    fn command(&self, program: &Path, data: &Path) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("RINGWARD_DATABASE_URL", &self.url).env("RINGWARD_DATA_DIR", data);
        command
    }

    /// The folder of a new backup.
    fn backup(&self, data: &Path) -> PathBuf {
        let mut command = self.command(Path::new(BACKUP), data);
        command.env("RINGWARD_BACKUP_DIR", self.path("backups")).env("RINGWARD_CONFIG", "/nonexistent");
        let said = command.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
    }

    fn restore(&self, data: &Path, folder: &Path) -> Output {
        let program = lab::program("ringward").unwrap();
        self.command(&program, data).arg("restore").arg(folder).output().unwrap()
    }

    #[track_caller]
    fn refused(&self, data: &Path, folder: &Path, why: &str) {
        let said = self.restore(data, folder);
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && words.contains(why), "{words}");
    }

    /// The table that only a newer release has, where it is.
    fn newer(&self) -> String {
        self.admin("calls", "SELECT schemaname FROM pg_tables WHERE tablename = 'newer'").trim().to_owned()
    }
}

#[test]
fn a_dump_takes_the_place_of_a_newer_schema_and_what_was_open_is_held() {
    let site = Site::new();
    let lab = Lab::up(Plan { pbxes: 1, carriers: 1, ..Plan::default() }).unwrap();
    let data = site.path("data");
    let plane = ControlPlane::start_with(&lab, Setup::new(&data).database(site.url.clone())).unwrap();
    let number = numbers::number(numbers::BUSY, 1);
    let id = plane
        .place(&json!({
            "to": number, "message": {"audio_id": "builtin:beep"},
            "redial": {"on": ["busy"], "max": 1, "delay_s": REDIAL_S},
        }))
        .unwrap();
    let waits = || plane.call(&id).is_ok_and(|call| call["redial_at"].is_string());
    wait_until("the call to wait for its next round", Duration::from_secs(20), "", waits).unwrap();
    let backup = site.backup(&data);
    let invites = || {
        let seen = lab.carrier("a").unwrap().seen_when_quiet(Duration::from_millis(300)).unwrap();
        seen.of(&number).invites
    };
    plane.customer("POST", &format!("/v1/calls/{id}/cancel"), None).unwrap();
    plane.ended(&id, Duration::from_secs(10)).unwrap();
    assert_eq!(invites(), 1);

    site.refused(&data, &backup, "in use by another control plane");
    plane.stop().unwrap();
    // A newer release has served it since: its tables hang on ours, and loading over them cannot work.
    let newer = "CREATE TABLE newer (call text REFERENCES call (id)); ALTER TABLE newer OWNER TO ringward;
        INSERT INTO _sqlx_migrations SELECT 9999, 'newer', now(), true, '', 0";
    site.admin("calls", newer);

    // Whatever is wrong with a backup, what was there is there again.
    let (damaged, strange) = (site.path("damaged"), site.path("strange"));
    for folder in [&damaged, &strange] {
        fs::create_dir(folder).unwrap();
    }
    let dump = fs::read(backup.join("ringward.dump")).unwrap();
    fs::write(damaged.join("ringward.dump"), &dump[..dump.len() / 2]).unwrap();
    site.refused(&data, &damaged, "pg_restore ended with");
    site.admin("postgres", "CREATE DATABASE strange OWNER ringward");
    let other = site.as_admin("strange");
    let file = strange.join("ringward.dump");
    let dumped = Command::new("pg_dump").args(["-Fc", "-d", &other, "-f"]).arg(&file).status().unwrap();
    assert!(dumped.success());
    site.refused(&data, &strange, "no tables of a control plane");
    assert_eq!(site.newer(), "public");

    // Killed between loading and holding: nobody serves what is loaded.
    site.spy("pg_restore", "kill -9 $PPID; exec");
    assert!(!site.restore(&data, &backup).status.success());
    site.spy("pg_restore", "exec");
    let loaded =
        || site.admin("calls", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").trim() != "0";
    wait_until("the dump to be loaded by what is left", Duration::from_secs(20), "", loaded).unwrap();
    let program = lab::program("ringward").unwrap();
    let served = site.command(&program, &data).arg("serve").output().unwrap();
    let words = String::from_utf8_lossy(&served.stderr).into_owned();
    assert!(!served.status.success() && words.contains("run `ringward restore FOLDER` again"), "{words}");

    let said = site.restore(&data, &backup);
    let words = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(words.contains("1 calls and incidents are held"), "{words}");
    assert_eq!(site.newer(), "ringward_replaced");

    plane.start_again().unwrap();
    plane.wait_for_nodes().unwrap();
    pause(Duration::from_secs(REDIAL_S + 3));
    assert_eq!(invites(), 1, "no phone rings again");
    let held = plane.admin("GET", "/admin/v1/held", None).unwrap();
    assert_eq!(held["data"][0]["id"], id.as_str(), "{held}");
    // What was replaced is in no later backup; and what comes from one that an earlier restore made is as good.
    let later = site.backup(&data);
    plane.admin("POST", "/admin/v1/held/release", Some(&json!({}))).unwrap();
    plane.ended(&id, Duration::from_secs(30)).unwrap();
    assert_eq!(invites(), 2);
    plane.stop().unwrap();
    let said = site.restore(&data, &later);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(site.newer(), "", "one is kept");

    let arguments = fs::read_to_string(site.path("arguments")).unwrap();
    assert!(
        arguments.contains("pg_dump --format=custom") && arguments.contains("pg_restore --no-owner"),
        "{arguments}"
    );
    for secret in [PASSWORD, IN_URL] {
        assert!(!arguments.contains(secret), "{arguments}");
    }
}
