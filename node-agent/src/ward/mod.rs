//! The ward: one task that owns this node's bans and the firewall in the kernel, and a handle to it.
//!
//! Whoever wants something of it asks [`Ward`]; an answer comes only once the kernel has it. What waits meanwhile
//! goes to the kernel as one transaction, so that the first ban of a burst is never held up by the others. The
//! rules are in `node_agent_core`: `bans` says what may be banned, `firewall` how the kernel is told.
//!
//! Stopping the task leaves the table and its bans where they are.

pub mod commands;
pub(crate) mod door;
mod guard;
mod kernel;
mod ledger;
mod look;
pub(crate) mod metrics;
mod own;
mod repair;
mod rules;
pub(crate) mod sharing;
mod snapshot;
mod task;
mod trial;
mod uptime;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use node_agent_core::{
    bans::{
        Allow, Ban, By, Change, Order, Refusal, Why,
        list::Imported,
        share::{Difference, Merged},
    },
    firewall::Carrier,
    protected::Protected,
};
use node_agent_protocol::{FirewallSeen, FirewallState, List, Text};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::guard::guard;
pub use self::kernel::{KernelError, Nft};
pub use self::ledger::{TrialError, remove_table, revert};
pub use self::task::{Parts, start};

/// Requests that wait for the task.
const REQUESTS_MAX: usize = 1024;

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The settings say off, no policy can be used, or its first application was reverted.
    #[error("the firewall is not in force: {0}")]
    NotInForce(String),
    /// It may not be banned or allowed.
    #[error(transparent)]
    Rules(#[from] Refusal),
    /// It is kept and will be brought about by repair.
    #[error("it is kept, but the kernel does not hold it yet: {0}")]
    Kernel(String),
    /// It was confirmed, reverted or never begun.
    #[error("this change of rules is not on trial")]
    NotOnTrial,
    /// The agent stops.
    #[error("the agent stops")]
    Stopped,
}

/// What the control plane says of who must never be banned. It is kept on disk for a start without a control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fleet {
    /// From fleet.toml.
    pub carriers: Vec<Carrier>,
    /// Its replicas.
    pub control_plane: Vec<IpNet>,
    /// From where operators reach nodes; added to the settings' own.
    pub management: Vec<IpNet>,
}

/// All bans and allowances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// By address.
    pub bans: Vec<Ban>,
    /// By address.
    pub allows: Vec<Allow>,
}

/// How the firewall stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// `off`, `simulate`, `waiting` (no usable policy), `on_trial` (to be confirmed), `in_force`, `reverted`.
    pub state: String,
    /// Why, for people.
    pub reason: String,
    /// Of a change on trial: when it reverts, in ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_at_unix_ms: Option<u64>,
    /// Of a change on trial: seconds until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_in_s: Option<u64>,
    /// Of a change on trial: its name, which whoever confirms it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// What the rules let in from where, a line each.
    #[serde(default)]
    pub plan: Vec<String>,
    #[serde(skip)]
    pub(crate) ends: Option<uptime::Uptime>,
}

type Answer<T> = oneshot::Sender<Result<T, Refused>>;

enum Request {
    Ban(Box<Order>, Answer<Change>),
    Import { text: String, seconds: Option<u32>, by: By, answer: Answer<Imported> },
    Lift(IpNet, By, Answer<Change>),
    Allow { net: IpNet, seconds: Option<u32>, by: By, answer: Answer<Change> },
    Disallow(IpNet, By, Answer<()>),
    Why(IpAddr, Answer<Why>),
    List(Answer<Listing>),
    Since(u64, Answer<Difference>),
    Fleet(Difference, Answer<Merged>),
    Protect(Box<Fleet>, Answer<()>),
    Retry(Answer<()>),
    Confirm { change: String, author: String, answer: Answer<()> },
}

/// The handle. Clones share one task.
#[derive(Debug, Clone)]
pub struct Ward {
    requests: mpsc::Sender<Request>,
    heard: Arc<watch::Sender<u64>>,
    revision: watch::Receiver<u64>,
    protected: watch::Receiver<Arc<Protected>>,
    standing: watch::Receiver<Standing>,
}

impl Ward {
    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Refused> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| Refused::Stopped)?;
        answered.await.map_err(|_| Refused::Stopped)?
    }

    /// Bans, makes a ban longer, or leaves a longer one as it is (an empty change).
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn ban(&self, order: Order) -> Result<Change, Refused> {
        self.ask(|answer| Request::Ban(Box::new(order), answer)).await
    }

    /// Bans a list of plain CIDR text.
    ///
    /// # Errors
    /// [`Refused`]; what single lines are refused for stands in the answer.
    pub async fn import(&self, text: String, seconds: Option<u32>, by: By) -> Result<Imported, Refused> {
        self.ask(|answer| Request::Import { text, seconds, by, answer }).await
    }

    /// Lifts exactly this ban.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn lift(&self, net: IpNet, by: By) -> Result<Change, Refused> {
        self.ask(|answer| Request::Lift(net, by, answer)).await
    }

    /// Allows a network: lifts every ban that touches it and refuses such bans while it lasts.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn allow(&self, net: IpNet, seconds: Option<u32>, by: By) -> Result<Change, Refused> {
        self.ask(|answer| Request::Allow { net, seconds, by, answer }).await
    }

    /// Takes an allowance back.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn disallow(&self, net: IpNet, by: By) -> Result<(), Refused> {
        self.ask(|answer| Request::Disallow(net, by, answer)).await
    }

    /// What holds for an address.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn why(&self, address: IpAddr) -> Result<Why, Refused> {
        self.ask(|answer| Request::Why(address, answer)).await
    }

    /// All bans and allowances.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn list(&self) -> Result<Listing, Refused> {
        self.ask(Request::List).await
    }

    /// What changed since `revision`, for the fleet.
    ///
    /// # Errors
    /// [`Refused::Stopped`].
    pub async fn since(&self, revision: u64) -> Result<Difference, Refused> {
        self.ask(|answer| Request::Since(revision, answer)).await
    }

    /// Takes in what the fleet has banned and lifted. Each ban goes through this node's own checks; what it refuses
    /// stands in the answer, to be reported.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn fleet(&self, difference: Difference) -> Result<Merged, Refused> {
        self.ask(|answer| Request::Fleet(difference, answer)).await
    }

    /// Takes what the control plane says of carriers, itself and management; lifts bans that touch them.
    ///
    /// # Errors
    /// [`Refused`]: the policy that it makes cannot be used; the former one stays.
    pub async fn protect(&self, fleet: Fleet) -> Result<(), Refused> {
        self.ask(|answer| Request::Protect(Box::new(fleet), answer)).await
    }

    /// Tries the settings' policy again after it was reverted.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn retry(&self) -> Result<(), Refused> {
        self.ask(Request::Retry).await
    }

    /// An operator at this node says of this change that he is in: the same half of what confirms it as a message of
    /// a control plane. The new handshake is still wanted.
    ///
    /// # Errors
    /// [`Refused::NotOnTrial`].
    pub async fn confirm(&self, change: String, author: String) -> Result<(), Refused> {
        self.ask(|answer| Request::Confirm { change, author, answer }).await
    }

    /// A message of a control plane has come just now: one half of what confirms a change of rules.
    pub fn confirmed(&self) {
        self.heard.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The count of changes of bans; wakes whoever shares them.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Who is never banned, allowances included; for the rules.
    #[must_use]
    pub fn protected(&self) -> watch::Receiver<Arc<Protected>> {
        self.protected.clone()
    }

    /// The same for a control plane.
    #[must_use]
    pub fn seen(&self) -> FirewallSeen {
        let standing = self.standing.borrow().clone();
        let state = match standing.state.as_str() {
            "off" => FirewallState::Off,
            "simulate" => FirewallState::Simulate,
            "waiting" => FirewallState::Waiting,
            "on_trial" => FirewallState::OnTrial,
            "in_force" => FirewallState::InForce,
            "reverted" => FirewallState::Reverted,
            _ => FirewallState::Unknown,
        };
        let left = standing.ends.map(|ends| u64::try_from(ends.left_ms()).unwrap_or_default());
        FirewallSeen {
            state,
            reason: Text::cut(&standing.reason),
            change: standing.change.as_deref().map(Text::cut),
            reverts_in_ms: left,
            plan: List::first(standing.plan.iter().map(|line| Text::cut(line))),
        }
    }

    /// How the firewall stands.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

/// What an operator at this node orders: his name and the reason stay with it.
#[must_use]
pub fn by_operator(node: &str, author: &str, reason: &str) -> By {
    By { origin: node.to_owned(), author: author.to_owned(), reason: reason.to_owned() }
}
