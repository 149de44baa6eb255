//! Errors as customers and operators get them: RFC 9457 problem+json with a stable `code`.
//!
//! One table from code to status. A cause that is nobody's business outside goes into the log with the
//! request's id, which the answer carries too.

use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use controlplane_store::StoreError;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{calls::chain, webhooks::sealing::SealError};

/// What went wrong, by a word that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The body, query or path cannot be read.
    Malformed,
    /// A field is missing, unknown or out of its bounds.
    InvalidField,
    /// The number is not E.164.
    InvalidNumber,
    /// No key, or one that is not valid.
    Unauthenticated,
    /// The key may not do this.
    Forbidden,
    /// There is no such thing, or it is another organisation's.
    NotFound,
    /// The door has no such method here.
    MethodNotAllowed,
    /// The idempotency key came before with another body.
    IdempotencyKeyReused,
    /// The fleet changed since the difference was computed.
    StaleRevision,
    /// The fleet file contradicts itself.
    InvalidFleet,
    /// The first operator key exists already.
    AlreadyBootstrapped,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON by its content type.
    UnsupportedMediaType,
    /// The body is no recording that can be played.
    InvalidAudio,
    /// The organisation has no room for another recording.
    AudioFull,
    /// The organisation's open calls need all the room for its spoken texts.
    SpeechFull,
    /// Too many of the organisation's texts wait to be spoken.
    TooManyTexts,
    /// The organisation has as many uploads under way as it may.
    TooManyUploads,
    /// No client certificate, where one is needed.
    CertificateRequired,
    /// A certificate that the store does not know.
    CertificateUnknown,
    /// A certificate that was revoked.
    CertificateRevoked,
    /// A certificate that has ended.
    CertificateExpired,
    /// A join token that there is not.
    TokenUnknown,
    /// A join token that has expired.
    TokenExpired,
    /// A join token that was used before.
    TokenUsed,
    /// A join token of another node.
    TokenOfAnotherNode,
    /// A signing request that cannot be signed.
    CsrRefused,
    /// The node is in no fleet file.
    NodeNotDeclared,
    /// It may not be banned or allowed.
    BanRefused,
    /// There are as many of these as there may be.
    LimitReached,
    /// The fraud guard refuses it; `rule` says by what.
    NotPermitted,
    /// More requests in a second than the organisation or the key may send.
    TooManyRequests,
    /// As many calls as the organisation or the key may ask for in a day were accepted.
    DailyLimit,
    /// The organisation has as many open calls as it may have, in all or to one number.
    TooManyOpenCalls,
    /// There are as many open streams as there may be.
    TooManyStreams,
    /// There are as many tests of webhooks under way as there may be.
    TooManyTests,
    /// Another organisation has the slug.
    SlugTaken,
    /// No canary may be placed over this trunk now.
    CanaryRefused,
    /// The key's organisation is suspended.
    OrgSuspended,
    /// Too many calls under way, or the database is away: ask again.
    Unavailable,
    /// A fault of the program.
    Internal,
}

impl Code {
    /// The stable word and the status.
    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read"),
            Self::InvalidField => ("invalid_field", StatusCode::UNPROCESSABLE_ENTITY, "A field is not valid"),
            Self::InvalidNumber => {
                ("invalid_number", StatusCode::UNPROCESSABLE_ENTITY, "Not a telephone number")
            }
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, "No valid key"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "This key may not do that"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "No such method here")
            }
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
            ),
            Self::StaleRevision => ("stale_revision", StatusCode::CONFLICT, "The fleet changed in between"),
            Self::InvalidFleet => {
                ("invalid_fleet", StatusCode::UNPROCESSABLE_ENTITY, "The fleet file is not valid")
            }
            Self::AlreadyBootstrapped => {
                ("already_bootstrapped", StatusCode::CONFLICT, "An operator key exists already")
            }
            Self::CertificateRequired => {
                ("certificate_required", StatusCode::UNAUTHORIZED, "No client certificate")
            }
            Self::CertificateUnknown => {
                ("certificate_unknown", StatusCode::FORBIDDEN, "The certificate is not known")
            }
            Self::CertificateRevoked => {
                ("certificate_revoked", StatusCode::FORBIDDEN, "The certificate was revoked")
            }
            Self::CertificateExpired => {
                ("certificate_expired", StatusCode::FORBIDDEN, "The certificate has ended")
            }
            Self::TokenUnknown => ("token_unknown", StatusCode::FORBIDDEN, "No such token"),
            Self::TokenExpired => ("token_expired", StatusCode::FORBIDDEN, "The token has expired"),
            Self::TokenUsed => ("token_used", StatusCode::FORBIDDEN, "The token was used before"),
            Self::TokenOfAnotherNode => {
                ("token_of_another_node", StatusCode::FORBIDDEN, "The token is another node's")
            }
            Self::CsrRefused => {
                ("csr_refused", StatusCode::UNPROCESSABLE_ENTITY, "The signing request is not valid")
            }
            Self::NodeNotDeclared => ("node_not_declared", StatusCode::FORBIDDEN, "The node is not declared"),
            Self::BanRefused => ("ban_refused", StatusCode::CONFLICT, "It may not be banned or allowed"),
            Self::SlugTaken => ("slug_taken", StatusCode::CONFLICT, "The slug is taken"),
            Self::CanaryRefused => ("canary_refused", StatusCode::CONFLICT, "No canary was placed"),
            Self::OrgSuspended => ("org_suspended", StatusCode::FORBIDDEN, "The organisation is suspended"),
            Self::LimitReached => ("limit_reached", StatusCode::CONFLICT, "There may be no more of these"),
            Self::NotPermitted => ("not_permitted", StatusCode::FORBIDDEN, "This call may not be placed"),
            Self::TooManyRequests => {
                ("too_many_requests", StatusCode::TOO_MANY_REQUESTS, "Too many requests")
            }
            Self::DailyLimit => ("daily_limit", StatusCode::TOO_MANY_REQUESTS, "No more calls today"),
            Self::TooManyOpenCalls => {
                ("too_many_open_calls", StatusCode::TOO_MANY_REQUESTS, "Too many calls are open")
            }
            Self::TooManyStreams => {
                ("too_many_streams", StatusCode::TOO_MANY_REQUESTS, "Too many open event streams")
            }
            Self::TooManyTests => {
                ("too_many_tests", StatusCode::TOO_MANY_REQUESTS, "Too many tests of webhooks are under way")
            }
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another type")
            }
            Self::InvalidAudio => {
                ("invalid_audio", StatusCode::UNPROCESSABLE_ENTITY, "Not a recording that can be played")
            }
            Self::AudioFull => ("audio_full", StatusCode::CONFLICT, "No room for another recording"),
            Self::SpeechFull => ("speech_full", StatusCode::CONFLICT, "No room for another spoken text"),
            Self::TooManyTexts => {
                ("too_many_texts", StatusCode::TOO_MANY_REQUESTS, "Too many texts wait to be spoken")
            }
            Self::TooManyUploads => {
                ("too_many_uploads", StatusCode::TOO_MANY_REQUESTS, "Too many uploads under way")
            }
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not now"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "A fault of ours"),
        }
    }
}

impl Code {
    /// The word that never changes.
    pub(super) const fn word(self) -> &'static str {
        self.row().0
    }

    /// The status that it is answered with.
    pub(super) const fn status(self) -> StatusCode {
        self.row().1
    }

    /// What it means, in a few words.
    pub(super) const fn title(self) -> &'static str {
        self.row().2
    }

    /// Whether the answer may have `Retry-After`.
    pub(super) fn helps_to_ask_again(self) -> bool {
        self.retry_after().is_some() || self == Self::DailyLimit
    }

    /// `Retry-After`, in seconds, where asking again helps.
    fn retry_after(self) -> Option<&'static str> {
        // Calls end within seconds to minutes, and then there is room.
        const LATER: [(Code, &str); 7] = [
            (Code::TooManyRequests, "1"),
            (Code::Unavailable, "1"),
            (Code::TooManyStreams, "1"),
            (Code::TooManyTests, "1"),
            (Code::TooManyTexts, "1"),
            (Code::TooManyUploads, "1"),
            (Code::TooManyOpenCalls, "5"),
        ];
        LATER.iter().find(|(code, _)| *code == self).map(|(_, seconds)| *seconds)
    }
}

/// An error on its way out. Middleware adds the request's id and path.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    param: Option<String>,
    /// Further members, such as the list of a fleet file's problems.
    more: Option<(&'static str, Value)>,
    /// Seconds after which asking again helps, where its code does not say so.
    retry_after_s: Option<u32>,
}

impl Problem {
    /// An error with a sentence for whoever asked.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), param: None, more: None, retry_after_s: None }
    }

    /// Whether it has this code.
    pub(super) fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// The word that never changes.
    pub(super) fn word(&self) -> &'static str {
        self.code.word()
    }

    /// The sentence, for logs.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Names the field at fault.
    #[must_use]
    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds a member to the answer.
    #[must_use]
    pub(super) fn with(mut self, member: &'static str, value: Value) -> Self {
        self.more = Some((member, value));
        self
    }

    /// After so many seconds asking again helps.
    #[must_use]
    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What a missing thing and another organisation's thing both look like.
    #[must_use]
    pub(super) fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing at this address for this key.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, status, title) = self.code.row();
        let body = ProblemBody {
            kind: format!("urn:ringward:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            code,
            param: self.param,
            instance: None,
            request_id: None,
            more: self.more.into_iter().map(|(member, value)| (member.to_owned(), value)).collect(),
        };
        let mut response = (status, Json(body.clone())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.code.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        // For the middleware that knows the request.
        response.extensions_mut().insert(body);
        response
    }
}

/// What went wrong (RFC 9457).
///
/// It goes with the response once more, for the middleware that adds `instance` and `request_id`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Problem", description = "What went wrong (RFC 9457).")]
pub(super) struct ProblemBody {
    /// `urn:ringward:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// What the code means.
    pub(super) title: &'static str,
    pub(super) status: u16,
    /// What was wrong this time, for people.
    pub(super) detail: String,
    /// A word that never changes.
    pub(super) code: &'static str,
    /// The field at fault, as a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) param: Option<String>,
    /// The path that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<String>,
    /// By which an operator finds it in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
    /// More that some codes tell: `rule` of `not_permitted`.
    #[serde(flatten)]
    #[schemars(skip)]
    more: Map<String, Value>,
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %chain(&error), "a request failed in the store");
        match error {
            StoreError::Unavailable { .. } => {
                Self::new(Code::Unavailable, "The database is not available. Nothing was done; ask again.")
            }
            StoreError::Corrupt { .. }
            | StoreError::Fenced { .. }
            | StoreError::Missing { .. }
            | StoreError::AttemptOpen { .. }
            | StoreError::Open(_) => {
                Self::new(Code::Internal, "Nothing was done. The log tells more under this request_id.")
            }
        }
    }
}

impl From<SealError> for Problem {
    fn from(error: SealError) -> Self {
        tracing::error!(error = %chain(&error), "a secret could not be sealed or opened");
        Self::new(Code::Internal, "Nothing was done. The log tells more under this request_id.")
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(Code::UnsupportedMediaType, "Send `Content-Type: application/json`.")
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(Code::TooLarge, "At most 64 KiB."),
            _ => Self::new(Code::Malformed, rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Code::Malformed, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        // An id of another form is an id of nothing.
        Self::not_found()
    }
}

#[cfg(test)]
mod tests {
    /// What only operators and agents are told.
    const NOT_CUSTOMERS: [&str; 16] = [
        "stale_revision",
        "invalid_fleet",
        "already_bootstrapped",
        "certificate_required",
        "certificate_unknown",
        "certificate_revoked",
        "certificate_expired",
        "token_unknown",
        "token_expired",
        "token_used",
        "token_of_another_node",
        "csr_refused",
        "node_not_declared",
        "ban_refused",
        "slug_taken",
        "canary_refused",
    ];

    /// A new code is explained to customers, or is none of theirs.
    #[test]
    fn customers_are_told_what_to_do_about_each_code() {
        let source = include_str!("problem.rs");
        let (_, table) = source.split_once("const fn row(self)").unwrap();
        let (table, _) = table.split_once("\n    }\n}").unwrap();
        let codes: Vec<&str> =
            table.split("Self::").skip(1).filter_map(|arm| arm.split('"').nth(1)).collect();
        assert!(codes.len() > 30 && codes.contains(&"internal"), "{codes:?}");
        let document = include_str!("../../../docs/API.md");
        for code in codes {
            let is_told = document.contains(&format!("| `{code}` |"));
            assert!(is_told != NOT_CUSTOMERS.contains(&code), "{code}: told to customers: {is_told}");
        }
    }
}
