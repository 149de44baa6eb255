-- Webhooks: receivers, what is to be delivered to them, and what came of each try; and the events' order.
-- The same tables, column by column, are in ../sqlite.

-- A transition's outbox row is written with it. The sealer then numbers the rows, one after the other: a reader that
-- has seen a position will find nothing new before it. What is numbered has its deliveries too.
-- The columns `due_at` to `lease_until` of the outbox are not used: deliveries have their own.
ALTER TABLE outbox ADD COLUMN position bigint;
DROP INDEX outbox_due;
CREATE INDEX outbox_unsealed ON outbox (created_at) WHERE position IS NULL;
CREATE INDEX outbox_by_org ON outbox (org_id, position) WHERE position IS NOT NULL;

-- The last position given: never given again, also where its row has been erased.
CREATE TABLE event_seal (
    id       integer NOT NULL PRIMARY KEY CHECK (id = 1),
    position bigint NOT NULL
);
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
    id              text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'we\_%' AND length(id) = 29),
    org_id          text COLLATE "C" NOT NULL REFERENCES org (org_id),
    url             text NOT NULL,
    description     text NOT NULL,
    events          jsonb NOT NULL,
    secret          bytea NOT NULL,
    previous_secret bytea,
    previous_until  timestamptz,
    created_at      timestamptz NOT NULL,
    failing_since   timestamptz,
    disabled_at     timestamptz,
    disabled_reason text,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
CREATE INDEX webhook_endpoint_by_org ON webhook_endpoint (org_id, id);

-- What signs the events of calls' own callbacks: one per organisation, made when it is first needed.
CREATE TABLE callback_secret (
    org_id          text COLLATE "C" NOT NULL PRIMARY KEY REFERENCES org (org_id),
    secret          bytea NOT NULL,
    previous_secret bytea,
    previous_until  timestamptz,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);

-- One event for one receiver. `target` is the endpoint, or 'callback' for the call's own. `lane`: what is held up
-- together where a receiver hangs. `lease_*`: who is sending it, until when, and the fence against a late answer.
CREATE TABLE webhook_delivery (
    event_id     text COLLATE "C" NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    target       text COLLATE "C" NOT NULL,
    org_id       text COLLATE "C" NOT NULL REFERENCES org (org_id),
    endpoint_id  text COLLATE "C" REFERENCES webhook_endpoint (id) ON DELETE CASCADE,
    call_id      text COLLATE "C" NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    sequence     bigint NOT NULL,
    kind         text NOT NULL,
    lane         text COLLATE "C" NOT NULL,
    created_at   timestamptz NOT NULL,
    due_at       timestamptz NOT NULL,
    tries        integer NOT NULL DEFAULT 0,
    last_status  integer,
    last_error   text,
    delivered_at timestamptz,
    dead_at      timestamptz,
    lease_owner  text,
    lease_epoch  bigint NOT NULL DEFAULT 0,
    lease_until  timestamptz,
    PRIMARY KEY (event_id, target),
    CHECK (delivered_at IS NULL OR dead_at IS NULL)
);
CREATE INDEX webhook_delivery_due ON webhook_delivery (lane, due_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_order ON webhook_delivery (call_id, target, sequence)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_by_endpoint ON webhook_delivery (endpoint_id, event_id);
CREATE INDEX webhook_delivery_by_call ON webhook_delivery (call_id);

-- The delivery log: the latest tries of each delivery.
CREATE TABLE webhook_try (
    event_id text COLLATE "C" NOT NULL,
    target   text COLLATE "C" NOT NULL,
    ordinal  integer NOT NULL,
    at       timestamptz NOT NULL,
    took_ms  bigint NOT NULL,
    status   integer,
    error    text,
    PRIMARY KEY (event_id, target, ordinal),
    FOREIGN KEY (event_id, target) REFERENCES webhook_delivery (event_id, target) ON DELETE CASCADE
);
