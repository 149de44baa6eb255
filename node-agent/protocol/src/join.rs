//! Bodies of the requests for certificates. Errors are RFC 9457 problem+json with a stable `code`:
//! `token_unknown`, `token_expired`, `token_used`, `token_of_another_node`, `csr_refused`,
//! `certificate_revoked`, `node_not_declared`.

use controlplane_core::names::NodeName;
use serde::{Deserialize, Serialize};

use crate::{Text, TokenSecret};

/// Body of `POST /agents/v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// From the token.
    pub secret: TokenSecret,
    /// From the token.
    pub node: NodeName,
    /// PKCS#10 in PEM (line ends and all, hence no [`Text`]): only its key is used, its subject is not.
    pub csr_pem: String,
}

/// Body of `POST /agents/v1/renew`; the client certificate says whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS#10 in PEM, of a new key or the same.
    pub csr_pem: String,
}

/// What both give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// The node that the certificate is for.
    pub node: NodeName,
    /// The certificate, in PEM.
    pub certificate_pem: String,
    /// Every CA that the control plane's certificate may come from, in PEM: replaces those known so far.
    pub ca_pem: String,
    /// When the certificate begins, in s since 1970.
    pub not_before_unix_s: i64,
    /// When it ends, in s since 1970. Renew after two thirds of its time.
    pub expires_unix_s: i64,
    /// Its SHA-256, in hex, as the operator sees it.
    pub fingerprint: Text<64>,
}
