//! Which addresses the lab uses: the first of the three networks reserved for documentation (RFC 5737)
//! that this machine does not use itself. Some virtual machines have their own gateway at 192.0.2.1; a
//! bridge with that address would cut them off.
use crate::{LabError, command};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// TEST-NET-1, -2 and -3, in the order of preference.
const CANDIDATES: [[u8; 3]; 3] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];

/// A /24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet([u8; 3]);

impl Subnet {
    /// The host with this last number.
    #[must_use]
    pub fn host(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The root namespace's address: control plane, name server.
    #[must_use]
    pub fn root(self) -> Ipv4Addr {
        self.host(1)
    }

    /// The first that is free here. Call it when no lab is up.
    pub(crate) fn pick() -> Result<Subnet, LabError> {
        let used = command::run("read this machine's addresses", "ip", ["-4", "-o", "addr"])?
            + &command::run("read this machine's routes", "ip", ["-4", "route", "show", "table", "all"])?;
        first_free(&used).ok_or_else(|| {
            LabError::Machine(
                "this machine uses all three documentation networks; the lab needs one of them".into(),
            )
        })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/24", self.host(0))
    }
}

fn first_free(used: &str) -> Option<Subnet> {
    let is_free = |[a, b, c]: &[u8; 3]| {
        let start = format!("{a}.{b}.{c}.");
        !used.split_whitespace().any(|word| word.starts_with(&start))
    };
    CANDIDATES.into_iter().find(is_free).map(Subnet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_lives_in_the_first_network_gets_the_second() {
        let used = "2: eth0 inet 192.0.2.2/24 scope global\ndefault via 192.0.2.1 dev eth0\n";
        assert_eq!(first_free(used).unwrap().root(), Ipv4Addr::new(198, 51, 100, 1));
        assert_eq!(first_free("lo 127.0.0.1/8").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(first_free("192.0.2.1 198.51.100.9 203.0.113.0/24"), None);
    }
}
