//! Breaks things as planned, mends them, and writes down from when to when.
use std::time::Instant;

use lab::{Behaviour, ControlPlane, Lab, LabError, Lost, Pbx, Replicas, Signal, now, pause, since_1970};

use crate::{
    faults::{Fault, Subject, What},
    history::Broken,
    owners,
    run::Upgrade,
};

/// Who breaks and mends.
pub(crate) struct Hands<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) planes: &'a [ControlPlane],
    /// What these are, where they are several.
    pub(crate) replicas: Option<&'a Replicas>,
    pub(crate) upgrade: Option<&'a Upgrade>,
    /// When calls began.
    pub(crate) start: Instant,
}

impl Hands<'_> {
    /// One track, to its end. What was late is done late.
    pub(crate) fn follow(&self, track: &[Fault]) -> anyhow::Result<Vec<Broken>> {
        let mut done = Vec::new();
        for fault in track {
            pause((self.start + fault.at).saturating_duration_since(now()));
            let replica = self.replica(&fault.subject)?;
            let from = since_1970();
            self.begin(fault)?;
            let mut broken =
                Broken { subject: fault.subject.clone(), what: fault.what, replica, from, until: None };
            if let Some(lasts) = fault.lasts {
                pause(lasts);
                self.mend(fault)?;
                broken.until = Some(since_1970());
            }
            done.push(broken);
        }
        Ok(done)
    }

    fn begin(&self, fault: &Fault) -> Result<(), LabError> {
        match (&fault.subject, fault.what) {
            (Subject::Plane(n), What::PlaneKilled) => self.plane(*n)?.signal(Signal::Kill),
            (Subject::Plane(n), What::PlaneStopped | What::PlaneReplaced) => self.plane(*n)?.stop(),
            (Subject::Plane(n), What::DatabaseCut) => self.cut_from_database(&[*n]),
            (Subject::Plane(n), _) => self.plane(*n)?.signal(Signal::Stop),
            (Subject::Node(node), what) => begin_at(self.lab.pbx(node)?, what),
            (Subject::Carrier(carrier), what) => self.lab.carrier(carrier)?.behave(behaviour(what)?),
        }
    }

    fn mend(&self, fault: &Fault) -> Result<(), LabError> {
        match (&fault.subject, fault.what) {
            (Subject::Plane(n), What::PlaneFrozen) => self.plane(*n)?.signal(Signal::Cont),
            (Subject::Plane(_), What::DatabaseCut) => self.cut_from_database(&[]),
            (Subject::Plane(n), What::PlaneReplaced) => {
                self.switch("ringward")?;
                self.plane(*n)?.start_again()
            }
            (Subject::Plane(n), _) => self.plane(*n)?.start_again(),
            (Subject::Node(node), What::AgentReplaced) => {
                self.switch("ringward-agent")?;
                agent(self.lab.pbx(node)?)?.start()
            }
            (Subject::Node(node), what) => mend_at(self.lab.pbx(node)?, what),
            (Subject::Carrier(carrier), _) => self.lab.carrier(carrier)?.behave(Behaviour::Normal),
        }
    }

    fn replica(&self, subject: &Subject) -> anyhow::Result<Option<String>> {
        match (subject, self.replicas) {
            (Subject::Plane(n), Some(_)) => owners::id(&self.plane(*n)?.log()).map(Some),
            _ => Ok(None),
        }
    }

    fn plane(&self, n: usize) -> Result<&ControlPlane, LabError> {
        self.planes.get(n).ok_or_else(|| LabError::Machine(format!("there is no control plane {n}")))
    }

    fn switch(&self, program: &str) -> Result<(), LabError> {
        let nothing = || LabError::Machine("there is nothing to replace it by".into());
        let switched = self.upgrade.ok_or_else(nothing)?.switch(program);
        switched.map_err(|error| LabError::Machine(format!("replace {program}: {error}")))
    }

    fn cut_from_database(&self, cut: &[usize]) -> Result<(), LabError> {
        let alone = || LabError::Machine("one control plane alone has its database beside it".into());
        self.replicas.ok_or_else(alone)?.cut_from_database(cut)
    }
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
