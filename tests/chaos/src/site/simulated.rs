//! Simulated nodes and carriers, for more calls than Asterisk carries on this machine: agents with the true gate and links over
//! real TLS to every control plane, and a PBX that tells what Asterisk was recorded to tell (`tests/fleet_sim`, `tests/fake_pbx`).
//! A carrier is what lies behind the endpoints of its trunks.
use std::{
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fake_pbx::{Ending, Plan as Callee, Script as Pbx};
use fleet_sim::{Fleet, plan::Plan, plane::Operator};
use lab::{Behaviour, ControlPlane, LabError, Replicas, numbers, pause, since_1970, wait_until};
use tokio::{runtime::Runtime, time::Instant};

use super::Site;
use crate::{
    faults::{Subject, What},
    history::{Account, Broken, Dialog, Moment, Pressed, Route},
    planes::Planes,
    run::Script,
};

/// Between one thing and the next in a call: as soon as a carrier of the lab rings, and answers.
const STEP: Duration = Duration::from_millis(200);
/// A short message.
const TALK: Duration = Duration::from_millis(500);
/// When the callee presses, and when he hangs up.
const PRESSES_AFTER: Duration = Duration::from_secs(3);
const HANGS_UP_AFTER: Duration = Duration::from_secs(1);
/// A message that is said twice, and the wait for a key after it.
const NOTHING_PRESSED: Duration = Duration::from_secs(7);
/// For every node to have its links.
const LINKED_WITHIN: Duration = Duration::from_secs(60);
/// For channels to go that nobody claims.
const SILENT_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Few nodes, each with a trunk to every carrier, whose accounts bound the calls.
pub struct Simulated {
    plan: Plan,
    seed: u64,
    runtime: Runtime,
    fleet: OnceLock<Fleet>,
}

impl Simulated {
    /// Three nodes and two carriers, whose accounts have room for half as many starts again as an even share of so many calls a
    /// second, and channels for six seconds of those.
    ///
    /// # Errors
    /// The system's.
    pub fn new(seed: u64, per_second: f64) -> anyhow::Result<Self> {
        let share = (per_second / 2.0 * 1.5).ceil() as u32;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { plan: Plan::busy(3, 2, (share, 6 * share)), seed, runtime, fleet: OnceLock::new() })
    }

    fn fleet(&self) -> anyhow::Result<&Fleet> {
        self.fleet.get().context("nothing was started")
    }

    /// Every call that reached a carrier: its node's and its carrier's number, and what is known of it.
    fn dialogs(&self) -> anyhow::Result<Vec<(usize, usize, fake_pbx::Dialog)>> {
        let mut all = Vec::new();
        for (node, agent) in self.fleet()?.agents().iter().enumerate() {
            for dialog in agent.pbx().dialogs() {
                let trunk =
                    (0..self.plan.trunks_per_node).find(|trunk| Plan::endpoint(*trunk) == dialog.endpoint);
                all.push((node, self.plan.carrier_of(node, trunk.context("no such endpoint")?), dialog));
            }
        }
        Ok(all)
    }

    fn route(node: usize, carrier: usize) -> Route {
        Route { node: Plan::node(node), carrier: Plan::carrier(carrier) }
    }
}

impl Site for Simulated {
    fn start(&self, folder: &Path, script: &Script) -> anyhow::Result<Planes> {
        ensure!(script.planes > 1, "simulated nodes are for several control planes");
        let replicas = Replicas::open(folder, script.planes, |setup| Planes::set_up(setup, script))?;
        let first = replicas.planes().first().context("there is none")?;
        let doors = replicas.planes().iter().map(ControlPlane::agents_door).collect();
        let operator = Operator::with(first.operator_url(), first.operator_key().to_owned(), doors)?;
        let pbx = Pbx { of_number: Some(callee), step: STEP, keeps_dialogs: true, ..Pbx::default() };
        let fleet = self.runtime.block_on(async {
            let fleet = Fleet::start_with(&operator, self.plan, self.seed, pbx).await?;
            fleet.linked(LINKED_WITHIN).await?;
            anyhow::Ok(fleet)
        })?;
        // What is lost is lost by faults of control planes.
        fleet.agents().iter().for_each(|agent| agent.excuse(true));
        replicas.wait_for_nodes()?;
        ensure!(self.fleet.set(fleet).is_ok(), "it was started before");
        Ok(Planes::Several(replicas))
    }

    fn behave(&self, behaviour: Behaviour) -> Result<(), LabError> {
        if matches!(behaviour, Behaviour::Normal) {
            return Ok(());
        }
        Err(LabError::Machine(format!("simulated carriers are never {behaviour:?}")))
    }

    fn begin(&self, subject: &Subject, what: What) -> Result<(), LabError> {
        Err(LabError::Machine(format!("{what:?} does not befall {subject:?}, which is simulated")))
    }

    fn mend(&self, subject: &Subject, what: What) -> Result<(), LabError> {
        self.begin(subject, what)
    }

    /// Exactly: by the beginning and the end of each call.
    fn accounts(&self, is_over: &AtomicBool) -> anyhow::Result<Vec<Account>> {
        while !is_over.load(Ordering::Relaxed) {
            pause(LOOK_EVERY);
        }
        let Some((cps_max, channels_max)) = self.plan.account else { return Ok(Vec::new()) };
        let dialogs = self.dialogs()?;
        let account = |carrier: usize| {
            let own = dialogs.iter().filter(|(_, of, _)| *of == carrier);
            // An end goes before a beginning of the same moment.
            let mut changes: Vec<(Instant, i32)> = own
                .flat_map(|(_, _, dialog)| {
                    std::iter::once((dialog.at, 1)).chain(dialog.ended_at.map(|at| (at, -1)))
                })
                .collect();
            changes.sort_unstable();
            let (_, most) =
                changes.iter().fold((0, 0), |(now, most), (_, by)| (now + by, most.max(now + by)));
            Account {
                carrier: Plan::carrier(carrier),
                cps_max,
                channels_max,
                channels: u32::try_from(most).unwrap_or(0),
            }
        };
        Ok((0..self.plan.carriers).map(account).collect())
    }

    fn left(&self, _: &[Broken]) -> anyhow::Result<Vec<(String, u32)>> {
        let count = |agent: &fleet_sim::Agent| {
            let channels = || agent.pbx().live_channels().len();
            wait_until("a node to be silent", SILENT_WITHIN, "", || channels() == 0).ok();
            (agent.name().to_string(), u32::try_from(channels()).unwrap_or(u32::MAX))
        };
        Ok(self.fleet()?.agents().iter().map(count).collect())
    }

    fn seen(&self) -> anyhow::Result<(Vec<Dialog>, Vec<Pressed>)> {
        let (now, today) = (self.runtime.block_on(async { Instant::now() }), since_1970());
        let moment = |at: Instant| -> Moment { today.saturating_sub(now.saturating_duration_since(at)) };
        let (mut seen, mut pressed) = (Vec::new(), Vec::new());
        for (node, carrier, dialog) in self.dialogs()? {
            let route = Self::route(node, carrier);
            pressed.extend(dialog.keys.iter().map(|(key, at)| Pressed {
                carrier: route.carrier.clone(),
                number: dialog.number.clone(),
                key: *key,
                at: moment(*at),
            }));
            seen.push(Dialog {
                route,
                at: moment(dialog.at),
                heard_at: dialog.rang_at.or(dialog.answered_at).map(moment),
                number: dialog.number,
                code: dialog.code,
            });
        }
        Ok((seen, pressed))
    }

    fn routes(&self) -> Vec<Route> {
        let nodes = 0..self.plan.nodes;
        nodes
            .flat_map(|node| (0..self.plan.carriers).map(move |carrier| Self::route(node, carrier)))
            .collect()
    }
}

/// What a carrier of the lab does with such a number, in the words of a fake PBX.
fn callee(number: &str) -> Option<Callee> {
    Some(match numbers::behaviour(number)? {
        numbers::ANSWER => Ending::Answer { talk: TALK }.into(),
        numbers::PRESS => Callee::pressing('1', PRESSES_AFTER),
        numbers::MUTE => Ending::Answer { talk: NOTHING_PRESSED }.into(),
        numbers::ANSWER_AND_HANG_UP => Ending::AnswerThenBye { talk: HANGS_UP_AFTER }.into(),
        numbers::RING => Ending::NoAnswer.into(),
        numbers::RING_THEN_486 => Ending::Busy486.into(),
        numbers::BUSY => Ending::Sip(486).into(),
        numbers::UNAVAILABLE => Ending::Sip(503).into(),
        _ => return None,
    })
}
