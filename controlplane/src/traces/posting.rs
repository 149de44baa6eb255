//! The way to the collector: OTLP over HTTP, in protobuf, by this program's own client.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use reqwest::{
    Certificate, Client, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use tokio::time::timeout;

use crate::{calls::chain, settings::TraceSettings};

/// One post takes no longer than this in all.
pub(super) const POST_MAX: Duration = Duration::from_secs(10);
/// Most bytes of an answer: more is no collector's.
const ANSWER_MAX: usize = 64 * 1024;

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A header's secret.
    #[error("traces.header_files.{name}: {}: {text}", path.display())]
    Header {
        /// Which header.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// The file of further CAs.
    #[error("traces.ca_file {}: {text}", path.display())]
    CaFile {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// The address.
    #[error("traces.endpoint: {0}")]
    Endpoint(String),
    /// TLS cannot be set up.
    #[error("the HTTP client for traces: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter, as by variables `OTEL_…` of the environment.
    #[error("the exporter of traces: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// A metric is there twice: a mistake of the program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What came of a post.
pub(super) enum Posted {
    /// The collector has it.
    Taken,
    /// It may take it later.
    Later(String),
    /// It will never take it.
    Refused(String),
}

/// The collector.
pub(super) struct Collector {
    exporter: SpanExporter,
    answered: Answered,
}

/// What the last post was answered.
type Answered = Arc<Mutex<Option<Result<u16, String>>>>;

impl Collector {
    /// `None`: none is set.
    pub(super) fn of(settings: &TraceSettings) -> Result<Option<Self>, TraceError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let url = Url::parse(endpoint).map_err(|error| TraceError::Endpoint(error.to_string()))?;
        let answered = Answered::default();
        let http = Http { client: client(settings)?, url, answered: Arc::clone(&answered) };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(http)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(POST_MAX)
            // What is sent again, and when, is decided here: its own waits would block a worker.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        exporter.set_resource(
            &Resource::builder_empty()
                .with_service_name(settings.service_name.clone())
                .with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))])
                .build(),
        );
        Ok(Some(Self { exporter, answered }))
    }

    /// Posts spans once.
    pub(super) async fn post(&self, spans: Vec<SpanData>) -> Posted {
        self.answered().take();
        let Ok(done) = timeout(POST_MAX, self.exporter.export(spans)).await else {
            return Posted::Later(format!("no answer within {} s", POST_MAX.as_secs()));
        };
        let answered = self.answered().take();
        match (done, answered) {
            (Ok(()), _) => Posted::Taken,
            // The OTLP specification, "OTLP/HTTP Response": these are sent again, and no others.
            (Err(_), Some(Ok(status @ (429 | 502..=504)))) => Posted::Later(format!("answered {status}")),
            (Err(_), Some(Ok(status))) => Posted::Refused(format!("answered {status}")),
            (Err(_), Some(Err(text))) => Posted::Later(text),
            (Err(error), None) => Posted::Refused(error.to_string()),
        }
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, Option<Result<u16, String>>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(settings: &TraceSettings) -> Result<Client, TraceError> {
    let mut headers = HeaderMap::new();
    for (name, path) in &settings.header_files {
        let refused = |text: String| TraceError::Header { name: name.clone(), path: path.clone(), text };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        let malformed = || refused("one line of visible ASCII: the header's value".to_owned());
        let value = Some(text.trim()).filter(|value| !value.is_empty()).ok_or_else(malformed)?;
        let mut value = HeaderValue::from_str(value).map_err(|_| malformed())?;
        value.set_sensitive(true);
        let name: HeaderName = name.parse().map_err(|_| malformed())?;
        headers.insert(name, value);
    }
    let mut client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .default_headers(headers)
        .timeout(POST_MAX)
        .user_agent(concat!("Ringward-Traces/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.ca_file {
        let refused = |text: String| TraceError::CaFile { path: path.clone(), text };
        let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|error| refused(error.to_string()))? {
            client = client.add_root_certificate(certificate);
        }
    }
    Ok(client.build()?)
}

/// What the exporter posts by. Headers that it has from the environment's `OTEL_…` are left out: settings come from one place.
struct Http {
    client: Client,
    url: Url,
    answered: Answered,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.post(request).await;
        let told = answer.as_ref().map(|answer| answer.status().as_u16());
        let told = told.map_err(|error| chain(&**error));
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        answer
    }
}

impl Http {
    async fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut parts, body) = request.into_parts();
        let mut post = self.client.post(self.url.clone()).body(body);
        if let Some(kind) = parts.headers.remove(CONTENT_TYPE) {
            post = post.header(CONTENT_TYPE, kind);
        }
        let mut response = post.send().await.map_err(reqwest::Error::without_url)?;
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if answer.len() + part.len() > ANSWER_MAX {
                return Err(format!("an answer of more than {ANSWER_MAX} bytes").into());
            }
            answer.extend_from_slice(&part);
        }
        Ok(Response::builder().status(response.status()).body(answer.into())?)
    }
}
