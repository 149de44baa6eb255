//! What the kernel holds of ours, looked at often: cheap, whatever the number of bans.
//!
//! nft 1.0.6 reads every element of every set to list one table or chain (0.9 s for 100,000 bans, measured), but
//! not for a terse listing of a whole family (9 ms) and not for one small set (3 ms). Whether bans are still there
//! is asked by creating one that should be, on paper only: the kernel says that it exists.

use ipnet::IpNet;
use node_agent_core::firewall::{Plan, TABLE, elements::set_of, readback::Readback};

use super::{KernelError, Nft};

/// What one look found.
#[derive(Debug)]
pub(crate) struct Look {
    /// Rules and, if looked at, networks.
    pub(crate) held: Readback,
    /// What is not as planned.
    pub(crate) difference: Vec<String>,
    /// Bans that the kernel should hold and does not.
    pub(crate) lost: Vec<IpNet>,
}

/// Looks at rules, at the policy's networks if asked to, and at these bans.
pub(crate) async fn look(
    nft: Nft,
    plan: Plan,
    with_nets: bool,
    samples: Vec<IpNet>,
) -> Result<Look, KernelError> {
    let read = |text: String| Readback::parse(&text).map_err(|error| KernelError::Answer(error.to_string()));
    let mut held = read(nft.ask(&["-j", "-t", "list", "ruleset", "inet"]).await?)?;
    let mut difference = plan.difference_of_rules(&held);
    let mut lost = Vec::new();
    if difference.is_empty() {
        if with_nets {
            for set in plan.net_sets() {
                held.fill(read(nft.ask(&["-j", "list", "set", "inet", "ringward", set]).await?)?);
            }
            difference = plan.difference(&held);
        }
        for net in samples {
            if !is_held(&nft, &net).await? {
                lost.push(net);
            }
        }
    }
    Ok(Look { held, difference, lost })
}

/// Whether a ban's element is there.
async fn is_held(nft: &Nft, net: &IpNet) -> Result<bool, KernelError> {
    let address = net.network();
    let script = format!("create element {TABLE} {} {{ {address} timeout 60s }}\n", set_of(net));
    match nft.check(&script).await {
        Ok(()) => Ok(false),
        Err(KernelError::Refused(why)) if why.contains("File exists") => Ok(true),
        Err(error) => Err(error),
    }
}

/// Our table whole, with every ban; an empty one where it is absent.
pub(crate) async fn whole(nft: &Nft) -> Result<Readback, KernelError> {
    let parse = |text: &str| Readback::parse(text).map_err(|error| KernelError::Answer(error.to_string()));
    let terse = parse(&nft.ask(&["-j", "-t", "list", "ruleset", "inet"]).await?)?;
    if !terse.is_there() {
        return Ok(terse);
    }
    parse(&nft.ask(&["-j", "list", "table", "inet", "ringward"]).await?)
}
