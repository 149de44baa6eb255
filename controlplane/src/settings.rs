//! Settings of the server: defaults, then a TOML file, then the environment, then flags.
//!
//! `RINGWARD_DATABASE_URL`, `RINGWARD_API__LISTEN`, … : `__` nests. A wrong or unknown setting is refused
//! with its key and where it came from.

mod chat;
mod doors;
mod kept;
mod public;
mod traces;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use controlplane_core::{guard::Policy, request::Language, throttle::Throttle};
use controlplane_store::calls::OpenMax;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use ipnet::IpNet;
use node_agent_protocol::PlaneUrl;
use serde::{Deserialize, Serialize};

pub use self::{
    chat::{ChatSettings, Destination},
    doors::{CorsSettings, Door, TlsFiles, WebOrigin},
    kept::{AuditSettings, RetentionSettings},
    public::StatusSettings,
    traces::{Ratio, TraceSettings},
};
use crate::calls::OPEN_CALLS_MAX;

/// Environment variables that begin with `RINGWARD_` and are not settings of the server.
const NOT_SETTINGS: &[&str] =
    &["operator_url", "operator_key", "config", "log", "test_postgres_url", "lab_asterisk"];

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the SQLite database lives if no other is named; secrets' relative paths start here.
    pub data_dir: PathBuf,
    /// `sqlite://PATH` or `postgres://…`; absent: `ringward.db` in the data directory.
    #[serde(default)]
    pub database_url: Option<String>,
    /// The customers' door.
    pub api: Door,
    /// Which web pages may ask at the customers' door.
    #[serde(default)]
    pub cors: CorsSettings,
    /// The operators' door.
    pub operator: Door,
    /// The public status, on a door of its own.
    #[serde(default)]
    pub status: StatusSettings,
    /// The agents' door.
    pub agents: AgentsDoor,
    /// What callees hear.
    pub audio: AudioSettings,
    /// Logs as JSON lines instead of text.
    pub log_json: bool,
    /// How long an attempt of unknown fate may be looked into before `on_unknown` decides, in ms.
    pub reconcile_timeout_ms: u64,
    /// How long after this process started, or woke from a freeze of more than 3 s, a node may take to be back: until then, and for
    /// `reconcile_timeout_ms` after its return, its attempts are looked into, in ms.
    pub node_return_ms: u64,
    /// How long a call waits for a trunk that can be used at all before it fails, in ms.
    pub patience_ms: u64,
    /// How often one number may be dialled for one organisation, as `[{calls, per_s}, …]`; an empty list: no limit.
    /// What is over it waits, whatever its priority.
    pub throttle: Throttle,
    /// How many calls may be open at a time.
    pub calls: CallsSettings,
    /// What may be phoned by organisations for which an operator has set no policy: nothing, if it is not said here.
    #[serde(default)]
    pub guard: Policy,
    /// Webhooks.
    #[serde(default)]
    pub webhooks: WebhookSettings,
    /// What seals customers' secrets in the database.
    #[serde(default)]
    pub secrets: SecretSettings,
    /// What operators' chat is told.
    #[serde(default)]
    pub chat: ChatSettings,
    /// Traces of calls.
    #[serde(default)]
    pub traces: TraceSettings,
    /// The audit log.
    #[serde(default)]
    pub audit: AuditSettings,
    /// How long what is of organisations is kept for which an operator has set nothing.
    #[serde(default)]
    pub retention: RetentionSettings,
    /// Several control planes on one database.
    #[serde(default)]
    pub replicas: ReplicaSettings,
}

/// Whether this is one of several control planes on one PostgreSQL database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaSettings {
    /// All of them must say so: one that does not is refused beside them, and they beside it.
    pub enabled: bool,
}

/// Where the keys are that seal secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretSettings {
    /// Lines of base64, 32 bytes each; the first seals, all open. Absent: `secrets.key` in the data directory, which is
    /// made where it is missing.
    pub key_file: Option<PathBuf>,
}

/// How many calls may be open (accepted and not ended) at a time; further ones are answered 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsSettings {
    /// Of one organisation. One process drives 50,000 in all.
    pub org_open_max: u32,
    /// Of one organisation to one number.
    pub number_open_max: u32,
}

impl CallsSettings {
    pub(crate) const fn open_max(self) -> OpenMax {
        OpenMax { org: self.org_open_max, number: self.number_open_max }
    }
}

impl Default for CallsSettings {
    fn default() -> Self {
        Self { org_open_max: 10_000, number_open_max: 200 }
    }
}

/// Where events may be sent beyond the public Internet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// http as well as https: for receivers inside of a trusted network.
    pub allow_http: bool,
    /// Inner networks that may be sent to, as `10.1.0.0/16`.
    pub allow_nets: Vec<IpNet>,
    /// Names whose addresses are not looked at, as `hooks.internal`.
    pub allow_hosts: Vec<String>,
    /// Further CAs of receivers, PEM.
    pub ca_file: Option<PathBuf>,
}

/// The agents' door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentsDoor {
    /// Address and port.
    pub listen: SocketAddr,
    /// Where nodes reach this and every other replica, as `https://HOST:PORT`: what join tokens carry.
    #[serde(default)]
    pub urls: Vec<PlaneUrl>,
}

/// What callees hear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSettings {
    /// Most bytes of one organisation's recordings together, as they are kept (16,000 per second).
    pub org_bytes_max: u64,
    /// Most bytes of the recordings of all organisations.
    pub bytes_max: u64,
    /// Texts that are spoken.
    pub speech: SpeechSettings,
}

/// How texts are spoken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechSettings {
    /// The program and its arguments, no shell: `{text_file}` (without it the text comes on standard input),
    /// `{language}` and `{output_file}` (a WAV or MP3) are filled in. Empty: espeak-ng.
    pub command: Vec<String>,
    /// The languages that `command` speaks, as in `message.language`; espeak-ng is asked for its own.
    pub languages: Vec<Language>,
    /// How long one text may take, in ms.
    pub timeout_ms: u64,
    /// Texts that are spoken at a time.
    pub parallel: u8,
    /// A text that was not used for so many days is spoken anew when it comes again.
    pub keep_days: u16,
    /// Most bytes of all spoken texts together; those used longest ago go first.
    pub bytes_max: u64,
    /// Most bytes of the spoken texts that calls of one organisation asked for first.
    pub org_bytes_max: u64,
}

impl Default for AudioSettings {
    fn default() -> Self {
        Self {
            org_bytes_max: 256 * 1024 * 1024,
            bytes_max: 16 * 1024 * 1024 * 1024,
            speech: SpeechSettings {
                command: Vec::new(),
                languages: Vec::new(),
                timeout_ms: 30_000,
                parallel: 2,
                keep_days: 30,
                bytes_max: 1024 * 1024 * 1024,
                org_bytes_max: 256 * 1024 * 1024,
            },
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            data_dir: PathBuf::from("/var/lib/ringward"),
            database_url: None,
            api: Door::at(local(8080)),
            cors: CorsSettings::default(),
            operator: Door { connections_max: 1_024, ..Door::at(local(8081)) },
            status: StatusSettings::default(),
            agents: AgentsDoor { listen: SocketAddr::from(([0, 0, 0, 0], 8443)), urls: Vec::new() },
            audio: AudioSettings::default(),
            log_json: false,
            reconcile_timeout_ms: 5_000,
            node_return_ms: 10_000,
            patience_ms: 10_000,
            throttle: Throttle::default(),
            calls: CallsSettings::default(),
            guard: Policy::default(),
            webhooks: WebhookSettings::default(),
            secrets: SecretSettings::default(),
            chat: ChatSettings::default(),
            traces: TraceSettings::default(),
            audit: AuditSettings::default(),
            retention: RetentionSettings::default(),
            replicas: ReplicaSettings::default(),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file that was named does not exist.
    #[error("settings file {0}: not found")]
    Missing(PathBuf),
    /// A key is unknown, or its value is wrong; the text names key and place.
    #[error("settings: {0}")]
    Invalid(String),
}

impl Settings {
    /// Reads them; `file` is the one named by flag or `RINGWARD_CONFIG`.
    ///
    /// # Errors
    /// The first wrong or unknown setting, with its key and place.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.exists() {
                return Err(SettingsError::Missing(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let environment = Env::prefixed("RINGWARD_").ignore(NOT_SETTINGS).split("__");
        let settings: Self =
            figment.merge(environment).extract().map_err(|error| SettingsError::Invalid(explain(&error)))?;
        settings.check().map_err(SettingsError::Invalid)?;
        Ok(settings)
    }

    /// What each value must be beyond its form.
    fn check(&self) -> Result<(), String> {
        self.guard.validate().map_err(|error| format!("guard.{error}"))?;
        self.api.check("api")?;
        self.operator.check("operator")?;
        self.status.check()?;
        self.chat.check()?;
        self.traces.check()?;
        let speech = &self.audio.speech;
        crate::audio::check(speech).map_err(|error| format!("audio.speech.command: {error}"))?;
        // A call may wait for a day until it plays.
        let bounds = [
            ("timeout_ms", (1_000..=120_000).contains(&speech.timeout_ms), "1000 to 120000"),
            ("parallel", (1..=64).contains(&speech.parallel), "1 to 64"),
            ("keep_days", (2..=3_650).contains(&speech.keep_days), "2 to 3650"),
        ];
        let wrong = bounds.iter().find(|(_, is_right, _)| !is_right);
        wrong.map_or(Ok(()), |(key, _, bounds)| Err(format!("audio.speech.{key}: {bounds}")))?;
        self.audit.check()?;
        self.retention.validate().map_err(|error| format!("retention.{error}"))?;
        let open =
            [("org_open_max", self.calls.org_open_max), ("number_open_max", self.calls.number_open_max)];
        let is_right = |max: u32| usize::try_from(max).is_ok_and(|max| (1..=OPEN_CALLS_MAX).contains(&max));
        let wrong = open.iter().find(|(_, max)| !is_right(*max));
        wrong.map_or(Ok(()), |(key, _)| Err(format!("calls.{key}: 1 to {OPEN_CALLS_MAX}")))
    }

    /// Where the database is.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.data_dir.join("ringward.db").display()))
    }
}

/// All of an error's parts, each with key and place.
fn explain(error: &figment::Error) -> String {
    let mut lines = Vec::new();
    for part in error.clone() {
        let key = part.path.join(".");
        let place = part.metadata.as_ref().map_or_else(String::new, |m| {
            m.source.as_ref().map_or_else(|| format!(" in {}", m.name), |source| format!(" in {source}"))
        });
        lines.push(if key.is_empty() {
            format!("{}{place}", part.kind)
        } else {
            format!("{key}: {}{place}", part.kind)
        });
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::result_large_err, reason = "figment's own test harness asks for its error type")]
    fn file_then_environment_and_an_unknown_key_is_named() {
        figment::Jail::expect_with(|jail| {
            jail.create_file(
                "r.toml",
                "[api]\nlisten = \"127.0.0.1:1\"\n[operator]\nlisten = \"127.0.0.1:2\"\n",
            )?;
            jail.set_env("RINGWARD_API__LISTEN", "127.0.0.1:3");
            jail.set_env("RINGWARD_OPERATOR_KEY", "not a setting");
            let settings = Settings::load(Some(Path::new("r.toml"))).map_err(|e| e.to_string())?;
            assert_eq!(settings.api.listen.port(), 3);
            assert_eq!(settings.operator.listen.port(), 2);

            jail.create_file("r.toml", "[api]\nlsten = \"127.0.0.1:1\"\n")?;
            let error = Settings::load(Some(Path::new("r.toml"))).unwrap_err().to_string();
            assert!(error.contains("lsten") && error.contains("r.toml"), "{error}");

            for (speech, said) in [
                ("command = [\"piper\", \"{output_file}\"]", "languages"),
                ("command = [\"piper\"]\nlanguages = [\"en\"]", "{output_file}"),
                (
                    "command = [\"piper\", \"{outputfile}{output_file}\"]\nlanguages = [\"en\"]",
                    "{outputfile}",
                ),
                ("languages = [\"../en\"]", "language"),
                ("keep_days = 1", "keep_days"),
            ] {
                jail.create_file("r.toml", &format!("[audio.speech]\n{speech}\n"))?;
                let error = Settings::load(Some(Path::new("r.toml"))).unwrap_err().to_string();
                assert!(error.contains("audio.speech") && error.contains(said), "{error}");
            }
            jail.create_file("r.toml", "throttle = [{calls = 2, per_s = 60}]\n")?;
            let settings = Settings::load(Some(Path::new("r.toml"))).map_err(|e| e.to_string())?;
            assert_eq!(settings.throttle.horizon(), time::Duration::MINUTE);
            jail.set_env("RINGWARD_THROTTLE", "[]");
            let settings = Settings::load(Some(Path::new("r.toml"))).map_err(|e| e.to_string())?;
            assert!(settings.throttle.is_off());
            jail.set_env("RINGWARD_THROTTLE", "[{calls=0,per_s=60}]");
            let error = Settings::load(Some(Path::new("r.toml"))).unwrap_err().to_string();
            assert!(error.contains("throttle") && error.contains("1 to 1000"), "{error}");
            jail.set_env("RINGWARD_THROTTLE", "[{calls=1,per_s=5},{calls=3,per_s=900}]");
            jail.set_env("RINGWARD_CALLS__ORG_OPEN_MAX", "300");
            let settings = Settings::load(Some(Path::new("r.toml"))).map_err(|e| e.to_string())?;
            assert_eq!((settings.calls.org_open_max, settings.calls.number_open_max), (300, 200));
            jail.set_env("RINGWARD_CALLS__ORG_OPEN_MAX", "0");
            let error = Settings::load(Some(Path::new("r.toml"))).unwrap_err().to_string();
            assert!(error.contains("calls.org_open_max: 1 to 50000"), "{error}");
            jail.set_env("RINGWARD_CALLS__ORG_OPEN_MAX", "300");

            jail.create_file("r.toml", "")?;
            jail.set_env("RINGWARD_API__LISTEN", "nonsense");
            let error = Settings::load(Some(Path::new("r.toml"))).unwrap_err().to_string();
            assert!(error.contains("api.listen") && error.contains("RINGWARD_"), "{error}");
            Ok(())
        });
    }
}
