//! `ringward-agent ban | allow | firewall`.

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use node_agent_core::{
    bans::{Allow, Ban},
    firewall::{
        Path as WayIn, Plan, Policy,
        foreign::{Conflict, conflicts},
    },
    moment::UnixMs,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Nft, Standing,
    door::{Ask, Page, ask},
    guard, ledger,
    look::whole,
    own, remove_table,
    rules::{fleet_on_disk, joined},
};
use crate::{
    clock::Clock,
    identity::StateDir,
    settings::{FirewallMode, Settings},
};

/// Where the agent keeps its state, if its settings do not say otherwise.
const STATE_DIR: &str = "/var/lib/ringward-agent";
/// Between two looks at how the firewall stands, while an operator waits.
const STANDING_EVERY: Duration = Duration::from_millis(250);

/// Bans on this node.
#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// All bans.
    List,
    /// Bans an address or a network.
    Add {
        /// `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/64`.
        #[arg(value_parser = net)]
        net: IpNet,
        /// How long; without, until it is lifted.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u32>,
        /// Who and why.
        #[command(flatten)]
        why: Why,
    },
    /// Lifts exactly this ban.
    Remove {
        /// As `ban list` shows it.
        #[arg(value_parser = net)]
        net: IpNet,
        /// Who and why.
        #[command(flatten)]
        why: Why,
    },
    /// What holds for an address.
    Why {
        /// The address.
        address: IpAddr,
    },
}

/// Networks that are never banned on this node.
#[derive(Debug, Subcommand)]
pub enum AllowCommand {
    /// All of them.
    List,
    /// Lifts every ban that touches the network, and refuses such bans.
    Add {
        /// An address or a network.
        #[arg(value_parser = net)]
        net: IpNet,
        /// How long; without, until it is taken back.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u32>,
        /// Who and why.
        #[command(flatten)]
        why: Why,
    },
    /// Takes it back.
    Remove {
        /// As `allow list` shows it.
        #[arg(value_parser = net)]
        net: IpNet,
        /// Who and why.
        #[command(flatten)]
        why: Why,
    },
}

/// Who wants it, and why.
#[derive(Debug, Args)]
pub struct Why {
    /// Kept with it.
    #[arg(long, default_value = "")]
    reason: String,
    /// Your name; without, who logged in.
    #[arg(long)]
    author: Option<String>,
}

impl Why {
    fn author(&self) -> String {
        author(self.author.as_ref())
    }
}

fn author(named: Option<&String>) -> String {
    let logged_in = || ["SUDO_USER", "USER"].iter().find_map(|name| std::env::var(name).ok());
    named.cloned().or_else(logged_in).unwrap_or_else(|| "root".to_owned())
}

/// The firewall of this node.
#[derive(Debug, Subcommand)]
pub enum FirewallCommand {
    /// How it stands.
    Status,
    /// What the settings would change in the kernel, and whether that would lock you out. Changes nothing.
    Plan,
    /// Tries rules again that were reverted.
    Apply,
    /// Removes our table, bans included, and nothing else. The agent must be stopped.
    Remove,
    /// Says that you are in after a change of rules, where no control plane is there to say so. Open a new ssh
    /// connection from a management network first, and type it there. Waits until the change is confirmed or reverted.
    Confirm {
        /// Your name; without, who logged in.
        #[arg(long)]
        author: Option<String>,
    },
    /// Brings the old rules back now, if a change is on trial.
    Revert(Revert),
    /// Reverts the change that is on trial when its time is over; what ringward-agent-guard.path starts.
    Guard(Guard),
}

/// Arguments of `firewall guard`.
#[derive(Debug, Args)]
pub struct Guard {
    /// The agent's state directory.
    #[arg(long, default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Leaves the session of whoever starts it.
    #[arg(long)]
    own_session: bool,
}

/// Arguments of `firewall revert`.
#[derive(Debug, Args)]
pub struct Revert {
    /// Only this change.
    #[arg(long)]
    change: Option<String>,
    /// The agent's state directory.
    #[arg(long, default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// The program.
    #[arg(long, default_value = "nft")]
    nft: PathBuf,
}

fn net(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| "no address and no network".to_owned())
}

async fn asked<T: DeserializeOwned>(settings: &Settings, question: &Ask) -> anyhow::Result<T> {
    let answer = ask(&settings.state_dir, question).await?;
    answer.context("the agent does not run: start it first")
}

fn left(ends: Option<UnixMs>) -> String {
    let now = UnixMs(u64::try_from(Clock::system().unix_ms()).unwrap_or_default());
    ends.map_or_else(|| "-".to_owned(), |ends| format!("{} s", ends.since_ms(now).div_ceil(1000)))
}

impl BanCommand {
    pub(crate) async fn run(&self, settings: &Settings, say: fn(&str)) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                let mut after = None;
                loop {
                    let page: Page<Ban> = asked(settings, &Ask::Bans { after }).await?;
                    after = page.items.last().map(|ban| ban.net);
                    for Ban { net, by, ends, .. } in &page.items {
                        say(&format!(
                            "{net}\t{}\t{} on {}\t{}",
                            left(*ends),
                            by.author,
                            by.origin,
                            by.reason
                        ));
                    }
                    if !page.more {
                        break;
                    }
                }
            }
            Self::Add { net, seconds, why } => {
                let (author, reason) = (why.author(), why.reason.clone());
                let ban = Ask::Ban { net: *net, seconds: *seconds, author, reason };
                let done: Value = asked(settings, &ban).await?;
                say(if done["changed"] == true { "banned" } else { "banned already, for at least as long" });
            }
            Self::Remove { net, why } => {
                let lift = Ask::Lift { net: *net, author: why.author(), reason: why.reason.clone() };
                asked::<Value>(settings, &lift).await?;
                say("lifted");
            }
            Self::Why { address } => {
                let answer: Value = asked(settings, &Ask::Why { address: *address }).await?;
                say(answer["why"].as_str().unwrap_or_default());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl AllowCommand {
    pub(crate) async fn run(&self, settings: &Settings, say: fn(&str)) -> anyhow::Result<ExitCode> {
        match self {
            Self::List => {
                let mut after = None;
                loop {
                    let page: Page<Allow> = asked(settings, &Ask::Allows { after }).await?;
                    after = page.items.last().map(|allow| allow.net);
                    for Allow { net, by, ends } in &page.items {
                        say(&format!(
                            "{net}\t{}\t{} on {}\t{}",
                            left(*ends),
                            by.author,
                            by.origin,
                            by.reason
                        ));
                    }
                    if !page.more {
                        break;
                    }
                }
            }
            Self::Add { net, seconds, why } => {
                let (author, reason) = (why.author(), why.reason.clone());
                let allow = Ask::Allow { net: *net, seconds: *seconds, author, reason };
                let done: Value = asked(settings, &allow).await?;
                let lifted = done["lifted"].as_array().map_or(0, Vec::len);
                say(&format!("allowed; {lifted} bans lifted"));
            }
            Self::Remove { net, why } => {
                let take = Ask::Disallow { net: *net, author: why.author(), reason: why.reason.clone() };
                asked::<Value>(settings, &take).await?;
                say("taken back");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The operator's own connection: it must stay possible.
fn own_way_in() -> Vec<WayIn> {
    let text = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let words: Vec<_> = text.split(' ').collect();
    let way = match words.as_slice() {
        [from, _, _, port] => from.parse().ok().zip(port.parse().ok()),
        _ => None,
    };
    way.map(|(from, port)| WayIn { from, port }).into_iter().collect()
}

/// The policy as a start of the agent would have it.
pub(crate) fn policy(settings: &Settings) -> anyhow::Result<Policy> {
    let state = StateDir::open(&settings.state_dir)?;
    Ok(joined(&settings.firewall.policy, &fleet_on_disk(&state), &own::addresses()))
}

impl FirewallCommand {
    pub(crate) async fn run(&self, settings: &Settings, say: fn(&str)) -> anyhow::Result<ExitCode> {
        let nft = Nft::new(settings.firewall.nft.clone());
        match self {
            Self::Status | Self::Apply => {
                let question = if matches!(self, Self::Apply) { Ask::Apply } else { Ask::Standing };
                let standing: Standing = asked(settings, &question).await?;
                say(&in_words(&standing));
                Ok(ExitCode::SUCCESS)
            }
            Self::Confirm { author: named } => confirm(settings, author(named.as_ref()), say).await,
            Self::Guard(guard) => guard.run(say).await,
            Self::Plan => plan(settings, &nft, say).await,
            Self::Remove => {
                if ask::<Value>(&settings.state_dir, &Ask::Standing).await?.is_some() {
                    bail!("the agent runs and would put the table back: stop it first");
                }
                nft.load(&remove_table()).await?;
                say("removed: table inet ringward");
                Ok(ExitCode::SUCCESS)
            }
            Self::Revert(revert) => revert.run(say).await,
        }
    }
}

fn in_words(standing: &Standing) -> String {
    let left = standing.reverts_in_s.map(|left| format!("; reverts in {left} s"));
    format!("{} {}{}", standing.state, standing.reason, left.unwrap_or_default())
}

/// The operator's half of a proof that he is in, then the wait for the other half.
async fn confirm(settings: &Settings, author: String, say: fn(&str)) -> anyhow::Result<ExitCode> {
    let mut standing: Standing = asked(settings, &Ask::Standing).await?;
    let Some(change) = standing.change.clone() else {
        say(&format!("nothing is on trial: {}", in_words(&standing)));
        return Ok(if standing.state == "in_force" { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    standing = asked(settings, &Ask::Confirm { change: change.clone(), author }).await?;
    say(&in_words(&standing));
    while standing.change.as_ref() == Some(&change) {
        tokio::time::sleep(STANDING_EVERY).await;
        standing = asked(settings, &Ask::Standing).await?;
    }
    say(&in_words(&standing));
    Ok(if standing.state == "in_force" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Guard {
    /// Needs no settings: a guard that a broken file stops would be none.
    pub(crate) async fn run(&self, say: fn(&str)) -> anyhow::Result<ExitCode> {
        if self.own_session {
            rustix::process::setsid().context("a session of its own")?;
        }
        guard::guard(&self.state_dir, say).await?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Revert {
    /// Needs no settings either.
    pub(crate) async fn run(&self, say: fn(&str)) -> anyhow::Result<ExitCode> {
        let nft = Nft::new(self.nft.clone());
        let is_reverted = ledger::revert(&self.state_dir, &nft, self.change.as_deref()).await?;
        say(if is_reverted { "the old rules stand again" } else { "there is nothing to revert" });
        Ok(ExitCode::SUCCESS)
    }
}

async fn plan(settings: &Settings, nft: &Nft, say: fn(&str)) -> anyhow::Result<ExitCode> {
    let policy = policy(settings)?;
    match settings.firewall.mode {
        FirewallMode::On => {}
        FirewallMode::Off => say("the settings say off: nothing of this is applied"),
        FirewallMode::Simulate => say("the settings say simulate: nothing of this is applied"),
    }
    let held = whole(nft).await?;
    let difference = Plan::of(&policy).difference(&held);
    if difference.is_empty() {
        say("nothing would change");
    }
    difference.iter().for_each(|line| say(&format!("- {line}")));
    policy.check(&own_way_in(), false)?;
    let ledger = ledger::Ledger::new(StateDir::open(&settings.state_dir)?);
    let needs_nobody = ledger.confirmed().is_some_and(|old| policy.keeps_way_in(&old.policy));
    if !difference.is_empty() && !needs_nobody {
        say(&format!(
            "it reverts after {} s unless a control plane is heard (or `firewall confirm`) and somebody connects to TCP port {} from management",
            settings.firewall.confirm_s,
            policy.ssh_ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// For `check`: what the firewall does by these settings, or what is wrong with them.
pub(crate) async fn check(settings: &Settings) -> anyhow::Result<String> {
    let firewall = &settings.firewall;
    let policy = policy(settings)?;
    let mode = match firewall.mode {
        FirewallMode::Off if policy.management.is_empty() => {
            return Ok("off: no policy names a management network, and [firewall] mode is off".to_owned());
        }
        FirewallMode::Off => return Ok("off: [firewall] mode is off".to_owned()),
        FirewallMode::Simulate => "simulate",
        FirewallMode::On => "on",
    };
    policy.check(&own_way_in(), false)?;
    if firewall.mode == FirewallMode::On {
        guard::check(firewall.timer).await?;
    }
    let held = whole(&Nft::new(firewall.nft.clone())).await?;
    let difference = Plan::of(&policy).difference(&held).len();
    Ok(format!("{mode}: {difference} differences from the kernel, see `ringward-agent firewall plan`"))
}

/// For `check`: rules of others that undo what ours do.
pub(crate) async fn foreign(settings: &Settings) -> Vec<Conflict> {
    let nft = Nft::new(settings.firewall.nft.clone());
    let Ok(policy) = policy(settings) else { return Vec::new() };
    if settings.firewall.mode == FirewallMode::Off {
        return Vec::new();
    }
    match nft.ask(&["-j", "-t", "list", "ruleset"]).await {
        Ok(text) => conflicts(&policy, &text),
        Err(error) => {
            let text = format!("the ruleset cannot be read: {error}");
            vec![Conflict { is_certain: true, text }]
        }
    }
}
