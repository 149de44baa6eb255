//! One run on a lab: calls come, things break and are mended, everything ends, and the history is gathered.
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use controlplane_core::call::OnUnknown;
use lab::{Behaviour, ControlPlane, Planted, Reach, TrunkLayout, now, pause};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    collect,
    customers::Door,
    faults::{self, Fault, Ground, Subject, What},
    hands::Hands,
    history::{Broken, History},
    load::{self, Kind, Wanted},
    owners::Watch,
    receiver::Receiver,
    site::Site,
};

/// From the last call's acceptance and the last fault's end to the last call's end: more than any of them may take.
const ENDED_WITHIN: Duration = Duration::from_secs(180);
/// From then to the last event's delivery. A first try may hang (15 s) and be followed after 5 s, a second may be met by a
/// kill or a freeze and be followed after 5 min, or, where what came of it was lost, after its lease (30 s).
const TOLD_WITHIN: Duration = Duration::from_secs(15 + 5 + 15 + 300 + 30);
/// An event is waiting for its delivery so soon after its step.
const NUMBERED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two looks at who owns the calls that are open; where they are hundreds, which are read each time, the longer one.
const OWNERS_EVERY: Duration = Duration::from_millis(25);
const OWNERS_OF_MANY_EVERY: Duration = Duration::from_millis(100);
/// Calls that a control plane drives.
const OPEN: &str = "ringward_calls_open";
/// Calls in a second from which on they are hundreds.
const MANY: f64 = 50.0;

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct Script {
    /// The calls, in order.
    pub calls: Vec<Wanted>,
    /// How many of them in a second.
    pub per_second: f64,
    /// What breaks, track by track.
    pub tracks: Vec<Vec<Fault>>,
    /// What carriers do where nothing else is asked of them.
    pub carriers: Behaviour,
    /// Where the receiver's choices come from.
    pub receiver: u64,
    /// How many control planes there are.
    pub planes: u8,
    /// Whether it is the optimised build.
    pub release: bool,
    /// Where programs are begun from, and those that replace them.
    pub upgrade: Option<Upgrade>,
    /// The bug that the control plane has on purpose.
    pub planted: Option<Planted>,
}

/// Three nodes, two carriers, a trunk for every pair.
#[must_use]
pub fn fleet(reach: Reach) -> lab::Plan {
    lab::Plan { pbxes: 3, carriers: 2, trunks: TrunkLayout::Full, reach, ..lab::Plan::default() }
}

/// The same, its nodes reached through agents, with carriers' accounts that so many calls a second fill now and then: half
/// as many starts again as an even share, and channels for six seconds of those.
#[must_use]
pub fn fleet_of_replicas(per_second: f64) -> lab::Plan {
    let share = (per_second / 2.0 * 1.5).ceil() as u32;
    lab::Plan { account: Some((share, 6 * share)), ..fleet(Reach::Agent) }
}

impl Script {
    /// Calls and faults of a seed, for a fleet with so many control planes.
    #[must_use]
    pub fn of(seed: u64, calls: usize, per_second: f64, fleet: &lab::Plan, planes: u8) -> Self {
        let ground = Ground {
            length: Duration::ZERO,
            nodes: (1..=fleet.pbxes).map(|n| format!("pbx-{n}")).collect(),
            carriers: ["a", "b"].map(str::to_owned).to_vec(),
            agents: fleet.reach == Reach::Agent,
            planes: planes.into(),
        };
        Self::on(seed, calls, per_second, ground)
    }

    /// Calls of a seed, and faults of which several control planes have all.
    #[must_use]
    pub fn of_planes(seed: u64, calls: usize, per_second: f64, planes: u8) -> Self {
        Self::on(seed, calls, per_second, Ground { planes: planes.into(), ..Ground::default() })
    }

    fn on(seed: u64, calls: usize, per_second: f64, ground: Ground) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let calls = load::plan(calls, &mut chance);
        let length = f64::from(u32::try_from(calls.len()).unwrap_or(u32::MAX)) / per_second;
        let ground = Ground { length: Duration::from_secs_f64(length), ..ground };
        let planes = u8::try_from(ground.planes).unwrap_or(u8::MAX);
        let tracks = faults::plan(&ground, &mut chance);
        let receiver = chance.random();
        Script {
            calls,
            per_second,
            tracks,
            carriers: Behaviour::Normal,
            receiver,
            planes,
            release: false,
            upgrade: None,
            planted: None,
        }
    }
}

/// An upgrade: programs are begun by their links in a folder, which lead to others from their replacement on.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Where the links are (`LAB_PROGRAMS`).
    pub links: PathBuf,
    /// Where the programs are that replace those of before.
    pub to: PathBuf,
}

impl Upgrade {
    /// From now on this program is begun as the one that replaces it.
    pub(crate) fn switch(&self, program: &str) -> std::io::Result<()> {
        let (link, aside) = (self.links.join(program), self.links.join(format!("{program}.new")));
        if link.canonicalize().ok() == self.to.join(program).canonicalize().ok() {
            return Ok(());
        }
        std::os::unix::fs::symlink(self.to.join(program), &aside)?;
        // At once: whoever begins it finds one of both.
        std::fs::rename(aside, link)
    }
}

impl Script {
    /// Three control planes, one after the other, and then the agents are replaced while calls come that each must be answered.
    #[must_use]
    pub fn of_upgrade(seed: u64, per_second: f64, fleet: &lab::Plan, upgrade: Upgrade) -> Self {
        /// Between two replacements, and from the start to the first and from the last to the end.
        const APART: Duration = Duration::from_secs(10);
        const PLANES: u8 = 3;
        /// Between the end of a program and the start of the one that replaces it.
        const AWAY: Duration = Duration::from_millis(500);
        let mut chance = StdRng::seed_from_u64(seed);
        let planes = (0..PLANES).map(|n| (Subject::Plane(n.into()), What::PlaneReplaced));
        let nodes = (1..=fleet.pbxes).map(|n| (Subject::Node(format!("pbx-{n}")), What::AgentReplaced));
        let mut at = Duration::ZERO;
        let track: Vec<_> = planes
            .chain(nodes)
            .map(|(subject, what)| {
                at += APART;
                Fault { at, subject, what, lasts: Some(AWAY) }
            })
            .collect();
        let calls = ((at + APART).as_secs_f64() * per_second) as u32;
        let kind = |n: u32| if n.is_multiple_of(2) { Kind::Presses } else { Kind::HangsUp };
        let call = |n| Wanted::plain(n, kind(n), OnUnknown::Fail, 10);
        Script {
            calls: (0..calls).map(call).collect(),
            per_second,
            tracks: vec![track],
            carriers: Behaviour::Normal,
            receiver: chance.random(),
            planes: PLANES,
            release: false,
            upgrade: Some(upgrade),
            planted: None,
        }
    }
}

/// Runs it. The folder is the control plane's, and is empty.
///
/// # Errors
/// The run itself broke: what the product does wrong is in the history.
pub fn run(site: &dyn Site, folder: &Path, script: &Script) -> anyhow::Result<History> {
    let mut receiver = Receiver::start(StdRng::seed_from_u64(script.receiver), script.per_second)?;
    let planes = site.start(folder, script)?;
    let plane = planes.first()?;
    receiver.register(plane)?;
    site.behave(script.carriers)?;
    let door = Door::of(planes.all());
    let every = if script.per_second < MANY { OWNERS_EVERY } else { OWNERS_OF_MANY_EVERY };
    let watch = planes.replicas().map(|replicas| Watch::start(replicas.database_url(), every)).transpose()?;
    let hands = Hands {
        site,
        planes: planes.all(),
        replicas: planes.replicas(),
        upgrade: script.upgrade.as_ref(),
        start: now(),
    };
    let is_over = AtomicBool::new(false);
    let (asked, broken, accounts) = std::thread::scope(|scope| {
        let hands = &hands;
        let accounts = scope.spawn(|| site.accounts(&is_over));
        let tracks: Vec<_> =
            script.tracks.iter().map(|track| scope.spawn(move || hands.follow(track))).collect();
        let asked = door.ask_for(&script.calls, hands.start, script.per_second);
        let tracks: Vec<_> = tracks.into_iter().map(ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        let accounts = accounts.join().map_err(|_| anyhow::anyhow!("who counts channels panicked"))??;
        let mut broken: Vec<Broken> = Vec::new();
        for track in tracks {
            broken.extend(track.map_err(|_| anyhow::anyhow!("a track panicked"))??);
        }
        Ok::<_, anyhow::Error>((asked?, broken, accounts))
    })?;
    let takeovers = watch.map(|watch| watch.takeovers(&broken)).transpose()?.unwrap_or_default();
    // What has not ended then is in the history, and a violation.
    while_waiting(ENDED_WITHIN, || {
        planes.all().iter().all(|plane| plane.metric(OPEN, &[]).is_ok_and(|open| open == 0.0))
    });
    while_waiting(ENDED_WITHIN, || {
        collect::told(plane).is_ok_and(|told| told.iter().all(|call| call.status.is_terminal()))
    });
    // An event of the last step is numbered after it: it is looked for twice.
    for _ in 0..2 {
        pause(NUMBERED_WITHIN);
        while_waiting(TOLD_WITHIN, || receiver.has_all(plane));
    }
    let left = site.left(&broken)?;
    let mut told = collect::told(plane)?;
    let (seen, pressed) = site.seen()?;
    planes.all().iter().try_for_each(ControlPlane::stop)?;
    collect::add_logs(&planes.database_url(), &mut told).context("read the log of transitions")?;
    Ok(History {
        asked,
        told,
        seen,
        pressed,
        posted: receiver.posted(),
        broken,
        takeovers,
        accounts,
        routes: site.routes(),
        left,
    })
}

fn while_waiting(at_most: Duration, ended: impl Fn() -> bool) {
    let start = now();
    while !ended() && start.elapsed() < at_most {
        pause(LOOK_EVERY);
    }
}
