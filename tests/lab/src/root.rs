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
/// What a bare host has: it can be booted, and reached by Ansible.
const BARE_PACKAGES: &[&str] =
    &["systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "iproute2"];
/// What playbooks install on it.
const MIRRORED: &[&str] = &[
    "asterisk",
    "asterisk-core-sounds-en-gsm",
    "nftables",
    "espeak-ng",
    "sqlite3",
    "ca-certificates",
    "prometheus",
    "postgresql",
];
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
    let path = kept(asterisk.suite(), recipe(asterisk), |building| build(asterisk, building))?;
    Ok(Root { path, asterisk })
}

/// Gives the root of a bare host: Debian with systemd, sshd and Python, beside it a mirror of the packages that playbooks
/// install, since nothing leads out of the lab. It is made first if need be (one to two minutes).
///
/// # Errors
/// A package cannot be had.
pub fn ensure_bare() -> Result<PathBuf, LabError> {
    kept("bare", "v1", build_bare)
}

/// The folder of a root that was made before, or is made now: once, however many ask.
fn kept(
    name: &str,
    version: &str,
    build: impl FnOnce(&Path) -> Result<(), LabError>,
) -> Result<PathBuf, LabError> {
    let path = Path::new(CACHE).join(format!("{name}-{version}"));
    if path.is_dir() {
        return Ok(path);
    }
    packages::must_be_root()?;
    fs::create_dir_all(CACHE).map_err(LabError::file("create", CACHE))?;
    let lock_path = Path::new(CACHE).join(format!("{name}.lock"));
    let lock = File::create(&lock_path).map_err(LabError::file("create", &lock_path))?;
    lock.lock().map_err(LabError::file("lock", &lock_path))?;
    if path.is_dir() {
        return Ok(path); // someone else made it while we waited
    }
    packages::ensure(packages::ROOT_TOOLS)?;
    remove_unfinished(name);
    let start = clock::now();
    let building = Path::new(CACHE).join(format!("{name}.building.{}", std::process::id()));
    build(&building)?;
    fs::rename(&building, &path).map_err(LabError::file("rename", &building))?;
    progress::say(&format!("root {name} made in {} s", start.elapsed().as_secs()));
    Ok(path)
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
        "making the root with Asterisk {major}, step 1 of 2: Debian {suite} (about a minute)"
    ));
    build_debian(suite, building)?;
    progress::say("step 2 of 2: Asterisk and SIPp");
    let mut packages = PACKAGES.to_vec();
    match asterisk {
        AsteriskVersion::V22 => packages.extend(BOOT_PACKAGES),
        AsteriskVersion::V16 => {}
    }
    install(building, &[], &packages)?;
    // Where hosts mount their own folder, and the name server that they are given.
    let home = building.join(crate::host::HOME.trim_start_matches('/'));
    fs::create_dir_all(&home).map_err(LabError::file("create", &home))?;
    inside(building, &["apt-get", "clean"])?;
    Ok(())
}

fn build_bare(building: &Path) -> Result<(), LabError> {
    const MIRROR: &str = "set -e; cd \"$1\"; mkdir -p srv/mirror; mv var/cache/apt/archives/*.deb srv/mirror\n\
        cd srv/mirror; dpkg-scanpackages --multiversion . >Packages 2>/dev/null; cd ../../etc/apt\n\
        rm -f sources.list.d/*; echo 'deb [trusted=yes] file:/srv/mirror ./' >sources.list";
    progress::say("making the root of bare hosts, step 1 of 2: Debian (about a minute)");
    build_debian(AsteriskVersion::V22.suite(), building)?;
    install(building, &[], BARE_PACKAGES)?;
    inside(building, &["apt-get", "clean"])?;
    progress::say("step 2 of 2: packages that playbooks install");
    install(building, &["--download-only"], MIRRORED)?;
    let mut mirror = Command::new("sh");
    mirror.args(["-c", MIRROR, "mirror"]).arg(building);
    command::finish("lay out a mirror", &mut mirror)?;
    inside(building, &["apt-get", "-q", "update"]).map(|_| ())
}

/// Debian's base in which no service starts, with this machine's mirror.
fn build_debian(suite: &str, building: &Path) -> Result<(), LabError> {
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

    inside(building, &["apt-get", "-q", "update"]).map(|_| ())
}

fn install(building: &Path, options: &[&str], packages: &[&str]) -> Result<(), LabError> {
    let install = ["apt-get", "-q", "install", "-y", "--no-install-recommends"];
    inside(building, &[&install, options, packages].concat()).map(|_| ())
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
