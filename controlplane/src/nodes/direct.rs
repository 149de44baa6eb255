//! The way to a node's AMI by the address that fleet.toml gives.

use std::{io, path::PathBuf, time::Duration};

use controlplane_core::fleet::{Ami, AmiLogin};
use node_agent_ami::{BackOff, Connect, ConnectConfig, ConnectError, Events, Purpose, Secret, Session, Tls};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::{Shared, tls};

/// A secret that was refused is not sent again sooner, unless its file has another one by then: PBXes ban
/// who keeps on.
const SAME_SECRET_AGAIN: Duration = Duration::from_secs(30);
/// Between two looks at the file meanwhile: somebody may be putting it right.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The supervisor leaves the wait after a refusal to [`Direct::secret`].
pub(super) const BACK_OFF: BackOff = BackOff {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    refused: Duration::from_millis(100),
};

/// What is wrong on this side of the wire, in words for operators.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotReady(String);

/// One login at one node. The secret is read anew for every attempt.
pub(super) struct Direct {
    config: ConnectConfig,
    file: PathBuf,
    /// The host of the certificate, where TLS is asked for and was not set up yet.
    tls: Option<String>,
    refused: Option<Refused>,
}

struct Refused {
    secret_sha256: [u8; 32],
    at: Instant,
}

impl Direct {
    /// The session that places calls.
    pub(super) fn originate(shared: &Shared, ami: &Ami) -> Self {
        let (username, file) = (ami.username.as_str(), shared.data_dir.join(&ami.secret_file));
        Self::new(shared, ami, username, file, Purpose::Originate, "call,user,system")
    }

    /// The session that reads security events.
    pub(super) fn security(shared: &Shared, ami: &Ami, login: &AmiLogin) -> Self {
        let (username, file) = (login.username.as_str(), shared.data_dir.join(&login.secret_file));
        Self::new(shared, ami, username, file, Purpose::Security, "security")
    }

    fn new(
        shared: &Shared,
        ami: &Ami,
        username: &str,
        file: PathBuf,
        purpose: Purpose,
        events: &str,
    ) -> Self {
        let unread = Secret::new(String::new());
        let mut config = ConnectConfig::new(ami.address.to_string(), username, unread, shared.ids.clone());
        config.purpose = purpose;
        super::mind_silence(&mut config);
        config.events = events.to_owned();
        let tls = ami.tls.then(|| ami.address.host().to_owned());
        Self { config, file, tls, refused: None }
    }

    fn not_ready(&self, words: String) -> ConnectError {
        let source = io::Error::other(NotReady(words));
        ConnectError::Unreachable { address: self.config.address.clone(), source }
    }

    /// The file's secret, once it may be tried.
    async fn secret(&mut self) -> Result<(Secret, [u8; 32]), String> {
        loop {
            let text = tokio::fs::read_to_string(&self.file).await.map_err(|error| {
                format!(
                    "secret file {}: {error}. Create it (mode 0600) with the AMI user's secret",
                    self.file.display()
                )
            })?;
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                return Err(format!("secret file {}: is empty", self.file.display()));
            }
            let secret_sha256: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            let too_soon = self.refused.as_ref().is_some_and(|refused| {
                refused.secret_sha256 == secret_sha256 && refused.at.elapsed() < SAME_SECRET_AGAIN
            });
            if !too_soon {
                self.refused = None;
                return Ok((Secret::new(text), secret_sha256));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn set_up_tls(&mut self) -> Result<(), String> {
        if let Some(host) = &self.tls {
            let made: Tls = tls::client(host)?;
            self.config.tls = Some(made);
            self.tls = None;
        }
        Ok(())
    }
}

impl Connect for Direct {
    async fn connect(&mut self) -> Result<(Session, Events), ConnectError> {
        self.set_up_tls().map_err(|words| self.not_ready(words))?;
        let (secret, secret_sha256) = self.secret().await.map_err(|words| self.not_ready(words))?;
        self.config.secret = secret;
        let connected = Session::connect(&self.config).await;
        if let Err(ConnectError::AuthenticationRefused { .. }) = &connected {
            self.refused = Some(Refused { secret_sha256, at: Instant::now() });
        }
        connected
    }

    fn address(&self) -> &str {
        &self.config.address
    }

    fn purpose(&self) -> Purpose {
        self.config.purpose
    }
}

/// What to tell an operator where the fault is on this side.
pub(super) fn why(error: &ConnectError) -> Option<String> {
    let ConnectError::Unreachable { source, .. } = error else { return None };
    Some(source.get_ref()?.downcast_ref::<NotReady>()?.0.clone())
}
