//! What each state-changing route is called in the audit log, also where it was refused.

/// Method, path as the router has it, action, and kind of target.
pub const ACTIONS: &[(&str, &str, &str, &str)] = &[
    ("POST", "/v1/calls", "call.create", "call"),
    ("POST", "/v1/calls/{id}/cancel", "call.cancel", "call"),
    ("POST", "/v1/audio", "audio.create", "audio"),
    ("DELETE", "/v1/audio/{id}", "audio.delete", "audio"),
    ("POST", "/v1/webhook_endpoints", "webhook_endpoint.create", "webhook_endpoint"),
    ("PATCH", "/v1/webhook_endpoints/{id}", "webhook_endpoint.update", "webhook_endpoint"),
    ("DELETE", "/v1/webhook_endpoints/{id}", "webhook_endpoint.delete", "webhook_endpoint"),
    (
        "POST",
        "/v1/webhook_endpoints/{id}/rotate_secret",
        "webhook_endpoint.rotate_secret",
        "webhook_endpoint",
    ),
    ("POST", "/v1/webhook_endpoints/{id}/test", "webhook_endpoint.test", "webhook_endpoint"),
    (
        "POST",
        "/v1/webhook_endpoints/{id}/deliveries/{event}/replay",
        "webhook_delivery.replay",
        "webhook_endpoint",
    ),
    ("POST", "/v1/callback_secret/rotate", "callback_secret.rotate", "callback_secret"),
    ("POST", "/v1/api_keys", "key.create", "key"),
    ("POST", "/v1/api_keys/{id}/rotate", "key.rotate", "key"),
    ("POST", "/v1/api_keys/{id}/revoke", "key.revoke", "key"),
    ("POST", "/agents/v1/join", "node.join", "node"),
    ("POST", "/agents/v1/renew", "node.renew", "node"),
    ("POST", "/admin/v1/bootstrap", "key.create", "key"),
    ("POST", "/admin/v1/fleet", "fleet.apply", "fleet"),
    ("POST", "/admin/v1/nodes/{name}/token", "node.token", "node"),
    ("POST", "/admin/v1/nodes/{name}/revoke", "node.revoke", "node"),
    ("POST", "/admin/v1/nodes/{name}/drain", "node.drain", "node"),
    ("POST", "/admin/v1/nodes/{name}/undrain", "node.undrain", "node"),
    ("POST", "/admin/v1/trunks/{name}/disable", "trunk.disable", "trunk"),
    ("POST", "/admin/v1/trunks/{name}/enable", "trunk.enable", "trunk"),
    ("POST", "/admin/v1/bans", "ban.add", "ban"),
    ("POST", "/admin/v1/bans/remove", "ban.remove", "ban"),
    ("POST", "/admin/v1/bans/import", "ban.import", "ban"),
    ("POST", "/admin/v1/allows", "allow.add", "allow"),
    ("POST", "/admin/v1/allows/remove", "allow.remove", "allow"),
    ("POST", "/admin/v1/keys", "key.create", "key"),
    ("POST", "/admin/v1/keys/{id}/revoke", "key.revoke", "key"),
    ("POST", "/admin/v1/keys/{id}/rotate", "key.rotate", "key"),
    ("POST", "/admin/v1/orgs", "org.create", "org"),
    ("PATCH", "/admin/v1/orgs/{id}", "org.rename", "org"),
    ("POST", "/admin/v1/orgs/{id}/suspend", "org.suspend", "org"),
    ("POST", "/admin/v1/orgs/{id}/resume", "org.resume", "org"),
    ("PUT", "/admin/v1/orgs/{id}/policy", "policy.set", "org"),
    ("PUT", "/admin/v1/orgs/{id}/limits", "limits.set", "org"),
    ("PUT", "/admin/v1/orgs/{id}/retention", "retention.set", "org"),
    ("PUT", "/admin/v1/keys/{id}/limits", "limits.set", "key"),
    ("POST", "/admin/v1/webhooks/deliveries/{event}/replay", "webhook_delivery.replay", "webhook_delivery"),
    ("POST", "/admin/v1/erasures", "number.erase", "number"),
    ("POST", "/admin/v1/calls", "call.create", "call"),
    ("POST", "/admin/v1/calls/{id}/cancel", "call.cancel", "call"),
    ("POST", "/sign-in", "session.create", "key"),
    ("POST", "/sign-out", "session.end", "key"),
    ("POST", "/nodes/{name}/drain", "node.drain", "node"),
    ("POST", "/nodes/{name}/undrain", "node.undrain", "node"),
    ("POST", "/trunks/{name}/disable", "trunk.disable", "trunk"),
    ("POST", "/trunks/{name}/enable", "trunk.enable", "trunk"),
];

/// What a request would have done, and to what kind of thing. A route that is not in the list is called by its own name.
pub(crate) fn of(method: &str, path: &str) -> (String, &'static str) {
    let known = ACTIONS.iter().find(|(m, p, ..)| *m == method && *p == path);
    known.map_or_else(
        || (format!("{method} {path}"), "route"),
        |(_, _, action, target)| ((*action).to_owned(), *target),
    )
}
