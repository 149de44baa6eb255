//! Settings: defaults, then /etc/ringward-agent.toml, then the environment (`RINGWARD_AGENT_…`, `__` nests).

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use node_agent_core::{
    bans::Widths,
    firewall::Policy,
    rules::{JailName, RulesSettings},
};
use node_agent_protocol::PlaneUrl;
use serde::{Deserialize, Serialize};

/// Read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "/etc/ringward-agent.toml";
/// Environment variables that begin with `RINGWARD_AGENT_` and are no settings.
const NOT_SETTINGS: &[&str] = &["config", "log"];

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The key, the certificate, facts that wait, the gate's journal. Made 0700.
    pub state_dir: PathBuf,
    /// Every replica's agents' door; empty: those of the join token.
    pub control_planes: Vec<PlaneUrl>,
    /// The manager user that places calls, behind the gate.
    pub ami: Login,
    /// The manager user that observes.
    pub observer: Login,
    /// Bounds that no control plane can raise.
    pub gate: GateSettings,
    /// Prometheus and `ringward-agent status`.
    pub metrics: Listener,
    /// Where the RTP range is read from.
    pub rtp_conf: PathBuf,
    /// Of whose file system the free space is told.
    pub disk: PathBuf,
    /// The manager user that reads security events: the evidence of the jail `asterisk`.
    pub security: Login,
    /// Jails' numbers (documented in `node_agent_core::rules`) and what they share.
    pub rules: RulesSettings,
    /// Where jails find their evidence, other than security events.
    pub jails: BTreeMap<JailName, JailSources>,
    /// The firewall.
    pub firewall: FirewallSettings,
    /// Sounds that calls play.
    pub audio: AudioSettings,
    /// Logs as JSON lines instead of text.
    pub log_json: bool,
}

/// One manager user of the Asterisk beside this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Loopback.
    pub address: SocketAddr,
    /// Its name.
    pub username: String,
    /// A file, mode 0600, that holds its secret and nothing else.
    pub secret_file: PathBuf,
}

impl Login {
    /// Reads the secret.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub fn secret(&self) -> io::Result<String> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("secret file {}: {error}", self.secret_file.display()))
        };
        let text = fs::read_to_string(&self.secret_file).map_err(named)?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(named(io::Error::other("is empty"))),
            secret => Ok(secret.to_owned()),
        }
    }
}

/// The node's own bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    /// Channels of ours at a time, over all trunks.
    pub channels_max: u32,
    /// Originates per second, over all trunks.
    pub cps_max: u32,
    /// The only endpoints that may ever be dialled; absent: those that the fleet declares.
    #[serde(default)]
    pub endpoints: Option<Vec<String>>,
    /// What becomes of calls that go out over trunks of the fleet and that Ringward did not place.
    #[serde(default)]
    pub foreign_calls: ForeignCalls,
}

/// Calls over trunks of the fleet that Ringward did not place: on a PBX that serves the fleet alone, toll fraud.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForeignCalls {
    /// They are counted and told: phones of the PBX may use its trunks.
    #[default]
    Tell,
    /// They are hung up as well, within some seconds, whoever placed them: a call for help over such a trunk, too.
    HangUp,
}

/// Sounds that calls play.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSettings {
    /// The folder that Asterisk finds as `ringward` among its sounds, by a link in `/usr/share/asterisk/sounds`.
    pub folder: PathBuf,
    /// Most bytes of the sounds in it together; those asked for longest ago go first.
    pub bytes_max: u64,
    /// A sound that was not asked for in so many days goes.
    pub keep_days: u16,
}

/// Where one jail finds its evidence. Whether it is weighed say `rules.jails.NAME.enabled` and `simulate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JailSources {
    /// Sshd's entries of systemd's journal; for the filter `sshd` alone.
    pub journal: bool,
    /// Log files; in a name, one `*` stands for anything.
    pub files: Vec<PathBuf>,
    /// A TOML file with a filter; absent: the shipped one of the jail's name.
    pub patterns: Option<PathBuf>,
}

impl JailSources {
    /// sshd from the journal; the others, which are switched off in the rules, from their usual files.
    fn usual() -> BTreeMap<JailName, Self> {
        let files = |path: &str| Self { files: vec![PathBuf::from(path)], ..Self::default() };
        let of = [
            ("sshd", Self { journal: true, ..Self::default() }),
            ("asterisk_log", files("/var/log/asterisk/security.log")),
            ("nginx", files("/var/log/nginx/*access.log")),
        ];
        of.into_iter().filter_map(|(name, of)| Some((name.parse().ok()?, of))).collect()
    }
}

/// What the agent does with the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirewallMode {
    /// Nothing: no rule is written and nobody is banned.
    Off,
    /// It says what it would do, and does nothing.
    Simulate,
    /// It applies the policy once that names a management network, and bans.
    On,
}

/// What reverts a change of rules that nobody confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevertTimer {
    /// As `systemd` where systemd runs this host, as `process` elsewhere.
    Auto,
    /// `ringward-agent-guard.path`, a unit apart from the agent's.
    Systemd,
    /// A process in a session of its own.
    Process,
}

/// The firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirewallSettings {
    /// Off by default.
    pub mode: FirewallMode,
    /// A change of rules that is not confirmed within so many seconds is reverted; 5 to 3600.
    pub confirm_s: u32,
    /// What reverts it.
    pub timer: RevertTimer,
    /// The program `nft`.
    pub nft: PathBuf,
    /// The widest networks that may be banned.
    pub widths: Widths,
    /// The rules.
    pub policy: Policy,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port.
    pub listen: SocketAddr,
}

impl Default for Settings {
    fn default() -> Self {
        let login = |username: &str, file: &str| Login {
            address: SocketAddr::from(([127, 0, 0, 1], 5038)),
            username: username.to_owned(),
            secret_file: PathBuf::from(file),
        };
        Self {
            state_dir: PathBuf::from("/var/lib/ringward-agent"),
            control_planes: Vec::new(),
            ami: login("ringward", "/etc/ringward-agent/ami.secret"),
            observer: login("ringward-agent", "/etc/ringward-agent/observer.secret"),
            gate: GateSettings {
                channels_max: 1000,
                cps_max: 200,
                endpoints: None,
                foreign_calls: ForeignCalls::Tell,
            },
            metrics: Listener { listen: SocketAddr::from(([127, 0, 0, 1], 9465)) },
            rtp_conf: PathBuf::from("/etc/asterisk/rtp.conf"),
            disk: PathBuf::from("/var/spool/asterisk"),
            security: login("ringward-security", "/etc/ringward-agent/security.secret"),
            rules: RulesSettings::default(),
            jails: JailSources::usual(),
            firewall: FirewallSettings {
                mode: FirewallMode::Off,
                confirm_s: 60,
                timer: RevertTimer::Auto,
                nft: PathBuf::from("nft"),
                widths: Widths::default(),
                policy: Policy::default(),
            },
            audio: AudioSettings {
                folder: PathBuf::from("/var/cache/ringward-agent"),
                bytes_max: 512 * 1024 * 1024,
                keep_days: 7,
            },
            log_json: false,
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
    /// Reads them; `file` is the one named by flag or `RINGWARD_AGENT_CONFIG`.
    ///
    /// # Errors
    /// The first wrong or unknown setting, with its key and place.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        match file {
            Some(file) if !file.exists() => return Err(SettingsError::Missing(file.to_owned())),
            Some(file) => figment = figment.merge(Toml::file_exact(file)),
            None if Path::new(DEFAULT_FILE).exists() => {
                figment = figment.merge(Toml::file_exact(DEFAULT_FILE));
            }
            None => {}
        }
        let environment = Env::prefixed("RINGWARD_AGENT_").ignore(NOT_SETTINGS).split("__");
        figment.merge(environment).extract().map_err(|error| SettingsError::Invalid(explain(&error)))
    }
}

/// All of an error's parts, each with key and place.
fn explain(error: &figment::Error) -> String {
    let explain = |part: figment::Error| {
        let place = part.metadata.as_ref().map_or_else(String::new, |m| {
            m.source.as_ref().map_or_else(|| format!(" in {}", m.name), |source| format!(" in {source}"))
        });
        let key = part.path.join(".");
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{key}{colon}{}{place}", part.kind)
    };
    error.clone().into_iter().map(explain).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::result_large_err, reason = "figment's own test harness asks for its error type")]
    fn file_then_environment_and_an_unknown_key_is_named() {
        figment::Jail::expect_with(|jail| {
            jail.create_file("a.toml", "control_planes = [\"https://192.0.2.1\"]\n[gate]\ncps_max = 5\n")?;
            jail.set_env("RINGWARD_AGENT_GATE__CPS_MAX", "7");
            jail.set_env("RINGWARD_AGENT_LOG", "debug");
            let settings = Settings::load(Some(Path::new("a.toml"))).map_err(|e| e.to_string())?;
            assert_eq!((settings.gate.cps_max, settings.gate.channels_max), (7, 1000));
            assert_eq!(settings.control_planes[0].port(), 8443);
            // Nobody needs a file.
            assert_eq!(Settings::load(None).map_err(|e| e.to_string())?.gate.cps_max, 7);
            jail.create_file("a.toml", "[gate]\ncps = 5\n")?;
            let error = Settings::load(Some(Path::new("a.toml"))).unwrap_err().to_string();
            assert!(error.contains("cps") && error.contains("a.toml"), "{error}");
            // A jail's numbers are changed one by one; the others stay that jail's own.
            jail.create_file(
                "a.toml",
                "[rules.jails.sshd]\nthreshold = 50\n[rules.jails.sshd.points]\nprobe = 1\n",
            )?;
            let rules = Settings::load(Some(Path::new("a.toml"))).map_err(|e| e.to_string())?.rules;
            let sshd = &rules.jails[&"sshd".parse().map_err(|_| "a name".to_owned())?];
            assert_eq!((sshd.threshold, sshd.repeat_slow_percent, rules.jails.len()), (50, 100, 4));
            assert_eq!(sshd.points[&node_agent_core::offence::Kind::LoginFailed], 22);
            jail.create_file("a.toml", "[rules.jails.sshd]\ntreshold = 50\n")?;
            let error = Settings::load(Some(Path::new("a.toml"))).unwrap_err().to_string();
            assert!(error.contains("treshold"), "{error}");
            Ok(())
        });
    }
}
