-- What operators allow customers, and what customers have used of it. The same is in ../postgres.

-- `subject`: an organisation, or a key with limits of its own. `document`: the policy or the limits, as they are set.
CREATE TABLE customer_rule (
    subject    TEXT    NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('policy', 'limits')),
    document   TEXT    NOT NULL CHECK (json_valid(document)),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (subject, kind)
) STRICT, WITHOUT ROWID;

-- Per day (UTC, counted from 1970-01-01) what an organisation has used. Kept by triggers, so that no write forgets it.
-- A rehearsal uses nothing.
CREATE TABLE org_usage (
    org_id   TEXT    NOT NULL REFERENCES org (org_id),
    day      INTEGER NOT NULL,
    calls    INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    talk_us  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, day)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER call_used AFTER INSERT ON call WHEN NEW.mode = 'live'
BEGIN
    INSERT INTO org_usage (org_id, day) SELECT NEW.org_id, NEW.created_at / 86400000000
        WHERE NOT EXISTS (SELECT 1 FROM org_usage WHERE org_id = NEW.org_id AND day = NEW.created_at / 86400000000);
    UPDATE org_usage SET calls = calls + 1 WHERE org_id = NEW.org_id AND day = NEW.created_at / 86400000000;
END;

CREATE TRIGGER attempt_used AFTER INSERT ON attempt
    WHEN (SELECT mode FROM call WHERE id = NEW.call_id) = 'live'
BEGIN
    INSERT INTO org_usage (org_id, day) SELECT NEW.org_id, NEW.started_at / 86400000000
        WHERE NOT EXISTS (SELECT 1 FROM org_usage WHERE org_id = NEW.org_id AND day = NEW.started_at / 86400000000);
    UPDATE org_usage SET attempts = attempts + 1 WHERE org_id = NEW.org_id AND day = NEW.started_at / 86400000000;
END;

CREATE TRIGGER attempt_talked AFTER UPDATE OF ended_at ON attempt
    WHEN OLD.ended_at IS NULL AND NEW.ended_at > NEW.answered_at
        AND (SELECT mode FROM call WHERE id = NEW.call_id) = 'live'
BEGIN
    INSERT INTO org_usage (org_id, day) SELECT NEW.org_id, NEW.ended_at / 86400000000
        WHERE NOT EXISTS (SELECT 1 FROM org_usage WHERE org_id = NEW.org_id AND day = NEW.ended_at / 86400000000);
    UPDATE org_usage SET talk_us = talk_us + NEW.ended_at - NEW.answered_at WHERE org_id = NEW.org_id AND day = NEW.ended_at / 86400000000;
END;

-- The same of a key: calls that it asked for. Written by the transaction that accepts.
CREATE TABLE key_usage (
    key_id TEXT    NOT NULL,
    day    INTEGER NOT NULL,
    calls  INTEGER NOT NULL,
    PRIMARY KEY (key_id, day)
) STRICT, WITHOUT ROWID;
