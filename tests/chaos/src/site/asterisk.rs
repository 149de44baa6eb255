//! Real hosts: Asterisk on nodes with agents and at carriers.
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use lab::{Behaviour, Lab, LabError, Lost, Pbx, Signal, pause, wait_until};

use super::Site;
use crate::{
    faults::{Subject, What},
    history::{Account, Broken, Dialog, Pressed, Route},
    planes::Planes,
    run::Script,
};

/// For channels to go that nobody claims.
const SILENT_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at the carriers' channels.
const COUNTED_EVERY: Duration = Duration::from_millis(500);
/// No packet for so long: nothing more comes.
const QUIET: Duration = Duration::from_millis(500);

impl Site for Lab {
    fn start(&self, folder: &Path, script: &Script) -> anyhow::Result<Planes> {
        Ok(Planes::start(self, folder, script)?)
    }

    fn behave(&self, behaviour: Behaviour) -> Result<(), LabError> {
        self.carriers().iter().try_for_each(|carrier| carrier.behave(behaviour))
    }

    fn begin(&self, subject: &Subject, what: What) -> Result<(), LabError> {
        match subject {
            Subject::Plane(_) => Err(not_here(what)),
            Subject::Node(node) => begin_at(self.pbx(node)?, what),
            Subject::Carrier(carrier) => self.carrier(carrier)?.behave(behaviour(what)?),
        }
    }

    fn mend(&self, subject: &Subject, what: What) -> Result<(), LabError> {
        match subject {
            Subject::Plane(_) => Err(not_here(what)),
            Subject::Node(node) => mend_at(self.pbx(node)?, what),
            Subject::Carrier(carrier) => self.carrier(carrier)?.behave(Behaviour::Normal),
        }
    }

    fn accounts(&self, is_over: &AtomicBool) -> anyhow::Result<Vec<Account>> {
        let Some((cps_max, channels_max)) = self.plan().account else { return Ok(Vec::new()) };
        let account = |carrier: &lab::Carrier| Account {
            carrier: carrier.name().to_owned(),
            cps_max,
            channels_max,
            channels: 0,
        };
        let mut accounts: Vec<_> = self.carriers().iter().map(account).collect();
        while !is_over.load(Ordering::Relaxed) {
            for (account, carrier) in accounts.iter_mut().zip(self.carriers()) {
                account.channels = account.channels.max(carrier.channels()?);
            }
            pause(COUNTED_EVERY);
        }
        Ok(accounts)
    }

    fn left(&self, broken: &[Broken]) -> anyhow::Result<Vec<(String, u32)>> {
        let mut left = Vec::new();
        for pbx in self.pbxes() {
            let off = |broken: &Broken| {
                broken.until.is_none() && broken.subject == Subject::Node(pbx.name().to_owned())
            };
            if broken.iter().any(off) {
                continue;
            }
            let mut channels = 0;
            let silent = || {
                let said = pbx.console("core show channels count").unwrap_or_default();
                channels =
                    said.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(u32::MAX);
                channels == 0
            };
            wait_until("a node to be silent", SILENT_WITHIN, "", silent).ok();
            left.push((pbx.name().to_owned(), channels));
        }
        Ok(left)
    }

    fn seen(&self) -> anyhow::Result<(Vec<Dialog>, Vec<Pressed>)> {
        for carrier in self.carriers() {
            carrier.seen_when_quiet(QUIET)?;
        }
        Ok((seen(self)?, pressed(self)?))
    }

    fn routes(&self) -> Vec<Route> {
        let trunks = self.plan().trunk_plans(self.subnet());
        trunks.into_iter().map(|trunk| Route { node: trunk.node, carrier: trunk.carrier }).collect()
    }
}

fn not_here(what: What) -> LabError {
    LabError::Machine(format!("{what:?} is nothing that happens to a node or a carrier"))
}

/// Every key that a callee pressed.
fn pressed(lab: &Lab) -> anyhow::Result<Vec<Pressed>> {
    let mut pressed = Vec::new();
    for carrier in lab.carriers() {
        pressed.extend(carrier.keys_sent()?.into_iter().map(|sent| Pressed {
            carrier: carrier.name().to_owned(),
            number: format!("+{}", sent.number),
            key: sent.key,
            at: sent.let_go_at,
        }));
    }
    Ok(pressed)
}

/// Every call that reached a carrier.
fn seen(lab: &Lab) -> anyhow::Result<Vec<Dialog>> {
    let mut seen = Vec::new();
    for carrier in lab.carriers() {
        for dialog in carrier.dialogs()? {
            let from = lab.pbxes().iter().find(|pbx| pbx.address() == dialog.from);
            let node = from.map_or_else(|| dialog.from.to_string(), |pbx| pbx.name().to_owned());
            seen.push(Dialog {
                route: Route { node, carrier: carrier.name().to_owned() },
                heard_at: dialog.heard_at(),
                number: format!("+{}", dialog.number),
                at: dialog.at,
                code: dialog.ended.map(|(code, _)| code),
            });
        }
    }
    Ok(seen)
}

fn behaviour(what: What) -> Result<Behaviour, LabError> {
    match what {
        What::CarrierDeaf => Ok(Behaviour::Deaf),
        What::CarrierSilent => Ok(Behaviour::Silent),
        What::CarrierRefuses => Ok(Behaviour::Code(503)),
        What::CarrierDead => Ok(Behaviour::Dead),
        What::PlaneKilled
        | What::PlaneStopped
        | What::PlaneFrozen
        | What::DatabaseCut
        | What::PlaneReplaced
        | What::AgentReplaced
        | What::AgentKilled
        | What::AgentFrozen
        | What::AsteriskKilled
        | What::AsteriskFrozen
        | What::AsteriskStopped
        | What::LinkCut
        | What::LinkMute
        | What::LinkDeaf
        | What::CableOut
        | What::PoweredOff => {
            Err(LabError::Machine(format!("{what:?} is nothing that happens to a carrier")))
        }
    }
}

fn agent(pbx: &Pbx) -> Result<lab::Agent, LabError> {
    pbx.agent().ok_or_else(|| LabError::Machine(format!("{} has no agent", pbx.name())))
}

fn begin_at(pbx: &Pbx, what: What) -> Result<(), LabError> {
    match what {
        What::AgentReplaced => agent(pbx)?.stop(),
        What::AgentKilled => agent(pbx)?.signal(Signal::Kill),
        What::AgentFrozen => agent(pbx)?.signal(Signal::Stop),
        What::AsteriskKilled => pbx.kill_asterisk(Signal::Kill),
        What::AsteriskStopped => pbx.stop(),
        What::AsteriskFrozen => pbx.kill_asterisk(Signal::Stop),
        What::LinkCut => pbx.set_link(false),
        What::LinkMute => pbx.lose(Lost::Sent),
        What::LinkDeaf => pbx.lose(Lost::Received),
        What::CableOut => pbx.set_cable(false),
        What::PoweredOff => pbx.power_off(),
        What::PlaneKilled
        | What::PlaneStopped
        | What::PlaneFrozen
        | What::DatabaseCut
        | What::PlaneReplaced
        | What::CarrierDeaf
        | What::CarrierSilent
        | What::CarrierRefuses
        | What::CarrierDead => Err(LabError::Machine(format!("{what:?} is nothing that happens to a node"))),
    }
}

fn mend_at(pbx: &Pbx, what: What) -> Result<(), LabError> {
    match what {
        What::AgentKilled | What::AgentReplaced => agent(pbx)?.start(),
        What::AgentFrozen => agent(pbx)?.signal(Signal::Cont),
        What::AsteriskKilled | What::AsteriskStopped => pbx.start().map(|_| ()),
        What::AsteriskFrozen => pbx.kill_asterisk(Signal::Cont),
        What::LinkCut | What::LinkMute | What::LinkDeaf => pbx.set_link(true),
        What::CableOut => pbx.set_cable(true),
        What::PoweredOff
        | What::PlaneKilled
        | What::PlaneStopped
        | What::PlaneFrozen
        | What::DatabaseCut
        | What::PlaneReplaced
        | What::CarrierDeaf
        | What::CarrierSilent
        | What::CarrierRefuses
        | What::CarrierDead => Err(LabError::Machine(format!("{what:?} is nothing to be mended at a node"))),
    }
}
