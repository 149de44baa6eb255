//! The agents' door: joining, renewing, the link, and AMI streams.

use axum::{
    Extension, Json,
    extract::{
        ConnectInfo, Path, State as AxumState,
        rejection::PathRejection,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use controlplane_core::{
    ids::{RequestId, StreamId},
    names::NodeName,
    sound::SoundHash,
};
use controlplane_store::{
    agents::{IssueCertificate, Issued, NodeCertificate, Warrant},
    calls::Actor,
};
use data_encoding::HEXLOWER;
use node_agent_protocol::{AMI_CHUNK_MAX, JoinRequest, JoinResponse, MESSAGE_MAX, RenewRequest, Text};

use super::{
    RequestTag, State,
    audio::Wav,
    body::JsonBody,
    problem::{Code, Problem},
};
use crate::agents::{Admission, Peer};

/// What a WebSocket reads at a time, in bytes; a longer message grows its buffer for as long as it takes. What the library
/// reads unasked is 128 KiB, which it fills with zeros for each read and each of thousands of links keeps.
const READ_BUFFER: usize = 4 * 1024;

/// `POST /agents/v1/join`: the only one that needs no certificate.
pub(super) async fn join(
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(RequestTag(request_id)): Extension<RequestTag>,
    AxumState(state): AxumState<State>,
    JsonBody { value: request, .. }: JsonBody<JoinRequest>,
) -> Result<(StatusCode, Json<JoinResponse>), Problem> {
    let hash = request.secret.sha256();
    // Looked at first, so that a stranger without a token makes nobody sign anything.
    let token = state.store.node_token(&hash).await?;
    let refused = match token {
        None => Some(Issued::Unknown),
        Some(token) if token.node != request.node => Some(Issued::OtherNode),
        Some(token) if token.used_at.is_some() => Some(Issued::Used),
        Some(token) if token.expires_at <= state.clock.now() => Some(Issued::Expired),
        Some(_) => None,
    };
    let joined = match refused {
        Some(refused) => Err(token_problem(refused, &request.node)),
        None => {
            let actor = actor(&request.node, &peer, request_id);
            issue(&state, &request.node, &request.csr_pem, Warrant::Token(hash), actor).await
        }
    };
    match joined {
        Ok(response) => {
            tracing::info!(node = %request.node, peer = %peer.address, "a node joined");
            Ok((StatusCode::CREATED, Json(response)))
        }
        Err(problem) => {
            tracing::warn!(node = %request.node, peer = %peer.address, "a node was not let in: {}", problem.detail());
            Err(problem)
        }
    }
}

/// `POST /agents/v1/renew`: the next certificate, for one that still holds.
pub(super) async fn renew(
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(RequestTag(request_id)): Extension<RequestTag>,
    AxumState(state): AxumState<State>,
    JsonBody { value: request, .. }: JsonBody<RenewRequest>,
) -> Result<(StatusCode, Json<JoinResponse>), Problem> {
    let held = held(&state, &peer).await?;
    let warrant = Warrant::Certificate(held.fingerprint);
    let response =
        issue(&state, &held.node, &request.csr_pem, warrant, actor(&held.node, &peer, request_id)).await?;
    tracing::info!(node = %held.node, "a node renewed its certificate");
    Ok((StatusCode::CREATED, Json(response)))
}

/// `GET /agents/v1/link`, a WebSocket.
pub(super) async fn link(
    ConnectInfo(peer): ConnectInfo<Peer>,
    AxumState(state): AxumState<State>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let admission = admit(&state, &peer).await?;
    let upgrade = upgrade.map_err(|error| Problem::new(Code::Malformed, error.body_text()))?;
    let upgrade =
        upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX).read_buffer_size(READ_BUFFER);
    Ok(upgrade.on_upgrade(async move |socket| {
        let registry = std::sync::Arc::clone(&state.registry);
        state.agents.serve_link(socket, admission, registry).await;
    }))
}

/// `GET /agents/v1/ami/{stream_id}`, a WebSocket that this control plane asked the agent to dial.
pub(super) async fn ami(
    ConnectInfo(peer): ConnectInfo<Peer>,
    AxumState(state): AxumState<State>,
    stream_id: Result<Path<StreamId>, PathRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let Path(stream_id) = stream_id?;
    let admission = admit(&state, &peer).await?;
    let upgrade = upgrade.map_err(|error| Problem::new(Code::Malformed, error.body_text()))?;
    let asked = state.agents.links.dialled(admission.node(), &stream_id).ok_or_else(Problem::not_found)?;
    let upgrade =
        upgrade.max_message_size(AMI_CHUNK_MAX).max_frame_size(AMI_CHUNK_MAX).read_buffer_size(READ_BUFFER);
    Ok(upgrade.on_upgrade(async move |socket| state.agents.carry_ami(socket, admission, asked).await))
}

/// `GET /agents/v1/audio/{sha256}`: a sound that the node was asked to place, and while it is.
pub(super) async fn audio(
    ConnectInfo(peer): ConnectInfo<Peer>,
    AxumState(state): AxumState<State>,
    sound: Result<Path<SoundHash>, PathRejection>,
) -> Result<Response, Problem> {
    let certificate = held(&state, &peer).await?;
    let Path(sound) = sound?;
    if !state.agents.links.is_placing(&certificate.node, &sound) {
        return Err(Problem::not_found());
    }
    let sound = state.store.sound(&sound).await?.ok_or_else(Problem::not_found)?;
    Ok(Wav(sound.wav).into_response())
}

/// Counts the connection in if its certificate is good.
async fn admit(state: &State, peer: &Peer) -> Result<Admission, Problem> {
    let certificate = held(state, peer).await?;
    let admission = state.agents.links.admit(&certificate);
    // Again, now that a revocation would find it: none can fall between.
    held(state, peer).await?;
    Ok(admission)
}

/// The certificate that the peer proved to hold, if it is good for a declared node.
async fn held(state: &State, peer: &Peer) -> Result<NodeCertificate, Problem> {
    let Some(fingerprint) = &peer.certificate else {
        return Err(Problem::new(
            Code::CertificateRequired,
            "Join first: `ringward node token NAME` prints the command for the node.",
        ));
    };
    let certificate = state.agents.certificate(*fingerprint).await?;
    let certificate = certificate.ok_or_else(|| warrant_problem(Issued::Unknown, None))?;
    let refused = |why| Err(warrant_problem(why, Some(&certificate.node)));
    if certificate.revoked_at.is_some() {
        return refused(Issued::Revoked);
    }
    // TLS judged it at the handshake; a connection may be older than that.
    if certificate.expires_at <= state.clock.now() {
        return refused(Issued::Expired);
    }
    declared(state, &certificate.node)?;
    Ok(certificate)
}

fn declared(state: &State, node: &NodeName) -> Result<(), Problem> {
    if state.agents.links.is_declared(node) {
        return Ok(());
    }
    Err(Problem::new(Code::NodeNotDeclared, format!("fleet.toml declares no node {node}.")))
}

async fn issue(
    state: &State,
    node: &NodeName,
    csr_pem: &str,
    warrant: Warrant,
    actor: Actor,
) -> Result<JoinResponse, Problem> {
    declared(state, node)?;
    let now = state.clock.now();
    let signed = state
        .agents
        .sign(node, csr_pem, now)
        .map_err(|error| Problem::new(Code::CsrRefused, format!("{error}.")))?;
    let certificate = NodeCertificate {
        fingerprint: signed.fingerprint,
        node: node.clone(),
        issued_at: now,
        expires_at: signed.not_after,
        revoked_at: None,
    };
    let is_token = matches!(warrant, Warrant::Token(_));
    let problem = |refused| match is_token {
        true => token_problem(refused, node),
        false => warrant_problem(refused, Some(node)),
    };
    let audit_id = state.chance.audit_id(now);
    match state.store.issue_certificate(IssueCertificate { warrant, certificate, actor, audit_id }).await? {
        Issued::Done => Ok(JoinResponse {
            node: node.clone(),
            certificate_pem: signed.pem,
            ca_pem: state.agents.authority.trusted_pem().to_owned(),
            not_before_unix_s: signed.not_before.unix_timestamp(),
            expires_unix_s: signed.not_after.unix_timestamp(),
            fingerprint: Text::cut(&HEXLOWER.encode(&signed.fingerprint)),
        }),
        refused
        @ (Issued::Unknown | Issued::OtherNode | Issued::Used | Issued::Expired | Issued::Revoked) => {
            Err(problem(refused))
        }
    }
}

fn token_problem(refused: Issued, node: &NodeName) -> Problem {
    let again = format!("Make a new one with `ringward node token {node}`.");
    match refused {
        Issued::Used => Problem::new(
            Code::TokenUsed,
            format!(
                "This token was used before. If it was not you who used it, `ringward node revoke {node}`. {again}"
            ),
        ),
        Issued::Expired => Problem::new(Code::TokenExpired, format!("This token has expired. {again}")),
        Issued::OtherNode => Problem::new(Code::TokenOfAnotherNode, "This token is another node's."),
        Issued::Unknown | Issued::Revoked | Issued::Done => {
            Problem::new(Code::TokenUnknown, format!("There is no such token, or it was taken back. {again}"))
        }
    }
}

fn warrant_problem(refused: Issued, node: Option<&NodeName>) -> Problem {
    let again = format!(
        "Join again with a token of `ringward node token {}`.",
        node.map_or("NAME", NodeName::as_str)
    );
    match refused {
        Issued::Revoked => {
            Problem::new(Code::CertificateRevoked, format!("This certificate was revoked. {again}"))
        }
        Issued::Expired => {
            Problem::new(Code::CertificateExpired, format!("This certificate has ended. {again}"))
        }
        Issued::Unknown | Issued::OtherNode | Issued::Used | Issued::Done => {
            Problem::new(Code::CertificateUnknown, format!("This certificate is not known here. {again}"))
        }
    }
}

fn actor(node: &NodeName, peer: &Peer, request: RequestId) -> Actor {
    let ip = Some(peer.address.ip().to_canonical().to_string());
    Actor { node: Some(node.clone()), request: Some(request), ip, ..Actor::default() }
}
