//! The firewall as a plan: from a policy to one table, `inet ringward`, and nothing else.
//!
//! ```text
//! prerouting -300 (before connection tracking)      input 0
//!   loopback                      accept              loopback, established       accept
//!   carriers         jump own pace, accept            what ICMP must do           accept
//!   management, control, allowed  accept              ssh from management         accept, else drop
//!   banned addresses, networks    drop                closed ports                drop
//!   SIP over its source's pace    drop                SIP, RTP, open ports        accept
//!   policy                        accept              policy                      as the operator says
//! ```
//! Before all that, input notes who begins a connection to ssh from management and counts the packets that follow
//! ([`HANDSHAKES`]): only a connection made under these very rules shows that they let operators in.
//!
//! [`Policy`] is parsed and checked; [`Plan`] is what it comes to; [`Plan::refresh`] and [`Plan::replace`] render
//! scripts for one `nft -f -`, which the kernel takes as a whole or not at all; [`readback`] compares what
//! `nft -j list table inet ringward` says with the plan; [`elements`] brings bans into the sets. A refresh leaves
//! the sets of bans alone, whose timeouts in the kernel are the truth; only a replacement writes them anew.
//!
//! Text and not JSON, and no foreign types, since nft 1.0.6 takes no set with `dynamic` by JSON (see
//! `docs/adr/0016-one-table-of-our-own.md`).

pub mod elements;
pub mod foreign;
mod plan;
mod policy;
pub mod readback;
mod rule;
mod told;

pub use plan::{HANDSHAKES, Plan, TABLE};
pub use policy::{Carrier, InvalidPolicy, Others, Path, Policy, Ports, Rate, ReachedFrom};

#[cfg(test)]
#[path = "firewall_tests.rs"]
mod firewall_tests;
