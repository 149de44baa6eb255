//! Facts: what happened on a node and must not be lost. Spooled there until acknowledged.

use controlplane_core::ids::FactId;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::{OverBound, Text};

/// Largest body of a fact, in bytes of JSON.
pub const FACT_BODY_MAX: usize = 8 * 1024;
/// Most facts in one message, and in one acknowledgement.
pub const FACTS_PER_MESSAGE: usize = 256;

/// Kinds that this version knows. The control plane stores every kind, known or not.
pub mod fact_kind {
    /// The gate refused an action: body `{action, reason, stream}`.
    pub const GATE_REFUSED: &str = "gate_refused";
    /// Something on the node wants mending: body `{finding, subject, fix}`.
    pub const FINDING: &str = "finding";
    /// A finding is mended: body `{finding, subject}`.
    pub const FINDING_CLEARED: &str = "finding_cleared";
    /// The agent was started: body `{agent_version, incarnation}`.
    pub const AGENT_STARTED: &str = "agent_started";
    /// What a ban of a jail's rests on: body `{net, author, reason, jail, seconds, evidence}`.
    pub const OFFENCE: &str = "offence";
    /// An address was banned here: body [`crate::BanMade`].
    pub const BAN: &str = "ban";
    /// An operator lifted a ban here: body [`crate::BanLifted`].
    pub const UNBAN: &str = "unban";
    /// A jail or a firewall that is a dry run would have banned an address: body as of [`OFFENCE`].
    pub const BAN_SIMULATED: &str = "ban_simulated";
    /// A ban of the fleet is not taken here: body [`crate::BanRefused`].
    pub const BAN_REFUSED: &str = "ban_refused";
    /// What a jail saw in a while: body [`crate::OffenceTally`].
    pub const OFFENCES: &str = "offences";
    /// Somebody wrote into what Asterisk or a log tells: body [`crate::TamperingSeen`].
    pub const TAMPERING: &str = "tampering";
    /// An operator on the node says that he is in after a change of firewall rules: body `{change, author}`.
    pub const FIREWALL_CONFIRMED: &str = "firewall_confirmed";
    /// A change of firewall rules: body `{event, change, plan}`, where `event` is `on_trial` (with `seconds` and the new
    /// plan's lines), `confirmed`, `reverted`, or `in_force` where nobody had to confirm it (with its lines).
    pub const FIREWALL: &str = "firewall";
    /// The spool was full and facts were lost: body `{lost}`.
    pub const SPOOL_OVERFLOW: &str = "spool_overflow";
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Made once, when it happened; the store knows it again by this.
    #[serde(rename = "fact_id")]
    pub id: FactId,
    /// One of [`fact_kind`], or a newer one.
    // `kind` names the message's kind on the wire, so that a fact's own has another name there.
    pub fact_kind: Text<64>,
    /// When, by the node's clock, in ms since 1970.
    pub at_unix_ms: i64,
    /// What.
    #[serde(default)]
    pub body: FactBody,
}

/// A fact's content: JSON of at most [`FACT_BODY_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct FactBody(Value);

impl FactBody {
    /// Takes a body.
    ///
    /// # Errors
    /// [`OverBound`] if it is larger than [`FACT_BODY_MAX`].
    pub fn new(body: Value) -> Result<Self, OverBound> {
        if body.to_string().len() > FACT_BODY_MAX {
            return Err(OverBound::Text { max: FACT_BODY_MAX });
        }
        Ok(Self(body))
    }

    /// As a typed body.
    ///
    /// # Errors
    /// [`OverBound`] if it is larger than [`FACT_BODY_MAX`].
    pub fn of(body: &impl Serialize) -> Result<Self, OverBound> {
        let body = serde_json::to_value(body).map_err(|_| OverBound::Text { max: FACT_BODY_MAX })?;
        Self::new(body)
    }

    /// The body of a kind that has a type; `None` if it is another.
    #[must_use]
    pub fn read<T: de::DeserializeOwned>(&self) -> Option<T> {
        T::deserialize(&self.0).ok()
    }

    /// The content.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The content.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.0
    }
}

impl<'de> Deserialize<'de> for FactBody {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(d)?).map_err(de::Error::custom)
    }
}
