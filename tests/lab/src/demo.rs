//! `cargo lab demo`: the main job on real parts, told as it happens.
//!
//! Every claim of the story is checked against what the carriers saw on their wire; the exit code tells
//! whether all of it held.
use crate::story::Story;
use crate::{hands, output};
use anyhow::{Context as _, ensure};
use lab::{ControlPlane, Inbound, Lab, Plan, Reach, Setup, TrunkLayout, numbers};
use std::path::Path;
use std::process::Command;

/// Where the demo's control plane keeps its database. Emptied at each start.
const FOLDER: &str = "/run/ringward-lab/demo";

#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Ends after the story instead of staying up until Ctrl-C
    #[arg(long)]
    pub(crate) exit: bool,
}

/// Builds, boots, tells, and stays up unless told not to.
pub(crate) fn demo(wanted: &Wanted) -> anyhow::Result<()> {
    // Who is not root shall not wait for the compiler first.
    lab::install_network_tools()?;
    let start = tokio::time::Instant::now();
    build()?;
    let built = start.elapsed();
    hands::sweep_on_interrupt()?;
    // The PBXes take calls as well, so that a caller can try to forge what they say.
    let plan =
        Plan { trunks: TrunkLayout::Full, reach: Reach::Agent, inbound: Inbound::Rings, ..Plan::default() };
    let lab = Lab::up(plan)?;
    let folder = Path::new(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("empty {FOLDER}"))?;
    }
    let plane = ControlPlane::open(Setup::new(folder).agents_at(lab.root_address()))?;
    Story::new(&lab, &plane).tell()?;
    output::line(&format!(
        "\nAll of it held. {:.0} s, after {:.0} s for the build.",
        (start.elapsed() - built).as_secs_f64(),
        built.as_secs_f64()
    ));
    if wanted.exit {
        return Ok(());
    }
    stay(&lab, &plane);
    Ok(())
}

/// The programs that the story is about.
fn build() -> anyhow::Result<()> {
    output::note("building ringward and ringward-agent (cargo build --workspace --bins)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--workspace", "--bins"]).status()?;
    ensure!(status.success(), "it does not build; the compiler's words are above");
    Ok(())
}

/// What a visitor can try while it is up.
fn stay(lab: &Lab, plane: &ControlPlane) {
    let answering = numbers::number(numbers::ANSWER, 900);
    output::line(&format!(
        "\nIt stays up until Ctrl-C. In another terminal:\n\n  export RINGWARD_OPERATOR_URL={}\n  \
         export RINGWARD_OPERATOR_KEY={}\n  target/debug/ringward status\n  target/debug/ringward node show pbx-1\n  target/debug/ringward call place \
         {answering}\n  cargo lab carrier a 503        (silent, trying, deaf, slow, dead, busy, ring, normal)\n\n  \
         curl -s {}/v1/calls -H 'Authorization: Bearer {}' \\\n    -H 'Content-Type: application/json' \\\n    \
         -d '{{\"to\": \"{answering}\", \"message\": {{\"audio_id\": \"builtin:hello-world\"}}}}'\n\nIts log: {}",
        plane.operator_url(),
        plane.operator_key(),
        plane.api_url(),
        plane.customer_key(),
        plane.log().display(),
    ));
    let names: Vec<&str> = lab.pbxes().iter().map(lab::Pbx::name).collect();
    output::note(&format!("up: {}; Ctrl-C ends everything", names.join(", ")));
    loop {
        // The handler of Ctrl-C ends the process.
        std::thread::park();
    }
}
