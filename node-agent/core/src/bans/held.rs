//! After a restart: what was written down beside what the kernel holds. Of time, the kernel is right.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::{Ban, By, Snapshot};
use crate::{firewall::readback::HeldBan, moment::UnixMs};

/// The kernel tells whole seconds, and the snapshot was written a moment after the ban.
const SAME_WITHIN_MS: u64 = 2500;

impl Snapshot {
    /// Sets ends as the kernel has them and takes in bans that only the kernel knows, as `unknown`'s. Gives the
    /// networks that only the snapshot knows: somebody has flushed them, and they go back.
    pub fn follow(&mut self, held: &[HeldBan], unknown: &By, now: UnixMs) -> Vec<IpNet> {
        let mut held: BTreeMap<IpNet, Option<UnixMs>> =
            held.iter().map(|ban| (ban.net, ban.seconds_left.map(|left| now.plus_s(left)))).collect();
        let mut lacking = Vec::new();
        for ban in &mut self.bans {
            match held.remove(&ban.net) {
                None => lacking.push(ban.net),
                Some(ends) if is_same(ends, ban.ends) => {}
                Some(ends) => Arc::make_mut(ban).ends = ends,
            }
        }
        let adopted = held.into_iter().map(|(net, ends)| {
            let by = unknown.clone();
            Arc::new(Ban { net, by, jail: None, begins: now, ends, revision: 0 })
        });
        self.bans.extend(adopted);
        lacking
    }
}

fn is_same(kernel: Option<UnixMs>, written: Option<UnixMs>) -> bool {
    match (kernel, written) {
        (None, None) => true,
        (Some(a), Some(b)) => a.since_ms(b).max(b.since_ms(a)) <= SAME_WITHIN_MS,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_right_about_time_and_what_it_lost_goes_back() {
        let now = UnixMs(1_790_000_000_000);
        let by = |author: &str| By {
            origin: "pbx1".to_owned(),
            author: author.to_owned(),
            reason: "r".to_owned(),
        };
        let ban = |net: &str, left: Option<u64>| {
            Arc::new(Ban {
                net: net.parse().unwrap(),
                by: by("anna"),
                jail: None,
                begins: now,
                ends: left.map(|left| now.plus_s(left)),
                revision: 7,
            })
        };
        let held = |net: &str, seconds_left| HeldBan { net: net.parse().unwrap(), seconds_left };
        let bans = vec![
            ban("192.0.2.1/32", Some(100)),
            ban("192.0.2.2/32", Some(5000)),
            ban("192.0.2.3/32", None),
            ban("192.0.2.4/32", Some(60)),
        ];
        let mut snapshot = Snapshot { version: 1, revision: 9, bans, allows: Vec::new() };
        let kernel = [
            held("192.0.2.1/32", Some(99)),
            // The wall clock was set back while the agent was down.
            held("192.0.2.2/32", Some(1400)),
            held("192.0.2.3/32", None),
            held("203.0.113.0/26", Some(30)),
        ];
        let lacking = snapshot.follow(&kernel, &by("unknown"), now);
        assert_eq!(lacking, ["192.0.2.4/32".parse().unwrap()]);
        let ends: Vec<_> = snapshot.bans.iter().map(|ban| ban.seconds_left(now)).collect();
        assert_eq!(ends, [Some(100), Some(1400), None, Some(60), Some(30)]);
        assert_eq!(
            (snapshot.bans[4].by.author.as_str(), snapshot.bans[0].by.author.as_str()),
            ("unknown", "anna")
        );
    }
}
