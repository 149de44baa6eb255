//! svmap, svwar, svcrack and SIPp, each from an address of its own, while a phone at the address beside the attacker's
//! registers and calls go on.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use lab::{Hardening, Passed, Wire, now, wait_until};

use crate::guarded::Guarded;

/// A tool is ended after so many seconds: some go on although nobody answers.
const RUN_S: &str = "12";
/// How often a scan comes to the PBX.
const SCANNED: usize = 15;
/// svwar gives up after two names, as every name meets the same answer; whoever uses it starts it again.
const RUNS_MAX: u32 = 10;
const FLOOD: &str = include_str!("../../hosts/flood.xml");

/// One attacker: what he types, and from where.
struct Attack {
    name: String,
    source: Ipv4Addr,
    line: Vec<String>,
}

fn attacks(guarded: &Guarded) -> Vec<Attack> {
    let (pbx, attacker) = (guarded.pbx(), guarded.fleet.lab.attacker());
    let (target, mut sources) = (pbx.address().to_string(), attacker.more_addresses().iter());
    let mut all = Vec::new();
    let mut add = |name: &str, line: &[&str]| {
        let source = *sources.next().unwrap();
        let line = line.iter().map(|word| word.replace("SOURCE", &source.to_string())).collect();
        all.push(Attack { name: name.to_owned(), source, line });
    };
    // A scan is one packet for each host that it comes to; this one comes to the same host again and again.
    let scan = |method: &'static str| [&["svmap", "-m", method][..], &[target.as_str(); SCANNED]].concat();
    add("svmap", &scan("OPTIONS"));
    add("svmap INVITE", &scan("INVITE"));
    // Asterisk asks for a password whatever the name is: without --force it would go after one.
    add("svwar", &["svwar", "--force", "-e100-400", &target]);
    add("svwar INVITE", &["svwar", "--force", "-m", "INVITE", "-e100-400", &target]);
    add("svcrack", &["svcrack", "-u", lab::ACCOUNT, "-r1-2000", "-z4", &target]);
    for method in ["REGISTER", "OPTIONS", "INVITE"] {
        let scenario = pbx.host().folder().join(format!("flood-{method}.xml"));
        std::fs::write(&scenario, FLOOD.replace("METHOD", method)).unwrap();
        let (scenario, target) = (scenario.display().to_string(), format!("{target}:5060"));
        let line = [
            "sipp", "-i", "SOURCE", "-sf", &scenario, "-r", "200", "-m", "1000", "-nostdin", "-timeout", "8",
            &target,
        ];
        add(&format!("SIPp {method}"), &line);
    }
    all
}

/// Requests of a source, and those of them that were answered.
fn counts(passed: &[Passed], source: Ipv4Addr) -> (usize, usize) {
    let asked = passed.iter().filter(|one| one.from == source && one.code.is_none()).count();
    (asked, passed.iter().filter(|one| one.to == source && one.code.is_some()).count())
}

#[test]
fn each_is_banned_while_its_neighbour_registers_and_calls_go_on() {
    let guarded = Guarded::up(Hardening::usual());
    let (pbx, lab) = (guarded.pbx(), &guarded.fleet.lab);
    let wire = Wire::tap(pbx.host()).unwrap();
    let attacks = attacks(&guarded);
    let phone = lab.phone().address();
    guarded.while_calls_go_on(|| {
        let began = now();
        let mut rounds = 0;
        for attack in &attacks {
            // Before, while and after: each attack's own registrations, all of them well.
            lab.attacker().speak_from(attack.source, pbx).unwrap();
            let registering = lab.phone().register(pbx, 12, 3).unwrap();
            rounds += 12;
            let dropped = pbx.dropped().unwrap();
            let mut runs = 0;
            while runs < RUNS_MAX && !pbx.banned().unwrap().contains(&attack.source) {
                runs += 1;
                let mut command = lab.attacker().host().in_namespace();
                command.args(["timeout", "--kill-after=1", RUN_S]).args(&attack.line);
                command.stdin(Stdio::null()).env("HOME", pbx.host().folder());
                command.current_dir(pbx.host().folder()).output().unwrap();
            }
            let banned = || pbx.banned().unwrap().contains(&attack.source);
            let why = || format!("{}: {}", attack.name, guarded.agent().log().unwrap_or_default());
            wait_until("a ban", Duration::from_secs(2), "", banned).unwrap_or_else(|error| panic!("{error} {}", why()));
            // Once more: nothing of it is answered any more.
            let (_, answered) = counts(&wire.passed().unwrap(), attack.source);
            let mut again = lab.attacker().host().in_namespace();
            again.args(["timeout", "--kill-after=1", "3"]).args(&attack.line).stdin(Stdio::null());
            again.env("HOME", pbx.host().folder()).current_dir(pbx.host().folder()).output().unwrap();
            let (asked, after) = counts(&wire.passed().unwrap(), attack.source);
            let more = pbx.dropped().unwrap() - dropped;
            println!(
                "{:<14} {runs:>2} runs until the ban; {asked:>5} requests, {after:>4} answered, {more:>5} packets dropped",
                attack.name
            );
            assert_eq!(after, answered, "{} is answered although it is banned", attack.name);
            assert!(asked > answered && more > 0, "{}", attack.name);
            registering.all_went_well().unwrap_or_else(|error| panic!("during {}: {error}", attack.name));
        }
        let passed = wire.passed().unwrap();
        let is_registered = |one: &&Passed| one.to == phone && one.code == Some(200) && one.method == "REGISTER";
        let registered = passed.iter().filter(is_registered).count();
        println!("{registered} registrations of the phone at {phone} meanwhile, in {:?}", began.elapsed());
        assert_eq!(registered, rounds);
    });
    let banned = guarded.banned();
    let expected = attacks.iter().map(|attack| attack.source).collect();
    assert_eq!(banned, expected, "they, and nobody else");
    assert!(banned.is_disjoint(&guarded.who_matters()));
}
