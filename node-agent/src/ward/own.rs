//! This node's own addresses, which are never banned.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// As the kernel lists them now.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    parse(&text("/proc/thread-self/net/fib_trie"), &text("/proc/thread-self/net/if_inet6"))
}

/// A line `/32 host LOCAL` names the address on the line before; IPv6 addresses stand as 32 digits.
fn parse(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.map(IpAddr::V4));
        }
    }
    let digits = if_inet6.lines().filter_map(|line| line.split_whitespace().next());
    found.extend(digits.filter_map(|digits| {
        let bits = (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok()).flatten()?;
        Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
    }));
    found.into_iter().filter(|address| !address.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_told_from_networks_and_routes() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n\
                    |-- 127.0.0.1\n           /32 host LOCAL\n     |-- 192.0.2.0\n        /24 link UNICAST\n\
                    |-- 192.0.2.1\n           /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n";
        let six = "20010db8000000000000000000000001 02 40 00 80     wire\n\
                   00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        let found: Vec<_> = parse(trie, six).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "2001:db8::1"]);
    }
}
