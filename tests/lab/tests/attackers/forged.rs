//! Ten thousand forged sources, those of carriers, control plane and operator among them.

use std::time::Duration;

use lab::memory::rss_mb;
use lab::{Forged, Hardening, now};

use crate::guarded::Guarded;

/// Addresses that nobody has, each once.
const SOURCES: u16 = 10_000;
/// Of these so many send enough to earn a ban.
const INSISTENT: u16 = 150;
const INSIST: u32 = 7;
/// Packets in the name of each who matters.
const OF_EACH: u32 = 20;
const PER_S: u32 = 500;
/// What the agent may take for them: its two tables of sources, full.
const GROWTH_MB_MAX: f64 = 12.0;
/// Bans in a minute on evidence that may be forged.
const BREAKER: usize = 60;

#[test]
fn ten_thousand_forged_sources_cut_off_nobody_who_matters() {
    let guarded = Guarded::up(Hardening::usual());
    let (lab, pbx, agent) = (&guarded.fleet.lab, guarded.pbx(), guarded.agent());
    let phone = lab.phone();
    let mut forged: Vec<_> =
        (0..SOURCES).map(|n| Forged { source: Forged::nobody(n), account: format!("f{n}") }).collect();
    for n in 0..INSIST {
        let insistent =
            (0..INSISTENT).map(|of| Forged { source: Forged::nobody(of * 60), account: format!("i{n}") });
        forged.extend(insistent);
        // Spread over the whole run.
        let at = forged.len() / 2;
        forged.rotate_left(at);
    }
    let whose: Vec<_> = guarded.who_matters().into_iter().filter(|whose| *whose != phone.address()).collect();
    let every = forged.len() / (whose.len() * OF_EACH as usize);
    for (n, source) in (0..OF_EACH).flat_map(|n| whose.iter().map(move |whose| (n, *whose))).enumerate() {
        let place = (n * every).min(forged.len());
        forged.insert(place, Forged { source: source.1, account: format!("m{}", source.0) });
    }
    // The phone is protected by nothing but its logins, and by how little one packet counts.
    forged.insert(forged.len() / 2, Forged { source: phone.address(), account: "p".into() });
    let pid = agent.pid().unwrap();
    let before = rss_mb(pid).unwrap();
    let began = now();
    guarded.while_calls_go_on(|| {
        let registering = phone.register(pbx, 75, 3).unwrap();
        lab.attacker().forge(&forged, pbx, PER_S).unwrap();
        registering.all_went_well().unwrap();
    });
    let took = began.elapsed();
    assert_eq!(agent.pid(), Some(pid), "the agent did not start anew");
    let after = rss_mb(pid).unwrap();
    let verdicts = agent.status().unwrap()["evidence"]["jails"]["asterisk"]["verdicts"].clone();
    let banned = pbx.banned().unwrap();
    println!(
        "{} packets of {} sources in {took:?}; agent {before:.1} MB before, {after:.1} MB after; {} banned; {verdicts}",
        forged.len(),
        usize::from(SOURCES) + whose.len() + 1,
        banned.len(),
    );
    assert!(after - before < GROWTH_MB_MAX, "{before} MB before, {after} MB after");
    let who_matters = guarded.who_matters();
    assert!(banned.is_disjoint(&who_matters), "{banned:?}");
    let minutes = 1 + usize::try_from(took.as_secs() / 60).unwrap();
    assert!(!banned.is_empty() && banned.len() <= BREAKER * (minutes + 1), "{}", banned.len());
    assert!(verdicts["counted"].as_u64().unwrap() >= 5_000, "the flood was not weighed: {verdicts}");
    assert!(verdicts["protected"].as_u64().unwrap() >= 1, "nobody who matters was forged: {verdicts}");
    // Afterwards the honest ones are served as before, and the operator comes in.
    phone.register(pbx, 5, 5).unwrap().all_went_well().unwrap();
    assert!(lab.lets_operator_in(pbx).unwrap());
    assert!(agent.firewall().unwrap().starts_with("in_force"));
    for trunk in guarded.fleet.plane.trunks().unwrap() {
        assert_eq!(trunk["state"], "healthy", "{trunk}");
    }
    let lost = agent.metric("ringward_agent_evidence_lost_total").unwrap();
    println!("security events lost: {lost}");
    guarded.while_calls_go_on(|| lab::pause(Duration::from_secs(2)));
}
