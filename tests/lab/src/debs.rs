//! Debian packages of both programs. Completions and manual pages are written by the programs themselves, just before they are packed:
//! what is installed is of the commands that are.
use crate::{output, stages};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Package, as cargo names it, and its program.
const PROGRAMS: [(&str, &str); 2] = [("controlplane", "ringward"), ("node-agent", "ringward-agent")];

/// Shells, and what stands before and behind the program's name in that of the file that completes its commands.
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];

#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Where to, as ansible/files
    folder: PathBuf,
}

/// Builds both programs for release and packs them.
pub(crate) fn packages(wanted: &Wanted) -> anyhow::Result<()> {
    stages::ensure_tool("cargo-deb")?;
    let mut build = vec!["build", "--release", "--locked"];
    build.extend(PROGRAMS.iter().flat_map(|(package, _)| ["--package", *package]));
    stages::step(&build, &[])?;
    let built = built("release")?;
    pack("release", &built, &wanted.folder, &[], "1")?;
    inspect(&built, &wanted.folder, "1")
}

/// Where cargo leaves what it builds so.
pub(crate) fn built(profile: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("where am I")?;
    // `target/debug/lab`, or `target/debug/deps/lab-…`.
    let found = here.ancestors().skip(2).take(2).map(|folder| folder.join(profile));
    let mut found = found.filter(|folder| folder.join("ringward").is_file());
    found.next().with_context(|| format!("the programs are not built for {profile}"))
}

/// Packs both programs as they lie in `built`.
pub(crate) fn pack(
    profile: &str,
    built: &Path,
    folder: &Path,
    more: &[&str],
    revision: &str,
) -> anyhow::Result<()> {
    let output = format!("{}/", folder.display());
    for (package, program) in PROGRAMS {
        write_papers(built, program)?;
        let line = ["deb", "--no-build", "--profile", profile, "--quiet", "--package", package];
        stages::step(&[&line[..], more, &["--deb-revision", revision, "--output", &output]].concat(), &[])?;
    }
    Ok(())
}

/// A program's completions and manual pages, where its package takes them from.
fn write_papers(built: &Path, program: &str) -> anyhow::Result<()> {
    let papers = built.join("papers").join(program);
    if papers.exists() {
        std::fs::remove_dir_all(&papers).context("remove former papers")?;
    }
    std::fs::create_dir_all(&papers).context("make a folder for papers")?;
    let says = |arguments: &[&str]| {
        let said = Command::new(built.join(program)).args(arguments).output();
        let said = said.with_context(|| format!("start {program}"))?;
        if !said.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&said.stderr));
        }
        anyhow::Ok(said.stdout)
    };
    let man = papers.join("man");
    says(&["man", &man.display().to_string()])?;
    // As Debian wants pages, and without a time of day: the same pages make the same package.
    for page in pages(built, program)? {
        let gzip = Command::new("gzip").args(["-9n"]).arg(man.join(&page)).status().context("gzip")?;
        if !gzip.success() {
            bail!("gzip {page}: {gzip}");
        }
    }
    for (shell, before, behind) in SHELLS {
        let file = papers.join(format!("{before}{program}{behind}"));
        std::fs::write(&file, says(&["completions", shell])?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Whether each package has what `man` and shells read where Debian's look for it, of every command.
pub(crate) fn inspect(built: &Path, folder: &Path, revision: &str) -> anyhow::Result<()> {
    for (_, program) in PROGRAMS {
        let start = format!("{program}_");
        let end = format!("-{revision}_");
        let packages = std::fs::read_dir(folder).context("read the packages' folder")?.flatten();
        let package = packages.map(|entry| entry.path()).find(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with(&start) && name.contains(&end) && name.ends_with(".deb")
        });
        let package = package.with_context(|| format!("no package of {program} in {}", folder.display()))?;
        let told = Command::new("dpkg-deb").arg("--contents").arg(&package).output().context("dpkg-deb")?;
        let told = String::from_utf8_lossy(&told.stdout);
        let has = |path: &str| told.lines().any(|line| line.ends_with(&format!(" ./{path}")));
        let pages = pages(built, program)?;
        let mut wanted = vec![
            format!("usr/share/bash-completion/completions/{program}"),
            format!("usr/share/zsh/vendor-completions/_{program}"),
            format!("usr/share/fish/vendor_completions.d/{program}.fish"),
        ];
        wanted.extend(pages.iter().map(|page| format!("usr/share/man/man1/{page}")));
        if let Some(missing) = wanted.iter().find(|path| !has(path)) {
            bail!("{}: /{missing} is missing in it", package.display());
        }
        output::note(&format!(
            "{}: completions of {} shells, {} manual pages",
            package.display(),
            SHELLS.len(),
            pages.len()
        ));
    }
    Ok(())
}

/// Names of a program's manual pages, as it has written them.
fn pages(built: &Path, program: &str) -> anyhow::Result<Vec<String>> {
    let folder = built.join("papers").join(program).join("man");
    let pages = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten();
    let pages: Vec<String> = pages.map(|page| page.file_name().to_string_lossy().into_owned()).collect();
    // One of the program, and one of each command.
    let is_first = |page: &String| page.trim_end_matches(".gz") == format!("{program}.1");
    if !pages.iter().any(is_first) || pages.len() < 10 {
        bail!("{program} wrote no manual: {pages:?}");
    }
    Ok(pages)
}
