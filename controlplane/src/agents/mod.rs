//! Agents: how a node joins, its certificates, its link, and AMI through it.
//!
//! `authority` is the CA; `door` the TLS listener; `links` what is known of every node's agent and the ways to ask
//! it; `link` one link's life; `ami_stream` one AMI stream; `policy` what a gate shall admit. The door's routes are
//! in `http/agents.rs`; `bans` is what the fleet bans and how nodes hear of it. Who holds a certificate that the store does not know, or knows to be revoked, gets
//! nothing, whoever signed it.

mod ami_stream;
mod attempts;
mod authority;
mod bans;
mod door;
mod facts;
mod link;
mod links;
mod metrics;
mod pace;
mod policy;

use std::{collections::HashSet, io, path::Path, sync::Arc, time::Duration};

use axum::extract::ws::WebSocket;
use controlplane_core::names::NodeName;
use controlplane_store::{Store, StoreError, agents::NodeCertificate};
use node_agent_protocol::PlaneUrl;
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle, time::interval};

pub(crate) use self::links::{Admission, BAR_MAX, DialledFor, PlaceAudioError};
pub use self::{
    authority::{Authority, AuthorityError, CsrError, Signed},
    bans::{BanMetrics, Bans, CONTROL_PLANE, Order},
    door::{Connection, Door, Peer},
    links::{AgentState, AmiStream, LinkState, Links, OpenAmiError, Seen},
    metrics::AgentMetrics,
};
use crate::{
    clock::{Chance, Clock},
    doors::ServerCertificate,
    registry::Registry,
};

/// How soon a revocation by another replica cuts a link here.
const REVOCATIONS_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what is past: the door's certificate, and rows to be erased.
const PAST_EVERY: u32 = 3_600;
/// Facts, and tokens and certificates that ended, are kept as long as the audit log.
const KEPT: time::Duration = time::Duration::days(90);

/// The agents' side of the control plane.
pub struct Agents {
    /// Signs.
    pub authority: Authority,
    /// Every node's link.
    pub links: Arc<Links>,
    /// The fleet's bans.
    pub bans: Arc<Bans>,
    /// Where agents reach the replicas, as operators set it.
    pub urls: Vec<PlaneUrl>,
    certificate: Arc<ServerCertificate>,
    store: Arc<dyn Store>,
    clock: Clock,
    chance: Chance,
    /// Places of those who look a certificate up.
    looking_up: Arc<Semaphore>,
}

/// Certificates that are looked up at a time. When thousands of nodes come back at once, each asks four times: they wait here
/// and leave readers of the database to everybody else.
const LOOKED_UP_AT_ONCE: usize = 2;

impl Agents {
    /// The certificate of this fingerprint, as the database has it now. Asked to its end also where the agent is gone
    /// meanwhile: a question that is broken off costs its connection to the database, and thousands cost all of them.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn certificate(
        &self,
        fingerprint: [u8; 32],
    ) -> Result<Option<NodeCertificate>, StoreError> {
        let place = Arc::clone(&self.looking_up).acquire_owned().await;
        let store = Arc::clone(&self.store);
        let looking = tokio::spawn(async move {
            let found = store.node_certificate(&fingerprint).await;
            drop(place);
            found
        });
        match looking.await {
            Ok(found) => found,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program ends.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Opens the CA, and makes the door's certificate.
    ///
    /// # Errors
    /// The CA's files, named.
    pub fn open(
        data_dir: &Path,
        urls: Vec<PlaneUrl>,
        store: Arc<dyn Store>,
        clock: Clock,
        chance: Chance,
    ) -> Result<Self, AuthorityError> {
        let authority = Authority::open(data_dir, clock.now())?;
        let (certificate, _) = authority.server(clock.now(), chance.secret())?;
        let links = Arc::new(Links::new(clock.clone(), chance.clone()));
        let certificate = ServerCertificate::new(certificate);
        let bans = Bans::new(Arc::clone(&store), Arc::clone(&links), &urls, clock.clone(), chance.clone());
        let looking_up = Arc::new(Semaphore::new(LOOKED_UP_AT_ONCE));
        Ok(Self {
            authority,
            links,
            bans: Arc::new(bans),
            urls,
            certificate,
            store,
            clock,
            chance,
            looking_up,
        })
    }

    /// Puts TLS on a listener.
    ///
    /// # Errors
    /// TLS that cannot be set up: a CA that is none.
    pub fn door(&self, listener: TcpListener) -> Result<Door, AuthorityError> {
        let config = door::server_config(&self.authority, Arc::clone(&self.certificate), self.clock.clone())?;
        let failed = |source: io::Error| rustls::Error::General(source.to_string());
        Ok(Door::new(listener, config).map_err(failed)?)
    }

    /// Serves a link whose certificate was found good.
    pub(crate) async fn serve_link(&self, socket: WebSocket, admission: Admission, registry: Arc<Registry>) {
        let shared = link::Shared {
            registry,
            links: Arc::clone(&self.links),
            bans: Arc::clone(&self.bans),
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
        };
        link::serve(shared, socket, admission).await;
    }

    /// Carries an AMI stream that somebody here asked for.
    pub(crate) async fn carry_ami(&self, socket: WebSocket, admission: Admission, asked: DialledFor) {
        ami_stream::carry(socket, admission, asked).await;
    }

    /// Signs a key for `node`; worth nothing until the store knows it.
    ///
    /// # Errors
    /// What is wrong with the signing request.
    pub(crate) fn sign(
        &self,
        node: &NodeName,
        csr_pem: &str,
        now: OffsetDateTime,
    ) -> Result<Signed, CsrError> {
        self.authority.sign_node(node, csr_pem, now, self.chance.secret())
    }

    /// Looks after what changes without anybody asking: revocations by other replicas, the door's own
    /// certificate, and the past.
    pub fn keep(self: &Arc<Self>) -> [AbortHandle; 2] {
        [
            tokio::spawn(keep(Arc::clone(self))).abort_handle(),
            tokio::spawn(Arc::clone(&self.bans).keep()).abort_handle(),
        ]
    }
}

async fn keep(agents: Arc<Agents>) {
    let mut tick = interval(REVOCATIONS_EVERY);
    let mut ticks: u32 = 0;
    // The certificate was made at start.
    let mut renew_at = agents.clock.now() + time::Duration::days(60);
    loop {
        tick.tick().await;
        let now = agents.clock.now();
        match agents.store.revoked_certificates(now).await {
            Ok(revoked) => agents.links.cut_certificates(&revoked.into_iter().collect::<HashSet<_>>()),
            Err(error) => tracing::warn!(%error, "revocations could not be read"),
        }
        if now >= renew_at {
            match agents.authority.server(now, agents.chance.secret()) {
                Ok((certificate, next)) => {
                    agents.certificate.replace(certificate);
                    renew_at = next;
                }
                Err(error) => tracing::error!(%error, "the agents' door keeps its old certificate"),
            }
        }
        if ticks.is_multiple_of(PAST_EVERY)
            && let Err(error) = agents.store.erase_agents_past(now - KEPT).await
        {
            tracing::warn!(%error, "the agents' past could not be erased");
        }
        ticks = ticks.wrapping_add(1);
    }
}
