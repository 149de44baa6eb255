//! Getting a certificate, and the next one in time.

use std::{io, sync::Arc, time::Duration};

use node_agent_core::renewal::Renewal;
use node_agent_protocol::{
    JOIN_PATH, JoinRequest, JoinResponse, JoinToken, PlaneUrl, RENEW_PATH, RenewRequest, tls,
};
use rcgen::{CertificateParams, KeyPair};
use tokio::{sync::watch, time::sleep};

use crate::{
    clock::Clock,
    dial::{self, DialError},
    identity::{Identity, StateDir},
};

/// Longest sleep between two looks at the clock: it may be set, and a suspended host's timers stand still.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The key or the request could not be made.
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
    /// No control plane gave one; of several, the last one's words.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// It could not be kept.
    #[error("the certificate could not be kept: {0}")]
    Kept(#[from] io::Error),
    /// There is nobody to ask.
    #[error("no control plane is configured")]
    Nobody,
    /// The answer is for another node, or does not fit to the key.
    #[error("the control plane answered with a certificate that is not ours")]
    NotOurs,
}

struct Request {
    key_pem: String,
    csr_pem: String,
}

fn request() -> Result<Request, JoinError> {
    let key = KeyPair::generate()?;
    let csr_pem = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok(Request { key_pem: key.serialize_pem(), csr_pem })
}

/// Joins: makes a key here, asks with the token's secret, keeps what is answered.
///
/// # Errors
/// [`JoinError`]. A token is used up only by an answer, so asking again after a cut is right.
pub async fn join(token: &JoinToken, state: &StateDir) -> Result<Identity, JoinError> {
    let made = request()?;
    let body = JoinRequest { secret: token.secret.clone(), node: token.node.clone(), csr_pem: made.csr_pem };
    let mut last = JoinError::Nobody;
    for url in &token.urls {
        let config = tls::joining(token.ca_sha256)?;
        match dial::post::<JoinResponse>(url, JOIN_PATH, config, &body).await {
            Ok(answer) => {
                let identity = Identity::of(answer, made.key_pem, token.urls.clone());
                return accept(identity, &token.node, state);
            }
            // Its word is the fleet's: no other replica will say otherwise.
            Err(error @ DialError::Refused { .. }) => return Err(error.into()),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Keeps it if it can be used.
fn accept(
    identity: Identity,
    node: &controlplane_core::names::NodeName,
    state: &StateDir,
) -> Result<Identity, JoinError> {
    if identity.node != *node {
        return Err(JoinError::NotOurs);
    }
    // Proves that certificate and key belong together before the old ones are given up.
    tls::joined(&identity.ca_pem, &identity.certificate_pem, &identity.key_pem)
        .map_err(|_| JoinError::NotOurs)?;
    state.keep(&identity)?;
    Ok(identity)
}

/// Asks for the next certificate, with a new key.
///
/// # Errors
/// [`JoinError`]; the old certificate stays.
pub async fn renew(old: &Identity, urls: &[PlaneUrl], state: &StateDir) -> Result<Identity, JoinError> {
    let made = request()?;
    let body = RenewRequest { csr_pem: made.csr_pem };
    let mut last = JoinError::Nobody;
    for url in urls {
        let config = tls::joined(&old.ca_pem, &old.certificate_pem, &old.key_pem)?;
        match dial::post::<JoinResponse>(url, RENEW_PATH, config, &body).await {
            Ok(answer) => {
                let identity = Identity::of(answer, made.key_pem, old.control_planes.clone());
                return accept(identity, &old.node, state);
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Keeps the certificate fresh for as long as the program runs. Links take the new one when they next dial.
pub async fn keep_fresh(
    identity: watch::Sender<Arc<Identity>>,
    urls: Vec<PlaneUrl>,
    state: StateDir,
    clock: Clock,
) {
    loop {
        let now = identity.borrow().clone();
        let wait = match now.validity().at(clock.unix_s()) {
            Renewal::Wait { seconds } => Duration::from_secs(seconds.unsigned_abs()).min(LOOK_EVERY),
            Renewal::Now | Renewal::Expired => match renew(&now, &urls, &state).await {
                Ok(new) => {
                    tracing::info!(expires_unix_s = new.expires_unix_s, "the certificate was renewed");
                    identity.send_replace(Arc::new(new));
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "the certificate could not be renewed; trying again");
                    RETRY
                }
            },
        };
        sleep(wait).await;
    }
}
