//! Programs from PyPI, in Python environments of their own that are kept.
use crate::{LabError, command, packages, progress, root};
use std::fs;
use std::path::{Path, PathBuf};

/// Every package with its version: what it finds changes with it, and with those that it generates cases by.
const SCHEMATHESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/requirements.txt");
/// The same for Ansible and what lints playbooks.
const ANSIBLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ansible/requirements.txt");

/// Installs Schemathesis from PyPI where it is missing, or of another version; gives the program.
///
/// # Errors
/// Python or a package cannot be had.
pub fn install_schemathesis() -> Result<PathBuf, LabError> {
    environment("schemathesis", SCHEMATHESIS).map(|programs| programs.join("schemathesis"))
}

/// Installs ansible-core and ansible-lint in the same way, and an ssh client; gives the folder of their programs.
///
/// # Errors
/// As [`install_schemathesis`].
pub fn install_ansible() -> Result<PathBuf, LabError> {
    packages::ensure(packages::SSH_TOOLS)?;
    environment("ansible", ANSIBLE)
}

fn environment(name: &str, requirements: &str) -> Result<PathBuf, LabError> {
    let folder = Path::new(root::CACHE).join(name);
    let (programs, installed) = (folder.join("bin"), folder.join("installed.txt"));
    let wanted = fs::read_to_string(requirements).map_err(LabError::file("read", requirements))?;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(programs);
    }
    progress::say(&format!("installing {name} from PyPI"));
    fs::create_dir_all(root::CACHE).map_err(LabError::file("create", root::CACHE))?;
    let environment = || {
        let arguments = ["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), folder.as_os_str()];
        command::run("make a Python environment", "python3", arguments)
    };
    if environment().is_err() {
        packages::install(&["python3-venv"])?;
        environment()?;
    }
    let pip = programs.join("pip");
    let arguments = ["install", "--quiet", "--disable-pip-version-check", "--requirement", requirements];
    command::run(&format!("install {name}"), &pip.display().to_string(), arguments)?;
    fs::write(&installed, wanted).map_err(LabError::file("write", &installed))?;
    Ok(programs)
}
