//! What no type says of an operation: its name, what it is for, its headers, and the ways to fail that are its own.

use serde_json::{Value, json};

use crate::http::problem::Code;

/// One operation's.
pub(in crate::http) struct Words {
    /// `operationId`: what generated clients call it.
    pub(in crate::http) id: &'static str,
    /// One of [`TAGS`].
    pub(in crate::http) tag: &'static str,
    /// A few words.
    pub(in crate::http) summary: &'static str,
    /// What else there is to know, maybe nothing.
    pub(in crate::http) text: &'static str,
    /// Headers that it looks at, beside those that all do.
    pub(in crate::http) headers: &'static [Header],
    /// The ways to fail that do not follow from what it takes and needs.
    pub(in crate::http) codes: &'static [Code],
}

/// A header of a request.
pub(in crate::http) struct Header {
    pub(in crate::http) name: &'static str,
    pub(in crate::http) text: &'static str,
    /// Longest, in characters; 0: whatever it is, it is not refused.
    pub(in crate::http) max: usize,
}

impl Header {
    pub(super) fn schema(&self) -> Value {
        match self.max {
            0 => json!({"type": "string"}),
            max => json!({"type": "string", "minLength": 1, "maxLength": max, "pattern": "^[ -~]+$"}),
        }
    }
}

/// What all operations are told by.
pub(super) const INTRODUCTION: &str = "\
Everything is JSON; unknown fields are refused. Send `Authorization: Bearer KEY`. Moments are RFC 3339 in UTC. Lists are \
`{\"data\": […], \"has_more\": …}`: pass the last id as `starting_after` for the next page. Errors are \
`application/problem+json` (RFC 9457) with a `code` that never changes. Where requests in a second are limited, every answer \
has `RateLimit-Policy` and `RateLimit`. New fields may be added to answers, new words to lists of words that are answered.";

const CALLS: &str = "Calls";
const AUDIO: &str = "Recordings";
const WEBHOOKS: &str = "Webhooks";
const ON_CALL: &str = "On-call";
const EVENTS: &str = "Events";
const LIMITS: &str = "Limits and use";
const KEYS: &str = "Keys";
const AUDIT: &str = "Audit log";
const MORE: &str = "The door itself";

/// What operations are told apart by, in the order in which they are shown.
pub(super) const TAGS: [(&str, &str); 9] = [
    (CALLS, "Phone a number, say something, and learn whether a human took note."),
    (AUDIO, "What calls play instead of a spoken text."),
    (WEBHOOKS, "Where events are sent, what signs them, and what came of each."),
    (ON_CALL, "Alerts in, calls out, one person after the other until somebody acknowledges."),
    (EVENTS, "What happens to calls, as a list or a stream."),
    (LIMITS, "What you may have, and have had."),
    (KEYS, "Your organisation's keys."),
    (AUDIT, "Who did what."),
    (MORE, "What needs no key."),
];

/// Of lists, and of what is as it seems.
const fn plain(id: &'static str, tag: &'static str, summary: &'static str) -> Words {
    Words { id, tag, summary, text: "", headers: &[], codes: &[] }
}

/// Longest `Idempotency-Key`.
pub(in crate::http) const IDEMPOTENCY_KEY_MAX: usize = 255;

pub(in crate::http) const CREATE_CALL: Words = Words {
    id: "create_call",
    tag: CALLS,
    summary: "Place a call",
    text: "201: it was accepted and is durable; from then on it ends in exactly one state. 200: a call with this `dedup_key` is \
           open and is answered instead, or `dry_run` was asked for: then nobody is phoned, and what would be done is told.",
    headers: &[
        Header {
            name: "Idempotency-Key",
            text: "For your own retries: the same key with the same body gives the same call. Remembered until 24 hours after \
               the call's end.",
            max: IDEMPOTENCY_KEY_MAX,
        },
        Header {
            name: "traceparent",
            text: "Where your own trace stands (W3C Trace Context): the call goes on with it, where its operator follows calls. What \
               is malformed is as if it were not there.",
            max: 0,
        },
        Header { name: "tracestate", text: "Goes with `traceparent` to your webhooks.", max: 0 },
    ],
    codes: &[
        Code::InvalidNumber,
        Code::NotPermitted,
        Code::IdempotencyKeyReused,
        Code::SpeechFull,
        Code::TooManyTexts,
        Code::DailyLimit,
        Code::TooManyOpenCalls,
    ],
};
pub(in crate::http) const LIST_CALLS: Words = plain("list_calls", CALLS, "List calls, newest first");
pub(in crate::http) const SHOW_CALL: Words = plain("show_call", CALLS, "Show a call");
pub(in crate::http) const CANCEL_CALL: Words = Words {
    text: "202: the wish is durable, and the call ends as soon as the phone is silent. 200: it had ended.",
    ..plain("cancel_call", CALLS, "End a call")
};

pub(in crate::http) const CREATE_AUDIO: Words = Words {
    text: "A WAV or MP3 of at most 10 MiB and five minutes is the body. It is kept as a WAV of 8 kHz, mono, 16 bits.",
    codes: &[
        Code::Malformed,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::InvalidAudio,
        Code::AudioFull,
        Code::TooManyUploads,
    ],
    ..plain("create_audio", AUDIO, "Upload a recording")
};
pub(in crate::http) const LIST_AUDIO: Words = plain("list_audio", AUDIO, "List recordings, newest first");
pub(in crate::http) const SHOW_AUDIO: Words = plain("show_audio", AUDIO, "Show a recording");
pub(in crate::http) const DELETE_AUDIO: Words = Words {
    text: "Calls that were accepted before still play it; no further call is taken with it.",
    ..plain("delete_audio", AUDIO, "Delete a recording")
};
pub(in crate::http) const AUDIO_CONTENT: Words =
    plain("audio_content", AUDIO, "Hear a recording as it is played");

pub(in crate::http) const CREATE_ENDPOINT: Words = Words {
    text: "The answer has the secret that signs its events.",
    codes: &[Code::LimitReached],
    ..plain("create_webhook_endpoint", WEBHOOKS, "Add an endpoint")
};
pub(in crate::http) const LIST_ENDPOINTS: Words = plain("list_webhook_endpoints", WEBHOOKS, "List endpoints");
pub(in crate::http) const SHOW_ENDPOINT: Words = Words {
    text: "With its secret for a key with the scope `webhooks`.",
    ..plain("show_webhook_endpoint", WEBHOOKS, "Show an endpoint")
};
pub(in crate::http) const CHANGE_ENDPOINT: Words = Words {
    text: "What is absent stays. `enabled` switches it off, or on again whatever switched it off.",
    ..plain("change_webhook_endpoint", WEBHOOKS, "Change an endpoint")
};
pub(in crate::http) const DELETE_ENDPOINT: Words =
    plain("delete_webhook_endpoint", WEBHOOKS, "Remove an endpoint");
pub(in crate::http) const ROTATE_ENDPOINT: Words = Words {
    text: "For 24 hours both secrets sign.",
    ..plain("rotate_webhook_secret", WEBHOOKS, "Give an endpoint a new secret")
};
pub(in crate::http) const TEST_ENDPOINT: Words = Words {
    text: "Sends an event of the type `endpoint.test` at once, and answers what came of it.",
    codes: &[Code::TooManyTests],
    ..plain("test_webhook_endpoint", WEBHOOKS, "Try an endpoint")
};
pub(in crate::http) const LIST_DELIVERIES: Words = Words {
    text: "`callback` in an endpoint's place: what went to calls' own callbacks.",
    ..plain("list_deliveries", WEBHOOKS, "List what was sent to an endpoint")
};
pub(in crate::http) const REPLAY_DELIVERY: Words = Words {
    text: "Under the same event id, and as if it had never been sent.",
    ..plain("replay_delivery", WEBHOOKS, "Send an event again")
};
pub(in crate::http) const SHOW_CALLBACK_SECRET: Words = Words {
    text: "What signs the events that go to calls' own `callback`. It is made when it is first asked for.",
    ..plain("show_callback_secret", WEBHOOKS, "Show the callbacks' secret")
};
pub(in crate::http) const ROTATE_CALLBACK_SECRET: Words = Words {
    text: "For 24 hours both secrets sign.",
    ..plain("rotate_callback_secret", WEBHOOKS, "Give callbacks a new secret")
};

pub(in crate::http) const CREATE_HOOK: Words = Words {
    text: "The kind `alertmanager` takes what Alertmanager posts, the kind `json` what anything else does: then `speech.alert` and \
           `json` say where to look. Numbers are phoned in the order of the list, each until `step_timeout_s` is over or its call \
           has ended, `rounds` times.",
    codes: &[Code::LimitReached, Code::InvalidNumber],
    ..plain("create_hook", ON_CALL, "Make a hook")
};
pub(in crate::http) const LIST_HOOKS: Words = plain("list_hooks", ON_CALL, "List hooks");
pub(in crate::http) const SHOW_HOOK: Words = plain("show_hook", ON_CALL, "Show a hook");
pub(in crate::http) const CHANGE_HOOK: Words = Words {
    text: "What is absent stays; `speech`, `only` and `json` are replaced whole. Incidents under way go on as they began.",
    codes: &[Code::InvalidNumber],
    ..plain("change_hook", ON_CALL, "Change a hook")
};
pub(in crate::http) const DELETE_HOOK: Words = Words {
    text: "What came in by it is resolved, and what still rings is ended.",
    ..plain("delete_hook", ON_CALL, "Remove a hook")
};
pub(in crate::http) const TELL_ALERTMANAGER: Words = Words {
    text: "For Alertmanager's `webhook_configs`. A group that fires is an incident, and whoever is on call is phoned; while it is \
           open, the same group phones nobody anew; once it is resolved, what still rings is ended. Answered 202 once it is durable; \
           Alertmanager posts again what is answered otherwise.",
    ..plain("tell_alertmanager_hook", ON_CALL, "Tell a hook of alerts, as Alertmanager does")
};
pub(in crate::http) const TELL_JSON: Words = Words {
    text: "Any JSON, of which the hook says where to look. Answered 202 once it is durable.",
    ..plain("tell_json_hook", ON_CALL, "Tell a hook of an alert, as JSON")
};
pub(in crate::http) const LIST_INCIDENTS: Words =
    plain("list_incidents", ON_CALL, "List incidents, newest first");
pub(in crate::http) const SHOW_INCIDENT: Words =
    plain("show_incident", ON_CALL, "Show an incident, and who was phoned");
pub(in crate::http) const ACKNOWLEDGE_INCIDENT: Words = Words {
    text: "Nobody else is phoned, and what still rings is ended. It stays open until it is resolved.",
    ..plain("acknowledge_incident", ON_CALL, "Take note of an incident")
};
pub(in crate::http) const RESOLVE_INCIDENT: Words = Words {
    text: "What still rings is ended. Alerts of the group that come after that are a new incident.",
    ..plain("resolve_incident", ON_CALL, "Close an incident")
};

pub(in crate::http) const LIST_EVENTS: Words = Words {
    text: "Oldest first. With `Accept: text/event-stream` a stream of Server-Sent Events that stays open: it begins now, or \
           after the event in `Last-Event-ID` or `starting_after`.",
    headers: &[Header {
        name: "Last-Event-ID",
        text: "Of a stream: the event after which it goes on. Browsers send it by themselves.",
        max: 0,
    }],
    codes: &[Code::TooManyStreams],
    ..plain("list_events", EVENTS, "Read or follow events")
};

pub(in crate::http) const LIMITS_NOW: Words = plain("limits", LIMITS, "What you may have, and have in use");
pub(in crate::http) const USAGE: Words = Words {
    text: "A day each, in UTC; at most 366 of them. Calls of test keys are not counted.",
    ..plain("usage", LIMITS, "Calls, attempts and minutes of each day")
};

pub(in crate::http) const CREATE_KEY: Words = Words {
    text: "None that may do more than the key that asks: no further scope, no longer life, and by a test key only test keys. \
           The answer has the secret, this once.",
    codes: &[Code::LimitReached],
    ..plain("create_api_key", KEYS, "Make a key")
};
pub(in crate::http) const LIST_KEYS: Words = plain("list_api_keys", KEYS, "List keys, newest first");
pub(in crate::http) const SHOW_KEY: Words = plain("show_api_key", KEYS, "Show a key without its secret");
pub(in crate::http) const ROTATE_KEY: Words = Words {
    text: "Makes a key that may do the same, and lets the former one open for `overlap_s` more seconds.",
    codes: &[Code::LimitReached],
    ..plain("rotate_api_key", KEYS, "Replace a key")
};
pub(in crate::http) const REVOKE_KEY: Words = Words {
    text: "It opens nothing from the next request on.",
    ..plain("revoke_api_key", KEYS, "Revoke a key")
};

pub(in crate::http) const AUDIT_LOG: Words = Words {
    text: "Every change of your organisation's things, and every refusal of its keys, newest first, for as long as your \
           operator keeps them (90 days).",
    ..plain("audit_log", AUDIT, "Who did what")
};

pub(in crate::http) const HEALTH: Words = plain("healthz", MORE, "Whether the process lives");
pub(in crate::http) const DOCUMENT: Words = plain("openapi", MORE, "This document");
pub(in crate::http) const REFERENCE: Words = plain("reference", MORE, "This document as a page");
