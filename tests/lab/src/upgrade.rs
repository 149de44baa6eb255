//! `cargo lab soak rolling-upgrade`: an earlier commit's control planes and agents are replaced by this tree's while calls come.
use crate::{output, stages};
use anyhow::{Context as _, ensure};
use std::os::unix::fs::symlink;
use std::process::Command;

/// Both programs, as `cargo build` names them.
const PROGRAMS: [&str; 2] = ["ringward", "ringward-agent"];
/// Where a schema's steps are.
const MIGRATIONS: &str = "controlplane/store/migrations/postgres";

/// With the programs of the commit `from`; without one, of the last with fewer migrations than this tree has.
pub(crate) fn rolling(from: Option<&str>) -> anyhow::Result<()> {
    stages::build_programs()?;
    let from = match from {
        Some(from) => git(&["rev-parse", "--verify", &format!("{from}^{{commit}}")])?,
        None => before_the_last_migration()?,
    };
    output::note(&format!("from {from}"));
    let folder = std::path::absolute("target/before")?;
    let source = folder.join("source");
    // One of an earlier run may be of another commit.
    git(&["worktree", "prune"])?;
    if source.exists() {
        git(&["worktree", "remove", "--force", &source.display().to_string()])?;
    }
    git(&["worktree", "add", "--detach", &source.display().to_string(), &from])?;
    let target = folder.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--workspace", "--bins", "--target-dir"])
        .arg(&target)
        .current_dir(&source)
        .status()?;
    git(&["worktree", "remove", "--force", &source.display().to_string()])?;
    ensure!(built.success(), "{from} does not build");
    let links = folder.join("links");
    std::fs::create_dir_all(&links)?;
    for program in PROGRAMS {
        let link = links.join(program);
        if link.is_symlink() {
            std::fs::remove_file(&link)?;
        }
        symlink(target.join("debug").join(program), &link)?;
    }
    let chaos = lab::program("chaos")?;
    let to = chaos.parent().context("no folder of programs")?;
    let mut command = Command::new(&chaos);
    command.env("LAB_PROGRAMS", &links);
    command.arg("upgrade").arg("--links").arg(&links).arg("--to").arg(to);
    ensure!(command.status()?.success(), "the upgrade was not smooth");
    Ok(())
}

fn before_the_last_migration() -> anyhow::Result<String> {
    let last = git(&["log", "--diff-filter=A", "--format=%H", "-1", "--", MIGRATIONS])?;
    git(&["rev-parse", "--verify", &format!("{last}^")])
}

fn git(arguments: &[&str]) -> anyhow::Result<String> {
    let said = Command::new("git").args(arguments).output().context("git")?;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.success(), "git {}: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}
