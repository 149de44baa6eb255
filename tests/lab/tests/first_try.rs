//! What a newcomer meets who has not read to the end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Nobody, on every Debian.
const NOBODY: u32 = 65_534;

#[test]
fn who_is_not_root_is_told_so_before_minutes_of_compiling() {
    // A copy, since nobody may look into root's home, where this may lie.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("lab");
    fs::copy(env!("CARGO_BIN_EXE_lab"), &program).unwrap();
    let mut demo = Command::new(&program);
    // Were it to compile, it would fail at once.
    demo.args(["demo", "--exit"]).env("CARGO", "false").current_dir(folder.path());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        demo.uid(NOBODY).gid(NOBODY);
    }
    let said = demo.output().unwrap();
    let told = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success());
    assert!(told.contains("needs root: run it with sudo"), "{told}");
    assert!(!told.contains("building"), "{told}");
}

/// `cargo run` tells a program of its package by variables. A cargo below that saw them would compile anew what one beside it
/// has compiled (a build script of TLS looks at them), and so would the next one beside it.
#[test]
fn a_build_by_the_lab_is_the_same_as_one_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (cargo, seen) = (folder.path().join("cargo"), folder.path().join("seen"));
    fs::write(&cargo, format!("#!/bin/sh\nenv | grep ^CARGO_ >{}\nexit 1\n", seen.display())).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_lab"));
    check.arg("check").env("CARGO", &cargo).env("CARGO_NET_OFFLINE", "true");
    check.env("CARGO_PKG_NAME", "lab").env("CARGO_MANIFEST_DIR", folder.path());
    check.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
    let said = check.output().unwrap();
    let seen = fs::read_to_string(&seen)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&said.stderr)));
    assert!(seen.contains("CARGO_NET_OFFLINE=true"), "{seen}");
    assert!(!seen.contains("CARGO_PKG_") && !seen.contains("CARGO_MANIFEST_"), "{seen}");
}
