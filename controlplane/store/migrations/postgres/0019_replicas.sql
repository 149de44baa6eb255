-- Several control planes on one database: who they are, and which of them leads. The same, column by column, is in ../sqlite.
-- Every moment here is the database's own: replicas' clocks have no part in it.

-- One row for each run of a control plane. One that is past `expires_at` is taken for dead: what it owned is anybody's.
CREATE TABLE replica (
    id         text COLLATE "C" NOT NULL PRIMARY KEY CHECK (id LIKE 'rep\_%' AND length(id) = 30),
    name       text        NOT NULL,
    secrets    jsonb       NOT NULL,
    started_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

-- `epoch` grows by one whenever another replica leads.
CREATE TABLE leader (
    id         integer     NOT NULL PRIMARY KEY CHECK (id = 1),
    replica_id text COLLATE "C",
    epoch      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
INSERT INTO leader (id, epoch, expires_at) VALUES (1, 0, 'epoch');

-- A call's lease is its owner's: `lease_until` is not used.
DROP INDEX call_lease;
CREATE INDEX call_by_owner ON call (lease_owner) WHERE ended_at IS NULL;
CREATE INDEX call_wished ON call (lease_owner) WHERE ended_at IS NULL AND cancel_requested_at IS NOT NULL;

-- Grows with every change of what replicas keep in memory: by it each sees what another has changed.
CREATE TABLE setting_mark (
    kind     text   NOT NULL PRIMARY KEY,
    revision bigint NOT NULL
);
INSERT INTO setting_mark (kind, revision) VALUES ('hold', 0), ('customer_rule', 0);

CREATE FUNCTION mark_setting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = TG_TABLE_NAME;
    RETURN NULL;
END
$$;
CREATE TRIGGER hold_marked AFTER INSERT OR UPDATE OR DELETE ON hold FOR EACH STATEMENT EXECUTE FUNCTION mark_setting();
CREATE TRIGGER customer_rule_marked AFTER INSERT OR UPDATE OR DELETE ON customer_rule
    FOR EACH STATEMENT EXECUTE FUNCTION mark_setting();

-- What the accounts of carriers carry, over all replicas: starts of the last seconds, and who holds a channel. Written where
-- replicas share the database and the carrier has a limit. SQLite has neither these tables nor the next one: one control plane counts in memory.
CREATE TABLE carrier_start (
    carrier text COLLATE "C" NOT NULL,
    at      timestamptz      NOT NULL
);
CREATE INDEX carrier_start_by_carrier ON carrier_start (carrier, at);
CREATE TABLE carrier_channel (
    attempt_id text COLLATE "C" NOT NULL PRIMARY KEY,
    carrier    text COLLATE "C" NOT NULL
);
CREATE INDEX carrier_channel_by_carrier ON carrier_channel (carrier);

-- What replicas have seen of trunks, for the others: each row is what one saw within a moment. Kept for a minute.
CREATE TABLE sighting (
    id         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replica_id text COLLATE "C" NOT NULL,
    at         timestamptz NOT NULL,
    seen       jsonb       NOT NULL
);
