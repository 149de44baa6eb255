//! A hundred thousand bans: back at boot, one more among them, and what they cost a packet.

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use node_agent::{
    identity::StateDir,
    joining,
    ward::{Ward, by_operator},
};
use node_agent_core::firewall::Policy;
use serde_json::{Value, json};

use crate::{
    bench::{AGENT, Bench, firewall, order, policy, runtime, until, wait},
    control_plane::ControlPlane,
    packets,
    program::{Running, agent},
};

pub(crate) const MANY: u32 = 100_000;
/// Between two single bans, so that some meet each of the ward's own errands: looks at the kernel, snapshots.
const PAUSE: Duration = Duration::from_millis(30);

/// A node that holds that many, on disk and in the kernel.
fn with_many(policy: Policy) -> Bench {
    let bench = Bench::new();
    bench.with_ward(firewall(policy), |ward| {
        bench.confirm(ward);
        let list: String =
            (0..MANY).map(|n| format!("{}\n", Ipv4Addr::from_bits(0x2000_0000 + n * 3))).collect();
        let by = by_operator("pbx1", "anna", "list");
        let imported = runtime().block_on(ward.import(list, Some(86_400), by)).unwrap();
        assert_eq!((imported.nets, imported.not_taken), (MANY as usize, 0));
        let snapshot = bench.state_dir().join("bans.json");
        // Some 200 bytes for each.
        until(60, "the snapshot", || {
            std::fs::metadata(&snapshot).is_ok_and(|file| file.len() > u64::from(MANY) * 100)
        });
    });
    bench
}

/// From the start to all bans in force, and single bans afterwards, by length.
fn boot(bench: &Bench, more: u32) -> (Duration, Vec<Duration>) {
    let began = Instant::now();
    bench.with_ward(firewall(policy()), |ward| {
        wait(ward, "in_force", 20);
        let restored = began.elapsed();
        assert_eq!(bench.pair.pbx.readback().bans().len(), MANY as usize);
        let took = one_more(ward, more);
        // However dear a snapshot of so many is, a power cut brings nothing back that was lifted a few seconds before.
        let lifted = "203.0.112.0/32";
        until(30, "a ban on disk", || is_on_disk(bench, lifted));
        runtime()
            .block_on(ward.lift(lifted.parse().unwrap(), by_operator("pbx1", "anna", "in error")))
            .unwrap();
        let durable = until(30, "a lift on disk", || !is_on_disk(bench, lifted));
        assert!(durable < Duration::from_secs(12), "{durable:?}");
        (restored, took)
    })
}

fn one_more(ward: &Ward, count: u32) -> Vec<Duration> {
    let runtime = runtime();
    let mut took: Vec<_> = (0..count)
        .map(|n| {
            let net = format!("203.0.{}.{}/32", 112 + n / 200, n % 200);
            let began = Instant::now();
            runtime.block_on(ward.ban(order(&net, Some(600)))).unwrap();
            let took = began.elapsed();
            std::thread::sleep(PAUSE);
            took
        })
        .collect();
    took.sort();
    took
}

fn share(took: &[Duration], percent: usize) -> Duration {
    took[(took.len() * percent / 100).min(took.len() - 1)]
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn a_hundred_thousand_bans_come_back_at_boot_and_one_more_is_quick() {
    let bench = with_many(policy()).reboot();
    let (restored, took) = boot(&bench, 100);
    println!(
        "100,000 bans in force after {restored:?}; one more: {:?}, p99 {:?}, most {:?}",
        share(&took, 50),
        share(&took, 99),
        took[99]
    );
    // The second is a release build's; without optimisation the book and its JSON take most of it.
    let bound = if cfg!(debug_assertions) { 20 } else { 1 };
    assert!(restored < Duration::from_secs(bound), "{restored:?}");
    assert!(share(&took, 50) < Duration::from_millis(20), "{took:?}");
    // Snapshots and looks at the kernel run meanwhile: a ban that waits for one of them takes some 300 ms.
    assert!(share(&took, 90) < Duration::from_millis(60), "{took:?}");
}

/// One question at the door of the running program.
fn ask(bench: &Bench, question: &Value) -> Option<Value> {
    let mut door = UnixStream::connect(bench.state_dir().join("control.sock")).ok()?;
    writeln!(door, "{question}").ok()?;
    let mut line = String::new();
    BufReader::new(door).read_line(&mut line).ok()?;
    let reply: Value = serde_json::from_str(&line).ok()?;
    assert!(reply["error"].is_null(), "{question}: {reply}");
    Some(reply["answer"].clone())
}

/// Whether the snapshot speaks of it.
fn is_on_disk(bench: &Bench, words: &str) -> bool {
    std::fs::read_to_string(bench.state_dir().join("bans.json")).unwrap().contains(words)
}

struct Booted {
    restored: Duration,
    took: Vec<Duration>,
    /// From the lift of some until a power cut would not bring them back.
    durable: Duration,
}

/// As after a reboot, with the program itself: from its start to all bans in force, and single bans afterwards.
fn boot_program(bench: &Bench, program: &Path, config: &Path) -> Booted {
    let began = Instant::now();
    let running = Running::start_of(bench, program, config);
    let is_in_force = || ask(bench, &json!({"ask": "standing"})).is_some_and(|of| of["state"] == "in_force");
    while !is_in_force() {
        assert!(began.elapsed() < Duration::from_secs(20), "not in force");
        std::thread::sleep(Duration::from_millis(5));
    }
    let restored = began.elapsed();
    assert_eq!(bench.pair.pbx.readback().bans().len(), MANY as usize);
    let took = (0..200)
        .map(|n| {
            let net = format!("203.0.112.{n}/32");
            let ban = json!({"ask": "ban", "net": net, "seconds": 600, "author": "anna", "reason": "scans"});
            let began = Instant::now();
            ask(bench, &ban).unwrap();
            let took = began.elapsed();
            std::thread::sleep(PAUSE);
            took
        })
        .collect();
    assert_eq!(bench.pair.pbx.readback().bans().len(), MANY as usize + 200);
    // What was added is not to come back at the next start, nor after a power cut.
    let allow =
        json!({"ask": "allow", "net": "203.0.112.0/23", "seconds": 1, "author": "anna", "reason": "over"});
    ask(bench, &allow).unwrap();
    let durable = until(30, "lifts on disk", || !is_on_disk(bench, "203.0.112."));
    drop(running);
    Booted { restored, took, durable }
}

/// `cargo lab bench bans` reads its last line. The program is the one that the environment names.
#[test]
#[ignore = "a measurement: cargo lab bench bans"]
fn figures_of_a_hundred_thousand_bans() {
    let program = std::env::var_os("MEASURED_AGENT").map_or_else(|| PathBuf::from(AGENT), PathBuf::from);
    // What the program's settings of these tests say.
    let policy = Policy { control_plane: Vec::new(), carriers: Vec::new(), allow: Vec::new(), ..policy() };
    let mut bench = with_many(policy.clone());
    let config = agent(&bench, &policy, "many.toml");
    bench.pair.pbx.run(|| {
        runtime().block_on(async {
            let plane = ControlPlane::start(time::OffsetDateTime::now_utc().unix_timestamp()).await;
            joining::join(&plane.token(), &StateDir::open(&bench.state_dir()).unwrap()).await.unwrap();
        });
    });
    let (mut restored, mut took, mut durable) = (Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..3 {
        bench = bench.reboot();
        let booted = boot_program(&bench, &program, &config);
        restored.push(booted.restored);
        took.extend(booted.took);
        durable = durable.max(booted.durable);
    }
    restored.sort();
    took.sort();
    let ms = |took: Duration| (took.as_secs_f64() * 1e5).round() / 1e2;
    let figures = json!({
        "restore_s": restored[1].as_secs_f64(), "restore_most_s": restored[2].as_secs_f64(),
        "one_more_p50_ms": ms(share(&took, 50)), "one_more_p99_ms": ms(share(&took, 99)),
        "one_more_most_ms": ms(share(&took, 100)), "lift_durable_most_s": durable.as_secs_f64(), "packets": packets::cost(),
    });
    println!("\nFIGURES {figures}");
}
