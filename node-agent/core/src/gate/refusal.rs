//! Why the gate let something not through.

/// The reason of a refusal: a stable word for metrics, facts and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalKind {
    /// No AMI action: a line without a colon, a byte that no action needs, `Action` or `ActionID` not in place.
    Malformed,
    /// A line or an action longer than any of ours.
    Oversized,
    /// The first action was not a login.
    NotLoggedIn,
    /// An action that is not on the list.
    UnknownAction,
    /// A header that the action may not have.
    UnknownHeader,
    /// A header twice.
    RepeatedHeader,
    /// A header that the action must have is not there.
    MissingHeader,
    /// A value that its header may not hold.
    BadValue,
    /// `Application` or `Data`: with manager rights, a shell.
    Application,
    /// A channel, a key or a variable that is none of ours.
    NotOurs,
    /// An endpoint that the fleet does not declare for this node.
    NotDeclared,
    /// A context, extension or priority that is none of ours.
    NotOurContext,
    /// A variable that is none of ours, or a function other than the flight recorder's push.
    NotOurVariable,
    /// An ActionID that is in flight.
    RepeatedActionId,
    /// An attempt that was admitted before: at most one Originate for each.
    RepeatedAttempt,
    /// An attempt that was barred.
    Barred,
    /// The trunk has as many channels as it may.
    TrunkChannels,
    /// The trunk has as many starts in this second as it may.
    TrunkPace,
    /// The node has as many channels as it may.
    NodeChannels,
    /// The node has as many starts in this second as it may.
    NodePace,
    /// Too many attempts in the time that they are remembered for.
    MemoryFull,
    /// Too many actions in flight.
    Busy,
}

impl RefusalKind {
    /// All of them, for metrics.
    pub const ALL: [Self; 22] = [
        Self::Malformed,
        Self::Oversized,
        Self::NotLoggedIn,
        Self::UnknownAction,
        Self::UnknownHeader,
        Self::RepeatedHeader,
        Self::MissingHeader,
        Self::BadValue,
        Self::Application,
        Self::NotOurs,
        Self::NotDeclared,
        Self::NotOurContext,
        Self::NotOurVariable,
        Self::RepeatedActionId,
        Self::RepeatedAttempt,
        Self::Barred,
        Self::TrunkChannels,
        Self::TrunkPace,
        Self::NodeChannels,
        Self::NodePace,
        Self::MemoryFull,
        Self::Busy,
    ];

    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::NotLoggedIn => "not_logged_in",
            Self::UnknownAction => "unknown_action",
            Self::UnknownHeader => "unknown_header",
            Self::RepeatedHeader => "repeated_header",
            Self::MissingHeader => "missing_header",
            Self::BadValue => "bad_value",
            Self::Application => "application",
            Self::NotOurs => "not_ours",
            Self::NotDeclared => "not_declared",
            Self::NotOurContext => "not_our_context",
            Self::NotOurVariable => "not_our_variable",
            Self::RepeatedActionId => "repeated_action_id",
            Self::RepeatedAttempt => node_agent_ami::ADMITTED_BEFORE,
            Self::Barred => "barred",
            Self::TrunkChannels => "trunk_channels",
            Self::TrunkPace => "trunk_pace",
            Self::NodeChannels => "node_channels",
            Self::NodePace => "node_pace",
            Self::MemoryFull => "memory_full",
            Self::Busy => "busy",
        }
    }

    /// Whether an honest control plane can run into it: by a limit, or by racing a bar or a change of the
    /// fleet. All others mean that something else than our control plane speaks, or a defect.
    #[must_use]
    pub fn is_innocent(self) -> bool {
        match self {
            Self::NotDeclared
            | Self::RepeatedAttempt
            | Self::Barred
            | Self::TrunkChannels
            | Self::TrunkPace
            | Self::NodeChannels
            | Self::NodePace
            | Self::MemoryFull
            | Self::Busy => true,
            Self::Malformed
            | Self::Oversized
            | Self::NotLoggedIn
            | Self::UnknownAction
            | Self::UnknownHeader
            | Self::RepeatedHeader
            | Self::MissingHeader
            | Self::BadValue
            | Self::Application
            | Self::NotOurs
            | Self::NotOurContext
            | Self::NotOurVariable
            | Self::RepeatedActionId => false,
        }
    }
}

impl std::fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
