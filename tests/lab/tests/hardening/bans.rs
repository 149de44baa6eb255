//! Bans on a whole host: of who guesses passwords at its sshd, told by journald; and over a restart of the host.

use std::{process::Stdio, time::Duration};

use lab::{now, wait_until};
use serde_json::Value;

use crate::walled::Walled;

/// A second port of sshd, open to everybody: from management nobody is banned.
const PORT: u16 = 2_022;
/// A fact is at the control plane.
const HEARD: Duration = Duration::from_secs(10);

#[test]
fn who_guesses_at_sshd_is_told_of_by_a_dry_run_banned_by_the_journal_and_stays_so_over_a_restart() {
    lab::install_attackers().unwrap();
    let policy = format!("open = {{ tcp = [{PORT}] }}");
    let walled = Walled::confirmed(&policy);
    let fact = |kind: &str| -> Option<Value> {
        let agent = walled.fleet.plane.agent("pbx-1").ok()?;
        let facts = agent["facts"].as_array()?.clone();
        facts.into_iter().find(|fact| fact["kind"] == kind).map(|fact| fact["body"].clone())
    };
    walled.shell(&format!(
        "printf 'Port 22\\nPort {PORT}\\nPasswordAuthentication yes\\n' > /etc/ssh/sshd_config.d/ports.conf\n\
         systemctl restart ssh"
    ));
    let attacker = walled.fleet.lab.attacker();
    let (host, target) = (attacker.host().clone(), walled.pbx().address());
    let knock = || host.connect((target, PORT).into(), Duration::from_millis(700));
    wait_until("sshd to listen", Duration::from_secs(10), "", || knock().is_ok()).unwrap();

    let words = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(words.path(), (0..200).map(|n| format!("secret{n}\n")).collect::<String>()).unwrap();
    let guess = || {
        let mut hydra = host.in_namespace();
        hydra.args(["hydra", "-l", "root", "-P"]).arg(words.path());
        hydra.args(["-t", "4", "-I", "-s", &PORT.to_string()]).arg(format!("ssh://{target}"));
        hydra.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };

    // A dry run first: it says what it would do, and bans nobody.
    walled.settle(&format!("{policy}\n[rules.jails.sshd]\nsimulate = true"));
    walled.until("in_force", 20);
    let mut guesser = guess();
    let verdicts = || -> Value {
        let status = walled.agent().status().unwrap_or_default();
        status["evidence"]["jails"]["sshd"]["verdicts"].clone()
    };
    let simulated = || verdicts()["simulated"].as_u64() > Some(0);
    let told = wait_until("the dry run to tell", Duration::from_secs(60), "", simulated);
    guesser.kill().ok();
    guesser.wait().ok();
    told.unwrap_or_else(|error| panic!("{error}\n{:?}\n{}", walled.agent().status(), walled.words()));
    assert!(verdicts()["ban"].is_null(), "{:?}", verdicts());
    assert!(walled.shell("ringward-agent ban list").is_empty() && knock().is_ok());
    wait_until("the control plane to hear of it", HEARD, "", || fact("ban_simulated").is_some()).unwrap();

    walled.settle(&policy);
    walled.until("in_force", 20);
    let began = now();
    let mut guesser = guess();
    let listed = || walled.pbx().shell("ringward-agent ban list").unwrap_or_default();
    let banned = || listed().contains(&format!("{}/32", attacker.address()));
    let took = wait_until("the guesser to be banned", Duration::from_secs(60), "", banned);
    guesser.kill().ok();
    guesser.wait().ok();
    let took = took.unwrap_or_else(|error| {
        panic!("{error}\n{}\n{}", walled.words(), walled.shell("journalctl --no-pager -n 40 -u ssh"))
    });
    println!("hydra is banned {} ms after its start", took.as_millis());
    assert!(knock().is_err() && began.elapsed() < Duration::from_secs(70));
    let why = walled.shell(&format!("ringward-agent ban why {}", attacker.address()));
    assert!(why.contains("sshd"), "{why}");
    wait_until("the control plane to hear of it", HEARD, "", || fact("offence").is_some()).unwrap();
    assert_eq!(fact("offence").unwrap()["jail"], "sshd");

    walled.shell("ringward-agent ban add 198.18.0.9 --seconds 600 --reason scans");
    let left = |address: String| -> Option<u64> {
        let list = listed();
        let line = list.lines().find(|line| line.starts_with(&address))?.to_owned();
        line.split('\t').nth(1)?.trim_end_matches(" s").parse().ok()
    };
    let before = left(format!("{}/32", attacker.address())).unwrap();
    // The snapshot follows.
    lab::pause(Duration::from_secs(2));
    let booted = walled.pbx().reboot().unwrap();
    // Rules that were confirmed need nobody.
    walled.until("in_force", 20);
    let after = left(format!("{}/32", attacker.address())).unwrap();
    let kept = left("198.18.0.9/32".to_owned()).unwrap();
    println!("booted in {} ms; {before} s were left before, {after} s after", booted.as_millis());
    assert!(after < before && after + 90 > before, "{before} s, then {after} s");
    assert!((500..600).contains(&kept), "{kept}");
    let table = walled.shell("nft list set inet ringward ban4");
    assert!(table.contains(&attacker.address().to_string()) && table.contains("198.18.0.9"), "{table}");
    assert!(knock().is_err() && walled.enter().is_some());
}
