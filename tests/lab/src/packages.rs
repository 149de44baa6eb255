//! Installs what the machine lacks, from Debian, without starting any service.
use crate::{LabError, command, progress};
use std::path::Path;
use std::process::Command;

/// What `apt-get` must never do here: start the services of what it installs.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# Written by the lab while it installs packages.\nexit 101\n";

/// A program and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// What hosts on a bridge need.
pub(crate) const HOST_TOOLS: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "tcpdump", package: "tcpdump" },
    Tool { program: "dnsmasq", package: "dnsmasq-base" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "kill", package: "procps" },
];

/// What hosts that are booted need.
pub(crate) const MACHINE_TOOLS: &[Tool] = &[Tool { program: "systemd-nspawn", package: "systemd-container" }];

/// What a control plane needs to speak texts.
pub(crate) const SPEECH_TOOLS: &[Tool] = &[Tool { program: "espeak-ng", package: "espeak-ng" }];

/// What the package's backup copies an SQLite database with.
pub(crate) const BACKUP_TOOLS: &[Tool] = &[Tool { program: "sqlite3", package: "sqlite3" }];

/// In which documents show snippets.
pub(crate) const LANGUAGES: &[Tool] = &[
    Tool { program: "python3", package: "python3" },
    Tool { program: "node", package: "nodejs" },
    Tool { program: "ruby", package: "ruby" },
];

/// What programs whose clock is wrong need.
pub(crate) const CLOCK_TOOLS: &[Tool] = &[Tool { program: "faketime", package: "faketime" }];

/// What alert rules are tried with, and what watches a fleet.
pub(crate) const PROMETHEUS: &[Tool] = &[
    Tool { program: "prometheus", package: "prometheus" },
    Tool { program: "promtool", package: "prometheus" },
];

/// What tells hooks of alerts.
pub(crate) const ALERTMANAGER: &[Tool] = &[
    Tool { program: "prometheus-alertmanager", package: "prometheus-alertmanager" },
    Tool { program: "amtool", package: "prometheus-alertmanager" },
];

/// What looks at the console, and what fetches the rules that it is looked at by.
pub(crate) const BROWSER: &[Tool] = &[
    Tool { program: "chromium", package: "chromium" },
    Tool { program: "chromedriver", package: "chromium-driver" },
    Tool { program: "npm", package: "npm" },
];

/// What failover is compared with.
pub(crate) const KAMAILIO: &[Tool] =
    &[Tool { program: "kamailio", package: "kamailio" }, Tool { program: "ss", package: "iproute2" }];

/// What attackers come with, and the honest phone beside them.
pub(crate) const ATTACK_TOOLS: &[Tool] = &[
    Tool { program: "hydra", package: "hydra" },
    Tool { program: "svmap", package: "sipvicious" },
    Tool { program: "svwar", package: "sipvicious" },
    Tool { program: "svcrack", package: "sipvicious" },
    Tool { program: "sipp", package: "sip-tester" },
];

/// What making a root needs; dpkg-dev also to pack the two programs.
pub(crate) const ROOT_TOOLS: &[Tool] = &[
    Tool { program: "debootstrap", package: "debootstrap" },
    Tool { program: "dpkg-scanpackages", package: "dpkg-dev" },
];

/// What packages are held against.
pub(crate) const LINTIAN: &[Tool] = &[Tool { program: "lintian", package: "lintian" }];

/// By what Ansible reaches hosts; and what makes a carrier's certificate.
pub(crate) const SSH_TOOLS: &[Tool] = &[
    Tool { program: "openssl", package: "openssl" },
    Tool { program: "ssh", package: "openssh-client" },
    Tool { program: "ssh-keygen", package: "openssh-client" },
];

/// Installs those of `tools` that are missing.
pub(crate) fn ensure(tools: &[Tool]) -> Result<(), LabError> {
    let mut missing: Vec<&str> =
        tools.iter().filter(|tool| !command::is_installed(tool.program)).map(|tool| tool.package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Installs packages, after `apt-get update` if they are not known yet.
pub(crate) fn install(packages: &[&str]) -> Result<(), LabError> {
    must_be_root()?;
    progress::say(&format!("installing {} from Debian", packages.join(", ")));
    let policy = Policy::lay()?;
    let first = apt(&["install", "-y", "--no-install-recommends"], packages);
    let result = match first {
        Ok(said) => Ok(said),
        Err(_) => {
            apt(&["update"], &[]).and_then(|_| apt(&["install", "-y", "--no-install-recommends"], packages))
        }
    };
    drop(policy);
    result.map(|_| ())
}

/// Downloads packages into a folder, without installing them.
pub(crate) fn download(packages: &[&str], folder: &Path) -> Result<(), LabError> {
    progress::say(&format!("downloading {} from Debian", packages.join(", ")));
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "download"]).args(packages).current_dir(folder);
        command::finish("download packages", &mut apt)
    };
    download().or_else(|_| apt(&["update"], &[]).and_then(|_| download())).map(|_| ())
}

/// The lab makes namespaces and mounts: root only.
pub(crate) fn must_be_root() -> Result<(), LabError> {
    let who = command::run("see who runs the lab", "id", ["-u"])?;
    if who.trim() == "0" {
        return Ok(());
    }
    Err(LabError::Machine("the lab makes network namespaces and needs root: run it with sudo".into()))
}

fn apt(verb: &[&str], packages: &[&str]) -> Result<String, LabError> {
    command::finish(
        "install packages",
        Command::new("apt-get")
            // Another apt may run: wait for it instead of failing.
            .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
            .args(verb)
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// `policy-rc.d` for as long as packages are installed; a file that was there before stays.
struct Policy {
    ours: bool,
}

impl Policy {
    fn lay() -> Result<Self, LabError> {
        use std::os::unix::fs::PermissionsExt as _;
        if Path::new(POLICY).exists() {
            return Ok(Policy { ours: false });
        }
        std::fs::write(POLICY, POLICY_TEXT).map_err(LabError::file("write", POLICY))?;
        std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))
            .map_err(LabError::file("make executable", POLICY))?;
        Ok(Policy { ours: true })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            std::fs::remove_file(POLICY).ok();
        }
    }
}
