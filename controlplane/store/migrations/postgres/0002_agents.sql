-- Agents: tokens that let a node join, its certificates, and the facts that it reported.
-- The same tables, column by column, are in ../sqlite.

-- Single use. Only the secret's hash is here.
CREATE TABLE node_token (
    secret_sha256 bytea NOT NULL PRIMARY KEY CHECK (length(secret_sha256) = 32),
    node          text COLLATE "C" NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    used_at       timestamptz
);
CREATE INDEX node_token_by_node ON node_token (node);

-- A certificate that is not here, or is revoked, opens nothing, whoever signed it.
CREATE TABLE node_certificate (
    fingerprint bytea NOT NULL PRIMARY KEY CHECK (length(fingerprint) = 32),
    node        text COLLATE "C" NOT NULL,
    issued_at   timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE INDEX node_certificate_by_node ON node_certificate (node, issued_at);
CREATE INDEX node_certificate_revoked ON node_certificate (expires_at) WHERE revoked_at IS NOT NULL;

-- What a node reported, once each. The id is the node's own choice: it says nothing outside that node.
-- The node's time is in ms since 1970 as it said, however far off its clock is.
-- The body is text, since jsonb refuses what JSON may hold (U+0000), and a fact must not be refused for ever.
CREATE TABLE agent_fact (
    node        text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL CHECK (id LIKE 'fact\_%' AND length(id) = 31),
    kind        text NOT NULL,
    at_ms       bigint NOT NULL,
    received_at timestamptz NOT NULL,
    body        text NOT NULL,
    PRIMARY KEY (node, id)
);
CREATE INDEX agent_fact_by_time ON agent_fact (received_at);
