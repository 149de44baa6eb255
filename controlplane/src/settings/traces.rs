//! Where traces of calls are sent: nowhere, unless a collector is set.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};

/// Most headers of one's own.
const HEADERS_MAX: usize = 8;
/// What the sender sets itself.
const HEADERS_TAKEN: [&str; 5] = ["content-type", "content-length", "content-encoding", "host", "user-agent"];

/// OpenTelemetry: where spans are sent, and of how many calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceSettings {
    /// The whole address of a collector that takes OTLP over HTTP in protobuf, as `http://127.0.0.1:4318/v1/traces`. Absent:
    /// nothing is followed, kept or sent.
    pub endpoint: Option<String>,
    /// The share of calls that are followed where whoever asks for one says nothing of it, 0 to 1.
    pub ratio: Ratio,
    /// `service.name` of this program's spans.
    pub service_name: String,
    /// Headers that hold a secret: each names a file of one line, which is the header's value.
    pub header_files: BTreeMap<String, PathBuf>,
    /// Further CAs of the collector, PEM.
    pub ca_file: Option<PathBuf>,
}

/// A share, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

impl Eq for Ratio {}

impl TryFrom<f64> for Ratio {
    type Error = &'static str;

    fn try_from(ratio: f64) -> Result<Self, &'static str> {
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio)).ok_or("a share from 0 to 1")
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            ratio: Ratio(1.0),
            service_name: "ringward".to_owned(),
            header_files: BTreeMap::new(),
            ca_file: None,
        }
    }
}

impl TraceSettings {
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let example = "the collector's whole address, as http://127.0.0.1:4318/v1/traces";
        let url = Url::parse(endpoint).map_err(|error| format!("traces.endpoint: {error}: {example}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(format!("traces.endpoint: {example}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("traces.endpoint: no user and password: put them into a file of traces.header_files"
                .to_owned());
        }
        if url.path() == "/" {
            return Err(format!("traces.endpoint: no path: {example}"));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if url.scheme() == "http" && !is_here && !self.header_files.is_empty() {
            return Err("traces.header_files: secrets leave this host by https only".to_owned());
        }
        if self.header_files.len() > HEADERS_MAX {
            return Err(format!("traces.header_files: at most {HEADERS_MAX}"));
        }
        for name in self.header_files.keys() {
            let header: Result<HeaderName, _> = name.parse();
            if !header.is_ok_and(|header| !HEADERS_TAKEN.contains(&header.as_str())) {
                return Err(format!("traces.header_files.{name}: no header that can be set"));
            }
        }
        if self.service_name.is_empty() || HeaderValue::from_str(&self.service_name).is_err() {
            return Err("traces.service_name: a name in visible ASCII".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Settings;

    #[test]
    #[allow(clippy::result_large_err, reason = "figment's own test harness asks for its error type")]
    fn what_cannot_be_used_is_named() {
        figment::Jail::expect_with(|jail| {
            for (lines, said) in [
                ("endpoint = \"collector:4318\"", "http://127.0.0.1:4318/v1/traces"),
                ("endpoint = \"ftp://collector/v1/traces\"", "whole address"),
                ("endpoint = \"http://collector:4318\"", "no path"),
                ("endpoint = \"https://u:p@collector/v1/traces\"", "header_files"),
                ("ratio = 1.5", "0 to 1"),
                ("ratio = nan", "0 to 1"),
                ("ratios = 1", "ratios"),
                (
                    "endpoint = \"https://c/v1/traces\"\nheader_files = { \"a b\" = \"f\" }",
                    "header_files.a b",
                ),
                ("endpoint = \"https://c/v1/traces\"\nheader_files = { Host = \"f\" }", "header_files.Host"),
                ("endpoint = \"http://c/v1/traces\"\nheader_files = { a = \"f\" }", "https only"),
                ("endpoint = \"https://c/v1/traces\"\nservice_name = \"\"", "service_name"),
            ] {
                jail.create_file("r.toml", &format!("[traces]\n{lines}\n"))?;
                let error = Settings::load(Some(Path::new("r.toml"))).unwrap_err().to_string();
                assert!(error.contains("traces") && error.contains(said), "{lines}: {error}");
            }
            jail.create_file(
                "r.toml",
                "[traces]\nendpoint = \"http://[::1]:4318/v1/traces\"\nheader_files = { authorization = \"f\" }\n",
            )?;
            jail.set_env("RINGWARD_TRACES__RATIO", "0.25");
            let settings = Settings::load(Some(Path::new("r.toml"))).map_err(|e| e.to_string())?;
            assert!((f64::from(settings.traces.ratio) - 0.25).abs() < f64::EPSILON);
            Ok(())
        });
    }
}
