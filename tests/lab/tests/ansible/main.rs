//! The life of a fleet: built from bare Debian hosts by `ansible-playbook site.yml`, changed, upgraded under load, rolled
//! back, reduced. Hosts are booted with systemd and reached by ssh; carriers are real, and what they heard decides.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails here fails the test, and figures are told"
)]
mod encrypted;
mod packaged;
mod restored;
mod site;

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{numbers, pause, wait_until};
use serde_json::{Value, json};
use site::Site;

const FLEET: &str = "group_vars/all/fleet.yml";
const ALL_AT_ONCE: [&str; 2] = ["-e", "ringward_serial=100%"];
/// Revisions of the packages: the same programs, told apart by their number.
const FIRST: u8 = 1;
const SECOND: u8 = 2;
/// Between two calls while nodes are upgraded.
const CALL_EVERY: Duration = Duration::from_millis(400);
/// Where a node lives behind its router.
const INNER: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 55, 0, 2), Ipv4Addr::new(10, 55, 0, 1));

/// Numbers that go over one trunk alone, as routes of the inventory say.
const ROUTES: &str = "  - {prefix: \"+4822213000\", tiers: [[acme-waw-1]]}\n  - {prefix: \"+4822213001\", tiers: [[beta-fra-1]]}\n";

#[test]
fn a_fleet_is_built_from_bare_hosts_changed_upgraded_and_reduced() {
    lab::install_attackers().unwrap();
    let mut site = Site::up();
    site.insert(FLEET, "\n# Whom customers may phone", ROUTES);
    build(&mut site);
    watched(&site);
    packaged::sandboxes(&site);
    guarded(&site);
    restored::no_phone_rings_again(&site);
    a_trunk_more(&site);
    let before = site.inventoried();
    a_node_more(&mut site);
    upgrade_under_load(&site);
    roll_back(&site);
    remove(&site, &before);
    packaged::purge(&site);
}

fn whole(more: &[&'static str]) -> Vec<&'static str> {
    [&["site.yml"], &ALL_AT_ONCE[..], more].concat()
}

fn build(site: &mut Site) {
    let checked = site.play(FIRST, &whole(&["--check"]));
    assert_eq!(checked.changed(), ["fra-1", "plane", "watch", "waw-1"]);
    for host in &site.hosts {
        let there =
            host.shell("ls /usr/sbin/asterisk /usr/bin/ringward* /usr/bin/prometheus 2>/dev/null || true");
        assert_eq!(there.unwrap(), "", "a check changes nothing on {}", host.name());
    }
    site.play(FIRST, &whole(&[]));
    let again = site.play(FIRST, &whole(&[]));
    assert_eq!(again.hosts(), ["fra-1", "plane", "watch", "waw-1"]);
    assert!(again.changed().is_empty(), "a second run changes nothing");
    site.make_customer();
    for node in ["waw-1", "fra-1"] {
        assert_eq!(site.trunks_of(node).len(), 2);
    }
    site.talk(&numbers::number(numbers::PRESS_TONES, 0), "acme-waw-1", "a");
    site.talk(&numbers::number(numbers::PRESS_TONES, 10), "beta-fra-1", "b");
}

/// Prometheus reads the control plane and both agents, through their firewalls, and has all rules.
fn watched(site: &Site) {
    let ask = |path: &str| -> Value {
        let (status, text) =
            site.host("watch").ask(&format!("http://127.0.0.1:9090{path}"), "", None).unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let mut up = vec![];
    let all_up = || {
        let targets = ask("/api/v1/targets?state=active");
        up = targets["data"]["activeTargets"].as_array().unwrap().clone();
        up.len() == 3 && up.iter().all(|target| target["health"] == "up")
    };
    wait_until("Prometheus to read three targets", Duration::from_secs(40), "", all_up)
        .unwrap_or_else(|error| panic!("{error}: {up:#?}"));
    let rules = ask("/api/v1/rules")["data"]["groups"].as_array().unwrap().len();
    assert!(rules >= 5, "{rules} groups of rules");
}

/// Strangers find SIP and ssh of a node, and AMI of none; who guesses accounts is banned, on the other node too.
fn guarded(site: &Site) {
    let attacker = site.lab.attacker();
    let waw = site.host("waw-1");
    for node in ["waw-1", "fra-1"] {
        let listens = site.host(node).shell("ss -Htln").unwrap();
        let ami: Vec<_> = listens.lines().filter(|line| line.contains(":5038 ")).collect();
        assert!(ami.len() == 1 && ami[0].contains("127.0.0.1:5038"), "{listens}");
        let from_outside =
            attacker.host().connect((site.host(node).address(), 5038).into(), Duration::from_secs(1));
        assert!(from_outside.is_err(), "AMI of {node} is reached from outside");
    }
    let banned = |node: &str| {
        let set = site.host(node).shell("nft list set inet ringward ban4").unwrap_or_default();
        set.contains(&attacker.address().to_string())
    };
    let mut guess = attacker.host().in_namespace();
    let target = waw.address().to_string();
    guess.args(["timeout", "12", "svwar", "--force", "-e100-400", &target]);
    guess.stdin(Stdio::null()).env("HOME", waw.host().folder()).current_dir(waw.host().folder());
    // It gives up after a few names; whoever uses it starts it again.
    let attacked = || {
        guess.output().unwrap();
        banned("waw-1")
    };
    wait_until("a ban", Duration::from_secs(60), "", attacked).unwrap();
    wait_until("the ban on the other node", Duration::from_secs(5), "", || banned("fra-1")).unwrap();
}

/// A check says what the run then does.
fn a_trunk_more(site: &Site) {
    let trunk = "  - name: spare-waw-1\n    node: waw-1\n    carrier: beta\n    endpoint: spare\n    pjsip:\n      \
                 qualify_s: 2\n      contact: sip:192.0.2.32:5060\n\n";
    site.insert(FLEET, "ringward_routes:", trunk);
    // From where its carrier's SIP and RTP come, for the firewalls.
    site.replace(FLEET, "[192.0.2.22/32]", "[192.0.2.22/32, 192.0.2.32/32]");
    site.insert(
        FLEET,
        "\n# Whom customers may phone",
        "  - {prefix: \"+4822213002\", tiers: [[spare-waw-1]]}\n",
    );
    let expected = site.play(FIRST, &whole(&["--tags", "trunks", "--check"]));
    assert!(!site.operator("trunk list").contains("spare"), "a check changes nothing");
    let changed = site.play(FIRST, &whole(&["--tags", "trunks"]));
    assert_eq!((expected.changed(), changed.changed()), (vec!["plane", "waw-1"], vec!["plane", "waw-1"]));
    assert_eq!(site.trunks_of("waw-1").len(), 3);
    site.talk(&numbers::number(numbers::PRESS_TONES, 20), "spare-waw-1", "b");
}

/// Behind a NAT, with a carrier that speaks TLS and SRTP alone.
fn a_node_more(site: &mut Site) {
    let ber = site.boot("ber-1", 55);
    ber.move_behind_nat(INNER.0, INNER.1, &[22]).unwrap();
    let ca = encrypted::speak(site.carrier("a"));
    ber.shell(&format!("mkdir -p /etc/ssl\ncat >/etc/ssl/carriers.pem <<'END'\n{ca}END")).unwrap();
    let host = format!(
        "        ber-1:\n          ansible_host: 192.0.2.55\n          ringward_region: eu-central\n          \
         ringward_sip_address: {}\n          asterisk_nat: {{address: 192.0.2.55, local_nets: [10.55.0.0/24]}}\n          \
         asterisk_tls: {{ca_file: /etc/ssl/carriers.pem}}\n",
        INNER.0
    );
    site.insert("hosts.yml", "    controlplane:\n", &host);
    let trunk = "  - name: acme-ber-1\n    node: ber-1\n    carrier: acme\n    endpoint: acme\n    pjsip:\n      \
                 qualify_s: 2\n      contact: sip:192.0.2.21:5061;transport=tls\n      tls: true\n      srtp: true\n\n";
    site.insert(FLEET, "ringward_routes:", trunk);
    site.insert(
        FLEET,
        "\n# Whom customers may phone",
        "  - {prefix: \"+4822210000\", tiers: [[acme-ber-1]]}\n",
    );
    let changed = site.play(FIRST, &whole(&[]));
    assert_eq!(changed.changed(), ["ber-1", "plane"], "nobody else is touched");
    assert_eq!(site.trunks_of("ber-1"), ["acme-ber-1"]);
    site.talk(&numbers::number(numbers::PRESS, 0), "acme-ber-1", "a");
}

fn upgrade_under_load(site: &Site) {
    let over = AtomicBool::new(false);
    let placed = std::thread::scope(|scope| {
        let placing = scope.spawn(|| {
            let mut placed = vec![];
            while !over.load(Ordering::SeqCst) {
                let to = numbers::number(numbers::ANSWER, u16::try_from(placed.len()).unwrap());
                let body = json!({"to": to, "message": {"audio_id": "builtin:beep"}, "dedup_key": to});
                placed.push((site.place(&body), to));
                pause(CALL_EVERY);
            }
            placed
        });
        // Also when it panics: the scope waits for the thread.
        let done =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| site.play(SECOND, &["upgrade.yml"])));
        over.store(true, Ordering::SeqCst);
        let placed = placing.join().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        placed
    });
    let calls: Vec<Value> = placed.iter().map(|(id, _)| site.ended(id)).collect();
    for call in &calls {
        assert_eq!(
            (call["status"].as_str(), call["reason"].as_str()),
            (Some("completed"), Some("played")),
            "{call}"
        );
    }
    let nodes = |name: &str| calls.iter().filter(|call| call["attempts"][0]["node"] == name).count();
    println!(
        "{} calls meanwhile, {} by waw-1, {} by fra-1, all played",
        calls.len(),
        nodes("waw-1"),
        nodes("fra-1")
    );
    assert!(nodes("waw-1") > 20 && nodes("fra-1") > 20, "each carried what the other was spared");
    let seen =
        ["a", "b"].map(|carrier| site.carrier(carrier).seen_when_quiet(Duration::from_millis(400)).unwrap());
    for (_, to) in &placed {
        assert_eq!(seen.iter().map(|seen| seen.of(to).answers).sum::<u32>(), 1, "{to} was phoned once");
    }
    installed(site, SECOND);
}

fn roll_back(site: &Site) {
    site.play(FIRST, &["upgrade.yml", "-e", "ringward_upgrade_asterisk=false"]);
    installed(site, FIRST);
    site.talk(&numbers::number(numbers::PRESS_TONES, 1), "acme-waw-1", "a");
}

fn installed(site: &Site, revision: u8) {
    for (host, package) in [
        ("plane", "ringward"),
        ("waw-1", "ringward-agent"),
        ("fra-1", "ringward-agent"),
        ("ber-1", "ringward-agent"),
    ] {
        let version = site.host(host).shell(&format!("dpkg-query -W -f '${{Version}}' {package}")).unwrap();
        assert_eq!(version, format!("{}-{revision}", env!("CARGO_PKG_VERSION")), "{host}");
    }
    let draining = site.list("node list").iter().filter(|node| node["draining"] == true).count();
    assert_eq!(draining, 0, "every node is back in service");
}

fn remove(site: &Site, before: &[(&'static str, String)]) {
    site.play(FIRST, &["remove.yml", "--limit", "ber-1,plane", "-e", "ringward_remove=yes"]);
    let left = site.host("ber-1").shell(
        "ls -d /usr/bin/ringward-agent /etc/ringward-agent* /var/lib/ringward-agent /var/cache/ringward* \
         /etc/asterisk/*_ringward.conf 2>/dev/null || true; nft list tables | grep ringward || true; systemctl list-unit-files --no-legend 'ringward*' || true",
    );
    assert_eq!(left.unwrap(), "", "nothing of the product is left on the node");
    site.reset(before);
    site.play(FIRST, &whole(&["--tags", "fleet"]));
    let nodes: Vec<_> = site.list("node list").iter().map(|node| node["name"].clone()).collect();
    assert_eq!(nodes, ["fra-1", "waw-1"]);
    let untouched = site.play(FIRST, &whole(&[]));
    assert!(untouched.changed().is_empty(), "the fleet is what the inventory says");
    site.talk(&numbers::number(numbers::PRESS_TONES, 11), "beta-fra-1", "b");
}
