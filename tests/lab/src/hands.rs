//! The lab by hand: up, status, shell, carrier, attack.
use crate::output;
use anyhow::Context as _;
use lab::shapes::Shape;
use lab::{AsteriskVersion, Behaviour, Hold, Hosts, Inbound, Lab, Method, Plan, Reach, TrunkLayout, Volley};

#[derive(clap::Args)]
pub(crate) struct Up {
    /// How many PBXes
    #[arg(long, default_value_t = 2)]
    pbxes: u8,
    /// How many carriers
    #[arg(long, default_value_t = 2)]
    carriers: u8,
    /// What the PBXes run
    #[arg(long, value_enum, default_value = "22")]
    asterisk: AsteriskVersion,
    /// What the PBXes are: processes, or whole hosts with systemd
    #[arg(long, value_enum, default_value = "processes")]
    hosts: Hosts,
    /// Where AMI listens: on the bridge, or on loopback for agents (which you join and start)
    #[arg(long, value_enum, default_value = "direct")]
    reach: Reach,
    /// Which trunks there are
    #[arg(long, value_enum, default_value = "diagonal")]
    trunks: TrunkLayout,
    /// Adds trunks whose contact is a name with two addresses
    #[arg(long)]
    srv: bool,
    /// What calls that come in over a trunk meet
    #[arg(long, value_enum, default_value = "closed")]
    inbound: Inbound,
}

#[derive(clap::Args)]
pub(crate) struct Attack {
    /// The PBX it goes to
    pbx: String,
    /// What to send; all shapes where none is named
    #[arg(long, value_enum)]
    shape: Option<Shape>,
    /// The request
    #[arg(long, value_enum, default_value = "register")]
    method: Method,
    /// From this carrier's address instead of a stranger's: the PBX takes it for the trunk
    #[arg(long, value_name = "CARRIER")]
    over: Option<String>,
    /// Packets per shape
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Packets per second
    #[arg(long, default_value_t = 50)]
    per_s: u32,
    /// The attempt id that forged events name
    #[arg(long, default_value = "att_guess")]
    attempt: String,
}

/// Boots and leaves running; Ctrl-C while booting ends what was started.
pub(crate) fn up(wanted: &Up) -> anyhow::Result<()> {
    let plan = Plan {
        pbxes: wanted.pbxes,
        carriers: wanted.carriers,
        asterisk: wanted.asterisk,
        hosts: wanted.hosts,
        reach: wanted.reach,
        trunks: wanted.trunks,
        srv_trunk: wanted.srv,
        inbound: wanted.inbound,
        ..Plan::default()
    };
    sweep_on_interrupt()?;
    let lab = Lab::up_and_hold(plan, Hold::Kept)?;
    show(&lab);
    output::note("fleet.toml of this lab: /run/ringward-lab/fleet.toml; end it with `cargo lab down`");
    Ok(())
}

/// A table, or JSON.
pub(crate) fn status(json: bool) -> anyhow::Result<()> {
    let lab = Lab::attach()?;
    if json {
        output::line(&serde_json::to_string(&lab::status(&lab)).context("write JSON")?);
    } else {
        show(&lab);
    }
    Ok(())
}

/// Replaces this process by a shell on the host.
pub(crate) fn shell(name: &str, asterisk: bool) -> anyhow::Result<()> {
    let lab = Lab::attach()?;
    let program: &[&str] = if asterisk { &["asterisk", "-rvvv"] } else { &["bash"] };
    Err(lab.exec_on(name, program)?.into())
}

/// Changes a carrier.
pub(crate) fn carrier(name: &str, behaviour: Behaviour) -> anyhow::Result<()> {
    let lab = Lab::attach()?;
    lab.carrier(name)?.behave(behaviour)?;
    output::line(&format!("carrier {name}: {behaviour:?}"));
    Ok(())
}

/// Sends hostile SIP and shows what was answered.
pub(crate) fn attack(wanted: &Attack) -> anyhow::Result<()> {
    let lab = Lab::attach()?;
    let target = lab.pbx(&wanted.pbx)?;
    let shapes = wanted.shape.map_or_else(|| Shape::ALL.to_vec(), |shape| vec![shape]);
    for shape in shapes {
        let volley = Volley {
            shape,
            method: wanted.method,
            count: wanted.count,
            per_s: wanted.per_s,
            attempt: wanted.attempt.clone(),
        };
        let answers = match &wanted.over {
            Some(carrier) => lab.carrier(carrier)?.send_hostile(&volley, target)?,
            None => lab.attacker().send_hostile(&volley, target)?,
        };
        output::line(&format!("{shape:?}: {} sent; answered: {}", wanted.count, answers.join(", ")));
    }
    Ok(())
}

fn show(lab: &Lab) {
    let rows: Vec<Vec<String>> = lab::status(lab)
        .into_iter()
        .map(|host| {
            let number = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            vec![host.name, host.role.into(), host.address, number(host.pid), number(host.channels), host.saw]
        })
        .collect();
    output::table(&["NAME", "ROLE", "ADDRESS", "PID", "CHANNELS", "TRUNKS OR WHAT IT SAW"], &rows);
}

/// Ctrl-C: end what runs, then this program. Hosts run apart from this terminal and would stay.
pub(crate) fn sweep_on_interrupt() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::signal::ctrl_c().await.ok();
        });
        output::note("interrupted; ending what was started");
        if let Err(error) = lab::sweep() {
            output::note(&error.to_string());
        }
        std::process::exit(130);
    });
    Ok(())
}

/// Runs a command with a lab of its own.
pub(crate) fn apart(name: &str, command: &[std::ffi::OsString]) -> anyhow::Result<()> {
    anyhow::ensure!(
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()),
        "`{name}` is no plain word of letters and digits"
    );
    let Some((program, arguments)) = command.split_first() else { anyhow::bail!("which command?") };
    let status = lab::apart(name, program).args(arguments).status().context("start a command apart")?;
    anyhow::ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// Writes Grafana's dashboards, or tells which files are not as they should be.
pub(crate) fn dashboards(check: bool) -> anyhow::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/dashboards");
    if !check {
        return Ok(lab::write_dashboards(&folder)?);
    }
    let drifted = lab::drifted_dashboards(&folder)?;
    anyhow::ensure!(drifted.is_empty(), "not as defined: {}; run `cargo lab dashboards`", drifted.join(", "));
    Ok(())
}
