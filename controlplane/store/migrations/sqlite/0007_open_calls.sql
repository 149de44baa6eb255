-- How many calls an organisation has open, in all and to one number: looked at before another one is accepted. The
-- same is in ../postgres.

-- To one number there are few.
CREATE INDEX call_open_by_number ON call (org_id, json_extract(request, '$.to')) WHERE ended_at IS NULL;

-- In all there may be many: they are counted as they come and go.
CREATE TABLE open_calls (
    org_id TEXT    NOT NULL PRIMARY KEY REFERENCES org (org_id),
    calls  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO open_calls (org_id, calls) SELECT org_id, count(*) FROM call WHERE ended_at IS NULL GROUP BY org_id;

CREATE TRIGGER call_opened AFTER INSERT ON call WHEN NEW.ended_at IS NULL
BEGIN
    INSERT INTO open_calls (org_id, calls) SELECT NEW.org_id, 0
        WHERE NOT EXISTS (SELECT 1 FROM open_calls WHERE org_id = NEW.org_id);
    UPDATE open_calls SET calls = calls + 1 WHERE org_id = NEW.org_id;
END;

CREATE TRIGGER call_ended AFTER UPDATE OF ended_at ON call WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
BEGIN
    UPDATE open_calls SET calls = calls - 1 WHERE org_id = NEW.org_id;
END;

CREATE TRIGGER call_erased AFTER DELETE ON call WHEN OLD.ended_at IS NULL
BEGIN
    UPDATE open_calls SET calls = calls - 1 WHERE org_id = OLD.org_id;
END;
