//! Schemathesis, in a Python environment of its own that is kept.
use crate::{LabError, command, packages, progress, root};
use std::fs;
use std::path::{Path, PathBuf};

/// Every package with its version: what it finds changes with it, and with those that it generates cases by.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/requirements.txt");

/// Installs Schemathesis from PyPI where it is missing, or of another version; gives the program.
///
/// # Errors
/// Python or a package cannot be had.
pub fn install_schemathesis() -> Result<PathBuf, LabError> {
    let folder = Path::new(root::CACHE).join("schemathesis");
    let (program, installed) = (folder.join("bin/schemathesis"), folder.join("installed.txt"));
    let wanted = fs::read_to_string(REQUIREMENTS).map_err(LabError::file("read", REQUIREMENTS))?;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(program);
    }
    progress::say("installing Schemathesis from PyPI");
    fs::create_dir_all(root::CACHE).map_err(LabError::file("create", root::CACHE))?;
    let environment = || {
        let arguments = ["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), folder.as_os_str()];
        command::run("make a Python environment", "python3", arguments)
    };
    if environment().is_err() {
        packages::install(&["python3-venv"])?;
        environment()?;
    }
    let pip = folder.join("bin/pip");
    let arguments = ["install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS];
    command::run("install Schemathesis", &pip.display().to_string(), arguments)?;
    fs::write(&installed, wanted).map_err(LabError::file("write", &installed))?;
    Ok(program)
}
