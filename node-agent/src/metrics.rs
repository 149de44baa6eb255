//! What Prometheus scrapes at 127.0.0.1:9465. Labels are of closed sets, or declared endpoints.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use node_agent_ami::TamperKind;
use node_agent_core::gate::RefusalKind;
use node_agent_protocol::{AmiState, ContactStatus, Observations, RegistrationStatus};
use prometheus::{
    Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{evidence::metrics::EvidenceMetrics, status::Status, ward::metrics::WardMetrics};

/// Scrapes at a time.
const CONNECTIONS_MAX: usize = 16;

/// What came of asking for a sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SoundResult {
    Present,
    Fetched,
    Full,
    Failed,
}

impl SoundResult {
    const ALL: [Self; 4] = [Self::Present, Self::Fetched, Self::Full, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Fetched => "fetched",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// The program's metrics.
pub struct Metrics {
    registry: Registry,
    admitted: IntCounter,
    refused: IntCounterVec,
    tampered: IntCounterVec,
    hidden: IntCounter,
    records_removed: IntCounter,
    sounds: IntCounterVec,
    link_up: IntGaugeVec,
    gauges: IntGaugeVec,
    contact_up: IntGaugeVec,
    qualify_rtt_seconds: GaugeVec,
    registered: IntGaugeVec,
    channels: IntGaugeVec,
    ami_up: IntGauge,
    pub(crate) ward: WardMetrics,
    pub(crate) evidence: EvidenceMetrics,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Series whose labels are known exist from the start, at zero.
    ///
    /// # Errors
    /// A name is not one that Prometheus takes, or is there twice: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let ami_up = IntGauge::new("ringward_agent_ami_up", "Whether the observing AMI session is up.")?;
        registry.register(Box::new(ami_up.clone()))?;
        let rtt = Opts::new("ringward_agent_qualify_rtt_seconds", "Round trip of the last OPTIONS.");
        let qualify_rtt_seconds = GaugeVec::new(rtt, &["endpoint"])?;
        registry.register(Box::new(qualify_rtt_seconds.clone()))?;
        let metrics = Self {
            admitted: counter("ringward_agent_originates_total", "Originates that passed the gate.")?,
            refused: counters(
                "ringward_agent_refused_total",
                "Actions that the gate refused, by kind.",
                "kind",
            )?,
            tampered: counters(
                "ringward_agent_tampered_total",
                "AMI blocks that held strangers' text and were not forwarded as written, by kind.",
                "kind",
            )?,
            hidden: counter(
                "ringward_agent_hidden_total",
                "Events of others' channels that the gate kept back.",
            )?,
            records_removed: counter(
                "ringward_agent_records_removed_total",
                "Flight records of settled attempts that were removed.",
            )?,
            sounds: counters(
                "ringward_agent_sounds_total",
                "Sounds that control planes asked for, by result: present, fetched, full (live calls play all that fits \
                 in the folder), failed.",
                "result",
            )?,
            link_up: gauges(
                "ringward_agent_link_up",
                "Whether the link to a control plane is up.",
                &["url"],
            )?,
            gauges: gauges(
                "ringward_agent_state",
                "Figures of the node: certificate_expires_unix_s, spool_facts, spool_lost, gate_channels, gate_streams, policy_revision, load_1m_milli, memory_available_bytes, disk_free_bytes, rtp_ports_in_use, ami_ping_rtt_us.",
                &["figure"],
            )?,
            contact_up: gauges(
                "ringward_agent_contact_up",
                "1 reachable, 0 not, -1 not asked or not known.",
                &["endpoint"],
            )?,
            qualify_rtt_seconds,
            registered: gauges("ringward_agent_registered", "1 registered, 0 not.", &["endpoint"])?,
            channels: gauges(
                "ringward_agent_endpoint_channels",
                "Channels on a trunk's endpoint.",
                &["endpoint"],
            )?,
            ami_up,
            ward: WardMetrics::new(&registry)?,
            evidence: EvidenceMetrics::register(&registry)?,
            registry,
        };
        RefusalKind::ALL.iter().for_each(|kind| drop(metrics.refused.with_label_values(&[kind.as_str()])));
        TamperKind::ALL.iter().for_each(|kind| drop(metrics.tampered.with_label_values(&[kind.as_str()])));
        SoundResult::ALL.iter().for_each(|result| drop(metrics.sounds.with_label_values(&[result.as_str()])));
        Ok(metrics)
    }

    pub(crate) fn sound(&self, result: SoundResult) {
        self.sounds.with_label_values(&[result.as_str()]).inc();
    }

    pub(crate) fn admitted(&self, count: u64) {
        self.admitted.inc_by(count);
    }

    pub(crate) fn refused(&self, kind: RefusalKind) {
        self.refused.with_label_values(&[kind.as_str()]).inc();
    }

    pub(crate) fn tampered(&self, kind: TamperKind) {
        self.tampered.with_label_values(&[kind.as_str()]).inc();
    }

    pub(crate) fn hidden(&self) {
        self.hidden.inc();
    }

    pub(crate) fn record_removed(&self) {
        self.records_removed.inc();
    }

    pub(crate) fn link(&self, url: &str, is_up: bool) {
        self.link_up.with_label_values(&[url]).set(i64::from(is_up));
    }

    fn show(&self, seen: &Observations, declared: &[String]) {
        let figure = |name: &str, value: Option<i64>| {
            if let Some(value) = value {
                self.gauges.with_label_values(&[name]).set(value);
            }
        };
        let large = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let rtt = match &seen.ami {
            AmiState::Up { ping_rtt_us } => *ping_rtt_us,
            AmiState::Down { .. } | AmiState::Unknown => None,
        };
        self.ami_up.set(i64::from(matches!(seen.ami, AmiState::Up { .. })));
        figure("certificate_expires_unix_s", seen.certificate_expires_unix_s);
        figure("spool_facts", Some(large(seen.spool.facts)));
        figure("spool_lost", Some(large(seen.spool.lost)));
        figure("gate_channels", Some(seen.gate.channels.into()));
        figure("gate_streams", Some(seen.gate.streams.into()));
        figure("policy_revision", Some(large(seen.policy_revision)));
        figure("load_1m_milli", seen.host.load_1m_milli.map(large));
        figure("memory_available_bytes", seen.host.memory_available_bytes.map(large));
        figure("disk_free_bytes", seen.host.disk_free_bytes.map(large));
        figure("rtp_ports_in_use", seen.host.rtp_ports_in_use.map(i64::from));
        figure("ami_ping_rtt_us", rtt.map(large));
        for vec in [&self.contact_up, &self.registered, &self.channels] {
            vec.reset();
        }
        self.qualify_rtt_seconds.reset();
        for endpoint in seen.endpoints.iter().filter(|e| declared.iter().any(|d| d == e.endpoint.as_str())) {
            let label = [endpoint.endpoint.as_str()];
            let up = |status: ContactStatus| match status {
                ContactStatus::Reachable => 1,
                ContactStatus::Unreachable => 0,
                ContactStatus::NonQualified | ContactStatus::Unknown => -1,
            };
            if let Some(up) = endpoint.contacts.iter().map(|contact| up(contact.status)).max() {
                self.contact_up.with_label_values(&label).set(up);
            }
            if let Some(rtt) = endpoint.contacts.iter().filter_map(|contact| contact.qualify_rtt_us).min() {
                let rtt = Duration::from_micros(rtt).as_secs_f64();
                self.qualify_rtt_seconds.with_label_values(&label).set(rtt);
            }
            if let Some(registration) = &endpoint.registration {
                let is_up = registration.status == RegistrationStatus::Registered;
                self.registered.with_label_values(&label).set(i64::from(is_up));
            }
            self.channels.with_label_values(&label).set(endpoint.channels.into());
        }
    }

    /// Prometheus' text.
    fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Listens for Prometheus and for `ringward-agent status`.
///
/// # Errors
/// The address cannot be had.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, status: Status) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, status) = (Arc::clone(&metrics), status.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &metrics, &status);
                async move { Ok::<_, Infallible>(answer) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), answer);
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a scrape broke off");
            }
            drop(permit);
        });
    }
}

fn answer(path: &str, metrics: &Metrics, status: &Status) -> Response<Full<Bytes>> {
    let (code, kind, body) = match path {
        "/metrics" => {
            let (seen, declared) = status.observations();
            metrics.show(&seen, &declared);
            status.sources.show(&metrics.evidence);
            match metrics.text() {
                Ok(text) => (StatusCode::OK, "text/plain; version=0.0.4", text),
                Err(error) => {
                    tracing::error!(%error, "metrics cannot be written");
                    (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", Vec::new())
                }
            }
        }
        "/status" => (StatusCode::OK, "application/json", status.json(metrics)),
        "/healthz" => (StatusCode::OK, "text/plain", b"ok\n".to_vec()),
        _ => (StatusCode::NOT_FOUND, "text/plain", b"/metrics, /status, /healthz\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
