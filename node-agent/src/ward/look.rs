//! What the kernel holds of ours, looked at often: cheap, whatever the number of bans.
//!
//! nft 1.0.6 reads every element of every set to list one table or chain (0.9 s for 100,000 bans, measured), but
//! not for a terse listing of a whole family (9 ms) and not for one small set (3 ms). Whether bans of single addresses
//! are still there is asked by lifting them on paper only (`nft -c`): the kernel names those that it does not hold
//! (1,000 in 40 ms, however many there are). `nft get element` would read them all first.

use std::{collections::BTreeSet, fmt::Write as _};

use ipnet::IpNet;
use node_agent_core::firewall::{Plan, TABLE, elements::set_of, readback::Readback};

use super::{KernelError, Nft};

/// What is looked at beside the rules, which always are.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// The policy's networks.
    pub(crate) with_nets: bool,
    /// Bans of single addresses that should be there.
    pub(crate) singles: Vec<IpNet>,
    /// Bans of networks that should be there: their sets are read whole.
    pub(crate) nets: Vec<IpNet>,
}

/// What one look found.
#[derive(Debug)]
pub(crate) struct Look {
    /// Rules and, if looked at, networks.
    pub(crate) held: Readback,
    /// What is not as planned.
    pub(crate) difference: Vec<String>,
    /// Bans that the kernel should hold and does not; of very many the first.
    pub(crate) lost: Vec<IpNet>,
}

/// Looks.
pub(crate) async fn look(nft: Nft, plan: Plan, samples: Samples) -> Result<Look, KernelError> {
    let mut held = read(&nft.ask(&["-j", "-t", "list", "ruleset", "inet"]).await?)?;
    let mut difference = plan.difference_of_rules(&held);
    let mut lost = Vec::new();
    if difference.is_empty() {
        if samples.with_nets {
            for set in plan.net_sets() {
                held.fill(read(&nft.ask(&["-j", "list", "set", "inet", "ringward", set]).await?)?);
            }
            difference = plan.difference(&held);
        }
        lost.extend(missing(&nft, &samples.singles).await?);
        lost.extend(missing_nets(&nft, &samples.nets).await?);
    }
    Ok(Look { held, difference, lost })
}

fn read(text: &str) -> Result<Readback, KernelError> {
    Readback::parse(text).map_err(|error| KernelError::Answer(error.to_string()))
}

/// Which of these bans of single addresses the kernel does not hold; of very many the first.
async fn missing(nft: &Nft, singles: &[IpNet]) -> Result<Vec<IpNet>, KernelError> {
    if singles.is_empty() {
        return Ok(Vec::new());
    }
    let mut script = String::new();
    for net in singles {
        // One a line, so that a complaint's line is the ban's.
        let _ = writeln!(script, "delete element {TABLE} {} {{ {} }}", set_of(net), net.network());
    }
    match nft.check(&script).await {
        Ok(()) => Ok(Vec::new()),
        Err(KernelError::Refused(words)) => {
            let lost: BTreeSet<_> = words.lines().filter_map(complaint).collect();
            let lost: Vec<_> =
                lost.into_iter().filter_map(|line| singles.get(line.checked_sub(1)?)).copied().collect();
            if lost.is_empty() { Err(KernelError::Refused(words)) } else { Ok(lost) }
        }
        Err(error) => Err(error),
    }
}

/// The line of a complaint such as `/dev/stdin:7:37-43: Error: Could not process rule: No such file or directory`.
fn complaint(line: &str) -> Option<usize> {
    let (place, words) = line.split_once(": Error: ")?;
    words.contains("No such file or directory").then(|| place.rsplit(':').nth(1)?.parse().ok())?
}

async fn missing_nets(nft: &Nft, nets: &[IpNet]) -> Result<Vec<IpNet>, KernelError> {
    let mut held = BTreeSet::new();
    for set in nets.iter().map(set_of).collect::<BTreeSet<_>>() {
        let listed = read(&nft.ask(&["-j", "list", "set", "inet", "ringward", set]).await?)?;
        held.extend(listed.bans().into_iter().map(|ban| ban.net));
    }
    Ok(nets.iter().filter(|net| !is_within(**net, &held)).copied().collect())
}

/// nft may list two neighbours as one.
fn is_within(net: IpNet, held: &BTreeSet<IpNet>) -> bool {
    std::iter::successors(Some(net), IpNet::supernet).any(|wider| held.contains(&wider))
}

/// Our table whole, with every ban; an empty one where it is absent.
pub(crate) async fn whole(nft: &Nft) -> Result<Readback, KernelError> {
    let terse = read(&nft.ask(&["-j", "-t", "list", "ruleset", "inet"]).await?)?;
    if !terse.is_there() {
        return Ok(terse);
    }
    read(&nft.ask(&["-j", "list", "table", "inet", "ringward"]).await?)
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn a_complaint_names_its_line_and_other_words_none() {
        let of = complaint;
        assert_eq!(
            of("/dev/stdin:501:37-43: Error: Could not process rule: No such file or directory"),
            Some(501)
        );
        assert_eq!(
            of(
                "/dev/stdin:4:16-32: Error: No such file or directory; did you mean table ‘x’ in family inet?"
            ),
            Some(4)
        );
        assert_eq!(of("delete element inet ringward ban4 { 1.2.3.4 }"), None);
        assert_eq!(of("/dev/stdin:4:1-9: Error: syntax error, unexpected string"), None);
        assert_eq!(of("Error: Could not process rule: No such file or directory"), None);
    }
}
