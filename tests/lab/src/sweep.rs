//! Ends and removes what a lab started, at its end and after a crash.
use crate::{LabError, machine, network, process};
use std::fs;
use std::path::Path;

/// Ends every process that a lab started and removes its network. Roots, logs and captures stay.
///
/// A lab that another living program holds (a test, the demo) is not touched: that is an error.
pub fn sweep() -> Result<(), LabError> {
    let _lock = crate::lab::lock_unless_ours()?;
    sweep_ours()
}

/// The same, for who holds the lock.
pub(crate) fn sweep_ours() -> Result<(), LabError> {
    // A PostgreSQL belongs to the program that started it, not to the lab.
    let mut names = process::remembered();
    names.retain(|name| !name.starts_with("postgres-"));
    // All at once first: one after the other, each waits for its own Asterisk to say goodbye.
    for name in &names {
        process::signal(name, process::Signal::Cont).ok();
        process::signal(name, process::Signal::Kill).ok();
    }
    for name in &names {
        process::end(name)?;
    }
    machine::remove_all()?;
    if crate::command::is_installed("ip") {
        network::remove_all()?;
    }
    let plan = Path::new(crate::lab::STATE).join("plan.json");
    if plan.exists() {
        fs::remove_file(&plan).map_err(LabError::file("remove", &plan))?;
    }
    Ok(())
}
