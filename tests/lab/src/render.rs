//! Renders configuration: the product's own files from `dialplans/` (the very ones production uses)
//! and what the lab adds around them. All are part of the binary, so it works from any folder.
use crate::LabError;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

/// The call's dialplan and flight recorder.
pub(crate) const EXTENSIONS_RINGWARD: &str = include_str!("../../../dialplans/extensions_ringward.conf");
/// What AMD() goes by.
pub(crate) const AMD_RINGWARD: &str = include_str!("../../../dialplans/amd_ringward.conf");
/// AMI users.
pub(crate) const MANAGER_RINGWARD: Template =
    Template("manager_ringward.conf.j2", include_str!("../../../dialplans/manager_ringward.conf.j2"));
/// Transport and trunks.
pub(crate) const PJSIP_RINGWARD: Template =
    Template("pjsip_ringward.conf.j2", include_str!("../../../dialplans/pjsip_ringward.conf.j2"));

/// Where everything is.
pub(crate) const ASTERISK: Template =
    Template("asterisk_ringward.conf.j2", include_str!("../../../dialplans/asterisk_ringward.conf.j2"));
/// Which modules load.
pub(crate) const MODULES: &str = include_str!("../../../dialplans/modules_ringward.conf");
/// Log files.
pub(crate) const LOGGER: &str = include_str!("../../../dialplans/logger_ringward.conf");
/// Media ports.
pub(crate) const RTP: Template =
    Template("rtp_ringward.conf.j2", include_str!("../../../dialplans/rtp_ringward.conf.j2"));

/// A carrier's trunk side.
pub(crate) const CARRIER_PJSIP: Template =
    Template("carrier_pjsip.conf.j2", include_str!("../hosts/carrier_pjsip.conf.j2"));
/// A carrier's behaviours.
pub(crate) const CARRIER_EXTENSIONS: Template =
    Template("carrier_extensions.conf.j2", include_str!("../hosts/carrier_extensions.conf.j2"));
/// The phone of a PBX that has one, and whom Asterisk knows by what.
pub(crate) const PBX_PHONES: &str = include_str!("../hosts/pbx_phones.conf");
/// A PBX's dialplan around ours.
pub(crate) const PBX_EXTENSIONS: &str = include_str!("../hosts/pbx_extensions.conf");

/// A template: its name for errors, its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template(pub(crate) &'static str, pub(crate) &'static str);

impl Template {
    /// Fills it in. A variable that is used for output and not given is an error.
    pub(crate) fn render(self, values: impl Serialize) -> Result<String, LabError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_keep_trailing_newline(true);
        environment.render_str(self.1, values).map_err(|source| LabError::Template { name: self.0, source })
    }
}
