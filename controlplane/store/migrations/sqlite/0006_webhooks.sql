-- Webhooks: receivers, what is to be delivered to them, and what came of each try; and the events' order.
-- The same tables, column by column, are in ../postgres.

-- A transition's outbox row is written with it. The sealer then numbers the rows, one after the other: a reader that
-- has seen a position will find nothing new before it. What is numbered has its deliveries too.
-- The columns `due_at` to `lease_until` of the outbox are not used: deliveries have their own.
ALTER TABLE outbox ADD COLUMN position INTEGER;
DROP INDEX outbox_due;
CREATE INDEX outbox_unsealed ON outbox (created_at) WHERE position IS NULL;
CREATE INDEX outbox_by_org ON outbox (org_id, position) WHERE position IS NOT NULL;

-- The last position given: never given again, also where its row has been erased.
CREATE TABLE event_seal (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL
) STRICT;
-- Calls that ended before there were webhooks are told to nobody: their events have their numbers, by time and each
-- call's in its order, and get no deliveries. What goes on is told.
UPDATE outbox SET position = n.place
FROM (SELECT id, row_number() OVER (ORDER BY at, call_id, sequence) AS place
      FROM (SELECT o.id, o.call_id, o.sequence,
                max(o.created_at) OVER (PARTITION BY o.call_id ORDER BY o.sequence) AS at
            FROM outbox o JOIN call c ON c.id = o.call_id WHERE c.ended_at IS NOT NULL) AS ended) AS n
WHERE outbox.id = n.id;
INSERT INTO event_seal (id, position) SELECT 1, coalesce(max(position), 0) FROM outbox;

-- `secret` and `previous_secret` are bytes, so that they can be sealed with a key that is not in the database.
CREATE TABLE webhook_endpoint (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'we\_%' ESCAPE '\' AND length(id) = 29),
    org_id          TEXT    NOT NULL REFERENCES org (org_id),
    url             TEXT    NOT NULL,
    description     TEXT    NOT NULL,
    events          TEXT    NOT NULL CHECK (json_valid(events)),
    secret          BLOB    NOT NULL,
    previous_secret BLOB,
    previous_until  INTEGER,
    created_at      INTEGER NOT NULL,
    failing_since   INTEGER,
    disabled_at     INTEGER,
    disabled_reason TEXT,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) STRICT;
CREATE INDEX webhook_endpoint_by_org ON webhook_endpoint (org_id, id);

-- What signs the events of calls' own callbacks: one per organisation, made when it is first needed.
CREATE TABLE callback_secret (
    org_id          TEXT    NOT NULL PRIMARY KEY REFERENCES org (org_id),
    secret          BLOB    NOT NULL,
    previous_secret BLOB,
    previous_until  INTEGER,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
) STRICT;

-- One event for one receiver. `target` is the endpoint, or 'callback' for the call's own. `lane`: what is held up
-- together where a receiver hangs. `lease_*`: who is sending it, until when, and the fence against a late answer.
CREATE TABLE webhook_delivery (
    event_id     TEXT    NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    target       TEXT    NOT NULL,
    org_id       TEXT    NOT NULL REFERENCES org (org_id),
    endpoint_id  TEXT    REFERENCES webhook_endpoint (id) ON DELETE CASCADE,
    call_id      TEXT    NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    sequence     INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    lane         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    tries        INTEGER NOT NULL DEFAULT 0,
    last_status  INTEGER,
    last_error   TEXT,
    delivered_at INTEGER,
    dead_at      INTEGER,
    lease_owner  TEXT,
    lease_epoch  INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER,
    PRIMARY KEY (event_id, target),
    CHECK (delivered_at IS NULL OR dead_at IS NULL)
) STRICT;
CREATE INDEX webhook_delivery_due ON webhook_delivery (lane, due_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_order ON webhook_delivery (call_id, target, sequence)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_by_endpoint ON webhook_delivery (endpoint_id, event_id);
CREATE INDEX webhook_delivery_by_call ON webhook_delivery (call_id);

-- The delivery log: the latest tries of each delivery.
CREATE TABLE webhook_try (
    event_id TEXT    NOT NULL,
    target   TEXT    NOT NULL,
    ordinal  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    took_ms  INTEGER NOT NULL,
    status   INTEGER,
    error    TEXT,
    PRIMARY KEY (event_id, target, ordinal),
    FOREIGN KEY (event_id, target) REFERENCES webhook_delivery (event_id, target) ON DELETE CASCADE
) STRICT;
