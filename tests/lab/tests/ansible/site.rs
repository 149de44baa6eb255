//! Hosts that playbooks work on, the inventory that says what they shall become, and what came of a run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Bare, Carrier, Lab, Plan, now, pause, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Trunks of the example ask for life every 30 s: too seldom for a test.
const QUALIFY_S: u32 = 2;
/// From where Ansible and operators come.
const MANAGEMENT: &str = "192.0.2.0/28";

/// How many tasks are told by name.
const LONGEST: usize = 8;

/// What a run changed, per host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recap(BTreeMap<String, u32>);

impl Recap {
    /// Hosts on which something was changed, or would have been.
    pub(crate) fn changed(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, changed)| **changed > 0).map(|(host, _)| host.as_str()).collect()
    }

    /// All hosts that it was about.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn read(said: &str) -> Self {
        let lines = said.lines().skip_while(|line| !line.starts_with("PLAY RECAP")).skip(1);
        let host = |line: &str| {
            let changed = line.split("changed=").nth(1)?.split(' ').next()?.parse().ok()?;
            Some((line.split(' ').next()?.to_owned(), changed))
        };
        Self(lines.filter_map(host).collect())
    }
}

/// What a run tells, and how long each of its tasks took.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    /// The task under way, since when.
    task: Option<(String, Instant)>,
    took: Vec<(Duration, String)>,
}

impl Told {
    fn line(&mut self, line: String) {
        if let Some(title) = ["TASK [", "RUNNING HANDLER [", "PLAY RECAP"].iter().find_map(|title| {
            let rest = line.strip_prefix(title)?;
            Some(rest.split(']').next().unwrap_or(rest).to_owned())
        }) && let Some((former, since)) = self.task.replace((title, now()))
        {
            self.took.push((since.elapsed(), former));
        }
        self.lines.push(line);
    }

    /// The tasks that took longest, all hosts together.
    fn longest(&self) -> String {
        let mut sums: BTreeMap<&str, Duration> = BTreeMap::new();
        for (took, task) in &self.took {
            *sums.entry(task).or_default() += *took;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        let told =
            sums.iter().take(LONGEST).map(|(task, took)| format!("{task} {:.0} s", took.as_secs_f64()));
        format!("{} of {} tasks", told.collect::<Vec<_>>().join(", "), self.took.len())
    }
}

/// Hosts, carriers and an inventory.
pub(crate) struct Site {
    // In this order: hosts end with the lab, the folder goes last.
    pub(crate) hosts: Vec<Bare>,
    pub(crate) lab: Lab,
    programs: PathBuf,
    public_key: String,
    folder: TempDir,
    /// Of a customer, once there is a control plane.
    customer_key: String,
}

impl Site {
    /// The hosts of `inventory.example`, bare, and its two carriers.
    pub(crate) fn up() -> Self {
        let programs = lab::install_ansible().unwrap();
        let lab = Lab::up(Plan { pbxes: 0, carriers: 2, ..Plan::default() }).unwrap();
        let folder = TempDir::new().unwrap();
        let key = folder.path().join("key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        let public_key = fs::read_to_string(key.with_extension("pub")).unwrap();
        let hosts = [("waw-1", 51), ("fra-1", 52), ("plane", 53), ("watch", 54)];
        let hosts = lab.boot_bare(&hosts, &public_key).unwrap();
        let site = Self { hosts, lab, programs, public_key, folder, customer_key: String::new() };
        site.copy_example();
        site
    }

    /// Boots one more.
    pub(crate) fn boot(&mut self, name: &str, last: u8) -> Bare {
        let mut more = self.lab.boot_bare(&[(name, last)], &self.public_key).unwrap();
        self.hosts.append(&mut more);
        self.host(name).clone()
    }

    pub(crate) fn host(&self, name: &str) -> &Bare {
        self.hosts.iter().find(|host| host.name() == name).unwrap()
    }

    pub(crate) fn carrier(&self, name: &str) -> &Carrier {
        self.lab.carrier(name).unwrap()
    }

    fn inventory(&self) -> PathBuf {
        self.folder.path().join("inventory")
    }

    /// The example as a new user copies it, but for the lab's network, the pace of OPTIONS and calls, and a firewall that is on.
    fn copy_example(&self) {
        let vars = self.inventory().join("group_vars");
        fs::create_dir_all(vars.join("all")).unwrap();
        for file in ["hosts.yml", "group_vars/all/fleet.yml", "group_vars/all/vault.yml"] {
            let text = fs::read_to_string(playbooks().join("inventory.example").join(file)).unwrap();
            let text = text.replace("    pjsip:\n", &format!("    pjsip:\n      qualify_s: {QUALIFY_S}\n"));
            // A number that is dialled again within a minute is no matter of playbooks.
            self.write(
                file,
                &text.replace("controlplane_settings:\n", "controlplane_settings:\n  throttle: []\n"),
            );
        }
        let firewall = json!({"mode": "on", "policy": {"management": [self.own(MANAGEMENT)]}});
        self.write("group_vars/pbx.yml", &format!("node_agent_firewall: {firewall}\n"));
    }

    /// A text with addresses of the lab's network in place of the documents'.
    pub(crate) fn own(&self, text: &str) -> String {
        let root = self.lab.root_address().to_string();
        text.replace("192.0.2.", root.trim_end_matches('1'))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.inventory().join(file), self.own(text)).unwrap();
    }

    /// Puts lines before a line of a file of the inventory.
    pub(crate) fn insert(&self, file: &str, before: &str, lines: &str) {
        let text = fs::read_to_string(self.inventory().join(file)).unwrap();
        assert_eq!(text.matches(before).count(), 1, "{before} in {file}");
        self.write(file, &text.replace(before, &format!("{lines}{before}")));
    }

    /// Puts a text in the place of another, wherever it stands.
    pub(crate) fn replace(&self, file: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.inventory().join(file)).unwrap();
        let old = self.own(old);
        assert!(text.contains(&old), "{old} in {file}");
        self.write(file, &text.replace(&old, new));
    }

    /// Hosts, trunks and routes as they stand.
    pub(crate) fn inventoried(&self) -> [(&'static str, String); 2] {
        ["hosts.yml", "group_vars/all/fleet.yml"]
            .map(|file| (file, fs::read_to_string(self.inventory().join(file)).unwrap()))
    }

    /// Makes the inventory what it was.
    pub(crate) fn reset(&self, inventoried: &[(&'static str, String)]) {
        for (file, text) in inventoried {
            self.write(file, text);
        }
    }

    /// `ansible-playbook`, with both programs of this revision of the packages; what it changed. It must not fail.
    #[track_caller]
    pub(crate) fn play(&self, revision: u8, arguments: &[&str]) -> Recap {
        let began = now();
        let folder = self.folder.path();
        let mut command = Command::new(self.programs.join("ansible-playbook"));
        command.arg("-i").arg(self.inventory()).args(arguments).current_dir(playbooks());
        for (variable, package) in
            [("ringward_package", "ringward"), ("ringward_agent_package", "ringward-agent")]
        {
            command.args(["-e", &format!("{variable}={}", package_file(package, revision).display())]);
        }
        let mut child = command
            .env("ANSIBLE_HOST_KEY_CHECKING", "False")
            .env("ANSIBLE_PRIVATE_KEY_FILE", folder.join("key"))
            .env("ANSIBLE_LOCAL_TEMP", folder.join("tmp"))
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", folder.join("cp"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("errors")).unwrap())
            .spawn()
            .unwrap();
        let mut told = Told::default();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            told.line(line.unwrap());
        }
        let status = child.wait().unwrap();
        let tail = || told.lines[told.lines.len().saturating_sub(60)..].join("\n");
        assert!(
            status.success(),
            "{arguments:?}\n{}\n{}",
            tail(),
            fs::read_to_string(folder.join("errors")).unwrap()
        );
        let recap = Recap::read(&told.lines.join("\n"));
        assert!(!recap.0.is_empty(), "{}", tail());
        println!("{}: {:.0} s, changed {:?}", arguments.join(" "), began.elapsed().as_secs_f64(), recap.0);
        println!("    longest: {}", told.longest());
        recap
    }

    /// `ringward-operator …` on the control plane's host.
    #[track_caller]
    pub(crate) fn operator(&self, line: &str) -> String {
        self.host("plane").shell(&format!("ringward-operator {line}")).unwrap()
    }

    /// The list that such a command tells as JSON.
    pub(crate) fn list(&self, line: &str) -> Vec<Value> {
        let said = self.host("plane").shell(&format!("ringward-operator --json {line}")).unwrap_or_default();
        serde_json::from_str::<Value>(&said)
            .map_or_else(|_| vec![], |list| list["data"].as_array().unwrap().clone())
    }

    /// Makes the key with which calls are placed.
    pub(crate) fn make_customer(&mut self) {
        let key: Value = serde_json::from_str(&self.operator("--json key create --name lab")).unwrap();
        self.customer_key = key["secret"].as_str().unwrap().to_owned();
    }

    fn customer(&self, path: &str, body: Option<&Value>) -> Option<Value> {
        let url = format!("http://127.0.0.1:8080{path}");
        let (status, text) = self.host("plane").ask(&url, &self.customer_key, body).ok()?;
        assert!(matches!(status, 200 | 201), "{path}: {status} {text}");
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Places a call; while the control plane restarts, again.
    pub(crate) fn place(&self, body: &Value) -> String {
        let mut placed = None;
        let accepted = || {
            placed = self.customer("/v1/calls", Some(body));
            placed.is_some()
        };
        wait_until("a call to be accepted", Duration::from_secs(30), "", accepted).unwrap();
        placed.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// A call, as its customer sees it.
    pub(crate) fn call(&self, id: &str) -> Value {
        self.customer(&format!("/v1/calls/{id}"), None).unwrap_or_default()
    }

    /// A call, once it has ended.
    #[track_caller]
    pub(crate) fn ended(&self, id: &str) -> Value {
        let mut call = Value::Null;
        let ended = || {
            call = self.call(id);
            call["ended_at"].is_string()
        };
        let waited = wait_until("a call to end", Duration::from_secs(60), "", ended);
        waited.unwrap_or_else(|error| panic!("{error}: {call}\n{}", self.operator("trunk list")));
        call
    }

    /// Audio both ways over one trunk: the callee hears a spoken text, by a recording at the carrier, and presses 1, which the
    /// PBX hears as a tone in the audio.
    #[track_caller]
    pub(crate) fn talk(&self, number: &str, trunk: &str, carrier: &str) {
        let text = "The database of the shop is down. Please look at it now, and press one.";
        let id = self.place(&json!({
            "to": number, "message": {"text": text, "language": "en", "repeat": 3},
            "acknowledgement": {"keys": {"1": "acknowledge"}, "timeout_s": 8},
        }));
        let carrier = self.carrier(carrier);
        let channel = || {
            let said = carrier.console("core show channels concise").unwrap_or_default();
            let up = said.lines().find(|line| line.contains("!Up!"));
            up.and_then(|line| line.split('!').next()).map(str::to_owned)
        };
        wait_until("the callee to answer", Duration::from_secs(20), "", || channel().is_some())
            .unwrap_or_else(|error| {
                panic!("{error}: {}\n{}", self.call(&id), self.operator(&format!("trunk why {trunk}")))
            });
        let file = format!("{trunk}.wav");
        carrier
            .console(&format!(
                "mixmonitor start {} /srv/ringward/spool/{file},r(/srv/ringward/spool/in-{file})",
                channel().unwrap_or_default()
            ))
            .unwrap();
        let call = self.ended(&id);
        assert_eq!(
            (call["status"].as_str(), call["reason"].as_str()),
            (Some("completed"), Some("acknowledged")),
            "{call}"
        );
        assert_eq!(call["attempts"][0]["trunk"], trunk, "{call}");
        pause(Duration::from_millis(500));
        let heard = speech_ms(&carrier.host().folder().join("spool").join(format!("in-{file}")));
        println!("{trunk}: {heard} ms of speech heard, and a tone back");
        assert!(heard > 1_500, "{trunk}: {heard} ms of speech were heard");
    }

    /// Waits until each trunk of a node can be used.
    #[track_caller]
    pub(crate) fn trunks_of(&self, node: &str) -> Vec<String> {
        let mut trunks = vec![];
        let usable = || {
            trunks = self.list("trunk list").into_iter().filter(|trunk| trunk["node"] == node).collect();
            !trunks.is_empty() && trunks.iter().all(|trunk| trunk["usable"] == true)
        };
        let waited = wait_until("trunks to be of use", Duration::from_secs(30), node, usable);
        waited.unwrap_or_else(|error| panic!("{error}\n{}", self.operator("trunk list")));
        trunks.iter().map(|trunk| trunk["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// The folder `ansible/`.
fn playbooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ansible").canonicalize().unwrap()
}

/// A package, as `cargo lab ansible` leaves it.
fn package_file(name: &str, revision: u8) -> PathBuf {
    let folder = lab::program("ringward").unwrap().with_file_name("debs");
    let version = format!("{name}_{}-{revision}_", env!("CARGO_PKG_VERSION"));
    let files = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo lab ansible` makes them", folder.display()));
    let mut names = files.map(|file| file.unwrap().path());
    names.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&version)).unwrap()
}

/// How many ms of a WAV of 8 kHz are speech: parts of 20 ms whose loudest sample is above 500 of 32,767.
fn speech_ms(file: &Path) -> usize {
    let wav = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let samples: Vec<u16> =
        wav[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]]).unsigned_abs()).collect();
    samples.chunks(160).filter(|part| part.iter().max() > Some(&500)).count() * 20
}
