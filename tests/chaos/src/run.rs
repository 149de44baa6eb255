//! One run on a lab: calls come, things break and are mended, everything ends, and the history is gathered.
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use lab::{Behaviour, ControlPlane, Lab, Planted, Reach, Setup, TrunkLayout, now, pause, wait_until};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    collect,
    customers::Door,
    faults::{self, Fault, Ground},
    hands::Hands,
    history::{Broken, History, Route},
    load::{self, Wanted},
    receiver::Receiver,
};

/// From the last call's acceptance and the last fault's end to the last call's end: more than any of them may take.
const ENDED_WITHIN: Duration = Duration::from_secs(180);
/// From then to the last event's delivery. A first try may hang (15 s) and be followed after 5 s, a second may be met by a
/// kill or a freeze and be followed after 5 min, or, where what came of it was lost, after its lease (30 s).
const TOLD_WITHIN: Duration = Duration::from_secs(15 + 5 + 15 + 300 + 30);
/// An event is waiting for its delivery so soon after its step.
const NUMBERED_WITHIN: Duration = Duration::from_secs(2);
/// The receiver is on this machine.
const RECEIVERS: &str = "127.0.0.0/8";
/// For channels to go that nobody claims.
const SILENT_WITHIN: Duration = Duration::from_secs(20);
/// No packet for so long: nothing more comes.
const QUIET: Duration = Duration::from_millis(500);

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
    /// The bug that the control plane has on purpose.
    pub planted: Option<Planted>,
}

/// Three nodes, two carriers, a trunk for every pair.
#[must_use]
pub fn fleet(reach: Reach) -> lab::Plan {
    lab::Plan { pbxes: 3, carriers: 2, trunks: TrunkLayout::Full, reach, ..lab::Plan::default() }
}

impl Script {
    /// Calls and faults of a seed, for a fleet.
    #[must_use]
    pub fn of(seed: u64, calls: usize, per_second: f64, fleet: &lab::Plan) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let calls = load::plan(calls, &mut chance);
        let length = f64::from(u32::try_from(calls.len()).unwrap_or(u32::MAX)) / per_second;
        let ground = Ground {
            length: Duration::from_secs_f64(length),
            nodes: (1..=fleet.pbxes).map(|n| format!("pbx-{n}")).collect(),
            carriers: ["a", "b"].map(str::to_owned).to_vec(),
            agents: fleet.reach == Reach::Agent,
        };
        let tracks = faults::plan(&ground, &mut chance);
        let receiver = chance.random();
        Script { calls, per_second, tracks, carriers: Behaviour::Normal, receiver, planted: None }
    }
}

/// Runs it. The folder is the control plane's, and is empty.
///
/// # Errors
/// The run itself broke: what the product does wrong is in the history.
pub fn run(lab: &Lab, folder: &Path, script: &Script) -> anyhow::Result<History> {
    let mut receiver = Receiver::start(StdRng::seed_from_u64(script.receiver))?;
    let setup = Setup::new(folder).webhooks_to(RECEIVERS);
    let plane = ControlPlane::start_with(
        lab,
        match script.planted {
            Some(bug) => setup.planted(bug),
            None => setup,
        },
    )?;
    receiver.register(&plane)?;
    for carrier in lab.carriers() {
        carrier.behave(script.carriers)?;
    }
    let door = Door::of(&plane);
    let hands = Hands { lab, plane: &plane, start: now() };
    let (asked, broken) = std::thread::scope(|scope| {
        let hands = &hands;
        let tracks: Vec<_> =
            script.tracks.iter().map(|track| scope.spawn(move || hands.follow(track))).collect();
        let asked = door.ask_for(&script.calls, hands.start, script.per_second);
        let mut broken: Vec<Broken> = Vec::new();
        for track in tracks {
            broken.extend(track.join().map_err(|_| anyhow::anyhow!("a track panicked"))??);
        }
        Ok::<_, anyhow::Error>((asked?, broken))
    })?;
    let ended = || collect::told(&plane).is_ok_and(|told| told.iter().all(|call| call.status.is_terminal()));
    // What has not ended then is in the history, and a violation.
    while_waiting(ENDED_WITHIN, ended);
    // An event of the last step is numbered after it: it is looked for twice.
    for _ in 0..2 {
        pause(NUMBERED_WITHIN);
        while_waiting(TOLD_WITHIN, || receiver.has_all(&plane));
    }
    let left = channels_left(lab, &broken)?;
    let mut told = collect::told(&plane)?;
    for carrier in lab.carriers() {
        carrier.seen_when_quiet(QUIET)?;
    }
    plane.stop()?;
    let url = format!("sqlite://{}", folder.join("ringward.db").display());
    collect::add_logs(&url, &mut told).context("read the log of transitions")?;
    let routes = lab.plan().trunk_plans(lab.subnet());
    let routes = routes.into_iter().map(|trunk| Route { node: trunk.node, carrier: trunk.carrier }).collect();
    Ok(History {
        asked,
        told,
        seen: collect::seen(lab)?,
        pressed: collect::pressed(lab)?,
        posted: receiver.posted(),
        broken,
        routes,
        left,
    })
}

fn while_waiting(at_most: Duration, ended: impl Fn() -> bool) {
    let start = now();
    while !ended() && start.elapsed() < at_most {
        pause(QUIET);
    }
}

/// Channels of each node that lives, once they are gone or have stayed too long.
fn channels_left(lab: &Lab, broken: &[Broken]) -> anyhow::Result<Vec<(String, u32)>> {
    let mut left = Vec::new();
    for pbx in lab.pbxes() {
        let off = |broken: &Broken| {
            broken.until.is_none() && broken.subject == faults::Subject::Node(pbx.name().to_owned())
        };
        if broken.iter().any(off) {
            continue;
        }
        let mut channels = 0;
        let silent = || {
            let said = pbx.console("core show channels count").unwrap_or_default();
            channels = said.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(u32::MAX);
            channels == 0
        };
        wait_until("a node to be silent", SILENT_WITHIN, "", silent).ok();
        left.push((pbx.name().to_owned(), channels));
    }
    Ok(left)
}
