-- Agents: tokens that let a node join, its certificates, and the facts that it reported.

-- Single use. Only the secret's hash is here.
CREATE TABLE node_token (
    secret_sha256 BLOB    NOT NULL PRIMARY KEY CHECK (length(secret_sha256) = 32),
    node          TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    used_at       INTEGER
) STRICT;
CREATE INDEX node_token_by_node ON node_token (node);

-- A certificate that is not here, or is revoked, opens nothing, whoever signed it.
CREATE TABLE node_certificate (
    fingerprint BLOB    NOT NULL PRIMARY KEY CHECK (length(fingerprint) = 32),
    node        TEXT    NOT NULL,
    issued_at   INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;
CREATE INDEX node_certificate_by_node ON node_certificate (node, issued_at);
CREATE INDEX node_certificate_revoked ON node_certificate (expires_at) WHERE revoked_at IS NOT NULL;

-- What a node reported, once each. The id is the node's own choice: it says nothing outside that node.
-- The node's time is in ms since 1970 as it said, however far off its clock is.
CREATE TABLE agent_fact (
    node        TEXT    NOT NULL,
    id          TEXT    NOT NULL CHECK (id LIKE 'fact\_%' ESCAPE '\' AND length(id) = 31),
    kind        TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    body        TEXT    NOT NULL CHECK (json_valid(body)),
    PRIMARY KEY (node, id)
) STRICT;
CREATE INDEX agent_fact_by_time ON agent_fact (received_at);
