//! Breaks things as planned, mends them, and writes down from when to when.
use std::time::Instant;

use lab::{ControlPlane, LabError, Replicas, Signal, now, pause, since_1970};

use crate::{
    faults::{Fault, Subject, What},
    history::Broken,
    owners,
    run::Upgrade,
    site::Site,
};

/// Who breaks and mends.
pub(crate) struct Hands<'a> {
    pub(crate) site: &'a dyn Site,
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
            (subject, what) => self.site.begin(subject, what),
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
            (subject, What::AgentReplaced) => {
                self.switch("ringward-agent")?;
                self.site.mend(subject, What::AgentReplaced)
            }
            (subject, what) => self.site.mend(subject, what),
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
