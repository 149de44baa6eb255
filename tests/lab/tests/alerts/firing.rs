//! A carrier dies, and Prometheus tells: real Prometheus with the repository's rules and configuration, real control plane
//! and agents.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::{Behaviour, Pbx, Plan, Reach, now, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{Fleet, full};
use crate::rules::{alerts_folder, files};

/// Where Prometheus answers: the lab's network is its own.
const PROMETHEUS: &str = "127.0.0.1:9090";
/// From the carrier's death to the page: a minute of the rule, and what OPTIONS, scrape and evaluation take.
const PAGE_WITHIN: Duration = Duration::from_secs(90);
/// The same for the ticket on each trunk: two minutes of the rule.
const TICKET_WITHIN: Duration = Duration::from_secs(150);

/// Ends with the test.
pub(crate) struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Prometheus {
    /// With the repository's configuration, looking every second instead of every fifteen.
    fn start(folder: &Path, fleet: &Fleet) -> Self {
        Self::start_with(folder, fleet, &[], None)
    }

    /// The same, with rules changed so, and telling an Alertmanager.
    pub(crate) fn start_with(
        folder: &Path,
        fleet: &Fleet,
        changes: &[(&str, &str)],
        alertmanager: Option<&str>,
    ) -> Self {
        for file in files(&alerts_folder(), ".rules.yml") {
            let rules = fs::read_to_string(&file).unwrap();
            let rules = changes.iter().fold(rules, |rules, (from, to)| rules.replace(from, to));
            fs::write(folder.join(file.file_name().unwrap()), rules).unwrap();
        }
        let mut text = fs::read_to_string(alerts_folder().join("prometheus.yml")).unwrap();
        if let Some(alertmanager) = alertmanager {
            assert_eq!(text.matches("targets: []").count(), 1);
            text = text.replace("targets: []", &format!("targets: [\"{alertmanager}\"]"));
        }
        assert_eq!(text.matches("interval: 15s").count(), 2);
        fs::write(folder.join("prometheus.yml"), text.replace("interval: 15s", "interval: 1s")).unwrap();
        fs::create_dir(folder.join("targets")).unwrap();
        let plane = fleet.plane.operator_url().replace("http://", "");
        fs::write(folder.join("targets/ringward-1.yml"), format!("- targets: [\"{plane}\"]\n")).unwrap();
        let agent = |pbx: &Pbx| {
            format!("- targets: [\"{}:9465\"]\n  labels: {{node: {}}}\n", pbx.address(), pbx.name())
        };
        let agents: String = fleet.lab.pbxes().iter().map(agent).collect();
        fs::write(folder.join("targets/agents-1.yml"), agents).unwrap();
        let log = fs::File::create(folder.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

pub(crate) fn ask(path: &str) -> Option<Value> {
    let mut answer = ureq::get(format!("http://{PROMETHEUS}{path}")).call().ok()?;
    answer.body_mut().read_to_string().ok().and_then(|text| serde_json::from_str(&text).ok())
}

/// `name/value of a label` of every alert that fires.
pub(crate) fn firing(label: &str) -> Vec<String> {
    let answer = ask("/api/v1/alerts").unwrap_or_default();
    let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = alerts
        .iter()
        .filter(|alert| alert["state"] == "firing")
        .map(|alert| {
            let labels = &alert["labels"];
            format!(
                "{}/{}",
                labels["alertname"].as_str().unwrap(),
                labels[label].as_str().unwrap_or_default()
            )
        })
        .collect();
    names.sort();
    names
}

pub(crate) fn up_targets() -> usize {
    let answer = ask("/api/v1/targets?state=active").unwrap_or_default();
    let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
    targets.iter().filter(|target| target["health"] == "up").count()
}

/// What the programs expose is as Prometheus wants it.
fn check_metrics(what: &str, text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.trim().is_empty(), "{what}: {words}");
}

fn scrape(address: &str) -> String {
    let mut answer = ureq::get(format!("http://{address}/metrics")).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

/// Agents tell on loopback by themselves; this is what the runbook says to set.
pub(crate) fn open_to_prometheus(fleet: &Fleet) {
    for pbx in fleet.lab.pbxes() {
        let settings = pbx.host().folder().join("agent.toml");
        let mut file = fs::File::options().append(true).open(settings).unwrap();
        write!(file, "[metrics]\nlisten = \"{}:9465\"\n", pbx.address()).unwrap();
        let agent = pbx.agent().unwrap();
        agent.stop().unwrap();
        agent.start().unwrap();
    }
    fleet.plane.wait_for_nodes().unwrap();
}

#[test]
fn a_dead_carrier_is_told_by_prometheus() {
    crate::promtool::installed();
    let fleet = Fleet::up(Plan { reach: Reach::Agent, ..full() });
    open_to_prometheus(&fleet);
    let folder = TempDir::new().unwrap();
    let _prometheus = Prometheus::start(folder.path(), &fleet);
    let log = folder.path().join("prometheus.log");
    let patience = Duration::from_secs(60);
    let tail = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("all targets to be up", patience, "", || up_targets() == 3)
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", ask("/api/v1/targets"), tail()));
    check_metrics("control plane", &scrape(&fleet.plane.operator_url().replace("http://", "")));
    for pbx in fleet.lab.pbxes() {
        check_metrics(pbx.name(), &scrape(&format!("{}:9465", pbx.address())));
    }
    let healthy = || firing("trunk") == ["RingwardWatchdog/"];
    wait_until("all to be quiet", patience, "", healthy)
        .unwrap_or_else(|error| panic!("{error}: {:?}", firing("trunk")));

    fleet.lab.carrier("a").unwrap().behave(Behaviour::Dead).unwrap();
    let dead = now();
    let paged = || firing("carrier").contains(&"RingwardCarrierDown/a".to_owned());
    wait_until("the page", PAGE_WITHIN, "", paged)
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", firing("carrier"), fleet.log_tail()));
    println!("RingwardCarrierDown fires {:.1} s after the carrier died", dead.elapsed().as_secs_f64());
    let both = ["RingwardTrunkTripped/a-pbx-1".to_owned(), "RingwardTrunkTripped/a-pbx-2".to_owned()];
    let ticketed = || both.iter().all(|name| firing("trunk").contains(name));
    let left = TICKET_WITHIN.saturating_sub(dead.elapsed());
    wait_until("the tickets", left, "", ticketed)
        .unwrap_or_else(|error| panic!("{error}: {:?}", firing("trunk")));
    println!("RingwardTrunkTripped fires on both trunks after {:.1} s", dead.elapsed().as_secs_f64());
    assert!(!firing("carrier").iter().any(|name| name.ends_with("/b")), "{:?}", firing("carrier"));

    // No rule fails on series of a real fleet, and no annotation either.
    let rules = ask("/api/v1/rules").unwrap();
    for rule in rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        assert_eq!(rule["health"], "ok", "{rule}");
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            for (name, text) in alert["annotations"].as_object().unwrap() {
                let text = text.as_str().unwrap();
                assert!(
                    !text.contains("error") && !text.contains("<no value>") && !text.is_empty(),
                    "{name}: {text}"
                );
                println!("{name}: {text}");
            }
        }
    }

    fleet.lab.carrier("a").unwrap().behave(Behaviour::Answer).unwrap();
    let over = || firing("trunk") == ["RingwardWatchdog/"];
    wait_until("all to be quiet again", Duration::from_secs(420), "", over)
        .unwrap_or_else(|error| panic!("{error}: {:?}", firing("trunk")));
}
