//! Where calls go: real nodes and carriers of a lab, or simulated ones.
mod asterisk;
pub mod simulated;

use std::{path::Path, sync::atomic::AtomicBool};

use lab::{Behaviour, LabError};

use crate::{
    faults::{Subject, What},
    history::{Account, Broken, Dialog, Pressed, Route},
    planes::Planes,
    run::Script,
};

/// Nodes and carriers, which may be broken, and which tell in the end what they saw.
pub trait Site: Sync {
    /// Starts control planes for it, in an empty folder, and waits until each sees all of it.
    ///
    /// # Errors
    /// One does not start.
    fn start(&self, folder: &Path, script: &Script) -> anyhow::Result<Planes>;

    /// From now on every carrier does so, where nothing else is asked of it.
    ///
    /// # Errors
    /// It cannot.
    fn behave(&self, behaviour: Behaviour) -> Result<(), LabError>;

    /// Breaks a node or a carrier.
    ///
    /// # Errors
    /// It cannot be broken so.
    fn begin(&self, subject: &Subject, what: What) -> Result<(), LabError>;

    /// And mends it.
    ///
    /// # Errors
    /// It cannot be mended.
    fn mend(&self, subject: &Subject, what: What) -> Result<(), LabError>;

    /// What carriers' accounts allow, where they are limited, and the most channels that they had until it is over.
    ///
    /// # Errors
    /// A carrier cannot be asked.
    fn accounts(&self, is_over: &AtomicBool) -> anyhow::Result<Vec<Account>>;

    /// Channels of each node that lives, once they are gone or have stayed too long.
    ///
    /// # Errors
    /// The machine's.
    fn left(&self, broken: &[Broken]) -> anyhow::Result<Vec<(String, u32)>>;

    /// Every call that reached a carrier, and every key that a callee pressed, once nothing more comes.
    ///
    /// # Errors
    /// A carrier cannot be asked.
    fn seen(&self) -> anyhow::Result<(Vec<Dialog>, Vec<Pressed>)>;

    /// The ways that calls may take.
    fn routes(&self) -> Vec<Route>;
}
