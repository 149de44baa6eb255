//! A carrier dies, and the fleet phones its operator by the other one: real Prometheus and Alertmanager with the documented
//! configuration, real PBXes and carriers, a voice, and the key that acknowledges.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lab::{Behaviour, Plan, Reach, now, numbers, pause, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    alertmanager,
    firing::{Prometheus, ask, firing, open_to_prometheus, up_targets},
    fixture::{Fleet, diagonal},
    rules::alerts_folder,
};

/// Where Alertmanager answers: the lab's network is its own.
const ALERTMANAGER: &str = "127.0.0.1:9093";
/// Steps of the story take no longer than this.
const PATIENCE: Duration = Duration::from_secs(120);
/// A part of a recording is speech if its loudest sample is above this, of 32,767.
const SPEECH: u16 = 500;

/// Ends with the test.
struct Alertmanager(Child);

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Alertmanager {
    /// With the documented configuration: the hook's own address and key, the trunk's alert instead of all pages, and waits of
    /// a second.
    fn start(folder: &Path, hook: &str, key: &str) -> Self {
        let text = fs::read_to_string(alerts_folder().join("alertmanager.yml")).unwrap();
        let key_file = folder.join("ringward.key");
        fs::write(&key_file, key).unwrap();
        let changes = [
            ("severity=\"page\"", "alertname=\"RingwardTrunkTripped\""),
            ("group_wait: 10s", "group_wait: 1s"),
            ("group_interval: 1m", "group_interval: 1s"),
            ("/etc/alertmanager/ringward.key", key_file.to_str().unwrap()),
        ];
        let text = changes.into_iter().fold(text, |text, (from, to)| {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text.replace(from, to)
        });
        let url = text.lines().find_map(|line| line.trim().strip_prefix("- url: ")).unwrap().to_owned();
        let file = folder.join("alertmanager.yml");
        fs::write(&file, text.replace(&url, hook)).unwrap();
        let log = fs::File::create(folder.join("alertmanager.log")).unwrap();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.join("alertmanager").display()))
            .arg(format!("--web.listen-address={ALERTMANAGER}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

/// The incident that there is, if there is one.
fn incident(fleet: &Fleet) -> Value {
    fleet.plane.customer("GET", "/v1/incidents", None).unwrap()["data"][0].clone()
}

/// How many ms of what the carrier recorded are speech.
fn speech_ms(file: &Path) -> usize {
    let wav = fs::read(file).unwrap();
    let samples: Vec<u16> =
        wav[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]]).unsigned_abs()).collect();
    samples.chunks(160).filter(|part| part.iter().max() > Some(&SPEECH)).count() * 20
}

/// A page of the console, as who has signed in sees it.
fn console(fleet: &Fleet, path: &str) -> String {
    let base = fleet.plane.operator_url();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build().into();
    let form = [("key", fleet.plane.operator_key())];
    let signed = agent
        .post(format!("{base}/sign-in"))
        .header("sec-fetch-site", "same-origin")
        .send_form(form)
        .unwrap();
    let cookie = signed.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut page = agent.get(format!("{base}{path}")).header("cookie", cookie).call().unwrap();
    assert_eq!(page.status(), 200, "{path}");
    page.body_mut().read_to_string().unwrap()
}

#[test]
fn a_dead_carrier_phones_the_operator_by_the_other_one() {
    crate::promtool::installed();
    alertmanager::installed();
    let fleet = Fleet::up(Plan { reach: Reach::Agent, ..diagonal() });
    open_to_prometheus(&fleet);
    let folder = TempDir::new().unwrap();

    // As docs/ONCALL.md tells it: a key that tells alone, and a hook. Who is on call presses 1.
    let body = json!({"name": "alertmanager", "scopes": ["hooks:send"]});
    let key = fleet.plane.admin("POST", "/admin/v1/keys", Some(&body)).unwrap();
    let on_call = numbers::number(numbers::PRESS, 1);
    let made =
        fleet.plane.command_line(&["--json", "hook", "create", "Night shift", "--to", &on_call]).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let hook: Value = serde_json::from_slice(&made.stdout).unwrap();
    let address = format!("{}{}", fleet.plane.api_url(), hook["path"].as_str().unwrap());
    let _alertmanager = Alertmanager::start(folder.path(), &address, key["secret"].as_str().unwrap());
    // The shipped rules, with shorter waits.
    let shorter = [("for: 2m", "for: 10s"), ("keep_firing_for: 2m", "keep_firing_for: 5s")];
    let _prometheus = Prometheus::start_with(folder.path(), &fleet, &shorter, Some(ALERTMANAGER));
    let logs = || {
        let of = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        format!("{}\n{}\n{}", of("prometheus.log"), of("alertmanager.log"), fleet.log_tail())
    };
    wait_until("all targets to be up", PATIENCE, "", || up_targets() == 3)
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", ask("/api/v1/targets"), logs()));
    wait_until("all to be quiet", PATIENCE, "", || firing("trunk") == ["RingwardWatchdog/"])
        .unwrap_or_else(|error| panic!("{error}: {:?}", firing("trunk")));
    let since_both = now();

    fleet.lab.carrier("a").unwrap().behave(Behaviour::Dead).unwrap();
    let dead = now();
    let fires = || firing("trunk").contains(&"RingwardTrunkTripped/a-pbx-1".to_owned());
    wait_until("the alert", PATIENCE, "", fires)
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", firing("trunk"), logs()));
    println!("RingwardTrunkTripped fires {:.1} s after the carrier died", dead.elapsed().as_secs_f64());
    let fired = now();
    wait_until("the incident", PATIENCE, "", || incident(&fleet)["status"].is_string())
        .unwrap_or_else(|error| panic!("{error}\n{}", logs()));
    println!("the incident is open {:.1} s after that", fired.elapsed().as_secs_f64());

    // The phone rings at the carrier that is well, and what it says is recorded there.
    let carrier = fleet.lab.carrier("b").unwrap();
    let call = || incident(&fleet)["steps"][0]["call"].as_str().map(str::to_owned);
    let up =
        || call().is_some_and(|id| fleet.plane.call(&id).is_ok_and(|call| call["status"] == "in_progress"));
    wait_until("the call to be up", PATIENCE, "", up)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", incident(&fleet), logs()));
    println!("somebody listens {:.1} s after the alert", fired.elapsed().as_secs_f64());
    let channels = carrier.console("core show channels concise").unwrap();
    let channel = channels.lines().find_map(|line| line.split('!').next()).unwrap_or_default();
    carrier.console(&format!("mixmonitor start {channel} /srv/ringward/spool/on-call.wav")).unwrap();
    let acknowledged = || incident(&fleet)["status"] == "acknowledged";
    wait_until("the acknowledgement", PATIENCE, "", acknowledged)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", incident(&fleet), logs()));
    println!("it is acknowledged {:.1} s after the carrier died", dead.elapsed().as_secs_f64());
    let taken = incident(&fleet);
    assert_eq!(taken["steps"][0]["to"], on_call.as_str(), "{taken}");
    assert_eq!(
        (taken["steps"].as_array().unwrap().len(), &taken["steps"][0]["result"]),
        (1, &json!("acknowledged"))
    );
    let said = taken["steps"][0]["said"].as_str().unwrap();
    assert!(said.contains("Trunk a-pbx-1 is out of service"), "{said}");
    println!("it said: {said}");
    let id = taken["steps"][0]["call"].as_str().unwrap();
    let ended = fleet.ended(id);
    assert_eq!(
        (&ended["reason"], &ended["acknowledgement"]["key"]),
        (&json!("acknowledged"), &json!("1")),
        "{ended}"
    );
    let last = ended["attempts"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["carrier"], &last["node"]), (&json!("b"), &json!("pbx-2")), "{ended}");
    pause(Duration::from_millis(500));
    let speech = speech_ms(&carrier.host().folder().join("spool/on-call.wav"));
    println!("{speech} ms of speech were heard at the carrier before the key");
    assert!(speech > 1_000, "{speech} ms");

    // In the console and in the audit log.
    let incident_id = taken["id"].as_str().unwrap();
    let page = console(&fleet, "/incidents");
    for told in [incident_id, "Night shift", "Trunk a-pbx-1 is out of service", on_call.as_str(), id] {
        assert!(page.contains(told) || told.starts_with('+') && page.contains(&told[1..]), "{told}: {page}");
    }
    assert!(page.contains("state acknowledged"), "{page}");
    let rows = fleet.plane.admin("GET", "/admin/v1/audit?action=incident.*", None).unwrap();
    let actions: Vec<&str> =
        rows["data"].as_array().unwrap().iter().rev().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["incident.open", "incident.acknowledge"], "{rows}");

    // The carrier is back: the incident is over, and nobody was phoned a second time.
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Answer).unwrap();
    let back = now();
    wait_until("the end", Duration::from_secs(300), "", || incident(&fleet)["status"] == "resolved")
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", incident(&fleet), logs()));
    println!("it is resolved {:.1} s after the carrier was back", back.elapsed().as_secs_f64());
    assert_eq!(incident(&fleet)["id"], incident_id);
    assert_eq!(fleet.seen("b").of(&on_call).invites, 1, "{:?}", since_both.elapsed());
}
