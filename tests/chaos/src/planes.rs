//! The control planes of a run: one on SQLite, or several on one PostgreSQL.
use std::path::Path;

use lab::{ControlPlane, Lab, LabError, Replicas, Setup};

use crate::run::Script;

/// The receiver of webhooks is on this machine.
const RECEIVERS: &str = "127.0.0.0/8";

/// See the module.
pub enum Planes {
    /// On SQLite.
    One(Box<ControlPlane>),
    /// On PostgreSQL.
    Several(Replicas),
}

impl Planes {
    pub(crate) fn start(lab: &Lab, folder: &Path, script: &Script) -> Result<Self, LabError> {
        let set_up = |setup| Self::set_up(setup, script);
        if script.planes > 1 {
            return Replicas::start(lab, folder, script.planes, set_up).map(Self::Several);
        }
        let setup = set_up(Setup::new(folder));
        let setup = match script.planted {
            Some(bug) => setup.planted(bug),
            None => setup,
        };
        ControlPlane::start_with(lab, setup).map(|plane| Self::One(Box::new(plane)))
    }

    /// What each of them has, whatever its calls go to.
    pub(crate) fn set_up(setup: Setup, script: &Script) -> Setup {
        let setup = setup.webhooks_to(RECEIVERS);
        if script.release { setup.release() } else { setup }
    }

    pub(crate) fn all(&self) -> &[ControlPlane] {
        match self {
            Self::One(plane) => std::slice::from_ref(plane),
            Self::Several(replicas) => replicas.planes(),
        }
    }

    /// One to be asked when nothing is broken.
    pub(crate) fn first(&self) -> Result<&ControlPlane, LabError> {
        self.all().first().ok_or_else(|| LabError::Machine("there is no control plane".into()))
    }

    pub(crate) fn replicas(&self) -> Option<&Replicas> {
        match self {
            Self::One(_) => None,
            Self::Several(replicas) => Some(replicas),
        }
    }

    pub(crate) fn database_url(&self) -> String {
        match self {
            Self::One(plane) => format!("sqlite://{}", plane.folder().join("ringward.db").display()),
            Self::Several(replicas) => replicas.database_url(),
        }
    }
}
