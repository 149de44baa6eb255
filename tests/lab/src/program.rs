//! Programs of this workspace, and ports for them.
use crate::LabError;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

/// A folder whose programs are taken instead of those of this build: another version's, which is upgraded. No name of Ringward's own
/// settings: the control plane refuses those that it does not know.
const OTHERS: &str = "LAB_PROGRAMS";

/// A program of this workspace, beside the one that runs: `cargo build` puts them in one folder, and
/// tests in `deps` below it. One that stands in the folder of `LAB_PROGRAMS` goes before.
///
/// # Errors
/// It is not built.
pub fn program(name: &str) -> Result<PathBuf, LabError> {
    let other = std::env::var_os(OTHERS).map(|folder| PathBuf::from(folder).join(name));
    if let Some(other) = other.filter(|path| path.is_file()) {
        return Ok(other);
    }
    let here = std::env::current_exe().map_err(|error| LabError::Machine(format!("where am I: {error}")))?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        LabError::Machine(format!(
            "{name} is not built: run `cargo build -p controlplane -p node-agent` (`cargo lab test` does)"
        ))
    })
}

/// The same, of the optimised build.
///
/// # Errors
/// It is not built.
pub(crate) fn release_program(name: &str) -> Result<PathBuf, LabError> {
    let here = std::env::current_exe().map_err(|error| LabError::Machine(format!("where am I: {error}")))?;
    let mut found = here.ancestors().skip(1).take(3).map(|folder| folder.join("release").join(name));
    found.find(|path| path.is_file()).ok_or_else(|| {
        LabError::Machine(format!(
            "{name} is not built for release: run `cargo build --release -p controlplane -p node-agent`"
        ))
    })
}

/// A TCP port of this machine that nobody listens at now.
pub(crate) fn free_port(at: Ipv4Addr) -> Result<u16, LabError> {
    let listener = TcpListener::bind((at, 0)).and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| LabError::Machine(format!("no free port at {at}: {error}")))
}
