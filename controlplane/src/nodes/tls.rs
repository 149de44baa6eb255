//! TLS towards a node's AMI (port 5039): the system's roots, ring as the one crypto provider.

use std::sync::Arc;

use node_agent_ami::Tls;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};

/// The client side for a node that is called `host`.
///
/// # Errors
/// In words: no roots on this system, or a host that can stand in no certificate.
pub(super) fn client(host: &str) -> Result<Tls, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err("no trusted certificates on this system: install the package ca-certificates".to_owned());
    }
    let server_name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host} cannot be the name in a certificate"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Tls { config: Arc::new(config), server_name })
}
