-- Several control planes on one database: who they are, and which of them leads. The same, column by column, is in ../postgres.
-- A SQLite file has one control plane, which keeps no lease: the tables are there so that both databases are alike.

-- One row for each run of a control plane. One that is past `expires_at` is taken for dead: what it owned is anybody's.
CREATE TABLE replica (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (id LIKE 'rep\_%' ESCAPE '\' AND length(id) = 30),
    name       TEXT    NOT NULL,
    secrets    TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- `epoch` grows by one whenever another replica leads.
CREATE TABLE leader (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    replica_id TEXT,
    epoch      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
INSERT INTO leader (id, epoch, expires_at) VALUES (1, 0, 0);

-- A call's lease is its owner's: `lease_until` is not used.
DROP INDEX call_lease;
CREATE INDEX call_by_owner ON call (lease_owner) WHERE ended_at IS NULL;
CREATE INDEX call_wished ON call (lease_owner) WHERE ended_at IS NULL AND cancel_requested_at IS NOT NULL;

-- Grows with every change of what replicas keep in memory: by it each sees what another has changed.
CREATE TABLE setting_mark (
    kind     TEXT    NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO setting_mark (kind, revision) VALUES ('hold', 0), ('customer_rule', 0);

CREATE TRIGGER hold_marked_insert AFTER INSERT ON hold BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = 'hold';
END;
CREATE TRIGGER hold_marked_update AFTER UPDATE ON hold BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = 'hold';
END;
CREATE TRIGGER hold_marked_delete AFTER DELETE ON hold BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = 'hold';
END;
CREATE TRIGGER customer_rule_marked_insert AFTER INSERT ON customer_rule BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = 'customer_rule';
END;
CREATE TRIGGER customer_rule_marked_update AFTER UPDATE ON customer_rule BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = 'customer_rule';
END;
CREATE TRIGGER customer_rule_marked_delete AFTER DELETE ON customer_rule BEGIN
    UPDATE setting_mark SET revision = revision + 1 WHERE kind = 'customer_rule';
END;
