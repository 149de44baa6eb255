-- How many calls an organisation has open, in all and to one number: looked at before another one is accepted. The
-- same is in ../sqlite.

-- To one number there are few.
CREATE INDEX call_open_by_number ON call (org_id, (request ->> 'to')) WHERE ended_at IS NULL;

-- In all there may be many: they are counted as they come and go. `calls` of all shards together is the number; one
-- alone may be below zero. A session has its own shard, mostly, so that writes of one organisation do not queue for
-- one row until the other's commit.
CREATE TABLE open_calls (
    org_id text COLLATE "C" NOT NULL REFERENCES org (org_id),
    shard  integer NOT NULL,
    calls  bigint NOT NULL,
    PRIMARY KEY (org_id, shard)
) WITH (fillfactor = 50);
INSERT INTO open_calls (org_id, shard, calls)
    SELECT org_id, 0, count(*) FROM call WHERE ended_at IS NULL GROUP BY org_id;

CREATE FUNCTION count_open_call() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    org text := CASE TG_OP WHEN 'DELETE' THEN OLD.org_id ELSE NEW.org_id END;
    change bigint := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    INSERT INTO open_calls AS o (org_id, shard, calls) VALUES (org, pg_backend_pid() % 64, change)
        ON CONFLICT (org_id, shard) DO UPDATE SET calls = o.calls + excluded.calls;
    RETURN NULL;
END $$;

CREATE TRIGGER call_opened AFTER INSERT ON call FOR EACH ROW
    WHEN (NEW.ended_at IS NULL) EXECUTE FUNCTION count_open_call();
CREATE TRIGGER call_ended AFTER UPDATE OF ended_at ON call FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION count_open_call();
CREATE TRIGGER call_erased AFTER DELETE ON call FOR EACH ROW
    WHEN (OLD.ended_at IS NULL) EXECUTE FUNCTION count_open_call();
