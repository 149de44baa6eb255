-- Events that are of no call, lists of deliveries in the order of numbers, and looks for what is due that do not read
-- all that waits. The same, column by column, is in ../postgres.

-- `failing_since`, `failed_at`, `failing_tries`: a time in which every try failed. What was counted before is forgotten.
ALTER TABLE webhook_endpoint ADD COLUMN failed_at INTEGER;
ALTER TABLE webhook_endpoint ADD COLUMN failing_tries INTEGER NOT NULL DEFAULT 0;
UPDATE webhook_endpoint SET failing_since = NULL;

-- SQLite cannot take a NOT NULL away: the tables are written anew, without what refers to them first.
-- An event of no call has its `data` written down, and `endpoint_id` if it is of one.
CREATE TABLE outbox_new (
    id           TEXT    NOT NULL PRIMARY KEY,
    org_id       TEXT    NOT NULL REFERENCES org (org_id),
    call_id      TEXT    REFERENCES call (id) ON DELETE CASCADE,
    sequence     INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    tries        INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER,
    lease_owner  TEXT,
    lease_epoch  INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER,
    position     INTEGER,
    endpoint_id  TEXT,
    data         TEXT    CHECK (json_valid(data)),
    CHECK ((call_id IS NULL) = (data IS NOT NULL))
) STRICT;
INSERT INTO outbox_new (id, org_id, call_id, sequence, kind, created_at, due_at, tries, delivered_at, lease_owner,
    lease_epoch, lease_until, position)
SELECT id, org_id, call_id, sequence, kind, created_at, due_at, tries, delivered_at, lease_owner, lease_epoch,
    lease_until, position
FROM outbox;

-- `position` is the event's.
CREATE TABLE webhook_delivery_new (
    event_id     TEXT    NOT NULL REFERENCES outbox_new (id) ON DELETE CASCADE,
    target       TEXT    NOT NULL,
    org_id       TEXT    NOT NULL REFERENCES org (org_id),
    endpoint_id  TEXT    REFERENCES webhook_endpoint (id) ON DELETE CASCADE,
    call_id      TEXT    REFERENCES call (id) ON DELETE CASCADE,
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
    position     INTEGER NOT NULL,
    PRIMARY KEY (event_id, target),
    CHECK (delivered_at IS NULL OR dead_at IS NULL)
) STRICT;
INSERT INTO webhook_delivery_new (event_id, target, org_id, endpoint_id, call_id, sequence, kind, lane, created_at, due_at,
    tries, last_status, last_error, delivered_at, dead_at, lease_owner, lease_epoch, lease_until, position)
SELECT d.event_id, d.target, d.org_id, d.endpoint_id, d.call_id, d.sequence, d.kind, d.lane, d.created_at, d.due_at,
    d.tries, d.last_status, d.last_error, d.delivered_at, d.dead_at, d.lease_owner, d.lease_epoch, d.lease_until,
    o.position
FROM webhook_delivery d JOIN outbox o ON o.id = d.event_id;

CREATE TABLE webhook_try_new (
    event_id TEXT    NOT NULL,
    target   TEXT    NOT NULL,
    ordinal  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    took_ms  INTEGER NOT NULL,
    status   INTEGER,
    error    TEXT,
    PRIMARY KEY (event_id, target, ordinal),
    FOREIGN KEY (event_id, target) REFERENCES webhook_delivery_new (event_id, target) ON DELETE CASCADE
) STRICT;
INSERT INTO webhook_try_new (event_id, target, ordinal, at, took_ms, status, error)
SELECT event_id, target, ordinal, at, took_ms, status, error FROM webhook_try;

DROP TABLE webhook_try;
DROP TABLE webhook_delivery;
DROP TABLE outbox;
ALTER TABLE outbox_new RENAME TO outbox;
ALTER TABLE webhook_delivery_new RENAME TO webhook_delivery;
ALTER TABLE webhook_try_new RENAME TO webhook_try;

CREATE INDEX outbox_by_call ON outbox (call_id, sequence);
CREATE INDEX outbox_unsealed ON outbox (created_at) WHERE position IS NULL;
CREATE INDEX outbox_by_org ON outbox (org_id, position) WHERE position IS NOT NULL;

-- A look steps from lane to lane of each organisation, and reads the first rows of each.
CREATE INDEX webhook_delivery_due ON webhook_delivery (org_id, lane, due_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_order ON webhook_delivery (call_id, target, sequence)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX webhook_delivery_by_endpoint ON webhook_delivery (endpoint_id);
CREATE INDEX webhook_delivery_by_call ON webhook_delivery (call_id);
-- The lists: one receiver's, and all.
CREATE INDEX webhook_delivery_by_target ON webhook_delivery (org_id, target, position);
CREATE INDEX webhook_delivery_by_position ON webhook_delivery (position, target);
