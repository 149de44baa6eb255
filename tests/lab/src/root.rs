//! The Debian root that Asterisk runs from: made once per suite and recipe, kept, shared by all hosts.
//!
//! It is built in a folder beside its place and renamed when it is whole, under a lock, so that a
//! crash leaves nothing that looks finished and two starts do not build it twice. The mirror and the
//! settings of the machine's own apt are used: a machine behind a proxy or on a mirror works as well.
use crate::{AsteriskVersion, LabError, clock, command, packages, progress};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where roots are kept.
pub(crate) const CACHE: &str = "/var/cache/ringward-lab";
/// What goes into it, without what Debian only recommends.
const PACKAGES: &[&str] = &["asterisk", "asterisk-core-sounds-en-gsm", "sip-tester"];
/// What makes it a root that can be booted.
const BOOT_PACKAGES: &[&str] =
    &["systemd", "systemd-sysv", "dbus", "openssh-server", "nftables", "python3-minimal"];
/// apt settings of this machine that also count inside.
const APT_SETTINGS: &[&str] = &["Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy"];

/// A finished root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its folder.
    pub path: PathBuf,
    /// The Asterisk in it.
    pub asterisk: AsteriskVersion,
}

/// Its number is raised when the recipe changes: the old root is then left and a new one made.
fn recipe(asterisk: AsteriskVersion) -> &'static str {
    match asterisk {
        AsteriskVersion::V22 => "v2",
        AsteriskVersion::V16 => "v1",
    }
}

/// Gives the root that has this Asterisk, making it first if need be (one to two minutes).
pub fn ensure(asterisk: AsteriskVersion) -> Result<Root, LabError> {
    let suite = asterisk.suite();
    let path = Path::new(CACHE).join(format!("{suite}-{}", recipe(asterisk)));
    let root = Root { path: path.clone(), asterisk };
    if path.is_dir() {
        return Ok(root);
    }
    packages::must_be_root()?;
    fs::create_dir_all(CACHE).map_err(LabError::file("create", CACHE))?;
    let lock_path = Path::new(CACHE).join(format!("{suite}.lock"));
    let lock = File::create(&lock_path).map_err(LabError::file("create", &lock_path))?;
    lock.lock().map_err(LabError::file("lock", &lock_path))?;
    if path.is_dir() {
        return Ok(root); // someone else made it while we waited
    }
    packages::ensure(packages::ROOT_TOOLS)?;
    remove_unfinished(suite);
    let start = clock::now();
    let building = Path::new(CACHE).join(format!("{suite}.building.{}", std::process::id()));
    build(asterisk, &building)?;
    fs::rename(&building, &path).map_err(LabError::file("rename", &building))?;
    progress::say(&format!(
        "root with Asterisk {} made in {} s",
        asterisk.major(),
        start.elapsed().as_secs()
    ));
    Ok(root)
}

impl Root {
    /// Where this architecture's modules are, as Debian's own configuration says.
    pub(crate) fn module_folder(&self) -> Result<String, LabError> {
        let path = self.path.join("etc/asterisk/asterisk.conf");
        let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
        let found = text.lines().find_map(|line| line.trim().strip_prefix("astmoddir => "));
        found
            .map(str::to_owned)
            .ok_or_else(|| LabError::Machine(format!("no astmoddir in {}", path.display())))
    }
}

fn build(asterisk: AsteriskVersion, building: &Path) -> Result<(), LabError> {
    let (suite, major) = (asterisk.suite(), asterisk.major());
    progress::say(&format!(
        "making the root with Asterisk {major}, step 1 of 3: Debian {suite} (about a minute)"
    ));
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", suite]).arg(building).arg(mirror()?);
    let script = Path::new("/usr/share/debootstrap/scripts").join(suite);
    if !script.exists() {
        // An older debootstrap does not know newer suites by name; all of them are made as sid is.
        debootstrap.arg("/usr/share/debootstrap/scripts/sid");
    }
    command::finish("make a Debian root", &mut debootstrap)?;

    let policy = building.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n").map_err(LabError::file("write", &policy))?;
    command::run("keep services down", "chmod", [Path::new("755"), &policy])?;
    let settings = building.join("etc/apt/apt.conf.d/90ringward-lab");
    fs::write(&settings, apt_settings()?).map_err(LabError::file("write", &settings))?;

    progress::say("step 2 of 3: list of packages");
    inside(building, &["apt-get", "-q", "update"])?;
    progress::say("step 3 of 3: Asterisk and SIPp");
    let mut install = vec!["apt-get", "-q", "install", "-y", "--no-install-recommends"];
    install.extend(PACKAGES);
    match asterisk {
        AsteriskVersion::V22 => install.extend(BOOT_PACKAGES),
        AsteriskVersion::V16 => {}
    }
    inside(building, &install)?;
    // Where hosts mount their own folder, and the name server that they are given.
    let home = building.join(crate::host::HOME.trim_start_matches('/'));
    fs::create_dir_all(&home).map_err(LabError::file("create", &home))?;
    inside(building, &["apt-get", "clean"])?;
    Ok(())
}

fn inside(root: &Path, args: &[&str]) -> Result<String, LabError> {
    command::finish(
        "make a Debian root",
        Command::new("chroot")
            .arg(root)
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C"),
    )
}

/// A build that died left its folder; the lock says that nobody is at work in it.
fn remove_unfinished(suite: &str) {
    let Ok(entries) = fs::read_dir(CACHE) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&format!("{suite}.building.")) {
            // debootstrap may have left /proc mounted in it: removing through that would be no joke.
            let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
            let path = entry.path();
            for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
                if Path::new(mounted).starts_with(&path) {
                    command::run("unmount", "umount", ["-l", mounted]).ok();
                }
            }
            command::run("remove", "rm", [Path::new("-rf"), Path::new("--one-file-system"), &path]).ok();
        }
    }
}

/// The mirror that this machine's apt uses for Debian itself. apt knows whose a mirror is only after
/// an update, so one is made where it does not.
fn mirror() -> Result<String, LabError> {
    if let Some(found) = known_mirror()? {
        return Ok(found);
    }
    command::run("update apt's lists", "apt-get", ["-q", "update"])?;
    known_mirror()?.ok_or_else(|| {
        LabError::Machine("apt of this machine names no Debian mirror; add one to its sources".into())
    })
}

fn known_mirror() -> Result<Option<String>, LabError> {
    let said = command::run(
        "read apt's mirror",
        "apt-get",
        ["indextargets", "--format", "$(SITE) $(ORIGIN) $(LABEL)", "Created-By: Packages"],
    )?;
    let mut sites = said.lines().filter_map(|line| line.strip_suffix(" Debian Debian"));
    Ok(sites.find(|site| site.starts_with("http")).map(str::to_owned))
}

fn apt_settings() -> Result<String, LabError> {
    let dump = command::run("read apt's settings", "apt-config", ["dump"])?;
    let wanted = |line: &&str| {
        APT_SETTINGS.iter().any(|name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))
    };
    Ok(dump.lines().filter(wanted).map(|line| format!("{line}\n")).collect())
}
