//! `cargo lab soak …`: what takes too long for CI.
use crate::{bench, even, hands, memory, output, stages, upgrade};
use anyhow::{Context as _, ensure};
use lab::{Build, ControlPlane, Lab, Pbx, Plan, Reach, Setup, now, pause, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks at memory.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For the last calls to end.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Growth of resident memory that is no leak, whatever the load: what allocators keep.
const GROWTH_MB: f64 = 4.0;
/// And of an agent for each call: its gate remembers an attempt for an hour, by calculation in some 70 bytes.
const AGENT_BYTES_PER_CALL: f64 = 150.0;

#[derive(clap::Args)]
pub(crate) struct Wanted {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// A node cut off for ten minutes (takes 11)
    LinkCut,
    /// Three control planes on PostgreSQL and then the agents of an earlier commit are replaced, one by one, while calls come
    RollingUpgrade {
        /// That commit; the last one with fewer migrations where none is given
        #[arg(long)]
        from: Option<String>,
    },
    /// Calls at half of what two cores carry; memory stays flat, and no attempt is left open
    Load {
        /// For how long
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Calls in a second: half of the 100 that one PBX, carrier and control plane on two cores carry
        /// (`cargo lab bench agent`)
        #[arg(long, default_value_t = 50)]
        per_second: u32,
    },
}

/// Runs one, with what it measured.
pub(crate) fn soak(wanted: &Wanted) -> anyhow::Result<()> {
    match &wanted.what {
        What::RollingUpgrade { from } => upgrade::rolling(from.as_deref()),
        What::LinkCut => stages::link_cut(),
        What::Load { minutes, per_second } => load(Duration::from_secs(minutes * 60), *per_second),
    }
}

/// Resident memory of one program over time, in MB.
struct Memory {
    of: String,
    pid: u32,
    samples: Vec<f64>,
    /// What it may grow by.
    growth_mb: f64,
}

impl Memory {
    fn look(&mut self) -> anyhow::Result<()> {
        self.samples.push(memory::rss_mb(self.pid).with_context(|| format!("{} ended", self.of))?);
        Ok(())
    }

    /// Means of the second and of the last quarter of the time: the first is for warming up.
    fn quarters(&self) -> (f64, f64) {
        let quarter = self.samples.len() / 4;
        let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len().max(1) as f64;
        (mean(&self.samples[quarter..2 * quarter]), mean(&self.samples[self.samples.len() - quarter..]))
    }
}

fn load(length: Duration, per_second: u32) -> anyhow::Result<()> {
    hands::sweep_on_interrupt()?;
    ensure!(
        length >= Duration::from_secs(60) && (1..=100).contains(&per_second),
        "from 1 minute, 1 to 100 calls/s"
    );
    bench::build(&[&["--release", "-p", "controlplane", "-p", "node-agent"]])?;
    let lab = Lab::up(Plan { reach: Reach::Agent, agents: Build::Release, ..Plan::default() })?;
    let plane = ControlPlane::start_with(&lab, Setup::new(&bench::empty()?).release())?;
    let expected = f64::from(per_second) * length.as_secs_f64();
    let pid = plane.pid().context("the control plane is not running")?;
    let mut watched =
        vec![Memory { of: "control plane".into(), pid, samples: Vec::new(), growth_mb: GROWTH_MB }];
    for agent in lab.pbxes().iter().filter_map(Pbx::agent) {
        let pid = agent.pid().context("an agent is not running")?;
        let growth_mb = GROWTH_MB + AGENT_BYTES_PER_CALL * expected / 1e6;
        watched.push(Memory {
            of: format!("agent of {}", agent.node()),
            pid,
            samples: Vec::new(),
            growth_mb,
        });
    }
    output::note(&format!("{per_second} calls per second for {} s", length.as_secs()));
    let start = now();
    let is_over = AtomicBool::new(false);
    let placed = std::thread::scope(|scope| {
        let customers = scope.spawn(|| {
            let placed = even::place(&plane, per_second, length);
            is_over.store(true, Ordering::SeqCst);
            placed
        });
        while !is_over.load(Ordering::SeqCst) {
            pause(LOOK_EVERY);
            watched.iter_mut().try_for_each(Memory::look)?;
        }
        customers.join().map_err(|_| anyhow::anyhow!("the customers panicked"))?
    })?;
    let rate = f64::from(placed) / start.elapsed().as_secs_f64();
    let open = || plane.metric("ringward_calls_open", &[]).unwrap_or(f64::NAN);
    wait_until("the last calls to end", END_WITHIN, "ringward_calls_open", || open() == 0.0)?;
    let rows: Vec<_> = watched
        .iter()
        .map(|memory| {
            let (second, last) = memory.quarters();
            vec![
                memory.of.clone(),
                format!("{second:.1}"),
                format!("{last:.1}"),
                format!("{:.1}", memory.growth_mb),
            ]
        })
        .collect();
    output::table(&["memory, MB", "2nd quarter", "last quarter", "may grow by"], &rows);
    output::line(&format!("{placed} calls, {rate:.1} per second; none is open"));
    for memory in &watched {
        let (second, last) = memory.quarters();
        ensure!(last - second <= memory.growth_mb, "{} grew from {second:.1} to {last:.1} MB", memory.of);
    }
    ensure!(rate > 0.9 * f64::from(per_second), "only {rate:.1} calls per second");
    for status in ["queued", "initiated", "ringing", "in_progress"] {
        let list = plane.customer("GET", &format!("/v1/calls?status={status}"), None)?;
        ensure!(list["data"].as_array().is_some_and(Vec::is_empty), "a call is {status} still: {list}");
    }
    for pbx in lab.pbxes() {
        let said = pbx.console("core show channels count")?;
        ensure!(said.starts_with("0 active channels"), "{}: {said}", pbx.name());
    }
    Ok(())
}
