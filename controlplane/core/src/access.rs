//! What a key may do: a customer's by its scopes, an operator's by its role.

use serde::{Deserialize, Serialize};

use crate::call::{UnknownWord, words};

words! {
    /// One thing that a customer's key may do.
    Scope {
        /// Place calls and end them.
        CallsWrite = "calls:write",
        /// Read calls and events, and what belongs to calls: recordings, and endpoints without their secrets.
        CallsRead = "calls:read",
        /// Upload, read and delete recordings.
        Audio = "audio",
        /// Make, read, change and test endpoints, and see the secrets that sign events.
        Webhooks = "webhooks",
        /// Make, change and remove hooks, and take or close incidents.
        Hooks = "hooks",
        /// Tell hooks of alerts, and nothing else: what Alertmanager's own key needs.
        HooksSend = "hooks:send",
        /// Make, rotate and revoke keys of the organisation, with no scope that the key itself lacks.
        Keys = "keys",
        /// Read the organisation's audit log.
        AuditRead = "audit:read",
    }
}

words! {
    /// What an operator's key may do; each role may all that the ones before it may.
    Role {
        /// Read.
        Viewer = "viewer",
        /// Act on calls, bans, trunks and nodes.
        Operator = "operator",
        /// Change keys, organisations and the declared fleet.
        Admin = "admin",
    }
}

words! {
    /// Whether what a key asks for is done.
    Mode {
        /// It is.
        Live = "live",
        /// It is rehearsed: the whole life of a call, of which nothing reaches a carrier.
        Test = "test",
    }
}

impl Role {
    /// The words that are kept of it: its own and those of every role below.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        Self::ALL.iter().filter(|role| **role <= self).map(|role| role.as_str().to_owned()).collect()
    }

    /// The highest role that such words name.
    #[must_use]
    pub fn of(words: &[String]) -> Option<Self> {
        words.iter().filter_map(|word| word.parse().ok()).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_the_highest_that_its_words_name() {
        for role in Role::ALL {
            assert_eq!(Role::of(&role.words()), Some(*role));
        }
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        assert_eq!(Role::of(&["of-a-newer-release".to_owned()]), None);
    }
}
